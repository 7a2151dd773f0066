"""A tally as somebody looks at it: one machine or all, filtered, sorted, cut to a screenful."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.groups import keys_of
from kvmperf_magic.profile.report import SORT_KEYS, SURE, percent_of, told_of_guests
from kvmperf_magic.profile.tally import STRIP, TREND, Row, Tally
from kvmperf_magic.table import Table

KEYS = ("symbol", "dso", "mode", "machine")  # what rows are by, unless told otherwise
NUMBERS = ("overhead", "samples")  # the columns besides the keys; the largest come first
_SEARCHED = ("symbol", "dso", "comm", "guest_comm")


@dataclass(frozen=True)
class Look:
    """How a tally is looked at.

    `keys` are what rows are by. `sort` is a column, with a `-` in front the other way round;
    `filter` a regular expression for symbol, DSO or command. `machine` is a VMM's pid, 0 the host,
    None all. Rows of at most `count_filter` samples are left out, and those beyond `entries`.
    """

    keys: tuple[str, ...] = KEYS
    sort: str = "overhead"
    filter: str = ""
    machine: int | None = None
    entries: int = 20
    count_filter: int | None = None

    def __post_init__(self) -> None:
        columns = (*NUMBERS, *self.keys)
        if self.sort.removeprefix("-") not in columns:
            raise QueryError(f"no sort key {self.sort!r}", f"one of {', '.join(columns)}")
        _search(self.filter)
        for name, least in (("entries", 1), ("count_filter", 0)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise QueryError(f"{name} is {value!r}", f"a whole number from {least} on")


@dataclass(frozen=True)
class Ranked:
    """`table`: overhead (percent of the machines looked at), samples, guest_sure where rows are by
    what guests run (of which percentage that is sure), then the keys. `trend` is
    float64[rows, TREND], the percentage in each bucket of time, NaN where nothing was sampled.
    `matched` is the percentage of what the filter finds, in `found` rows."""

    table: Table
    trend: NDArray[np.float64]
    matched: float
    found: int


def sort_keys(wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    """What rows are by, as perf's -s says it: `comm,dso`; overhead and samples, which are always
    there, may stand among them."""
    if wanted is None:
        return KEYS
    names = [name.strip() for name in (wanted.split(",") if isinstance(wanted, str) else wanted)]
    named = [name for name in names if name not in NUMBERS]
    return keys_of(named, SORT_KEYS) if named else KEYS


def rank(tally: Tally, look: Look, names: Mapping[int, str], shown: NDArray[np.bool_]) -> Ranked:
    """The rows that `look` asks for, heaviest first or as sorted. `names` are the machines' by
    VMM pid; percentages are of the modes (by code) in `shown`."""
    there = tally.period > 0
    if look.machine is not None:
        there &= _pids(tally) == look.machine
    at = np.flatnonzero(there)
    period, samples, trend, sure = (
        column[at] for column in (tally.period, tally.samples, tally.trend, tally.sure)
    )
    rows = [tally.rows[i] for i in at.tolist()]
    if "machine" not in look.keys:  # machines that are not told apart share their rows
        place: dict[Row, int] = {}
        into = np.array([place.setdefault(row[:-1], len(place)) for row in rows], np.int64)
        rows = list(place)
        period, samples, trend, sure = (
            _summed(column, into, len(rows)) for column in (period, samples, trend, sure)
        )

    samples = np.rint(samples).astype(np.int64)
    total = float(period.sum(dtype=np.float64))
    keep = _found(rows, look)
    matched = float(period[keep].sum(dtype=np.float64))
    if look.count_filter is not None:
        keep &= samples > look.count_filter
    kept = np.flatnonzero(keep)
    order = kept[np.argsort(-period[kept], kind="stable")][: look.entries]
    scale = 100.0 / total if total else 0.0
    columns: dict[str, Any] = {"overhead": period[order] * scale, "samples": samples[order]}
    if told_of_guests(look.keys):
        # periods fade in whole numbers, a little faster
        columns[SURE] = np.minimum(percent_of(sure[order], period[order]), 100.0)
    columns |= _named([rows[i] for i in order.tolist()], look.keys, names)
    by = _order(columns, look.sort)
    return Ranked(
        Table(columns)[by],
        _percent(trend[order[by]], _modes(tally, look.machine)[shown, -TREND:]),
        matched * scale,
        len(kept),
    )


@dataclass(frozen=True)
class Heaviest:
    """The heaviest rows of all machines, whatever is looked at: `columns` are the keys' (strings as
    objects), pid, period (int64) and samples (float64) have a row each, trend (float32[rows,
    TREND]) its periods; `totals` are the sums of periods of all rows by machine."""

    columns: dict[str, NDArray[Any]]
    pid: NDArray[np.int64]
    period: NDArray[np.int64]
    samples: NDArray[np.float64]
    trend: NDArray[np.float32]
    totals: dict[int, int]


def heaviest(
    tally: Tally, keys: Sequence[str], names: Mapping[int, str], most: int = 200
) -> Heaviest:
    """At most so many rows of a tally."""
    pids = _pids(tally)
    order = np.argsort(-tally.period, kind="stable")[:most]
    order = order[tally.period[order] > 0]
    found, which = np.unique(pids, return_inverse=True)
    totals = _summed(tally.period, which, len(found))
    return Heaviest(
        _named([tally.rows[i] for i in order.tolist()], keys, names),
        pids[order],
        tally.period[order],
        tally.samples[order],
        tally.trend[order],
        dict(zip(found.tolist(), totals.tolist(), strict=True)),
    )


def mode_shares(tally: Tally, machine: int | None) -> NDArray[np.float64]:
    """float64[mode, STRIP]: the percentage of each mode in each bucket, NaN in empty ones."""
    modes = _modes(tally, machine)
    return _percent(modes, modes)


def machine_shares(tally: Tally) -> dict[int, float]:
    """The percentage of each machine in what the tally counts."""
    total = float(tally.period.sum(dtype=np.float64)) or 1.0
    found, which = np.unique(_pids(tally), return_inverse=True)
    weight = np.bincount(which, tally.period, minlength=len(found))
    return dict(zip(found.tolist(), (100 * weight / total).tolist(), strict=True))


def _pids(tally: Tally) -> NDArray[np.int64]:
    return np.array([row[-1] for row in tally.rows], np.int64)


def _modes(tally: Tally, machine: int | None) -> NDArray[np.float64]:
    wanted = [of for pid, of in tally.modes.items() if machine in {None, pid}]
    return np.sum(wanted, axis=0) if wanted else np.zeros((len(MODES), STRIP))


def _percent(part: NDArray[Any], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column the percentage of all that `whole` has there, NaN where that is nothing."""
    total = whole.sum(axis=0)
    return np.where(total > 0, 100.0 * part / np.where(total > 0, total, 1.0), np.nan)


