"""Symbols as columns, sorted by address, and perf's rules that make them unambiguous.

The rules are those of tools/perf/util/symbol.c: symbols__fixup_end() gives a symbol without a
size the room up to the next one; for one name an address see aliases.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.aliases import NO_RIVALS, Rivals
from kvmperf_magic.table import Categorical, Table

# where a kernel's image begins and its code ends
MARKS = ("_text", "_stext", "_etext")

# how far back a look-up goes to find a symbol that encloses shorter ones
_NESTED = 64


@dataclass(frozen=True)
class SymbolTable:
    """n symbols, sorted by address, one an address.

    Attributes:
        start, end: uint64[n], the symbol holds `start <= address < end`.
        strings: the bytes in which all names lie; name i is `name_length[i]` bytes at
            `name_at[i]`, so that only names that are asked for are ever decoded.
        types: uint8[n], the letter of nm and kallsyms.
        modules: the kernel module each belongs to, "" for none.
        marks: addresses of the `MARKS`, which may have lost their place to an alias.
        rivals: other names of the same addresses, that only their readable forms decide between.
        rivalry: int32[n], which of the `rivals` are symbol i's, -1 for none.
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    strings: bytes
    name_at: NDArray[np.int64]
    name_length: NDArray[np.int64]
    types: NDArray[np.uint8]
    modules: Categorical
    marks: Mapping[str, int]
    rivals: Rivals = NO_RIVALS
    rivalry: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.start)

    def name(self, row: int) -> str:
        at = int(self.name_at[row])
        return self.strings[at : at + int(self.name_length[row])].decode("utf-8", "replace")

    def candidates(self, row: int) -> list[str]:
        """The names that a symbol may go by, the one of `name()` first."""
        which = -1 if self.rivalry is None else int(self.rivalry[row])
        others = [] if which < 0 else self.rivals.names(which, self.strings)
        return [self.name(row), *others]

    @cached_property
    def names(self) -> list[str]:
        """Every name, decoded."""
        return [self.name(i) for i in range(len(self))]

    def find(self, address: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of the symbol that holds each address, -1 where none does."""
        if not len(self):
            return np.full(len(address), -1, np.int64)
        row = np.searchsorted(self.start, address, side="right").astype(np.int64) - 1
        inside = (row >= 0) & (address < self.end[row])
        # a miss may still be inside an earlier, longer symbol
        lost = np.flatnonzero(~inside & (row >= 0) & (address < self._reach[row]))
        row[~inside] = -1
        if len(lost):
            back = np.searchsorted(self.start, address[lost], side="right").astype(np.int64) - 1
            for _ in range(_NESTED):
                back -= 1
                here = (back >= 0) & (address[lost] < self.end[back])
                row[lost[here]] = back[here]
                lost, back = lost[~here & (back > 0)], back[~here & (back > 0)]
                if not len(lost):
                    break
        return row

    @cached_property
    def _reach(self) -> NDArray[np.uint64]:
        return np.maximum.accumulate(self.end)

    def starts_with(self, prefix: bytes) -> NDArray[np.bool_]:
        """Rows whose name begins with these bytes."""
        text = np.frombuffer(self.strings, np.uint8)
        found = self.name_length >= len(prefix)
        rows = np.flatnonzero(found)
        for i, byte in enumerate(prefix):
            rows = rows[text[self.name_at[rows] + i] == byte]
        found[:] = False
        found[rows] = True
        return found

    def shifted(self, delta: int) -> SymbolTable:
        """The same symbols, every address moved by `delta` bytes."""
        step = np.uint64(delta % 2**64)
        marks = {name: (address + delta) % 2**64 for name, address in self.marks.items()}
        return replace(self, start=self.start + step, end=self.end + step, marks=marks)

    def take(self, rows: Any) -> SymbolTable:
        """Some of the symbols: a mask or ascending rows."""
        return replace(
            self,
            start=self.start[rows],
            end=self.end[rows],
            name_at=self.name_at[rows],
            name_length=self.name_length[rows],
            types=self.types[rows],
            modules=self.modules.take(rows),
            rivalry=None if self.rivalry is None else self.rivalry[rows],
        )

    def only(self, rows: NDArray[np.int64]) -> SymbolTable:
        """Those of these ascending rows, for addresses that are in one of them or in none of the
        table: all of it where a symbol among them encloses more than a look-up goes back over."""
        enclosed = np.searchsorted(self.start, self.end[rows]) - rows
        return self if (enclosed > _NESTED).any() else self.take(rows)

    def table(self) -> Table:
        """Columns address, size, type, name, module."""
        names, codes = np.unique(np.array(self.names, dtype=object), return_inverse=True)
        return Table(
            {
                "address": self.start,
                "size": self.end - self.start,
                "type": Categorical(self.types.astype(np.int32), [chr(i) for i in range(256)]),
                "name": Categorical(codes.astype(np.int32), names.tolist()),
                "module": self.modules,
            }
        )


NO_SYMBOLS = SymbolTable(
    np.zeros(0, np.uint64),
    np.zeros(0, np.uint64),
    b"",
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.uint8),
    Categorical.constant("", 0),
    {},
)


def find_marks(
    start: NDArray[np.uint64],
    strings: bytes,
    name_at: NDArray[np.int64],
    name_length: NDArray[np.int64],
) -> dict[str, int]:
    """The addresses of the `MARKS` that are among these symbols."""
    found = {}
    for mark in MARKS:
        wanted = mark.encode()
        for row in np.flatnonzero(name_length == len(wanted)).tolist():
            at = int(name_at[row])
            if strings[at : at + len(wanted)] == wanted:
                found[mark] = int(start[row])
                break
    return found


def fill_ends(
    start: NDArray[np.uint64], end: NDArray[np.uint64], part: NDArray[np.int32] | None = None
) -> NDArray[np.uint64]:
    """Ends for sorted symbols where those without a size reach up to the next one.

    Where the next symbol belongs to another `part` (a module) and for the last of all, the
    symbol ends with the page after its own, as symbols__fixup_end() has it, but never beyond
    the next symbol.
    """
    if not len(start):
        return end
    page = ((start + np.uint64(4096 + 4095)) >> np.uint64(12)) << np.uint64(12)
    following = np.append(start[1:], page[-1])
    if part is not None:
        leaves = np.append(part[1:] != part[:-1], False)
        following = np.where(leaves, np.minimum(page, following), following)
    return np.where(end == start, following, end)
