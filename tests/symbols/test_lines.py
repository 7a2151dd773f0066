"""Source lines and inlined functions, against addr2line and perf."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfrecord import build, comm_table, fork_table, mmap_table

import kvmperf_magic as kvm
from kvmperf_magic import blob, demo
from kvmperf_magic.errors import LibraryError, QueryError
from kvmperf_magic.modes import GUEST_USER, HOST_KERNEL
from kvmperf_magic.recording import Recording
from kvmperf_magic.symbols import kept
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.keptlines import KeptLines
from kvmperf_magic.symbols.lines import NOWHERE, Lines, Place
from kvmperf_magic.symbols.modules import places
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer

pytest.importorskip("symbolic", reason="the extra [dwarf] is not installed")
pytestmark = pytest.mark.compiler

PROGRAM = """
#ifdef MODULE
/* gcc's DWARF 4 cannot tell a range at the very beginning of a section from the end of a list */
long __attribute__((noinline)) begin(long n) { return n * 3; }
#endif
#define HERE static inline __attribute__((always_inline))
HERE long step(long s, long i)
{
    s ^= i * 7;
    return s + (s >> 3);
}
HERE long many(long s, long n)
{
    for (volatile long i = 0; i < n; i++)
        s = step(s, i);
    return s;
}
long __attribute__((noinline, noclone)) outer(long n)
{
    return many(1, n) + 1;
}
long __attribute__((noinline, noclone)) other(long n)
{
    long s = many(2, n);
    return s + outer(n / 2);
}
#ifndef MODULE
int main(void)
{
    volatile long r = 0;
    for (int i = 0; i < 40; i++)
        r += other(400000);
    return 0;
}
#endif
"""
FLAGS = ("-O2", "-g", "-fno-omit-frame-pointer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    build(folder, "pie", PROGRAM, *FLAGS)
    build(folder, "fixed", PROGRAM, *FLAGS, "-no-pie")
    build(folder, "module.ko", PROGRAM, *FLAGS, "-c", "-DMODULE", "-ffunction-sections")
    build(
        folder,
        "old.ko",
        PROGRAM,
        *FLAGS,
        "-c",
        "-DMODULE",
        "-gdwarf-4",
        "-mcmodel=kernel",
        "-fno-pic",
    )
    build(folder, "packed.ko", PROGRAM, *FLAGS, "-c", "-DMODULE", "-gz=zlib")
    return folder


def by_addr2line(path: Path, addresses: list[int], *section: str) -> list[list[tuple[str, str]]]:
    """(function, file:line) of each address, the outermost first."""
    command = ["addr2line", "-a", "-i", "-f", "-e", path, *section, *map(hex, addresses)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = []
    for part in re.split(r"^0x[0-9a-f]+\n", said, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        found.append([(name, _short(place)) for name, place in pairs][::-1])
    return found


def _short(place: str) -> str:
    """Without folders; of code without lines perf names the file all the same, as line 0."""
    place = re.sub(r" \(discriminator \d+\)", "", place).rsplit("/", 1)[-1]
    return re.sub(r"^.*:0$", "??:0", place)


@pytest.mark.parametrize("kind", ["pie", "fixed"])
def test_every_instruction_is_where_addr2line_has_it(kind: str, folder: Path) -> None:
    image = ElfImage(folder / kind)
    table = image.symbols()
    lines = Lines(image)
    assert not lines.note
    for name in ("outer", "other", "main"):
        row = table.names.index(name)
        addresses = list(range(int(table.start[row]), int(table.end[row])))
        for address, theirs in zip(addresses, by_addr2line(folder / kind, addresses), strict=True):
            ours = lines.at(address)
            assert [place.line for place in ours] == [line for _, line in theirs]
            assert [place.inlined for place in ours][1:] == [
                f"{n} (inlined)" for n, _ in theirs[1:]
            ]
    assert lines.at(2**40) == ()


@pytest.mark.parametrize("kind", ["module.ko", "old.ko"])
def test_lines_of_a_module_need_its_relocations(kind: str, folder: Path) -> None:
    """addr2line is asked section by section: that needs none."""
    image = ElfImage(folder / kind)
    lines = Lines(image)
    assert not lines.note
    asked = 0
    for number, start in places(image).items():
        section = image.sections[number]
        table = image.symbols(sections={number: 0})
        # what is between functions is padding
        spans = zip(table.start.tolist(), table.end.tolist(), strict=True)
        offsets = [offset for first, last in spans for offset in range(first, last)]
        theirs = by_addr2line(folder / kind, offsets, "-j", section.name) if offsets else []
        for offset, frames in zip(offsets, theirs, strict=True):
            asked += 1
            ours = [place.line for place in lines.at(start + offset)]
            assert ours == [line for _, line in frames]
    assert asked > 100


def test_what_cannot_be_relocated_is_said(folder: Path) -> None:
    assert "compressed" in Lines(ElfImage(folder / "packed.ko")).note
    stripped = folder / "stripped"
    subprocess.run(["strip", "-o", stripped, folder / "pie"], check=True)
    lines = Lines(ElfImage(stripped))
    assert "no lines" in lines.note
    assert lines.at(0x1200) == ()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_damaged_debug_data_is_no_line(data: st.DataObject) -> None:
    raw = bytearray(_damage_me())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(64, len(raw) - 9))
        raw[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    try:
        image = ElfImage(bytes(raw))
    except kvm.errors.FileError:
        return
    lines = Lines(image)
    for address in range(0x1100, 0x1400, 7):
        for place in lines.at(address):
            assert re.fullmatch(r".*:\d+", place.line, re.DOTALL)


def _damage_me(made: dict[str, bytes] = {}) -> bytes:  # noqa: B006  made once
    if not made:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            made["raw"] = build(Path(folder), "program", PROGRAM, *FLAGS).read_bytes()
    return made["raw"]


@pytest.mark.perf
@pytest.mark.root
def test_samples_are_where_perf_has_them(
    folder: Path, perf: Callable[..., str], tmp_path: Path
) -> None:
    data = tmp_path / "perf.data"
    how = ["-q", "-g", "-e", "cpu-clock:u", "-F", "5000", "--buildid-mmap"]
    perf("record", *how, "-o", data, "--", folder / "pie")
    recording = kvm.open(data, cache=False)
    view = recording.with_lines()
    profile = view.profile
    assert profile.srcline is not None
    own = profile.dso.where(lambda name: name.endswith("/pie"))
    ours = list(profile.srcline.take(own).values())
    said = perf("script", "-i", data, "-F", "ip,sym,dso,srcline", "-G", "--no-inline")
    theirs = [
        _short(line.strip())
        for head, line in zip(said.splitlines(), said.splitlines()[1:], strict=False)
        if head.endswith("/pie)")
    ]
    assert len(ours) > 100
    assert ours == theirs
    # the table of one function, and the same by the key
    lines = recording.lines("outer").table
    assert set(lines["srcline"]) <= {f"pie.c:{n}" for n in range(7, 22)}
    whole = recording.report(sort="symbol,srcline", children=False).table
    outer = whole[whole["symbol"] == "outer"]
    assert sorted(outer["self"]) == sorted(lines["self"])
    assert abs(recording.report("dso,srcline").table["overhead"].sum() - 100) < 1e-6


@pytest.mark.perf
@pytest.mark.root
def test_inlined_functions_are_frames(
    folder: Path, perf: Callable[..., str], tmp_path: Path
) -> None:
    data = tmp_path / "perf.data"
    how = ["-q", "-g", "-e", "cpu-clock:u", "-F", "5000"]
    perf("record", *how, "-o", data, "--", folder / "fixed")
    recording = kvm.open(data, cache=False)
    folded = recording.with_lines(inline=True).to_folded()
    assert "main;other;many (inlined);step (inlined)" in folded
    assert "main;other;outer;many (inlined)" in folded
    # a caller is where it called, not where it goes on
    report = recording.report("symbol,srcline", inline=True).table
    callers = {
        s: line for s, line in zip(report["symbol"], report["srcline"], strict=True) if s == "main"
    }
    (call,) = (n for n, line in enumerate(PROGRAM.split("\n"), 1) if "r += other" in line)
    assert callers == {"main": f"fixed.c:{call}"}
    # nothing is lost, and what is not inlined stays as it was
    plain, inlined = recording.profile, recording.with_lines(inline=True).profile
    assert inlined.total == plain.total
    without = re.sub(r";[^;]* \(inlined\)", "", folded)
    sums: dict[str, int] = {}
    for line in without.splitlines():
        stack, _, weight = line.rpartition(" ")
        sums[stack] = sums.get(stack, 0) + int(weight)
    told = dict(line.rpartition(" ")[::2] for line in recording.to_folded().splitlines())
    assert sums == {stack: int(weight) for stack, weight in told.items()}
    assert "many (inlined)" in repr(recording.flamegraph(inline=True))


@pytest.mark.perf
@pytest.mark.root
def test_lines_are_kept_with_a_recording(
    folder: Path, perf: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same reports where neither the program is nor what reads lines."""

    def lines_of(recording: Recording) -> tuple[str, ...]:
        plain = recording.report("symbol,srcline").table
        inlined = recording.report("symbol,srcline", inline=True).table
        folded = recording.with_lines(inline=True).to_folded()
        return plain.to_csv(), inlined.to_csv(), recording.lines("outer").to_csv(), folded

    data, program = tmp_path / "perf.data", tmp_path / "pie"
    shutil.copy(folder / "pie", program)
    how = ["-q", "-g", "-e", "cpu-clock:u", "-F", "5000", "--buildid-mmap"]
    perf("record", *how, "-o", data, "--", program)
    kvm.open(data, cache=False).save(tmp_path / "names.kvmperf")
    kvm.open(data, cache=False).save(tmp_path / "wanted.kvmperf", lines=True)
    recording = kvm.open(data, cache=False)
    here = lines_of(recording)
    assert "many (inlined);step (inlined)" in here[-1]
    recording.save(tmp_path / "asked.kvmperf")
    recording.save(tmp_path / "asked.data")
    recording.save(tmp_path / "unwanted.kvmperf", lines=False)
    program.unlink()
    monkeypatch.setitem(__import__("sys").modules, "symbolic.debuginfo", None)
    kvm.open(tmp_path / "asked.kvmperf", cache=False).save(tmp_path / "again.kvmperf")
    for name in ("wanted.kvmperf", "asked.kvmperf", "asked.data", "again.kvmperf"):
        assert lines_of(kvm.open(tmp_path / name, cache=False)) == here, name
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.kvmperf")}
    assert sizes["wanted.kvmperf"] < sizes["names.kvmperf"] + 20_000
    for name in ("names.kvmperf", "unwanted.kvmperf"):
        lines = kvm.open(tmp_path / name, cache=False).report("srcline", children=False).table
        assert set(lines["srcline"]) == {NOWHERE}


