"""A table of columns: what every answer is handed out as.

A column is a numpy array, a `Categorical`, a `Ragged`, or a function that gives one when first
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.files import written


@dataclass(frozen=True)
class Categorical:
    """Strings stored once: row i is `categories[codes[i]]`. Codes are int32, never negative."""

    codes: NDArray[np.int32]
    categories: list[str]

    @classmethod
    def constant(cls, value: str, length: int) -> Categorical:
        return cls(np.zeros(length, dtype=np.int32), [value])

    def __len__(self) -> int:
        return len(self.codes)

    def values(self) -> NDArray[np.object_]:
        """The strings, one a row, as an object array."""
        return np.array(self.categories, dtype=object)[self.codes]

    def take(self, rows: Any) -> Categorical:
        return Categorical(self.codes[rows], self.categories)

    def where(self, matches: Callable[[str], object]) -> NDArray[np.bool_]:
        """Rows whose string satisfies `matches`, which is asked once a category."""
        wanted = np.fromiter((bool(matches(c)) for c in self.categories), np.bool_)
        if not len(wanted):
            return np.zeros(len(self.codes), dtype=np.bool_)
        return np.asarray(wanted[self.codes])


class Ragged:
    """Rows of different lengths: the items of row i are `r[i]`, or values[offsets[i]:offsets[i+1]].

    A row is `length[i]` items of `pool` from `start[i]` on, each `step` behind the one before it:
    rows may overlap and lie in any order, so that taking rows copies no items. Only `values` and
    `offsets` (int64, n + 1) bring them together. uint8 items are bytes, structured ones records.
    """

    def __init__(self, offsets: NDArray[Any], values: NDArray[Any]) -> None:
        offsets = np.asarray(offsets, np.int64)
        self.start, self.length = offsets[:-1], np.diff(offsets)
        self.pool, self.step = np.asarray(values), 1

    @classmethod
    def view(
        cls, start: NDArray[np.int64], length: NDArray[np.int64], pool: NDArray[Any], step: int = 1
    ) -> Self:
        """Rows that stay where they are in `pool`."""
        made = cls(np.zeros(1, np.int64), pool)
        made.start, made.length, made.step = start, length, step
        return made

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> NDArray[Any]:
        start, length = int(self.start[row]), int(self.length[row])
        if not length:
            return self.pool[:0]
        return self.pool[start : start + (length - 1) * self.step + 1 : self.step]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pool.dtype

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        bounds = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.length, out=bounds[1:])
        return bounds

    @cached_property
    def values(self) -> NDArray[Any]:
        """The items of all rows, one row behind the other."""
        bounds = self.offsets
        if self.step == 1 and len(self) and np.array_equal(self.start - self.start[0], bounds[:-1]):
            return self.pool[self.start[0] : self.start[0] + bounds[-1]]
        source = np.repeat(self.start - bounds[:-1] * self.step, self.length)
        return np.asarray(self.pool[source + np.arange(bounds[-1]) * self.step])

    def take(self, rows: Any) -> Ragged:
        return Ragged.view(self.start[rows], self.length[rows], self.pool, self.step)

    def arrays(self) -> NDArray[np.object_]:
        """The rows as arrays, in an object array."""
        made = np.empty(len(self), object)
        made[:] = [*self, None][:-1]  # a list of equal arrays would be taken for a matrix
        return made

    def tolist(self) -> list[Any]:
        """The rows as Python values: bytes, or lists of numbers or of dicts."""
        if self.dtype == np.uint8:
            return [row.tobytes() for row in self]
        names = self.dtype.names
        if names is None:
            return [row.tolist() for row in self]
        return [[dict(zip(names, item, strict=True)) for item in row.tolist()] for row in self]

    def shown(self, row: int, most: int = 3) -> str:
        """A row in a few words: how many items, and the first of them."""
        items = self[row][: 8 if self.dtype == np.uint8 else most]
        if self.dtype == np.uint8:
            text = items.tobytes().hex(" ")
        elif self.dtype.names:
            text = ", ".join("/".join(f"{part:#x}" for part in item) for item in items.tolist())
        else:
            text = ", ".join(f"{item:#x}" for item in items.tolist())
        count = int(self.length[row])
        return f"[{count}] {text}{' ...' if count > len(items) else ''}" if count else ""


Column: TypeAlias = "NDArray[Any] | Categorical | Ragged"


class Table:
    """Columns of one length. `t["name"]` is a numpy array, `t[3]` a row as a dict; `t[3:9]`,
    `t[mask]`, `t[[5, 2]]` and `t[["name", "other"]]` are tables."""

    def __init__(
        self, columns: Mapping[str, Column | Callable[[], Column]], length: int | None = None
    ) -> None:
        self._columns: dict[str, Column | Callable[[], Column]] = dict(columns)
        if length is None:
            length = len(next((c for c in columns.values() if not callable(c)), ()))
        self._length = length
        for name, column in self._columns.items():
            if not callable(column) and len(column) != length:
                raise QueryError(f"column {name!r} has {len(column)} rows, the table {length}")

    def __len__(self) -> int:
        return self._length

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def column(self, name: str) -> Column:
        """The column as it is stored: an array, a `Categorical` or a `Ragged`."""
        try:
            column = self._columns[name]
        except KeyError:
            raise QueryError(
                f"no column {name!r}", f"columns: {', '.join(self._columns)}"
            ) from None
        if callable(column):
            column = self._columns[name] = column()
        return column

    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any] | list[Any]) -> Table: ...
    def __getitem__(
        self, key: str | int | np.integer[Any] | slice | NDArray[Any] | list[Any]
    ) -> NDArray[Any] | dict[str, Any] | Table:
        if isinstance(key, str):
            column = self.column(key)
            if isinstance(column, Categorical):
                return column.values()
            return column.arrays() if isinstance(column, Ragged) else column
        if isinstance(key, list) and key and all(isinstance(one, str) for one in key):
            return Table({name: self.column(name) for name in key}, self._length)
        if isinstance(key, int | np.integer):
            row = range(self._length)[key]
            return next(self[row : row + 1].rows())
        if isinstance(key, list):
            key = np.asarray(key)
            key = key if len(key) else key.astype(np.int64)
            if key.dtype.kind not in "iub":
                raise QueryError(f"no rows {key.tolist()!r}", "numbers, a mask, or columns' names")
        taken: dict[str, Column | Callable[[], Column]] = {}
        for name, stored in self._columns.items():
            # what was not asked for yet stays so
            later = partial(self._taken, name, key)
            taken[name] = later if callable(stored) else later()
        return Table(taken, len(np.arange(self._length)[key]))

    def _taken(self, name: str, key: slice | NDArray[Any]) -> Column:
        column = self.column(name)
        return column[key] if isinstance(column, np.ndarray) else column.take(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def rows(self) -> Iterator[dict[str, Any]]:
        """Row by row as dicts of Python values: for small tables and tests."""
        values = {}
        for name in self._columns:
            column = self.column(name)
            values[name] = (column.values() if isinstance(column, Categorical) else column).tolist()
        for i in range(self._length):
            yield {name: column[i] for name, column in values.items()}

    def to_pandas(self) -> Any:
        """A pandas.DataFrame; strings become pandas categories, ragged rows objects: bytes, or
        lists."""
        import pandas as pd

        data = {}
        for name in self._columns:
            column = self.column(name)
            if isinstance(column, Categorical):
                categories, inverse = np.unique(
                    np.array(column.categories, dtype=object), return_inverse=True
                )
                codes = inverse[column.codes] if len(categories) else column.codes
                data[name] = pd.Categorical.from_codes(codes, categories=categories)
            elif isinstance(column, Ragged):
                data[name] = pd.Series(column.tolist(), dtype=object)
            else:
                data[name] = column
        return pd.DataFrame(data, columns=self.columns)

    def to_arrow(self) -> Any:
        """A pyarrow.Table; strings become dictionary arrays, ragged rows binary (bytes) or lists
        of numbers or structs."""
        import pyarrow as pa

        arrays = []
        for name in self._columns:
            column = self.column(name)
            if isinstance(column, Categorical):
                values = pa.array(column.categories, type=pa.string())
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(column.codes), values))
            elif isinstance(column, Ragged):
                arrays.append(_arrow_lists(column))
            else:
                arrays.append(pa.array(column))
        return pa.table(arrays, names=self.columns)

    def to_polars(self) -> Any:
        """A polars.DataFrame, by way of Arrow."""
        import polars as pl

        return pl.from_arrow(self.to_arrow())

    def to_csv(self, path: str | Path | None = None) -> str:
        """CSV with a header line, see `tabletext.csv_text`; written to `path` if one is given."""
        from kvmperf_magic.tabletext import csv_text

        return written(csv_text(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """A list of objects, see `tabletext.json_text`; written to `path` if one is given."""
        from kvmperf_magic.tabletext import json_text

        return written(json_text(self), path)

    def __repr__(self) -> str:
        from kvmperf_widgets.tables import text_table

        return text_table(self.columns, [self._shown(c) for c in self.columns], self._length)

    def _repr_html_(self) -> str:
        from kvmperf_widgets.tables import html_table

        return html_table(self.columns, [self._shown(c) for c in self.columns], self._length)

    def _shown(self, name: str, most: int = 60) -> list[Any]:
        column = self.column(name)
        if isinstance(column, Categorical):
            return list(column.take(slice(most)).values())
        if isinstance(column, Ragged):
            return [column.shown(row) for row in range(min(len(column), most))]
        return list(column[:most].tolist())


def _arrow_lists(column: Ragged) -> Any:
    import pyarrow as pa

    values = np.ascontiguousarray(column.values)
    if column.dtype == np.uint8:
        buffers = [None, pa.py_buffer(column.offsets), pa.py_buffer(values)]
        return pa.Array.from_buffers(pa.large_binary(), len(column), buffers)
    names = column.dtype.names
    if names:
        parts = [pa.array(np.ascontiguousarray(values[name])) for name in names]
        items = pa.StructArray.from_arrays(parts, names=list(names))
    else:
        items = pa.array(values)
    return pa.LargeListArray.from_arrays(pa.array(column.offsets), items)
