"""Tables as text that other programs read: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from kvmperf_magic.table import Categorical, Table


def csv_text(table: Table) -> str:
    """A header line and a line a row, quoted as RFC 4180 says; lines end in a line feed.

    Numbers are exact; NaN and the infinities are `NaN`, `inf`, `-inf`; bytes are hex digits; a row
    of numbers or records is a JSON list.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*(_cells(_values(table, name)) for name in table.columns), strict=True))
    return text.getvalue()


def json_text(table: Table) -> str:
    """A list with an object a row. Integers are exact, whatever their size; JSON knows no NaN and
    no infinity: both are null; bytes are hex digits."""
    names = table.columns
    columns = [_plain_all(_values(table, name)) for name in names]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return json.dumps(rows, allow_nan=False)


def _values(table: Table, name: str) -> list[Any]:
    """The column as Python values."""
    column = table.column(name)
    values: list[Any] = (column.values() if isinstance(column, Categorical) else column).tolist()
    return values


def _cells(values: list[Any]) -> list[Any]:
    kinds = set(map(type, values))
    if float in kinds:
        return ["NaN" if math.isnan(value) else value for value in values]
    if bytes in kinds:
        return [value.hex() for value in values]
    if list in kinds:
        return [json.dumps(_plain(value), allow_nan=False) for value in values]
    return values


def _plain_all(values: list[Any]) -> list[Any]:
    return [*map(_plain, values)] if set(map(type, values)) & {float, bytes, list} else values


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