def test_lines_of_modules_and_of_a_guests_program_are_kept(folder: Path, tmp_path: Path) -> None:
    """A module's and a guest's addresses, each where it was sampled."""
    place, elf = 0xFFFFFFFFC0500000, folder / "fixed"
    installed = tmp_path / "lib/modules/6.1/kernel/module.ko"
    installed.parent.mkdir(parents=True)
    shutil.copy(folder / "module.ko", installed)
    kernel = [(0, -1, place, 0x3000, 0, "/lib/modules/6.1/kernel/module.ko", 1)]

    def opened(keeping: kept.Keeping | None, **options: object) -> Symbolizer:
        mmap = mmap_table(kernel)
        return Symbolizer(
            AddressSpaces(mmap, comm_table([]), fork_table([])),
            mmap,
            SymbolOptions(**options),  # type: ignore[arg-type]
            build_ids={},
            same_boot=False,
            os_release="6.1",
            vm_names={7: "vm"},
            keeping=keeping,
        )

    table = ElfImage(elf).symbols()
    rows = [table.names.index(name) for name in ("outer", "other")]
    program = [int(table.start[row]) + at for row in rows for at in (1, 9, 20)]
    code = [place + at for at in range(0, 0x60, 7)]
    ip = np.array([*code, *program], np.uint64)
    mode = np.array([HOST_KERNEL] * len(code) + [GUEST_USER] * len(program), np.uint8)
    pid = np.where(mode == GUEST_USER, 7, -1).astype(np.int32)

    def asked(symbolizer: Symbolizer) -> list[tuple[list[int], list[str], list[str]]]:
        columns = np.zeros(len(ip), np.int32), pid, mode, ip
        symbolizer.resolve(*columns)
        located = symbolizer.locate(*columns)
        both = (located.frames(inline=inline) for inline in (False, True))
        return [(offsets.tolist(), names, lines) for offsets, names, lines in both]

    first = opened(None, symfs=tmp_path, guest_elf=elf)
    here = asked(first)
    lines = here[0][2]
    assert NOWHERE not in lines[-len(program) :]
    assert sum(line != NOWHERE for line in lines[: len(code)]) > len(code) // 2
    installed.unlink()
    for _ in range(2):  # and kept once more
        carried = kept.decode(kept.encode(kept.Keeping(first.kept())))
        first = opened(carried)
        assert asked(first) == here


