"""Samples by second and by offset within it: what swings faster than a mean over seconds shows.

After B. Gregg's subsecond-offset heat maps: a column is a second (of long recordings a minute or
more, of short ones less), a cell one of its 20 to 50 slices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.timeline import matching
from kvmperf_magic.table import Table

MOST_CELLS = 200_000
_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_SECONDS, _MOST_COLUMNS = 8, 300  # seconds that are a column each, columns at most
_SHORT_COLUMNS = 16  # at least, of what is shorter
_ROWS = (50, 25, 20)  # cells of a column: 20, 40 or 50 ms of a second
_SAMPLES_A_CELL = 4.0  # in the mean: fewer make noise of cells
_COLUMNS: tuple[int, ...] = (  # ns, each in whole ns by all of _ROWS
    *(k * 10**power for power in range(3, 9) for k in (1, 2, 5)),
    *(k * _SECOND for k in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200)),
    *(k * 10**power * _DAY for power in range(4) for k in (1, 2, 5)),
)


@dataclass(frozen=True)
class Heat:
    """The samples of a profile by cells of time: every array is [columns, rows].

    Cell (c, r) is `cell` ns long and begins at `start + (c * rows + r) * cell`, on the
    recording's clock; `origin` is what seconds are counted from. `weight` are sums of periods in
    `unit`. Of the samples of `symbol`, where one was asked for, `part` and `part_samples` are the
    same, and `matched` the names it stands for.
    """

    start: int
    origin: int
    cell: int
    weight: NDArray[np.float64]
    samples: NDArray[np.int64]
    part: NDArray[np.float64] | None = None
    part_samples: NDArray[np.int64] | None = None
    symbol: str = ""
    matched: tuple[str, ...] = ()
    unit: str = ""

    @property
    def column(self) -> int:
        """The length of a column in ns."""
        return self.cell * int(self.weight.shape[1])

    @property
    def end(self) -> int:
        """Where the last cell ends, on the recording's clock."""
        return self.start + self.column * int(self.weight.shape[0])

    @cached_property
    def share(self) -> NDArray[np.float64]:
        """Of the symbol's samples the part of each cell's weight in percent; NaN without any."""
        part = self.weight if self.part is None else self.part
        share = np.full(self.weight.shape, np.nan)
        np.divide(100 * part, self.weight, out=share, where=self.weight > 0)
        return share

    @property
    def table(self) -> Table:
        """The cells that have samples: start, end (ns, of the recording's clock), weight, samples,
        and of a symbol share (percent) and symbol_samples."""
        filled = np.flatnonzero(self.samples)
        start = np.uint64(self.start) + filled.astype(np.uint64) * np.uint64(self.cell)
        columns: dict[str, NDArray[np.generic]] = {
            "start": start,
            "end": start + np.uint64(self.cell),
            "weight": self.weight.ravel()[filled],
            "samples": self.samples.ravel()[filled],
        }
        if self.part_samples is not None:
            columns["share"] = self.share.ravel()[filled]
            columns["symbol_samples"] = self.part_samples.ravel()[filled]
        return Table(columns)


def heat(
    profile: Profile,
    symbol: str | re.Pattern[str] | None = None,
    *,
    origin: int | None = None,
    column: float | None = None,
    cell: float | None = None,
) -> Heat:
    """The samples by time, and with `symbol` those whose leaf it is, as `timeline()` takes it.

    `column` and `cell` are seconds, chosen by the length and the number of samples where they are
    not given; columns begin at whole multiples of `column` from `origin` (ns; None: the first
    sample). Raises QueryError where no symbol matches and for cells that cannot be.
    """
    time, count = profile.time, len(profile)
    first, last = (int(time.min()), int(time.max())) if count else (0, 0)
    origin = first if origin is None else origin
    step, rows = _cells(last - first, count, column, cell)
    phase = (first - origin) % (step * rows)
    if phase > first or last - first + phase >= 1 << 64:
        phase = 0  # the column would begin before all time, or its offsets outgrow it
    columns = (last - first + phase) // (step * rows) + 1 if count else 0
    if columns * rows > MOST_CELLS:
        raise QueryError(
            f"{columns * rows:,} cells: must be at most {MOST_CELLS:,}", "longer cells are fewer"
        )
    place = ((time - np.uint64(first) + np.uint64(phase)) // np.uint64(step)).astype(np.int64)
    weight = profile.period.astype(np.float64)

    def by_cell(
        rows_of: slice | NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        here, size, shape = place[rows_of], columns * rows, (columns, rows)
        sums = np.bincount(here, weight[rows_of], size).astype(np.float64, copy=False)
        return sums.reshape(shape), np.bincount(here, minlength=size).reshape(shape)

    whole = Heat(first - phase, origin, step, *by_cell(slice(None)), unit=profile.unit)
    if symbol is None:
        return whole
    text = symbol if isinstance(symbol, str) else symbol.pattern
    mine = matching(profile, symbol) if count else np.zeros(0, np.bool_)
    names = profile.symbol.categories
    matched = sorted({names[code] for code in np.unique(profile.symbol.codes[mine]).tolist()})
    part, part_samples = by_cell(mine)
    return Heat(
        whole.start,
        origin,
        step,
        whole.weight,
        whole.samples,
        part,
        part_samples,
        text,
        tuple(matched),
        profile.unit,
    )


def _cells(span: int, samples: int, column: float | None, cell: float | None) -> tuple[int, int]:
    """The length of a cell in ns and the cells of a column, for samples over `span` ns."""
    lengths = {"column": column, "cell": cell}
    given = {
        name: _nanoseconds(name, value) for name, value in lengths.items() if value is not None
    }
    width = given.get("column") or _column(span)
    if "cell" not in given:
        columns = span // width + 1
        fitting = [rows for rows in _ROWS if width % rows == 0] or [1]
        enough = [rows for rows in fitting if samples >= _SAMPLES_A_CELL * columns * rows]
        rows = (enough or fitting[-1:])[0]
        return width // rows, rows
    step = given["cell"]
    if "column" in given and width % step:
        raise QueryError(f"a column of {column} s is no whole number of cells of {cell} s")
    return step, max(1, round(width / step))


def _column(span: int) -> int:
    """A second, where that makes neither too few nor too many columns."""
    if span == 0:
        return _SECOND
    if span >= _SECONDS * _SECOND:
        wide = (c for c in _COLUMNS if c >= _SECOND and span <= _MOST_COLUMNS * c)
        return next(wide, _COLUMNS[-1])
    return max((c for c in _COLUMNS if span >= _SHORT_COLUMNS * c), default=_COLUMNS[0])


def _nanoseconds(name: str, seconds: float) -> int:
    if not 1e-9 <= seconds <= 1e9:
        raise QueryError(f"a {name} of {seconds} s", "from 1e-9 to 1e9 seconds")
    return round(seconds * 1e9)
