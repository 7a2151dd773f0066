"""Strings that stand in words, made unique as numbers before any becomes a Python string."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.cursor import text
from kvmperf_magic.table import Categorical

_BLOCK = 1 << 20  # words looked at at a time
_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)


def strings(
    words: NDArray[np.uint64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> Categorical:
    """NUL-terminated strings that begin at these words, and at the latest end before `end`."""
    length = np.maximum(end - start, 0)
    codes = np.zeros(len(start), np.int32)
    found: list[bytes] = []
    for one in np.unique(length).tolist():
        rows = np.flatnonzero(length == one)
        step = max(_BLOCK // max(one, 1), 1)
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            taken = _terminated(words[start[some][:, None] + np.arange(one)])
            unique, which = unique_rows(taken)
            codes[some] = which + len(found)
            found += [row.tobytes() for row in unique]
    return categorical(codes, [text(raw) for raw in found])


def unique_rows(
    rows: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The distinct rows of a matrix, and which of them each row is."""
    hashed = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        hashed = (hashed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    _, first, which = np.unique(hashed, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first][which], rows):  # two rows of one hash
        unique, which = np.unique(rows, axis=0, return_inverse=True)
        return unique, which.reshape(-1)
    return rows[first], which


def categorical(codes: NDArray[np.int32], names: list[str]) -> Categorical:
    """A Categorical whose categories are distinct, though two of `names` may be the same."""
    places: dict[str, int] = {}
    to = np.array([places.setdefault(name, len(places)) for name in names], np.int32)
    return Categorical(to[codes] if len(codes) else codes, list(places))


def _terminated(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Rows of words with everything from the first NUL byte on zeroed."""
    # the classical test for a zero byte; the lowest bit it sets is right, higher ones may not be
    zero = (rows - _ONES) & ~rows & _HIGH
    before = np.cumsum(zero != 0, axis=1) - (zero != 0) == 0
    lowest = zero & (~zero + np.uint64(1))
    mask = np.where(zero != 0, (lowest >> np.uint64(7)) - np.uint64(1), ~np.uint64(0))
    return np.asarray(np.where(before, rows & mask, np.uint64(0)))