@given(
    st.dictionaries(
        st.integers(0, 2**64 - 1),
        st.lists(
            st.builds(Place, st.sampled_from(["", "f (inlined)", "<b>"]), st.text(max_size=9))
        ),
        max_size=9,
    ),
    st.integers(0, 2**64 - 1),
)
def test_any_lines_are_kept(known: dict[int, list[Place]], moved: int) -> None:
    one = kept.Kept(0, kept.USER, "/a", lines=KeptLines.of(known, moved))
    (back,) = kept.decode(kept.encode(kept.Keeping([one]))).tables
    assert back.lines is not None
    for address, there_is in known.items():
        there = [Place(p.inlined, p.line.encode("utf-8", "replace").decode()) for p in there_is]
        assert back.lines.at((address + moved) % 2**64) == tuple(there)
    assert back.lines.at((max(known, default=0) + moved + 1) % 2**64) == () or known


@given(st.data())
def test_lines_that_contradict_themselves_are_refused(data: st.DataObject) -> None:
    """One number of one column is another: it is refused, or all that is told can be asked for."""
    known = {at: [Place("", "a.c:1"), Place("f", f"b.c:{at}")][: 1 + at % 2] for at in range(1, 6)}
    whole = kept.encode(kept.Keeping([kept.Kept(0, kept.USER, "/a", lines=KeptLines.of(known))]))
    meta, columns = blob.unpack(whole)
    columns = {name: column.copy() for name, column in columns.items()}
    name = data.draw(st.sampled_from(["line_address", "line_places", "line_inlined", "line_at"]))
    column = columns[name]
    limits = np.iinfo(column.dtype)
    column[data.draw(st.integers(0, len(column) - 1))] = data.draw(
        st.integers(0, 4) | st.sampled_from([limits.min, limits.max])
    )
    try:
        (back,) = kept.decode(blob.pack(meta, columns)).tables
    except ValueError:
        return
    assert back.lines is not None
    for at in back.lines.address.tolist():
        assert all(re.fullmatch(r"[ab]\.c:\d", place.line) for place in back.lines.at(at))


def test_a_guests_program_has_lines_too() -> None:
    recording = demo.replay("crowded")
    lines = recording.report(sort="symbol,srcline", modes="guest").table
    assert set(lines["srcline"]) == {NOWHERE}, "the micro guest is built without lines"


def test_without_lines_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from kvmperf_magic.profile.report import report

    recording = demo.replay("host")
    with pytest.raises(QueryError, match="no source lines"):
        report(recording.profile, "srcline")
    monkeypatch.setitem(__import__("sys").modules, "symbolic.debuginfo", None)
    with pytest.raises(LibraryError, match=r"kvmperf_magic\[dwarf\]"):
        recording.report(sort="srcline")
