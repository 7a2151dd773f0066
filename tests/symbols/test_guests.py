"""Guests: each VM by its own sources, KASLR worked out, and never a wrong name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from perfrecord import build, comm_table, fork_table, mmap_table, record

from kvmperf_magic.errors import SymbolError
from kvmperf_magic.modes import GUEST_KERNEL, GUEST_USER, HOST_KERNEL
from kvmperf_magic.symbols import kallsyms, kept
from kvmperf_magic.symbols.guestsymbols import Boots, GuestSymbols
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.slide import Fit
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Resolved, Symbolizer
from kvmperf_magic.symbols.symboltable import SymbolTable

BASE = 0xFFFFFFFF81000000
MIB = 1 << 20
MODULE = 0xFFFFFFFFC0900000


def kernel_text(size: int = 12 * MIB, base: int = BASE, seed: int = 7) -> str:
    """A kernel as kallsyms shows it: functions behind their padding, then data, a module."""
    random = np.random.default_rng(seed)
    lines = [f"{base:016x} T _text", f"{base:016x} T _stext"]
    at = base
    for number, length in enumerate(random.integers(2, 40, size // 350) * 16):
        lines.append(f"{at:016x} t __pfx_function_{number}")
        lines.append(f"{at + 16:016x} t function_{number}")
        at += 16 + int(length)
    lines.append(f"{at:016x} T _etext")
    lines.append(f"{(at + 0xFFF) & ~0xFFF:016x} D some_data")
    lines.append("ffffffffc0400000 t ext4_read\t[ext4]")
    lines.append("ffffffffc0400800 t ext4_write\t[ext4]")
    return "\n".join(lines) + "\n"


def function_addresses(table: SymbolTable, n: int, seed: int = 3) -> NDArray[np.uint64]:
    """Addresses inside n functions, spread over the kernel as those of a busy guest are."""
    random = np.random.default_rng(seed)
    names = np.flatnonzero(table.starts_with(b"function_"))
    rows = np.sort(random.choice(names, n, replace=False))
    inside = random.random(n) * (table.end[rows] - table.start[rows]).astype(np.float64)
    return np.asarray(table.start[rows] + inside.astype(np.uint64))


def symbolizer(
    options: SymbolOptions,
    maps: list[tuple[int, int, int, int, int, str, int]] | None = None,
    names: dict[int, str] | None = None,
    guest_symbols: Sequence[GuestSymbols] = (),
    keeping: kept.Keeping | None = None,
) -> Symbolizer:
    mmap = mmap_table(maps or [])
    spaces = AddressSpaces(mmap, comm_table([]), fork_table([]))
    return Symbolizer(
        spaces,
        mmap,
        options,
        build_ids={},
        same_boot=True,
        os_release=None,
        vm_names=names or {},
        guest_symbols=guest_symbols,
        keeping=keeping,
    )


def ask(one: Symbolizer, pid: int, mode: int, ip: NDArray[np.uint64], boot: int = 0) -> Resolved:
    n = len(ip)
    return one.resolve(
        np.full(n, boot, np.int32), np.full(n, pid, np.int32), np.full(n, mode, np.uint8), ip
    )


@pytest.fixture(scope="module")
def table() -> SymbolTable:
    return kallsyms.parse(kernel_text())


@pytest.fixture(scope="module")
def addresses(table: SymbolTable) -> NDArray[np.uint64]:
    return function_addresses(table, 300)


@cache
def build_of(seed: int) -> SymbolTable:
    return kallsyms.parse(kernel_text(seed=seed))


def true_names(table: SymbolTable, addresses: NDArray[np.uint64]) -> list[str]:
    return [table.name(row) for row in table.find(addresses).tolist()]


def test_named_kallsyms(tmp_path: Path, table: SymbolTable, addresses: NDArray[np.uint64]) -> None:
    (tmp_path / "kallsyms").write_text(kernel_text())
    one = symbolizer(SymbolOptions(guest_kallsyms=tmp_path / "kallsyms"))
    asked = np.append(addresses, np.uint64(0xFFFFFFFFC0400810))
    found = ask(one, 100, GUEST_KERNEL, asked)
    assert found.symbol.values().tolist() == [*true_names(table, addresses), "ext4_write"]
    assert set(found.dso.values()[:-1]) == {"[guest.kernel.kallsyms]"}
    assert found.dso.values()[-1] == "[ext4]"
    assert one.warnings == []


@pytest.mark.parametrize("slide", [2 * MIB, -4 * MIB, 0x1C000000])
def test_kaslr_slide_is_worked_out(
    slide: int, tmp_path: Path, table: SymbolTable, addresses: NDArray[np.uint64]
) -> None:
    (tmp_path / "kallsyms").write_text(kernel_text())
    one = symbolizer(SymbolOptions(guest_kallsyms=tmp_path / "kallsyms"))
    moved = addresses + np.uint64(slide % 2**64)
    found = ask(one, 100, GUEST_KERNEL, np.append(moved, np.uint64(0xFFFFFFFFC0400810)))
    assert found.symbol.values()[:-1].tolist() == true_names(table, addresses)
    # the modules of another boot lie elsewhere
    assert found.symbol.values()[-1] == "[unknown]"
    assert "KASLR" in one.sources["note"][0]


@given(
    slide=st.integers(0, 200).map(lambda n: n * 2 * MIB),
    n=st.integers(1, 400),
    seed=st.integers(0, 1000),
    other=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_slide_is_right_or_not_given(slide: int, n: int, seed: int, other: bool) -> None:
    """With enough addresses never a wrong slide, and none for the kernel of another build."""
    table = build_of(seed % 3)
    theirs = build_of(99) if other else table
    addresses = function_addresses(theirs, n, seed) + np.uint64(slide)
    verdict = Fit(table).judge(addresses)
    if n >= 250:
        assert verdict.delta in ({None} if other else {None, slide})
    if n >= 300 and not other:
        assert verdict.delta == slide
    assert verdict.delta is not None or verdict.why


def test_symbols_that_cannot_hold_the_addresses_are_refused(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(kernel_text())
    one = symbolizer(SymbolOptions(guest_kallsyms=tmp_path / "kallsyms"), names={100: "web"})
    other = function_addresses(kallsyms.parse(kernel_text(seed=99)), 300) + np.uint64(6 * MIB)
    found = ask(one, 100, GUEST_KERNEL, other)
    assert set(found.symbol.values()) == {"[unknown]"}
    assert len(one.warnings) == 1
    assert "web" in one.warnings[0]
    assert str(tmp_path / "kallsyms") in one.warnings[0]


def test_recorded_map_gives_the_slide(
    tmp_path: Path, table: SymbolTable, addresses: NDArray[np.uint64]
) -> None:
    """A handful of addresses is enough where the recording says where _text was."""
    (tmp_path / "kallsyms").write_text(kernel_text())
    slide = 6 * MIB
    name = "[guest.kernel.kallsyms.100]_text"
    maps = [(0, 100, BASE + slide, 12 * MIB, BASE + slide, name, 4)]
    one = symbolizer(SymbolOptions(guest_kallsyms=tmp_path / "kallsyms"), maps)
    found = ask(one, 100, GUEST_KERNEL, addresses[:3] + np.uint64(slide))
    assert found.symbol.values().tolist() == true_names(table, addresses[:3])


def test_later_addresses_can_take_a_wrong_belief_back(
    tmp_path: Path, addresses: NDArray[np.uint64], table: SymbolTable
) -> None:
    (tmp_path / "kallsyms").write_text(kernel_text())
    one = symbolizer(SymbolOptions(guest_kallsyms=tmp_path / "kallsyms"))
    moved = addresses + np.uint64(2 * MIB)
    for part in (moved[:2], moved[:20], moved):
        found = ask(one, 100, GUEST_KERNEL, part)
    assert found.symbol.values().tolist() == true_names(table, addresses)
    assert one.warnings == []


def test_each_vm_has_its_own_mount(tmp_path: Path) -> None:
    for pid, name in ((100, "alpha"), (200, "beta")):
        folder = tmp_path / str(pid) / "proc"
        folder.mkdir(parents=True)
        (folder / "kallsyms").write_text(
            f"{BASE:016x} T {name}_entry\n{BASE + 0x1000:016x} T {name}_idle\n"
        )
        (folder / "modules").write_text("kvm 4096 0 - Live 0xffffffffc0100000\n")
    one = symbolizer(SymbolOptions(guest_mount=tmp_path), names={100: "a", 200: "b", 300: "c"})
    ip = np.array([BASE + 0x1008, 0xFFFFFFFFC0100008], np.uint64)
    pids = np.repeat(np.array([100, 200, 300], np.int32), 2)
    found = one.resolve(
        np.full(6, -1, np.int32), pids, np.full(6, GUEST_KERNEL, np.uint8), np.tile(ip, 3)
    )
    unknown = "[unknown]"
    assert found.symbol.values().tolist() == [
        "alpha_idle", unknown, "beta_idle", unknown, unknown, unknown
    ]  # fmt: skip
    image = "[guest.kernel.kallsyms]"
    assert found.dso.values().tolist() == [image, "[kvm]", image, "[kvm]", unknown, unknown]
    assert [w for w in one.warnings if w.startswith("c:")]


@pytest.mark.perf
@pytest.mark.root
def test_the_hosts_kernel_in_a_guest(tmp_path: Path, perf: Callable[..., str]) -> None:
    """Real addresses of this kernel, moved as KASLR would, named by `guest_symbols="host"`."""
    script = "for i in $(seq 1 60); do ls /proc /sys >/dev/null; cat /proc/self/maps | cat; done"
    recorded = record(perf, tmp_path, ["sh", "-c", script])
    addresses = recorded.kernel_addresses()
    own = kallsyms.parse(Path("/proc/kallsyms"))
    for slide in (0, 4 * MIB, 0x12000000):
        one = symbolizer(SymbolOptions(guest_symbols="host"))
        found = ask(one, 100, GUEST_KERNEL, addresses + np.uint64(slide))
        assert found.symbol.values().tolist() == true_names(own, addresses), slide
        # the same addresses as the host's own keep the host's DSO
        host = ask(one, 100, HOST_KERNEL, addresses)
        assert set(host.dso.values()) == {"[kernel.kallsyms]"}


GUEST_PROGRAM = """
static int __attribute__((noinline)) ticket_lock(int *lock) { return ++*lock; }
static int __attribute__((noinline)) bitmap_search(int n) { return n ^ (n >> 1); }
int lock;
void _start(void) { for (;;) bitmap_search(ticket_lock(&lock)); }
"""


@pytest.fixture(scope="module")
def guest_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = ("-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x400000", "-fno-stack-protector")
    return build(tmp_path_factory.mktemp("guest"), "guest.elf", GUEST_PROGRAM, *flags)


@pytest.mark.compiler
@pytest.mark.parametrize("mode", [GUEST_USER, GUEST_KERNEL])
@pytest.mark.parametrize("named", ["all", "name", "pid"])
def test_guest_elf(mode: int, named: str, guest_elf: Path) -> None:
    """A micro guest's ELF serves in either ring, for the VM it was named for and no other."""
    ways: dict[str, Any] = {"all": guest_elf, "name": {"micro": guest_elf}, "pid": {100: guest_elf}}
    one = symbolizer(SymbolOptions(guest_elf=ways[named]), names={100: "micro", 200: "other"})
    ip = np.array([0x400002, 0x10, 2**64 - 1], np.uint64)
    found = ask(one, 100, mode, ip)
    assert found.symbol.values()[0] in {"ticket_lock", "bitmap_search", "_start"}
    assert found.dso.values()[0] == str(guest_elf)
    assert found.symbol.values()[1:].tolist() == ["[unknown]"] * 2
    other = ask(one, 200, mode, ip)
    assert (other.symbol.values()[0] == "[unknown]") == (named != "all")


