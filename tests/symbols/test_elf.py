"""ELF symbols against readelf, nm and objdump; damaged files against nothing but our own errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfrecord import build

from kvmperf_magic.errors import FileError
from kvmperf_magic.symbols import files
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.names import NamedTable, NameList

pytestmark = pytest.mark.compiler

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int __attribute__((noinline)) hidden(int n) { return n * rand(); }
int __attribute__((noinline)) shown(int n) { return hidden(n) + 1; }
int alias(int) __attribute__((alias("shown")));
int __attribute__((weak)) feeble(int n) { return n; }
int table[64] = {1};
int main(int argc, char **argv)
{ void (*f)(void *) = free; f(strdup(argv[0])); return shown(argc) + feeble(argc); }
"""


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def libraries() -> list[Path]:
    if not shutil.which("ldd"):
        return []
    listed = output("ldd", shutil.which("gdb") or shutil.which("perf") or "/bin/ls")
    return sorted({Path(p) for p in re.findall(r"(/\S+) \(0x", listed)})[:12]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("elf"), "program", SOURCE, "-g", "-Wl,--build-id=sha1")


@pytest.fixture(
    scope="module", params=["-pie", "-no-pie", "-fcf-protection -Wl,-z,ibtplt", "-Wl,-z,now"]
)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variant")
    return build(folder, "program", SOURCE, "-fno-builtin", *request.param.split())


def check_against_readelf(path: Path) -> None:
    known: dict[int, set[tuple[str, int]]] = {}
    functions = set()
    for line in output("readelf", "-sW", path).splitlines():
        words = line.split()
        if len(words) >= 8 and words[0][:-1].isdigit() and words[6] not in {"UND", "ABS"}:
            address, size, name = int(words[1], 16), int(words[2], 0), words[7].split("@")[0]
            known.setdefault(address, set()).add((name, size))
            if words[3] == "FUNC" and size:
                functions.add(address)
    table = ElfImage(path).symbols()
    plain = [i for i, name in enumerate(table.names) if not name.endswith("@plt")]
    for i in plain:
        name = table.names[i].split("@")[0]
        size = int(table.end[i] - table.start[i])
        sizes = {s for n, s in known[int(table.start[i])] if n == name}
        # a label or a function without a size reaches up to the next symbol
        assert sizes & {size, 0}
    assert functions <= set(table.start.tolist())
    assert len(np.unique(table.start)) == len(table)


def check_against_objdump(path: Path) -> None:
    listed = output("objdump", "-d", "-j", ".plt", "-j", ".plt.sec", "-j", ".plt.got", path)
    expected = {
        int(address, 16): name.split("@")[0]
        for address, name in re.findall(r"^([0-9a-f]+) <([^>]+@plt)>:", listed, re.MULTILINE)
    }
    table = ElfImage(path).symbols()
    ours = {
        int(table.start[i]): name.removesuffix("@plt")
        for i, name in enumerate(table.names)
        if name.endswith("@plt")
    }
    # with IBT objdump names only the second half of the pair
    assert expected.items() <= ours.items()
    assert set(ours.values()) == set(expected.values())


def test_program(variant: Path) -> None:
    check_against_readelf(variant)
    check_against_objdump(variant)
    assert {"hidden", "main", "table", "rand@plt"} <= set(ElfImage(variant).symbols().names)


@pytest.mark.parametrize("path", libraries(), ids=lambda path: path.name)
def test_installed_library(path: Path) -> None:
    check_against_readelf(path)
    check_against_objdump(path)
    assert ElfImage(path).build_id in output("readelf", "-nW", path)


