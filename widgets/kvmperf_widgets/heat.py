"""A heat map of time: a column is a second (or more, or less), a cell a slice of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvmperf_widgets.picture import Picture
from kvmperf_widgets.text import clean, percent, weight
from kvmperf_widgets.theme import Theme, ThemeName, sequential

if TYPE_CHECKING:
    from kvmperf_widgets.heat_explorer import HeatExplorer

LEVELS = 10  # colours of the scale
NONE = 255  # the level of a cell without samples
_OUTLIERS = 0.99  # of the cells: where the others are twice as hot, the scale ends here


def shades(theme: Theme) -> list[str]:
    """The colour of each level, from little to much."""
    return [sequential(level / (LEVELS - 1), theme) for level in range(LEVELS)]


class HeatMap(Picture):
    """`weight` and `samples` are [columns, rows]: sums of `unit` and numbers of samples in cells
    `cell` seconds long, the first from second `start` on.

    With `part` and `part_samples`, of the same shape, the colour is their share of each cell's
    weight instead, and `name` says whose it is.
    """

    def __init__(
        self,
        weight: ArrayLike,
        samples: ArrayLike,
        *,
        cell: float,
        start: float = 0.0,
        unit: str = "",
        part: ArrayLike | None = None,
        part_samples: ArrayLike | None = None,
        name: str = "",
        title: str = "",
        subtitle: str = "",
        theme: ThemeName = "auto",
    ) -> None:
        self.weight = np.asarray(weight, np.float64)
        self.samples = np.asarray(samples, np.int64)
        self.part = None if part is None else np.asarray(part, np.float64)
        self.part_samples = None if part_samples is None else np.asarray(part_samples, np.int64)
        columns = (self.samples, self.part, self.part_samples)
        shapes = {one.shape for one in columns if one is not None} | {self.weight.shape}
        if len(shapes) > 1 or self.weight.ndim != 2 or (part is None) != (part_samples is None):
            raise ValueError("weight, samples and their parts are not of one shape")
        if not cell > 0:
            raise ValueError(f"cells {cell} seconds long")
        self.cell = float(cell)
        self.start = float(start)
        self.unit = unit
        self.name = name
        self.title = title or (f"{name}: share over time" if name else "Samples over time")
        self.subtitle = subtitle
        self.theme: ThemeName = theme

    @property
    def columns(self) -> int:
        return int(self.weight.shape[0])

    @property
    def rows(self) -> int:
        return int(self.weight.shape[1])

    @property
    def column(self) -> float:
        """The length of a column in seconds."""
        return self.cell * self.rows

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """What is coloured: the weight of each cell or the part's share of it in percent; NaN
        where there is none."""
        if self.part is None:
            return np.where(self.samples > 0, self.weight, np.nan)
        share = np.full(self.weight.shape, np.nan)
        np.divide(100 * self.part, self.weight, out=share, where=self.weight > 0)
        return share

    @cached_property
    def scale(self) -> tuple[float, bool]:
        """The value of the last colour, and whether some cells are beyond it: a few that are much
        hotter than all others would leave these without a difference."""
        known = self.values[np.isfinite(self.values)]
        most = float(known.max(initial=0.0))
        if not most > 0:
            return 1.0, False
        usual = float(np.quantile(known, _OUTLIERS))
        return (usual, True) if 0 < 2 * usual < most else (most, False)

    @cached_property
    def levels(self) -> NDArray[np.uint8]:
        """The colour of each cell, an index of `shades()` or NONE."""
        known = np.isfinite(self.values)
        steps = np.ceil(np.where(known, self.values, 0.0) * (LEVELS / self.scale[0])) - 1
        return np.where(known, np.clip(steps, 0, LEVELS - 1), NONE).astype(np.uint8)

    # -- words

    def value_words(self, value: float) -> str:
        """A value of the scale with its unit."""
        return percent(value) if self.part is not None else weight(value, self.unit or "events")

    def scale_words(self) -> str:
        """What the colours mean."""
        most, more = self.scale
        cell, beyond = span_words(self.cell), " and more" if more else ""
        of = f"of {self.whole_words()} " if self.part is not None else ""
        return f"0 to {self.value_words(most)}{beyond} {of}in {cell}"

    def whole_words(self) -> str:
        """What 100 % are of: the unit without its measure."""
        return " ".join(clean(self.unit, 60).removesuffix("ns").split()) or "events"

    def cells_words(self, first: int, last: int) -> list[str]:
        """Lines on the cells from number `first` until before `last`, counted in time."""
        here = slice(first, last)
        samples = int(self.samples.reshape(-1)[here].sum())
        total = float(self.weight.reshape(-1)[here].sum())
        counted = f"{samples:,} sample{'s' if samples != 1 else ''}"
        lines = [
            f"{self.time_words(first)} to {self.time_words(last)}",
            counted
            if self.unit == "samples"
            else f"{counted}, {weight(total, self.unit or 'events')}",
        ]
        if self.part is not None and self.part_samples is not None and total > 0:
            mine = float(self.part.reshape(-1)[here].sum())
            count = int(self.part_samples.reshape(-1)[here].sum())
            share = percent(100 * mine / total)
            lines.append(f"{clean(self.name, 120)}: {share}, {count:,} of the samples")
        return lines

    def time_words(self, cell: int) -> str:
        """When the cell of this number begins."""
        return f"{self.start + cell * self.cell:.{decimals(self.cell)}f} s"

    def head(self) -> tuple[str, str]:
        """Title and subtitle."""
        notes = [clean(self.subtitle, 300)]
        if self.columns:
            lengths = f"columns of {span_words(self.column)}, cells of {span_words(self.cell)}"
            notes.append(lengths)
        hottest = self.hottest()
        if hottest is not None:
            most = self.value_words(float(self.values.reshape(-1)[hottest]))
            notes.append(f"most: {most} at {self.time_words(hottest)}")
        return clean(self.title, 160), " · ".join(filter(None, notes))

    def hottest(self) -> int | None:
        """The number of the cell with the largest value; None without any."""
        values = self.values.reshape(-1)
        return int(np.nanargmax(values)) if np.isfinite(values).any() else None

    # -- renderers

    def to_svg(self, *, standalone: bool = True) -> str:
        from kvmperf_widgets.heat_svg import heat_svg

        return heat_svg(self, standalone)

    def to_spec(self) -> dict[str, Any]:
        from kvmperf_widgets.heat_plotly import heat_spec

        return heat_spec(self)

    def to_text(self, width: int | None = None) -> str:
        from kvmperf_widgets.heat_text import heat_text

        return heat_text(self, width)

    def explore(self) -> HeatExplorer:
        """On a canvas of a live notebook: drag over a range, or shift and arrows, to select it."""
        from kvmperf_widgets.heat_explorer import HeatExplorer

        return HeatExplorer(self)


def span_words(seconds: float) -> str:
    """A length of time: 20 ms, 1 s, 5 min."""
    for limit, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= limit and round(seconds / limit, 6).is_integer():
            return f"{seconds / limit:.0f} {unit}"
    return weight(seconds * 1e9, "ns")


def decimals(step: float) -> int:
    """The digits behind the point that tell multiples of `step` apart, at most nine."""
    return next((d for d in range(9) if abs(round(step, d) - step) < 1e-6 * step), 9)