@pytest.mark.compiler
def test_micro_guest_as_vmlinux(guest_elf: Path) -> None:
    one = symbolizer(SymbolOptions(guest_vmlinux=guest_elf))
    found = ask(one, 100, GUEST_KERNEL, np.array([0x400002], np.uint64))
    assert found.symbol.values()[0] in {"ticket_lock", "bitmap_search", "_start"}
    assert found.dso.values()[0] == "[guest.kernel.kallsyms]"
    # user code of the guest is not the kernel's
    assert ask(one, 100, GUEST_USER, np.array([0x400002], np.uint64)).symbol.values()[0] == (
        "[unknown]"
    )


def test_guest_code_is_never_named_by_the_host() -> None:
    one = symbolizer(SymbolOptions())
    for mode in (GUEST_KERNEL, GUEST_USER):
        found = ask(one, 1, mode, np.array([BASE + 0x1000, 0x400000], np.uint64))
        assert set(found.symbol.values()) == {"[unknown]"}
    assert len(one.warnings) == 2


@pytest.mark.parametrize(
    "options",
    [
        SymbolOptions(guest_kallsyms="/nonexistent"),
        SymbolOptions(vmlinux="/nonexistent"),
        SymbolOptions(guest_mount="/nonexistent"),
        SymbolOptions(guest_elf={"a": "/nonexistent"}),
        SymbolOptions(guest_symbols="guest"),
    ],
    ids=str,
)
def test_a_named_source_that_is_not_there(options: SymbolOptions) -> None:
    with pytest.raises(SymbolError):
        symbolizer(options)


