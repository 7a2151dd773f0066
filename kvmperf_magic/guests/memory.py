"""A VM's physical memory, read from the host: which mappings of the VMM it is, and how they lie.

On a PC, RAM that the guest has below 4 GiB ends at a hole for devices; the rest goes on at 4 GiB.
Where the hole begins is the VMM's own choice, and so is the order of several blocks: `layouts()`
gives what is possible, the most usual first, and who reads a kernel there checks that it fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.vmmmemory import PAGE, Mapping

_MIB, _GIB = 1 << 20, 1 << 30
_FOUR_GIB = 4 * _GIB
# where RAM below the hole may end. QEMU pc: 3 or 3.5 GiB, q35: 2 or 2.75; cloud-hypervisor: 3;
# Firecracker and kvmtool: 3.25 (hw/i386/pc_piix.c, pc_q35.c; arch/x86_64/layout.rs)
HOLES = tuple(int(gib * _GIB) for gib in (3, 2, 3.5, 2.75, 3.25, 1))
_SMALLEST = 2 * _MIB  # smaller mappings are no RAM
_MOST_BLOCKS = 4  # of which every order is tried; more are taken as they lie
_MOST_LAYOUTS = 200
_OWN_MEMORY = ("[heap]", "[stack]", "[vvar]", "[vdso]", "[anon:")


@dataclass(frozen=True)
class Block:
    """`size` bytes of RAM at a physical address, and where the VMM has them."""

    physical: int
    host: int
    size: int


class Access(Protocol):
    """A way to a VM's memory, read only: of its VMM's process, or what its monitor gives.

    Addresses are the process's own, or the guest's `physical` ones. Where it is not `cheap`, only
    what has to be read is: it is not searched page by page, and not looked at many times a second.
    """

    pid: int
    physical: bool
    cheap: bool

    def alive(self) -> bool: ...
    def mappings(self) -> list[Mapping]: ...
    def present(self, start: int, end: int) -> NDArray[np.bool_]: ...
    def stored(self, start: int, end: int) -> NDArray[np.bool_]: ...
    def exist(self, address: NDArray[np.uint64]) -> NDArray[np.bool_]: ...
    def read(self, address: int, size: int) -> bytes: ...
    def gather(self, address: NDArray[np.uint64], size: int) -> NDArray[np.uint8]: ...
    def rest(self) -> None: ...


class GuestMemory:
    """Physical memory of one layout. Reads give zeros where the guest has written nothing yet."""

    def __init__(self, vmm: Access, blocks: Sequence[Block]) -> None:
        self.vmm = vmm
        self.blocks = sorted(blocks, key=lambda block: block.physical)

    def read(self, physical: int, size: int) -> bytes:
        """`size` bytes; b"" where not all of them are RAM that can be read."""
        parts: list[bytes] = []
        while size > 0:
            block = self._block(physical)
            if block is None:
                return b""
            into = physical - block.physical
            part = self._existing(block.host + into, min(size, block.size - into))
            if not part:
                return b""
            parts.append(part)
            physical, size = physical + len(part), size - len(part)
        return b"".join(parts)

    def physical(self, host: int) -> int | None:
        """The physical address of an address of the VMM."""
        for block in self.blocks:
            if block.host <= host < block.host + block.size:
                return block.physical + host - block.host
        return None

    def host(self, physical: int) -> int | None:
        """The address that the way to it has for a physical one."""
        block = self._block(physical)
        return None if block is None else block.host + physical - block.physical

    def _block(self, physical: int) -> Block | None:
        for block in self.blocks:
            if block.physical <= physical < block.physical + block.size:
                return block
        return None

    def _existing(self, host: int, size: int) -> bytes:
        """The pages that exist as they are, zeros for the others: nothing is faulted in."""
        there = self.vmm.stored(host, host + size)
        if there.all():
            return self.vmm.read(host, size)
        out = bytearray(size)
        edges = np.flatnonzero(np.diff(there, prepend=False, append=False))
        first = host // PAGE
        for begin, end in edges.reshape(-1, 2).tolist():
            start = max(host, (first + begin) * PAGE)
            stop = min(host + size, (first + end) * PAGE)
            got = self.vmm.read(start, stop - start)
            out[start - host : start - host + len(got)] = got
        return bytes(out)


def ram_of(vmm: Access, memory: int | None) -> list[Mapping]:
    """The RAM of a VM of so many bytes, in pieces."""
    mappings = vmm.mappings()
    return mappings if vmm.physical else ram_mappings(mappings, memory)


def layouts_of(
    vmm: Access, ram: Sequence[Mapping], known: int | None = None
) -> Iterator[list[Block]]:
    """How that RAM may lie in physical memory; one way only where its addresses tell."""
    if vmm.physical:
        return iter([as_it_is(ram)])
    return layouts([(one.start, one.size) for one in ram], known)


def as_it_is(ram: Sequence[Mapping]) -> list[Block]:
    """Every address where it is, as if it were a physical one."""
    return [Block(one.start, one.start, one.size) for one in ram]


def ram_mappings(mappings: Sequence[Mapping], memory: int | None) -> list[Mapping]:
    """The mappings that can be the RAM of a VM with so many bytes, by address.

    A mapping of exactly that size is it; else files that memory comes from (memfd, hugetlbfs,
    /dev/shm); else all that is written to, is no code and is none of the process's own.
    """
    rooms = [
        one
        for one in mappings
        if one.permissions[:3] == "rw-"
        and one.size >= _SMALLEST
        and not one.path.startswith(_OWN_MEMORY)
    ]
    whole = [one for one in rooms if one.size == memory]
    if whole:
        return whole
    shared = [one for one in rooms if one.file and one.permissions[3] == "s"]
    if sum(one.size for one in shared) >= (memory or 16 * _MIB):
        return shared
    largest = max((one.size for one in rooms), default=0)
    # of two blocks one can be small, but a thread's stack or arena is no block
    return [one for one in rooms if one.size * 64 >= largest]


def layouts(blocks: Sequence[tuple[int, int]], known: int | None = None) -> Iterator[list[Block]]:
    """How blocks, (host address, size) each, may lie in physical memory, the likely first.

    `known` is the number of bytes from 4 GiB on where the guest itself has told that.
    """
    total = sum(size for _, size in blocks)
    orders = permutations(blocks) if len(blocks) <= _MOST_BLOCKS else iter([tuple(blocks)])
    for order in islice(orders, _MOST_LAYOUTS // len(HOLES)):
        ends = np.cumsum([size for _, size in order]).tolist()
        if known is not None:
            holes = [total - known]
        else:
            # blocks that a VMM has cut at the hole already, no hole at all, and the usual ones
            cut = [end for end in ends[:-1] if end in HOLES]
            plain = [total] if total <= 3 * _GIB else []
            holes = [*cut, *plain, *(hole for hole in HOLES if hole < total)]
            holes += [end for end in ends[:-1] if end < _FOUR_GIB]
            holes += [total] if total <= _FOUR_GIB else []
        for hole in dict.fromkeys(holes):
            if hole <= _FOUR_GIB:
                yield _laid(order, hole)


def _laid(order: Sequence[tuple[int, int]], hole: int) -> list[Block]:
    found = []
    at = 0
    for host, size in order:
        below = max(0, min(size, hole - at))
        if below:
            found.append(Block(at, host, below))
        if below < size:
            above = at + below - hole
            found.append(Block(_FOUR_GIB + above, host + below, size - below))
        at += size
    return found
