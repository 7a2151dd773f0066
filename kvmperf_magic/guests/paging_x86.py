"""Virtual to physical addresses of an x86-64 guest: its page tables, walked as its CPU does.

Four or five levels, pages of 4 KiB, 2 MiB and 1 GiB (Intel SDM volume 3, 4.5; arch/x86/include/
asm/pgtable_types.h). Another architecture is another class with `translate` and `read`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.memory import GuestMemory
from kvmperf_magic.guests.vmmmemory import PAGE

_PRESENT, _LARGE = 1 << 0, 1 << 7
_ADDRESS = (1 << 52) - PAGE
_LARGEST = 64 << 20  # a read of more than this is a mistake, or somebody's trap


class PagingX86:
    """The address space whose top table lies at physical address `top`.

    `encryption` is the bit that AMD's memory encryption sets in entries (sme_mask), else 0.
    """

    def __init__(
        self, memory: GuestMemory, top: int, *, five_levels: bool, encryption: int = 0
    ) -> None:
        self.memory = memory
        self._top = top
        self._levels = 5 if five_levels else 4
        self._encryption = encryption
        self._mask = _ADDRESS & ~encryption
        self._tables: dict[int, NDArray[np.uint64] | None] = {}

    def afresh(self) -> PagingX86:
        """The same address space, its tables to be read again: they change as the guest runs."""
        five_levels = self._levels == 5
        return PagingX86(
            self.memory, self._top, five_levels=five_levels, encryption=self._encryption
        )

    def translate(self, virtual: int) -> int | None:
        """The physical address; None where nothing is mapped, or the address is not canonical."""
        bits = 12 + 9 * self._levels
        if virtual >> (bits - 1) not in (0, (1 << (65 - bits)) - 1):
            return None
        at = self._top
        for level in range(self._levels, 0, -1):
            table = self._table(at)
            if table is None:
                return None
            shift = 3 + 9 * level
            entry = int(table[virtual >> shift & 511])
            if not entry & _PRESENT:
                return None
            at = entry & self._mask
            if level == 1 or (level in (2, 3) and entry & _LARGE):
                inside = (1 << shift) - 1
                return at & ~inside | virtual & inside
        return None

    def read(self, virtual: int, size: int) -> bytes:
        """`size` bytes; b"" where not all of them are mapped."""
        if not 0 < size <= _LARGEST:
            return b""
        parts: list[bytes] = []
        # pages that follow each other in physical memory too are read at once
        start = length = 0
        for page in range(virtual & -PAGE, virtual + size, PAGE):
            begin, end = max(virtual, page), min(virtual + size, page + PAGE)
            physical = self.translate(begin)
            if physical is None:
                return b""
            if length and physical == start + length:
                length += end - begin
                continue
            parts.append(self.memory.read(start, length))
            start, length = physical, end - begin
        parts.append(self.memory.read(start, length))
        data = b"".join(parts)
        return data if len(data) == size else b""

    def string(self, virtual: int, longest: int = PAGE) -> str:
        """Text up to its NUL, at most `longest` bytes of it."""
        data = b""
        while b"\0" not in data and len(data) < longest:
            room = PAGE - (virtual + len(data)) % PAGE
            part = self.read(virtual + len(data), min(room, longest - len(data)))
            if not part:
                break
            data += part
        return data.partition(b"\0")[0].decode("utf-8", "replace")

    def number(self, virtual: int, size: int = 8) -> int:
        """An unsigned number; 0 where nothing is mapped."""
        return int.from_bytes(self.read(virtual, size), "little")

    def _table(self, physical: int) -> NDArray[np.uint64] | None:
        if physical not in self._tables:
            data = self.memory.read(physical, PAGE)
            self._tables[physical] = np.frombuffer(data, np.uint64) if data else None
        return self._tables[physical]
