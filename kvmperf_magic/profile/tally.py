"""Samples that keep coming, row by row: sums that fade as perf top's do, and trends over time.

A tally is never changed: `then()` gives the next one, so that whoever shows one may keep it while
others count on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.groups import codes_of, group_rows, sums, whole_numbers
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.report import sure_weight, told_of_guests
from kvmperf_magic.table import Categorical

TREND = 60  # buckets of time that are kept of every row
STRIP = 180  # and of what each machine's modes had
MOST_ROWS = 4096
OTHERS = "[others]"  # the row, one a machine, of those that were too many
_MOST_PERIOD = 1 << 59  # eight of it, which decay never exceeds, still are an int64

Row = tuple[str | int, ...]  # a value a key, then the VMM's pid, 0 for the host


@dataclass(frozen=True)
class News:
    """What one refresh brought: a name, period (int64) and samples (int64) a row; the sums of
    periods of each machine by mode; of each row the periods whose guest process is sure, where
    rows are by that."""

    rows: list[Row] = field(default_factory=list)
    period: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    samples: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    modes: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    sure: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # one for all: none


def news_of(
    profile: Profile,
    machine_pid: NDArray[np.int32],
    keys: Sequence[str],
    shown: NDArray[np.bool_],
) -> News:
    """The samples by `keys`, columns of a profile, and by machine (the VMM's pid, a sample); rows
    are made of those in `shown`, the modes (by their code) that are wanted."""
    weight = profile.period.astype(np.float64)
    modes = {}
    for pid in np.unique(machine_pid).tolist():
        here = machine_pid == pid
        modes[pid] = sums(profile.mode[here], weight[here], len(MODES))
    chosen = np.flatnonzero(shown[profile.mode])
    columns = [getattr(profile, key) for key in keys]
    codes = [codes_of(column)[chosen] for column in columns]
    groups = group_rows([*codes, machine_pid[chosen]], len(chosen))
    period = whole_numbers(sums(groups.ids, weight[chosen], len(groups)))
    row = chosen[groups.row]
    named = [_values(key, column, row) for key, column in zip(keys, columns, strict=True)]
    rows = list(zip(*named, machine_pid[row].tolist(), strict=True))
    samples = np.bincount(groups.ids, minlength=len(groups)).astype(np.int64)
    sure = np.zeros(len(groups))
    if told_of_guests(keys):
        sure = sums(groups.ids, sure_weight(profile)[chosen], len(groups))
    return News(rows, np.minimum(period, _MOST_PERIOD), samples, modes, sure)


def _values(key: str, column: Categorical | NDArray[Any], row: NDArray[np.int64]) -> list[Any]:
    if isinstance(column, Categorical):
        return list(column.take(row).values())
    values = column[row].tolist()
    return [MODES[code] for code in values] if key == "mode" else list(values)


@dataclass(frozen=True)
class Tally:
    """Rows in the order in which they were met; one whose `period` has faded to 0 is kept as long
    as its trend tells something. `samples` fade to fractions, or they would all be 0 soon, and so
    does `sure`, the part of `period` whose guest process is sure.

    trend: float32[rows, TREND], the periods of each bucket of time, the running one last; modes:
    by machine float64[mode, STRIP], the same for each mode of `MODES`.
    """

    rows: list[Row] = field(default_factory=list)
    period: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    samples: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    trend: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, TREND), np.float32))
    modes: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    sure: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def then(self, news: News, buckets: int = 0, *, decay: bool = True) -> Self:
        """With these news, and when so many buckets have begun since the last. What there was
        counts 7/8 of what it did, periods in whole numbers (tools/perf/util/hist.c:
        he_stat__decay()), or without `decay` nothing."""
        faded = self._faded(buckets) if decay else self.zeroed()._faded(buckets)
        return faded._with(news)._bounded()

    def zeroed(self) -> Self:
        """Nothing counted; the trends stay."""
        rows = len(self.rows)
        none = np.zeros(rows)
        return replace(self, period=np.zeros(rows, np.int64), samples=none, sure=none)

    def _faded(self, buckets: int) -> Self:
        period = self.period - -(-self.period // 8)
        trend = _moved(self.trend, buckets)
        keep = (period > 0) | trend.any(axis=1)
        modes = {pid: _moved(of, buckets) for pid, of in self.modes.items()}
        return replace(
            self,
            rows=[row for row, kept in zip(self.rows, keep.tolist(), strict=True) if kept],
            period=period[keep],
            samples=self.samples[keep] * 0.875,
            sure=self.sure[keep] * 0.875,
            trend=trend[keep],
            modes={pid: of for pid, of in modes.items() if of.any()},
        )

    def _with(self, news: News) -> Self:
        place = {row: i for i, row in enumerate(self.rows)}
        at = np.array([place.setdefault(row, len(place)) for row in news.rows], np.int64)
        new = len(place) - len(self.rows)
        period, samples = np.pad(self.period, (0, new)), np.pad(self.samples, (0, new))
        sure = np.pad(self.sure, (0, new))
        trend = np.pad(self.trend, ((0, new), (0, 0)))
        period[at] += news.period
        samples[at] += news.samples
        sure[at] += news.sure
        trend[at, -1] += news.period
        modes = dict(self.modes)
        for pid, weights in news.modes.items():
            modes[pid] = modes[pid].copy() if pid in modes else np.zeros((len(MODES), STRIP))
            modes[pid][:, -1] += weights
        return replace(
            self,
            rows=list(place),
            period=period,
            samples=samples,
            trend=trend,
            modes=modes,
            sure=sure,
        )

    def _bounded(self) -> Self:
        """Of too many rows the least ones become one a machine."""
        if len(self.rows) <= MOST_ROWS:
            return self
        # some more than needed, or every refresh would have to
        order = np.argsort(-self.period, kind="stable")
        keep, rest = np.sort(order[: MOST_ROWS * 3 // 4]), np.sort(order[MOST_ROWS * 3 // 4 :])
        names = {i: _others(self.rows[i]) for i in rest.tolist()}
        rows = [self.rows[i] for i in keep.tolist()]
        place = {row: i for i, row in enumerate(rows)}
        into = np.array([place.setdefault(name, len(place)) for name in names.values()], np.int64)
        new = len(place) - len(rows)
        period, samples, sure = (
            np.pad(self.period[keep], (0, new)),
            np.pad(self.samples[keep], (0, new)),
            np.pad(self.sure[keep], (0, new)),
        )
        trend = np.pad(self.trend[keep], ((0, new), (0, 0)))
        np.add.at(period, into, self.period[rest])
        np.add.at(samples, into, self.samples[rest])
        np.add.at(sure, into, self.sure[rest])
        np.add.at(trend, into, self.trend[rest])
        return replace(
            self, rows=list(place), period=period, samples=samples, trend=trend, sure=sure
        )


def _others(row: Row) -> Row:
    return (*(OTHERS if isinstance(value, str) else -1 for value in row[:-1]), row[-1])


def _moved(values: NDArray[Any], buckets: int) -> NDArray[Any]:
    """A copy whose last column stands so many buckets further back."""
    moved = np.zeros_like(values)
    kept = values.shape[1] - buckets
    if kept > 0:
        moved[:, :kept] = values[:, buckets:]
    return moved
