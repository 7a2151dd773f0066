"""Names by number: every symbol and DSO that was ever met, each stored once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.aliases import NO_RIVALS, best_name
from kvmperf_magic.symbols.demangle import demangle
from kvmperf_magic.symbols.symboltable import SymbolTable
from kvmperf_magic.table import Categorical

UNKNOWN = "[unknown]"


class NameList:
    """Strings numbered in the order they come; 0 is "[unknown]"."""

    def __init__(self) -> None:
        self._numbers = {UNKNOWN: 0}
        self._names = [UNKNOWN]

    def number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self._names)
            self._names.append(name)
        return found

    def categorical(self, numbers: NDArray[np.int32]) -> Categorical:
        """These numbers as a column that holds only the names it needs."""
        used, codes = np.unique(numbers, return_inverse=True)
        return Categorical(codes.astype(np.int32), [self._names[i] for i in used.tolist()])


class NamedTable:
    """A symbol table whose names are decoded, demangled and numbered when first asked for."""

    def __init__(self, table: SymbolTable, names: NameList, *, readable: bool) -> None:
        self.table = table
        self._names = names
        self._readable = readable
        self._numbers = np.full(len(table) + 1, -1, np.int32)
        # row -1 is the last one: an address that no symbol holds
        self._numbers[-1] = 0

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """The number of the name of each row, 0 for row -1."""
        for row in np.unique(rows[self._numbers[rows] < 0]).tolist():
            if self._readable:
                name = best_name([demangle(name) for name in self.table.candidates(row)])
            else:
                name = self.table.name(row)
            self._numbers[row] = self._names.number(name)
        return self._numbers[rows]

    def asked_for(self) -> SymbolTable:
        """The symbols whose names were asked for, each with the one name that is shown."""
        found = self.table.only(np.flatnonzero(self._numbers[:-1] >= 0))
        chosen = [self._shown(found, row) for row in range(len(found))]
        length = np.array([len(name) for name in chosen], np.int64)
        name_at = np.cumsum(length) - length
        return replace(
            found,
            strings=b"".join(chosen),
            name_at=name_at,
            name_length=length,
            rivals=NO_RIVALS,
            rivalry=None,
        )

    def _shown(self, table: SymbolTable, row: int) -> bytes:
        """The raw name, of all a symbol goes by, whose readable form is the one that is shown."""
        names = table.candidates(row)
        if self._readable and len(names) > 1:
            readable = {demangle(name): name for name in reversed(names)}
            return readable[best_name(list(readable)[::-1])].encode()
        return names[0].encode()
