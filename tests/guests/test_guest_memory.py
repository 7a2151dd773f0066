"""Memory of a process read from outside, layouts of RAM, page tables, types: against plain ones."""

from __future__ import annotations

import mmap
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmperf_magic.errors import TargetError
from kvmperf_magic.guests.btf import Btf, Member
from kvmperf_magic.guests.budget import Budget
from kvmperf_magic.guests.memory import Block, GuestMemory, layouts, ram_mappings
from kvmperf_magic.guests.paging_x86 import PagingX86
from kvmperf_magic.guests.vmcoreinfo import Search
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping, VmmMemory

MIB, GIB = 1 << 20, 1 << 30
# maps `size` bytes of anonymous memory and of a memfd, writes a page here and there, and waits
OWNER = """
import mmap, os, sys
size, step = int(sys.argv[1]), int(sys.argv[2])
plain = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
plain.madvise(mmap.MADV_NOHUGEPAGE)
fd = os.memfd_create("ram")
os.ftruncate(fd, size)
shared = mmap.mmap(fd, size, mmap.MAP_SHARED)
for at in range(0, size, step):
    for memory in (plain, shared):
        memory[at : at + 16] = b"page %011d" % at
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(size: int, step: int) -> Iterator[int]:
    arguments = [sys.executable, "-c", OWNER, str(size), str(step)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        assert child.stdin is not None
        child.stdin.close()


def resident(pid: int) -> int:
    """KiB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def test_only_what_exists_is_read() -> None:
    size, step = 64 * MIB, 1 * MIB
    with owner(size, step) as pid:
        vmm = VmmMemory(pid)
        rams = [one for one in ram_mappings(vmm.mappings(), None) if one.size == size]
        before = resident(pid)
        assert [one.permissions for one in ram_mappings(vmm.mappings(), size)] in (
            ["rw-p", "rw-s"],
            ["rw-s", "rw-p"],
        )
        assert [one.path[:10] for one in rams if one.file] == ["/memfd:ram"]
        for ram in rams:
            there = np.flatnonzero(vmm.present(ram.start, ram.end)) * PAGE
            assert there.tolist() == list(range(0, size, step))
            memory = GuestMemory(vmm, [Block(0, ram.start, size)])
            whole = memory.read(0, size)
            assert len(whole) == size
            for at in range(0, size, step):
                assert whole[at : at + 16] == b"page %011d" % at
                assert whole[at + 16 : at + step] == bytes(step - 16)
            assert memory.read(3 * step + 2, 7) == whole[3 * step + 2 :][:7]
            assert memory.read(size - 5, 6) == b""
            assert not list(Search(vmm, [ram], Budget(5)))
            assert (np.flatnonzero(vmm.present(ram.start, ram.end)) * PAGE == there).all()
        assert resident(pid) < before + 200  # of 128 MiB; its own end of start-up may still come
        assert vmm.alive()
    assert not vmm.alive()
    with pytest.raises(TargetError, match="has ended"):
        vmm.mappings()


def test_gathered_rows_are_the_bytes_at_their_addresses() -> None:
    """Of this process itself, holes among them: a row that cannot be read is zeros."""
    pages = 3000  # more than one call takes
    area = mmap.mmap(-1, pages * PAGE)
    area[:] = random.Random(1).randbytes(len(area))
    start = np.frombuffer(area, np.uint8).ctypes.data
    address = start + np.arange(pages, dtype=np.uint64) * PAGE
    gone = [0, 5, 1023, 1024, 1025, 2999]
    address[gone] = 0x10 * PAGE
    rows = VmmMemory(os.getpid()).gather(address, 24)
    expected = np.frombuffer(area, np.uint8).reshape(pages, PAGE)[:, :24].copy()
    expected[gone] = 0
    assert (rows == expected).all()


def mapping(start: int, size: int, path: str = "", permissions: str = "rw-p") -> Mapping:
    return Mapping(start, start + size, permissions, 0, path and "0:1 7", path)


def test_ram_is_told_from_what_else_a_vmm_maps() -> None:
    small = mapping(0x1000000, 8 * MIB)
    heap = mapping(0x2000000, 900 * MIB, "[heap]")
    code = mapping(0x90000000, GIB, permissions="rwxp")
    whole = mapping(0x700000000000, 512 * MIB)
    others = [small, heap, code]
    assert ram_mappings([*others, whole], 512 * MIB) == [whole]
    assert ram_mappings([*others, whole], None) == [small, whole]
    low = mapping(0x7F0000000000, 3 * GIB, "/memfd:guest (deleted)", "rw-s")
    high = mapping(0x7F1000000000, 2 * GIB, "/memfd:guest (deleted)", "rw-s")
    assert ram_mappings([*others, low, high], 5 * GIB) == [low, high]
    assert ram_mappings([heap, code], None) == []