@pytest.mark.compiler
def test_a_source_for_other_addresses_leaves_room_for_the_next(
    guest_elf: Path, tmp_path: Path
) -> None:
    (tmp_path / "kallsyms").write_text(kernel_text())
    options = SymbolOptions(guest_kallsyms=tmp_path / "kallsyms", guest_vmlinux=guest_elf)
    found = ask(symbolizer(options), 100, GUEST_KERNEL, np.array([0x400002], np.uint64))
    assert found.symbol.values()[0] in {"ticket_lock", "bitmap_search", "_start"}


def in_memory(slide: int, since: int, *more: str, pid: int = 100) -> GuestSymbols:
    """Symbols as they are found in a guest's memory."""
    text = kernel_text()
    table = kallsyms.parse(text + "".join(f"{line}\n" for line in more)).shifted(slide)
    return GuestSymbols(pid, "web", table, "guest memory", "", "6.1.0", "abc", since)


def test_symbols_of_a_guests_memory_name_its_kernel() -> None:
    module = f"{MODULE:016x} t virtio_poll\t[virtio]"
    one = symbolizer(SymbolOptions(), guest_symbols=[in_memory(0, 5)])
    ip = np.array([BASE + 0x1008, MODULE + 4], np.uint64)
    found = ask(one, 100, GUEST_KERNEL, ip)
    names = true_names(kallsyms.parse(kernel_text()), ip[:1])
    assert found.symbol.values().tolist() == [*names, "[unknown]"]
    # a module is loaded: live, the same names go on
    no_maps = mmap_table([])
    one.update(
        AddressSpaces(no_maps, comm_table([]), fork_table([])),
        no_maps,
        {},
        [in_memory(0, 5), in_memory(0, 5, module)],
    )
    found = ask(one, 100, GUEST_KERNEL, ip)
    assert found.symbol.values().tolist() == [*names, "virtio_poll"]
    assert found.dso.values().tolist() == ["[guest.kernel.kallsyms]", "[virtio]"]
    assert set(ask(one, 200, GUEST_KERNEL, ip).symbol.values()) == {"[unknown]"}
    # what the user names counts more
    assert ask(
        symbolizer(SymbolOptions(guest_symbols="none"), guest_symbols=[in_memory(0, 5)]),
        100, GUEST_KERNEL, ip,
    ).symbol.values().tolist() == ["[unknown]"] * 2  # fmt: skip


