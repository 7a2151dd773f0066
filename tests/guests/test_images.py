"""Images of kernels in memory, without vmcoreinfo: made as 4.x is linked, for none is at hand.

The first page of the read-only data, tables as scripts/kallsyms.c wrote them, page tables as the
kernel sets them up.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
from collections.abc import Iterator

import pytest
from kallsymsimage import BASE, Layout, Symbol, build
from linuxguest import lines
from vmram import as_ram

from kvmperf_magic.guests.finding import Found, find_kernel
from kvmperf_magic.guests.linux import IMAGE
from kvmperf_magic.guests.vmmmemory import VmmMemory

MIB = 1 << 20
SIZE = 66 * MIB  # no other mapping here is that large
RELEASE = "4.4.0-test"
TEXT = BASE - 4 * MIB
DATA = BASE + 6 * MIB
LAYOUTS = [
    Layout("absolute", marker_width=8),  # 4.5 and before
    Layout("relative", marker_width=8),  # 4.6 to 4.20, one CPU
    Layout("percpu", marker_width=8),  # the same, several
    Layout("percpu"),  # 5.x
    Layout("place", newer=True),  # 7.x
]


def symbols_of(layout: Layout, every: bool) -> list[Symbol]:
    """A kernel's; `every`: as with CONFIG_KALLSYMS_ALL, data too and what is per CPU."""
    chance = random.Random(4)
    functions = [
        (TEXT + 64 * i, "t", "".join(chance.choices("abcdefghij_", k=chance.randrange(3, 40))))
        for i in range(1, 1500)
    ]
    found = [(TEXT, "T", "_stext"), *functions, (BASE - 0x3210, "T", "_etext")]
    if not every:
        return found
    percpu = [(0, "A", "__per_cpu_start"), (0xB040, "A", "current_task")]
    data = [
        (BASE + 0x100, "R", "linux_proc_banner"),
        (BASE + 0x400, "R", "linux_banner"),
        (DATA + 0x10, "D", "phys_base"),
        (DATA + 0x20, "D", "vmcoreinfo_data"),
        (DATA + 0x1000, "D", "init_level4_pgt"),
    ]
    return ([] if layout.offsets in ("relative", "place") else percpu) + found + data


def image(layout: Layout, every: bool, physical: int) -> bytes:
    """From its read-only data on, which is at this physical address."""
    begin = bytearray(0x1000)
    begin[0x100:0x120] = b"%s version %s (me@here) (gcc) %s".ljust(32)
    banner = f"Linux version {RELEASE} (me@here) (gcc) #1\n\0".encode()
    begin[0x400 : 0x400 + len(banner)] = banner
    made = build(symbols_of(layout, every), layout, bytes(begin), b"").data
    out = bytearray(made.ljust(DATA - BASE + 4 * 0x1000, b"\0"))

    def put(virtual: int, value: int) -> None:
        struct.pack_into("<Q", out, virtual - BASE, value % 2**64)

    put(DATA + 0x10, physical - (BASE - IMAGE))
    top, upper, middle = (DATA + 0x1000 * i for i in (1, 2, 3))
    put(top + 511 * 8, physical + (upper - BASE) | 3)
    put(upper + (BASE >> 30 & 511) * 8, physical + (middle - BASE) | 3)
    for at in range(TEXT, DATA + 2 * MIB, 2 * MIB):
        put(middle + (at >> 21 & 511) * 8, physical + (at - BASE) | 0x83)
    return bytes(out)


@pytest.fixture
def ram() -> Iterator[mmap.mmap]:
    with as_ram(SIZE) as area:
        yield area


def look() -> Found:
    return find_kernel(VmmMemory(os.getpid()), SIZE)


@pytest.mark.parametrize("every", [True, False], ids=["all", "functions"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_older_kernel_is_found_by_its_image(ram: mmap.mmap, layout: Layout, every: bool) -> None:
    physical = 34 * MIB
    data = image(layout, every, physical)
    ram[physical : physical + len(data)] = data
    found = look()
    if layout.offsets == "place" and not every:  # nothing in it tells where it is
        assert found == Found(
            None, f"an image of Linux {RELEASE} in its memory, but not one that runs"
        )
        return
    assert found.kernel is not None, found.why
    expected = [f"{at:016x} {kind} {name}" for at, kind, name in symbols_of(layout, every)]
    assert lines(found.kernel.symbols) == expected
    assert found.kernel.release == RELEASE
    assert found.kernel.boot.phys_base == physical - (BASE - IMAGE)
    assert found.kernel.modules() is None


def test_memory_is_laid_out_so_that_vmcoreinfo_is_reached() -> None:
    """The image is below every hole for devices that there may be, and fits them all."""
    gib, physical = 1 << 30, 34 * MIB
    page = f"OSRELEASE={RELEASE}\nBUILD-ID=1234\nSYMBOL(_stext)={TEXT:x}\n".encode()
    data = bytearray(image(LAYOUTS[2], True, physical))
    # where the kernel has its pointer to it, the address there, and where that leads
    struct.pack_into("<Q", data, DATA + 0x20 - BASE, DATA + 64 * MIB)
    entry = DATA + 0x3000 + (DATA + 64 * MIB >> 21 & 511) * 8
    struct.pack_into("<Q", data, entry - BASE, 4 * gib + 16 * MIB | 0x83)
    with as_ram(4 * gib + 2 * MIB) as area:
        area[physical : physical + len(data)] = bytes(data)
        area[2 * gib + 16 * MIB : 2 * gib + 16 * MIB + len(page)] = page
        found = find_kernel(VmmMemory(os.getpid()), len(area))
    assert found.kernel is not None, found.why
    assert found.kernel.boot.build_id == "1234"
    blocks = [(block.physical, block.size) for block in found.kernel.memory.blocks]
    assert blocks == [(0, 2 * gib), (4 * gib, 2 * gib + 2 * MIB)]


def test_an_image_whose_page_tables_lead_elsewhere_is_not_what_runs(ram: mmap.mmap) -> None:
    """What an earlier boot left behind, or a guest's own guest."""
    data = image(LAYOUTS[2], True, 34 * MIB)
    at = 20 * MIB  # it says that it is elsewhere
    ram[at : at + len(data)] = data
    assert "in its memory, but not one that runs" in look().why
    ram[34 * MIB : 34 * MIB + len(data)] = data
    kernel = look().kernel
    assert kernel is not None
    assert kernel.boot.physical(BASE) == 34 * MIB


def test_of_two_that_cannot_be_checked_none_is_taken(ram: mmap.mmap) -> None:
    for physical in (20 * MIB, 34 * MIB):
        data = image(LAYOUTS[2], False, physical)
        ram[physical : physical + len(data)] = data
    found = look()
    assert found.kernel is None
    assert "which of them runs cannot be told" in found.why
