"""Columns of numbers as bytes that deflate well, for pages that hold their data themselves.

Of a column of whole numbers what is written are the numbers or, where these are smaller, the
steps from one to the next, with the sign in the lowest bit; the lowest bytes of all, then the
next ones, as many as the largest needs. Other numbers are the eight bytes of a double.
dashboard_data.js reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 2.0**52  # what a double holds exactly, with room for the sign


def packed_columns(columns: Mapping[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """What stands where, a dict a column, and the bytes."""
    told, parts = [], []
    for name, column in columns.items():
        one, data = _packed(column)
        told.append({"name": name, "length": len(column), **one})
        parts.append(data)
    return told, b"".join(parts)


def _packed(column: NDArray[Any]) -> tuple[dict[str, Any], bytes]:
    if column.dtype.kind == "f":
        largest = float(np.abs(column).max(initial=0.0))
        if not largest < EXACT or bool((column != np.rint(column)).any()):
            doubles = np.ascontiguousarray(column, "<f8")
            return {"kind": "double", "bytes": 8}, _planes(doubles, 8)
    numbers = column.astype(np.int64)
    steps = np.diff(numbers, prepend=np.int64(0))
    stepped = _bits(steps) < _bits(numbers)
    chosen = steps if stepped else numbers
    signed = ((chosen << 1) ^ (chosen >> 63)).astype("<u8")
    width = max(1, (int(signed.max(initial=0)).bit_length() + 7) // 8)
    return {"kind": "steps" if stepped else "plain", "bytes": width}, _planes(signed, width)


def _bits(numbers: NDArray[np.int64]) -> float:
    return float(np.log2(np.abs(numbers.astype(np.float64)) + 1).sum())


def _planes(numbers: NDArray[Any], width: int) -> bytes:
    return numbers.view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()
