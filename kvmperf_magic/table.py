"""A table of columns: what every answer is handed out as.

A column is a numpy array, a `Categorical`, or a function that gives one when first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError


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


Column: TypeAlias = "NDArray[Any] | Categorical"


class Table:
    """Columns of one length. `t["name"]` is a numpy array, `t[3:9]` and `t[mask]` are tables."""

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
        """The column as it is stored: an array or a `Categorical`."""
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
    def __getitem__(self, key: slice | NDArray[Any]) -> Table: ...
    def __getitem__(self, key: str | slice | NDArray[Any]) -> NDArray[Any] | Table:
        if isinstance(key, str):
            column = self.column(key)
            return column.values() if isinstance(column, Categorical) else column
        taken: dict[str, Column] = {}
        for name in self._columns:
            column = self.column(name)
            taken[name] = column.take(key) if isinstance(column, Categorical) else column[key]
        return Table(taken, len(np.arange(self._length)[key]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def rows(self) -> Iterator[dict[str, Any]]:
        """Row by row as dicts of Python values: for small tables and tests."""
        values = {name: self[name].tolist() for name in self._columns}
        for i in range(self._length):
            yield {name: column[i] for name, column in values.items()}

    def to_pandas(self) -> Any:
        """A pandas.DataFrame; strings become pandas categories."""
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
            else:
                data[name] = column
        return pd.DataFrame(data, columns=self.columns)

    def to_arrow(self) -> Any:
        """A pyarrow.Table; strings become dictionary arrays."""
        import pyarrow as pa

        arrays = []
        for name in self._columns:
            column = self.column(name)
            if isinstance(column, Categorical):
                values = pa.array(column.categories, type=pa.string())
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(column.codes), values))
            else:
                arrays.append(pa.array(column))
        return pa.table(arrays, names=self.columns)

    def to_polars(self) -> Any:
        """A polars.DataFrame, by way of Arrow."""
        import polars as pl

        return pl.from_arrow(self.to_arrow())

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
        return list(column[:most].tolist())