sizes = st.lists(st.integers(1, 24), min_size=1, max_size=4)


@given(sizes)
def test_layouts_hold_all_of_every_block_once(parts: list[int]) -> None:
    blocks = [((1 << 40) * (i + 1), size * 256 * MIB) for i, size in enumerate(parts)]
    total = sum(size for _, size in blocks)
    seen = list(layouts(blocks))
    assert seen
    for layout in seen:
        assert sum(block.size for block in layout) == total
        physical = sorted((b.physical, b.physical + b.size) for b in layout)
        host = sorted((b.host, b.host + b.size) for b in layout)
        for spans in (physical, host):
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert {start for start, _ in host} >= {start for start, _ in blocks}
        # nothing in the hole that ends at 4 GiB unless there is none
        assert all(b.physical + b.size <= 4 * GIB or b.physical >= 4 * GIB for b in layout)
    for above in {total // 2, 0}:
        assert any(layouts(blocks, above)) == (total - above <= 4 * GIB)
        for layout in layouts(blocks, above):
            assert sum(b.size for b in layout if b.physical >= 4 * GIB) == above


class Ram:
    """Physical memory made of pages in a dict."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def write(self, at: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            page = self.pages.setdefault((at + i) // PAGE, bytearray(PAGE))
            page[(at + i) % PAGE] = byte

    def read(self, physical: int, size: int) -> bytes:
        out = b""
        while len(out) < size:
            at = physical + len(out)
            page = self.pages.get(at // PAGE)
            if page is None:
                return b""
            out += bytes(page[at % PAGE : at % PAGE + size - len(out)])
        return out


def canonical(value: int, levels: int) -> int:
    bits = 12 + 9 * levels
    value &= (1 << bits) - 1
    return value | (2**64 - (1 << bits)) if value >> (bits - 1) else value


@settings(max_examples=60, deadline=None)
@given(
    levels=st.sampled_from([4, 5]),
    mapped=st.lists(
        st.tuples(st.integers(0, 2**57 - 1), st.integers(0, 2**40), st.sampled_from([1, 2, 3])),
        min_size=1,
        max_size=12,
    ),
    encryption=st.sampled_from([0, 1 << 47, 1 << 51]),
    probes=st.lists(st.integers(0, 2**64 - 1), max_size=8),
)
def test_page_tables_are_walked(
    levels: int, mapped: list[tuple[int, int, int]], encryption: int, probes: list[int]
) -> None:
    """Pages of every size in both formats, against a dict of what was mapped."""
    ram = Ram()
    free = iter(range(1, 1000))
    top = next(free) * PAGE
    ram.write(top, bytes(PAGE))
    expected: dict[tuple[int, int], int] = {}
    for wanted, frame, leaf in mapped:
        virtual = canonical(wanted, levels)
        size = 1 << (3 + 9 * leaf)
        if any(a < virtual // size * size + size and virtual // size * size < b
               for a, b in expected):  # fmt: skip
            continue
        at = top
        for level in range(levels, leaf, -1):
            slot = at + (virtual >> (3 + 9 * level) & 511) * 8
            entry = int.from_bytes(ram.read(slot, 8), "little")
            if not entry:
                entry = next(free) * PAGE | encryption | 0x67
                ram.write(slot, entry.to_bytes(8, "little"))
                ram.write(entry & ~encryption & -PAGE, bytes(PAGE))
            at = entry & ~encryption & ((1 << 52) - PAGE)
        physical = frame // size * size
        entry = physical | encryption | (0xE7 if leaf > 1 else 0x63) | 1 << 63
        ram.write(at + (virtual >> (3 + 9 * leaf) & 511) * 8, entry.to_bytes(8, "little"))
        start = virtual // size * size
        expected[start, start + size] = physical
    paging = PagingX86(
        ram,  # type: ignore[arg-type]  # reads as GuestMemory does
        top,
        five_levels=levels == 5,
        encryption=encryption,
    )
    for (start, end), physical in expected.items():
        for virtual in (start, end - 1, (start + end) // 2 + 3):
            assert paging.translate(virtual) == physical + virtual - start
            assert paging.afresh().translate(virtual) == physical + virtual - start
    for probe in probes:
        inside = [p + probe - a for (a, b), p in expected.items() if a <= probe < b]
        assert paging.translate(probe) == (inside[0] if inside else None)


def test_a_read_goes_over_pages_that_lie_apart() -> None:
    ram = Ram()
    tables = [PAGE * i for i in range(1, 5)]
    for table, below in pairwise(tables):
        ram.write(table, (below | 3).to_bytes(8, "little") + bytes(PAGE - 8))
    frames = [0x9000, 0x30000, 0x31000, 0x7000]
    entries = b"".join((frame | 3).to_bytes(8, "little") for frame in frames)
    ram.write(tables[-1], entries + bytes(PAGE - len(entries)))
    content = random.Random(2).randbytes(4 * PAGE).replace(b"\0", b"x")
    for i, frame in enumerate(frames):
        ram.write(frame, content[i * PAGE : (i + 1) * PAGE])
    paging = PagingX86(ram, tables[0], five_levels=False)  # type: ignore[arg-type]  # as above
    for at, size in [(0, 4 * PAGE), (5, 3), (PAGE - 1, 2), (4000, 9000), (0, 1)]:
        assert paging.read(at, size) == content[at : at + size]
    assert paging.read(0, 4 * PAGE + 1) == b""
    assert paging.read(0, 1 << 40) == b""
    ram.write(0x30000 + 10, b"the end\0")
    assert paging.string(PAGE + 10) == "the end"
    assert paging.string(PAGE + 10, 3) == "the"
    assert paging.number(8) == int.from_bytes(content[8:16], "little")


class Types:
    """BTF, written type by type; ids count from 1."""

    def __init__(self) -> None:
        self.records = b""
        self.strings = b"\0"
        self.count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, name: str, kind: int, size: int, *extra: int, vlen: int = 0, flag: int = 0
    ) -> int:
        info = vlen | kind << 24 | flag << 31
        self.records += struct.pack(f"<{3 + len(extra)}I", self.name(name), info, size, *extra)
        self.count += 1
        return self.count

    def struct(self, name: str, size: int, *members: tuple[str, int, int], kind: int = 4) -> int:
        words = [word for m, of, at in members for word in (self.name(m), of, at * 8)]
        return self.add(name, kind, size, *words, vlen=len(members))

    def data(self) -> bytes:
        sizes = (0, len(self.records), len(self.records), len(self.strings))
        return struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, *sizes) + self.records + self.strings


def test_members_of_structs_wherever_they_are() -> None:
    types = Types()
    number = types.add("int", 1, 4, 32)
    types.add("", 13, 0, 0, 0, vlen=1)  # a prototype
    pointer = types.add("", 2, number)
    text = types.add("", 3, 0, number, number, 56)
    union = types.struct("", 16, ("either", number, 0), ("other", pointer, 8), kind=5)
    inner = types.struct("", 24, ("deep", pointer, 0), ("", union, 8))
    layout = types.struct("layout", 16, ("base", pointer, 0), ("size", number, 8))
    alias = types.add("layout_t", 8, layout)
    constant = types.add("", 10, alias)
    many = types.add("", 3, 0, layout, number, 7)
    types.add("module", 6, 4, types.name("ONE"), 1, vlen=1)  # an enum of the same name
    types.struct(
        "module",
        512,
        ("state", number, 0),
        ("name", text, 8),
        ("", inner, 240),
        ("core", constant, 264),
        ("mem", many, 300),
        ("last", pointer, 500),
    )
    btf = Btf.parse(types.data())
    assert btf is not None
    assert btf.size("module") == 512
    assert btf.size("layout") == 16
    expected = {
        ("state",): Member(0, 4),
        ("name",): Member(8, 224),
        ("deep",): Member(240, 8),
        ("either",): Member(248, 4),
        ("other",): Member(256, 8),
        ("core",): Member(264, 16),
        ("core", "size"): Member(272, 4),
        ("mem",): Member(300, 112),
        ("last",): Member(500, 8),
    }
    assert {path: btf.member("module", *path) for path in expected} == expected
    assert btf.member("module", "nothing") is None
    assert btf.member("module", "state", "nothing") is None
    assert btf.member("nothing", "state") is None
    assert btf.size("nothing") is None


@given(st.binary(max_size=400), st.booleans())
def test_damaged_types_never_fail(noise: bytes, whole: bool) -> None:
    types = Types()
    number = types.add("int", 1, 4, 32)
    loop = types.struct("", 8, ("", types.count + 1, 0), ("x", number, 0))
    types.struct("module", 8, ("", loop, 0), ("list", number, 4))
    data = types.data()
    size = len(noise)
    data = data[:24] + noise + data[24 + size :] if whole else data[:size]
    btf = Btf.parse(data)
    if btf is not None:
        btf.member("module", "list")
        btf.member("module", "y")
        btf.size("module")
