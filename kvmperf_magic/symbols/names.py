"""Names by number: every symbol and DSO that was ever met, each stored once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.aliases import best_name
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