def test_why_another_source_was_refused_is_said(tmp_path: Path) -> None:
    """Of a guest that is named by its memory, where a file of another kernel was named."""
    (tmp_path / "wrong").write_text(kernel_text(seed=8))
    found = in_memory(0, 5, pid=9)
    table = found.table
    assert table is not None
    options = SymbolOptions(guest_kallsyms=tmp_path / "wrong")
    one = symbolizer(options, names={9: "web"}, guest_symbols=[found])
    module = np.array([0xFFFFFFFFC0400004], np.uint64)
    addresses = np.concatenate([function_addresses(table, 300), module])
    assert "[unknown]" not in set(ask(one, 9, GUEST_KERNEL, addresses).symbol.values())
    said = {row["dso"]: row for row in one.sources.rows()}
    kernel = said["web kernel"]
    assert (kernel["source"], kernel["symbols"]) == ("guest memory", len(table))
    assert f"{tmp_path / 'wrong'} is not the kernel of web as it was sampled" in kernel["note"]
    assert (said["web [ext4]"]["source"], said["web [ext4]"]["symbols"]) == ("guest memory", 2)
    keeping = kept.decode(kept.encode(kept.Keeping(one.kept())))
    there = symbolizer(SymbolOptions(), names={9: "web"}, keeping=keeping)
    ask(there, 9, GUEST_KERNEL, addresses)
    assert there.sources.to_csv() == one.sources.to_csv()


def test_each_boot_has_its_own_symbols() -> None:
    first, second = in_memory(0, 100), in_memory(6 * MIB, 900)
    found = [first, in_memory(0, 100, f"{MODULE:016x} t later\t[virtio]"), second]
    boots = Boots(found)
    assert [len(part) for part in boots.parts] == [2, 1]
    times = np.array([0, 99, 500, 899, 900, 5000], np.uint64)
    assert boots.which(times).tolist() == [0, 0, 0, 0, 1, 1]
    one = symbolizer(SymbolOptions(), guest_symbols=found)
    table = kallsyms.parse(kernel_text())
    ip = np.array([BASE + 0x1008, BASE + 0x2008], np.uint64)
    for boot, slide in ((0, 0), (1, 6 * MIB)):
        answer = ask(one, 100, GUEST_KERNEL, ip + np.uint64(slide), boot=boot)
        assert answer.symbol.values().tolist() == true_names(table, ip)


def test_why_nothing_was_found_is_said() -> None:
    nothing = GuestSymbols(100, "web", note="its memory is encrypted")
    one = symbolizer(SymbolOptions(), guest_symbols=[nothing])
    ask(one, 100, GUEST_KERNEL, np.array([BASE], np.uint64))
    assert any("(its memory is encrypted)" in warning for warning in one.warnings)