def test_offsets_are_where_the_program_headers_say(variant: Path) -> None:
    segments = ElfImage(variant).segments
    for line in output("readelf", "-lW", variant).splitlines():
        words = line.split()
        if words[:1] == ["LOAD"]:
            offset, address, size = int(words[1], 16), int(words[2], 16), int(words[4], 16)
            asked = np.array([offset, offset + size // 2, offset + size - 1], np.uint64)
            moved = segments.addresses(asked)
            assert (moved - asked == np.uint64(address - offset)).all()
            assert segments.runs(moved).all() == ("E" in words)


def test_alias_choice(program: Path) -> None:
    names = ElfImage(program).symbols().names
    # both global and sized: the longer name; the one perf shows
    assert ("shown" in names, "alias" in names) == (True, False)


def test_aliases_are_chosen_by_their_readable_names(tmp_path: Path) -> None:
    """`_Znwm` and `_Znam` are as long; of `operator new` and `operator new[]` perf shows the
    longer. Their raw names decide where names are shown as they stand."""
    source = tmp_path / "aliases.c"
    source.write_text(
        'void _Znwm(void) {}\nvoid _Znam(void) __attribute__((alias("_Znwm")));\n'
        "void alone(void) {}\nint main(void) { return 0; }\n"
    )
    output("gcc", "-o", tmp_path / "aliases", source)
    table = ElfImage(tmp_path / "aliases").symbols()
    row = next(i for i, name in enumerate(table.names) if name in {"_Znwm", "_Znam"})
    assert sorted(table.candidates(row)) == ["_Znam", "_Znwm"]
    for asked in (table, table.shifted(4096), table.take(np.arange(len(table)) >= row)):
        names = NameList()
        numbers = NamedTable(asked, names, readable=True).numbers(np.arange(len(asked)))
        shown = names.categorical(numbers).values().tolist()
        assert "operator new[]" in shown
        assert "operator new" not in shown
    names = NameList()
    as_they_stand = NamedTable(table, names, readable=False).numbers(np.array([row]))
    assert names.categorical(as_they_stand).categories == [table.name(row)]


@pytest.fixture
def stripped(program: Path, tmp_path: Path) -> tuple[Path, Path]:
    debug, bare = tmp_path / "program.debug", tmp_path / "program"
    shutil.copy(program, bare)
    output("objcopy", "--only-keep-debug", bare, debug)
    output("strip", "--strip-all", bare)
    return bare, debug


def test_debug_file_by_link(stripped: tuple[Path, Path], program: Path) -> None:
    bare, debug = stripped
    output("objcopy", f"--add-gnu-debuglink={debug}", bare)
    image = ElfImage(bare)
    assert image.debuglink == (debug.name, zlib.crc32(debug.read_bytes()))
    assert not image.has_symtab
    found = files.find(str(bare), "")
    assert found.symbols is not None
    assert found.symbols.path == str(debug)
    assert found.symbols.symbols(found.runtime).names == ElfImage(program).symbols().names


def test_debug_file_by_build_id(
    stripped: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, debug = stripped
    build_id = ElfImage(bare).build_id
    home = tmp_path / "home"
    cached = home / ".debug" / ".build-id" / build_id[:2] / build_id[2:]
    cached.mkdir(parents=True)
    shutil.copy(debug, cached / "debug")
    monkeypatch.setenv("HOME", str(home))
    found = files.find(str(bare), build_id)
    assert found.symbols is not None
    assert found.symbols.path == str(cached / "debug")


def test_debug_file_of_another_build_is_refused(
    stripped: tuple[Path, Path], tmp_path: Path
) -> None:
    bare, debug = stripped
    output("objcopy", f"--add-gnu-debuglink={debug}", bare)
    other = build(tmp_path, "other", SOURCE.replace("+ 1", "+ 2"), "-Wl,--build-id=sha1")
    shutil.copy(other, debug)
    found = files.find(str(bare), "")
    assert found.symbols is not None
    assert found.symbols.path == str(bare)
    assert "another build" in found.note


def test_binary_that_changed_since_is_refused(program: Path) -> None:
    found = files.find(str(program), "ab" * 20)
    assert found.runtime is None
    assert "has changed" in found.note


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_is_our_error_or_fewer_symbols(program: Path, data: st.DataObject) -> None:
    content = bytearray(program.read_bytes())
    spots = st.one_of(st.integers(0, 1024), st.integers(0, len(content) - 1)) | st.integers(
        len(content) - 3000, len(content) - 1
    )
    for at in data.draw(st.lists(spots, min_size=1, max_size=40)):
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        image = ElfImage(bytes(content[:cut]))
        table = image.symbols()
    except FileError:
        return
    assert (table.end >= table.start).all()
    assert len(table.names) == len(table)
    assert isinstance(image.build_id, str)
    image.segments.addresses(np.array([0, 2**64 - 1], np.uint64))