def _found(rows: Sequence[Row], look: Look) -> NDArray[np.bool_]:
    """Rows with a name in which the filter finds something."""
    if not look.filter:
        return np.ones(len(rows), np.bool_)
    search = _search(look.filter)
    own = [key for key in look.keys if key != "machine"]
    at = [i for i, key in enumerate(own) if key in _SEARCHED]
    return np.array([any(search(row[i]) for i in at) for row in rows], np.bool_)


def _named(
    rows: Sequence[Row], keys: Sequence[str], names: Mapping[int, str]
) -> dict[str, NDArray[Any]]:
    """A column a key, strings as objects; the pid that ends a row is the machine."""
    columns: dict[str, NDArray[Any]] = {}
    at = iter(range(len(keys)))
    for key in keys:
        if key == "machine":
            values: list[Any] = [names.get(int(row[-1]), str(row[-1])) for row in rows]
        else:
            i = next(at)
            values = [row[i] for row in rows]
        text = not values or isinstance(values[0], str)
        columns[key] = np.array(values, dtype=object if text else np.int64)
    return columns


def _order(columns: Mapping[str, NDArray[Any]], sort: str) -> NDArray[np.int64]:
    """The rows in the order that `sort` says: the largest numbers first, keys ascending."""
    name = sort.removeprefix("-")
    column = -columns[name] if name in NUMBERS else columns[name]
    order = np.argsort(column.astype(str) if column.dtype == object else column, kind="stable")
    return order[::-1] if sort != name else order


def _summed(values: NDArray[Any], into: NDArray[np.int64], length: int) -> NDArray[Any]:
    out = np.zeros((length, *values.shape[1:]), values.dtype)
    np.add.at(out, into, values)
    return out


@lru_cache(maxsize=8)
def _search(pattern: str) -> Callable[[object], bool]:
    """Whether the pattern is found in a name; every name is searched once."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise QueryError(f"{pattern!r} is no regular expression: {error}") from None
    return lru_cache(maxsize=1 << 14)(lambda text: found.search(str(text)) is not None)
