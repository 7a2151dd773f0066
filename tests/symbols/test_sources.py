"""Where names come from: kernels of another boot, files that went, perf maps, the vdso."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from perfrecord import build, comm_table, fork_table, mmap_table

from kvmperf_magic.errors import KvmperfError, SymbolError
from kvmperf_magic.modes import HOST_KERNEL, HOST_USER, HYPERVISOR, UNKNOWN
from kvmperf_magic.symbols import buildid, perfmap, vdso
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Table

BASE = 0xFFFFFFFF81000000
KALLSYMS = f"""{BASE:016x} T _text
{BASE:016x} T _stext
{BASE + 0x100:016x} T start_kernel
{BASE + 0x200:016x} t schedule
{BASE + 0x900:016x} T _etext
ffffffffc0400000 t ext4_read\t[ext4]
"""


def symbolizer(
    mmap: Table,
    options: SymbolOptions | None = None,
    *,
    build_ids: dict[str, str] | None = None,
    same_boot: bool = False,
) -> Symbolizer:
    spaces = AddressSpaces(mmap, comm_table([]), fork_table([]))
    return Symbolizer(
        spaces,
        mmap,
        options or SymbolOptions(),
        build_ids=build_ids or {},
        same_boot=same_boot,
        os_release=None,
        vm_names={},
    )


def names(one: Symbolizer, mode: int, *ip: int, epoch: int = 0) -> list[tuple[str, str]]:
    n = len(ip)
    found = one.resolve(
        np.full(n, epoch, np.int32),
        np.full(n, 1, np.int32),
        np.full(n, mode, np.uint8),
        np.array(ip, np.uint64),
    )
    return list(zip(found.symbol.values(), found.dso.values(), strict=True))


def kernel_map(text: int, *more: tuple[int, int, str]) -> Table:
    rows = [(0, -1, text, 0x900, text, "[kernel.kallsyms]_text", 1)]
    return mmap_table(rows + [(0, -1, at, size, 0, name, 1) for at, size, name in more])


def test_kallsyms_of_another_boot_is_moved_by_its_slide(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    slide = 0x1800000
    ext4 = "/lib/modules/6.1.0/kernel/fs/ext4/ext4.ko.xz"
    mmap = kernel_map(BASE + slide, (0xFFFFFFFFC0700000, 0x1000, ext4))
    one = symbolizer(mmap, SymbolOptions(kallsyms=tmp_path / "kallsyms"))
    image = "[kernel.kallsyms]"
    assert names(one, HOST_KERNEL, BASE + slide + 0x104, BASE + slide + 0x8FF) == [
        ("start_kernel", image),
        ("schedule", image),
    ]
    # modules lie elsewhere in every boot: their maps still say whose the address is
    asked = (0xFFFFFFFFC0400004, 0xFFFFFFFFC0700004, BASE + 0x104)
    assert names(one, HOST_KERNEL, *asked) == [
        ("[unknown]", "[unknown]"),
        ("[unknown]", "[ext4]"),
        ("[unknown]", "[unknown]"),
    ]
    assert "0x1800000" in one.sources["note"][0]


def test_kallsyms_of_this_boot_keeps_its_modules(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    one = symbolizer(kernel_map(BASE), SymbolOptions(kallsyms=tmp_path / "kallsyms"))
    assert names(one, HOST_KERNEL, 0xFFFFFFFFC0400004) == [("ext4_read", "[ext4]")]


@pytest.mark.compiler
def test_vmlinux_is_moved_and_checked(tmp_path: Path) -> None:
    source = """
    __asm__(".globl _text\\n_text:\\n");
    int __attribute__((noinline)) schedule(int n) { return n * 3; }
    void _start(void) { for (;;) schedule(1); }
    """
    flags = ("-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x7000000", "-Wl,--build-id=sha1")
    vmlinux = build(tmp_path, "vmlinux", source, *flags)
    image = ElfImage(vmlinux)
    table = image.symbols()
    inside = int(table.start[table.names.index("schedule")]) + 1
    text = table.marks["_text"]
    slide = 0x200000
    build_ids = {"[kernel.kallsyms]": image.build_id}
    options = SymbolOptions(vmlinux=vmlinux)
    one = symbolizer(kernel_map(text + slide), options, build_ids=build_ids)
    assert names(one, HOST_KERNEL, inside + slide) == [("schedule", "[kernel.kallsyms]")]
    other = symbolizer(
        kernel_map(text + slide), options, build_ids={"[kernel.kallsyms]": "ab" * 20}
    )
    assert names(other, HOST_KERNEL, inside + slide)[0][0] == "[unknown]"
    assert len(other.warnings) == 1
    assert "another build" in other.warnings[0]


def test_running_kernel_is_not_believed_for_another_recording() -> None:
    one = symbolizer(kernel_map(BASE), build_ids={"[kernel.kallsyms]": "ab" * 20}, same_boot=True)
    assert names(one, HOST_KERNEL, BASE + 0x2000) == [("[unknown]", "[unknown]")]
    assert len(one.warnings) == 1


def test_running_kernels_build_id() -> None:
    notes = Path("/sys/kernel/notes").read_bytes()
    found = buildid.of_running_kernel()
    assert re.fullmatch("[0-9a-f]{16,40}", found)
    assert bytes.fromhex(found) in notes


@pytest.mark.parametrize("text", ["", "nothing\n", "0000000000000000 T _text\n"])
def test_named_kallsyms_of_no_use(text: str, tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(text)
    for options in (
        SymbolOptions(kallsyms=tmp_path / "kallsyms"),
        SymbolOptions(guest_kallsyms=tmp_path / "kallsyms"),
    ):
        with pytest.raises(SymbolError):
            symbolizer(kernel_map(BASE), options)
    with pytest.raises(KvmperfError, match="not a sound ELF"):
        symbolizer(kernel_map(BASE), SymbolOptions(vmlinux=tmp_path / "kallsyms"))


def test_modes_without_symbols() -> None:
    one = symbolizer(kernel_map(BASE))
    for mode in (HYPERVISOR, UNKNOWN):
        assert names(one, mode, BASE + 1) == [("[unknown]", "[unknown]")]


@dataclass
class Running:
    """A process that runs `spin` of a file that is gone."""

    pid: int
    mmap: Table
    spin: int


@pytest.fixture
def deleted(tmp_path: Path) -> Iterator[Running]:
    source = 'void spin(void) { __asm__("pause"); }\nint main(void) { for (;;) spin(); }'
    program = build(tmp_path, "gone", source)
    table = ElfImage(program).symbols()
    offset = int(table.start[table.names.index("spin")])
    process = subprocess.Popen([program])
    try:
        while str(program) not in (maps := Path(f"/proc/{process.pid}/maps").read_text()):
            time.sleep(0.01)
        program.unlink()
        first, last, at = next(
            (int(m[1], 16), int(m[2], 16), int(m[3], 16))
            for m in re.finditer(r"^(\w+)-(\w+) r-xp (\w+) .*/gone$", maps, re.MULTILINE)
        )
        name = f"{program} (deleted)"
        mmap = mmap_table([(0, process.pid, first, last - first, at, name, 2)])
        yield Running(process.pid, mmap, first - at + offset)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.root
@pytest.mark.compiler
def test_file_that_is_gone_is_read_from_who_maps_it(deleted: Running) -> None:
    one = symbolizer(deleted.mmap, same_boot=True)
    assert names(one, HOST_USER, deleted.spin)[0][0] == "spin"
    # of another boot the pid says nothing
    other = symbolizer(deleted.mmap, same_boot=False)
    assert names(other, HOST_USER, deleted.spin)[0][0] == "[unknown]"


@pytest.mark.compiler
def test_symfs(tmp_path: Path) -> None:
    program = build(tmp_path, "program", "int main(void) { return 0; }", "-no-pie")
    (tmp_path / "root" / "opt").mkdir(parents=True)
    shutil.move(program, tmp_path / "root" / "opt" / "program")
    image = ElfImage(tmp_path / "root" / "opt" / "program")
    table = image.symbols()
    main = int(table.start[table.names.index("main")])
    text = image.section(".text")
    assert text is not None
    page = text.offset & ~0xFFF
    start = text.address - (text.offset - page)
    mmap = mmap_table([(0, 1, start, 0x1000, page, "/opt/program", 2)])
    one = symbolizer(mmap, SymbolOptions(symfs=tmp_path / "root"))
    assert names(one, HOST_USER, main) == [("main", "/opt/program")]
    assert names(symbolizer(mmap), HOST_USER, main) == [("[unknown]", "/opt/program")]


def test_perf_map_that_grows() -> None:
    """A JIT compiler adds functions while a live view looks on."""
    pid = os.getpid()
    path = Path(f"/tmp/perf-{pid}.map")
    mmap = mmap_table([(0, pid, 0x10000, 0x2000, 0, "//anon", 2)])
    one = symbolizer(mmap, same_boot=True)
    try:
        assert names(one, HOST_USER, 0x10010) == [("[unknown]", str(path))]
        path.write_text("10000 20 first name\n")
        assert names(one, HOST_USER, 0x10010, 0x10030) == [
            ("first name", str(path)),
            ("[unknown]", str(path)),
        ]
        path.write_text("10000 20 first name\n10020 20 second\n")
        assert names(one, HOST_USER, 0x10010, 0x10030)[1][0] == "second"
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")
def test_a_perf_map_of_somebody_else_is_none() -> None:
    pid = 2**22 + 1  # beyond what the kernel gives
    path = Path(f"/tmp/perf-{pid}.map")
    path.write_bytes(b"10 10 forged\n")
    try:
        opened = perfmap.opened(pid, alive=False)
        assert opened is not None
        with opened[1] as file:
            # what was opened counts, whatever is there now
            path.unlink()
            path.symlink_to("/etc/passwd")
            assert file.read() == b"10 10 forged\n"
        assert opened[0] == path
        assert perfmap.opened(pid, alive=False) is None
        path.unlink()
        os.mkfifo(path)
        assert perfmap.opened(pid, alive=False) is None
        path.unlink()
        path.write_bytes(b"10 10 forged\n")
        os.chown(path, 65534, 65534)
        assert perfmap.opened(pid, alive=False) is None
    finally:
        path.unlink()


def test_perf_map_of_a_writer_that_reuses_addresses() -> None:
    table = perfmap.parse(b"10 10 old\n30 8 other\nbroken\n10 20 new\nffffffffffffffff 9 x\n40 ")
    assert table.names == ["new", "other"]
    assert table.find(np.array([0x10, 0x2F, 0x30, 0x38], np.uint64)).tolist() == [0, 0, 1, -1]


def test_own_vdso() -> None:
    image = vdso.own()
    assert image is not None
    assert "clock_gettime" in " ".join(image.symbols().names)


def test_update_keeps_names_and_sees_new_records(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    one = symbolizer(kernel_map(BASE), SymbolOptions(kallsyms=tmp_path / "kallsyms"))
    before = one.host
    assert names(one, HOST_USER, 0x10010, epoch=-1) == [("[unknown]", "[unknown]")]
    mmap = mmap_table([(0, 9, 0x10000, 0x1000, 0, "/no/such/file", 2)])
    one.update(AddressSpaces(mmap, comm_table([]), fork_table([])), mmap, {})
    assert names(one, HOST_USER, 0x10010) == [("[unknown]", "/no/such/file")]
    assert one.host is before
    assert "/no/such/file" in one.sources["dso"].tolist()
