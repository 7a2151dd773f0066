"""Equal rows get one number: what every answer over many samples stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.numbering import mix, number
from kvmperf_magic.table import Categorical


@dataclass(frozen=True)
class Groups:
    """Row i is in group `ids[i]`; `row[g]` is some row of group g."""

    ids: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)


def group(codes: NDArray[np.integer]) -> Groups:
    """Groups equal values of `codes` (>= 0); groups stand in ascending order of the code."""
    size = int(codes.max(initial=-1)) + 1
    if size <= _countable(len(codes)):
        present = np.zeros(size, dtype=np.bool_)
        present[codes] = True
        values = np.flatnonzero(present)
        place = np.empty(size, dtype=np.int64)  # only what is present is ever touched
        place[values] = np.arange(len(values))
        found, ids = len(values), place[codes]
    else:
        numbers, first = number(mix(codes.astype(np.int64).view(np.uint64)))
        order = np.argsort(codes[first])
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return Groups(place[numbers], first[order])
    row = np.empty(found, dtype=np.int64)
    row[ids] = np.arange(len(codes))
    return Groups(ids, row)


def distinct(codes: NDArray[np.integer]) -> NDArray[Any]:
    """The values of `codes`, ascending, each once.

    np.unique hashes such arrays since numpy 2.3, which takes 100 times longer than this sort
    where most values are different.
    """
    ordered = np.sort(codes)
    new = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def sums(
    index: NDArray[np.integer], weight: NDArray[np.float64], length: int
) -> NDArray[np.float64]:
    """The sum of the weights of each index below `length`."""
    return np.bincount(index, weight, minlength=length).astype(np.float64, copy=False)


def whole_numbers(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sums of periods as integers; what a damaged file sums up to beyond is held at the largest."""
    return np.rint(np.minimum(sums, 2.0**63 - 1024)).astype(np.int64)


def group_rows(columns: Sequence[NDArray[np.integer]], length: int) -> Groups:
    """Groups equal rows of several integer columns of `length` rows; no column is one group."""
    if not columns:
        return Groups(np.zeros(length, np.int64), np.zeros(min(length, 1), np.int64))
    codes = _from_zero(columns[0])
    for column in columns[1:]:
        more = _from_zero(column)
        radix = int(more.max(initial=0)) + 1
        if (int(codes.max(initial=0)) + 1) * radix > _countable(length):
            # numbered from 0 their product with the next column may be countable, without a hash
            codes = group(codes).ids
        codes = codes * radix + more
    return group(codes)


def _countable(rows: int) -> int:
    """How many possible codes are few enough to count each of them."""
    return max(4 * rows, 1 << 16)


def _from_zero(column: NDArray[np.integer]) -> NDArray[np.int64]:
    wide: NDArray[np.int64] = column.astype(np.int64)
    return wide - np.int64(min(int(wide.min(initial=0)), 0))


def codes_of(column: Categorical | NDArray[Any]) -> NDArray[np.integer]:
    """A column as integers that are equal where the column is; strings may be stored twice."""
    if not isinstance(column, Categorical):
        return column
    first: dict[str, int] = {}
    same = [first.setdefault(name, i) for i, name in enumerate(column.categories)]
    if len(first) == len(same):
        return column.codes
    return np.array(same, dtype=np.int32)[column.codes]


def within(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions, one after the other, of the entries of these `rows` of a CSR array."""
    lengths = offsets[rows + 1] - offsets[rows]
    if not len(lengths):
        return np.empty(0, np.int64)
    ends = np.cumsum(lengths)
    starts: NDArray[np.int64] = np.repeat(offsets[rows] - ends + lengths, lengths)
    return starts + np.arange(ends[-1])


def keys_of(wanted: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Sort keys as perf spells them ("comm,dso,sym") or as a sequence; QueryError if unknown."""
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    keys = tuple({"sym": "symbol"}.get(n.strip(), n.strip()) for n in names)
    for key in keys:
        if key not in known:
            raise QueryError(f"no sort key {key!r}", f"sort keys: {', '.join(known)}")
    if len(set(keys)) != len(keys):
        raise QueryError(f"a sort key is given twice: {', '.join(keys)}")
    return keys
