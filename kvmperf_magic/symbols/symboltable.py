"""Symbols as columns, sorted by address, and perf's rules that make them unambiguous.

The rules are those of tools/perf/util/symbol.c: symbols__fixup_end() gives a symbol without a
size the room up to the next one, symbols__fixup_duplicate() and choose_best_symbol() keep one
name an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    strings: bytes
    name_at: NDArray[np.int64]
    name_length: NDArray[np.int64]
    types: NDArray[np.uint8]
    modules: Categorical
    marks: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.start)

    def name(self, row: int) -> str:
        at = int(self.name_at[row])
        return self.strings[at : at + int(self.name_length[row])].decode("utf-8", "replace")

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
        )

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


def best_aliases(
    start: NDArray[np.uint64],
    end: NDArray[np.uint64],
    strings: bytes,
    name_at: NDArray[np.int64],
    name_length: NDArray[np.int64],
    *,
    label: NDArray[np.bool_],
    weak: NDArray[np.bool_],
    local: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """The rows to keep of symbols sorted by address: one an address, as choose_best_symbol().

    Preferred are, in this order: a size, a type, not weak, global, fewer leading underscores, a
    longer name, the earlier one.
    """
    same = start[1:] == start[:-1]
    if not same.any():
        return np.arange(len(start))
    crowded = np.append(same, False) | np.append(False, same)
    rows = np.flatnonzero(crowded)
    text = np.frombuffer(strings, np.uint8)
    underscores = np.zeros(len(rows), np.int64)
    going = np.arange(len(rows))
    for i in range(16):
        going = going[name_length[rows[going]] > i]
        going = going[text[name_at[rows[going]] + i] == ord("_")]
        if not len(going):
            break
        underscores[going] += 1
    order = np.lexsort(
        (
            -name_length[rows],
            underscores,
            local[rows],
            weak[rows],
            label[rows],
            end[rows] == start[rows],
            start[rows],
        )
    )
    ranked = rows[order]
    first = np.append(True, start[ranked[1:]] != start[ranked[:-1]])
    return np.sort(np.concatenate([np.flatnonzero(~crowded), ranked[first]]))
