"""Two profiles against each other: a bar a symbol, with whiskers and both percentages."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_widgets.delta_svg import delta_svg
from kvmperf_widgets.flame_text import terminal_width
from kvmperf_widgets.paint import strengths
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.plotly_spec import base_layout, marker_legend, plotly_text
from kvmperf_widgets.text import clean, columns_of, fit, pad, percent
from kvmperf_widgets.theme import ThemeName, diverging, mix, theme_of

if TYPE_CHECKING:
    from kvmperf_widgets.delta_explorer import DeltaExplorer

MOST_ROWS = 20


@dataclass(frozen=True)
class DeltaRow:
    """One symbol. Shares, delta and interval in percent (points); NaN where not known."""

    label: str
    baseline: float
    other: float
    delta: float
    low: float
    high: float
    significant: bool
    status: str  # "", "new", "vanished"
    kind: str  # a mode, or ""
    strength: float  # of its colour, -1..1; 0 where not significant
    confidence: float  # of the interval

    @property
    def whisker(self) -> tuple[float, float]:
        """The interval as far as it is drawn: shares cannot differ by more than 100 points."""
        return max(self.low, min(-100.0, self.delta)), min(self.high, max(100.0, self.delta))

    @property
    def shares(self) -> str:
        """Both percentages: `2.90 % → 28.04 %`, a dash where it was not there."""
        before = "—" if self.status == "new" else percent(self.baseline)
        after = "—" if self.status == "vanished" else percent(self.other)
        return f"{before} → {after}"

    @property
    def change(self) -> str:
        return percent(self.delta, sign=True).removesuffix(" %")

    @property
    def hover(self) -> list[str]:
        interval = (
            f"{100 * self.confidence:.4g} % interval {self.low:+.2f} … {self.high:+.2f} points"
            if math.isfinite(self.low) and math.isfinite(self.high)
            else ""
        )
        note = "" if self.significant else "not significant"
        lines = [self.label, f"{self.shares} ({self.change} points)", interval]
        return [line for line in (*lines, self.kind, self.status, note) if line]


@dataclass(frozen=True)
class DeltaView:
    """What the renderers draw."""

    title: str
    subtitle: str
    names: tuple[str, str]
    rows: list[DeltaRow]
    pairs: bool

    @property
    def reach(self) -> tuple[float, float]:
        """The ends of the axis: all bars and whiskers, zero, a little air."""
        ends = [0.0]
        for row in self.rows:
            values = (row.baseline, row.other) if self.pairs else (row.delta, *row.whisker)
            ends += [v for v in values if math.isfinite(v)]
        low, high = min(ends), max(ends)
        air = 0.04 * (high - low) or 1.0
        return low - (air if low < 0 else 0), high + (air if high > 0 or low == 0 else 0)


class DeltaBars(Picture):
    """Rows sorted by |delta|, the first `most` of them drawn.

    All sequences have one length; numbers are percentages and percent points. `significant`
    rows are blue (less) or vermillion (more), the others grey; `status` is "", "new" or
    "vanished"; `kind` is a mode or "". `names` are the two sides, `confidence` is that of the
    intervals.
    """

    def __init__(
        self,
        label: Sequence[str],
        baseline: Sequence[float],
        other: Sequence[float],
        delta: Sequence[float],
        ci_low: Sequence[float],
        ci_high: Sequence[float],
        significant: Sequence[bool],
        status: Sequence[str],
        kind: Sequence[str],
        *,
        title: str = "",
        subtitle: str = "",
        names: tuple[str, str] = ("baseline", "other"),
        confidence: float = 0.95,
        most: int = MOST_ROWS,
        theme: ThemeName = "auto",
    ) -> None:
        columns = (label, baseline, other, delta, ci_low, ci_high, significant, status, kind)
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise ValueError(f"the columns of delta bars have one length, not {sorted(lengths)}")
        self.names = (clean(names[0], 40), clean(names[1], 40))
        self.title = title or f"{self.names[0]} → {self.names[1]}"
        self.subtitle = subtitle
        self.theme: ThemeName = theme
        values = [tuple(row) for row in zip(*columns, strict=True)]
        order = sorted(range(len(values)), key=lambda i: -_size(values[i][3]))
        largest = max((_size(row[3]) for row in values), default=0.0) or 1.0
        self.rows = [_row(values[i], largest, confidence) for i in order]
        self._most = most
        self._pairs = False

    def pairs(self, on: bool = True) -> DeltaBars:
        """Two bars a symbol, one for each side, in place of one for the delta."""
        other = copy.copy(self)
        other._pairs = on
        return other

    def explore(self, link: str) -> DeltaExplorer:
        """The same in a live notebook, where a click on a bar searches the pictures of this
        `link`, which an explorer of a flame graph can be given too."""
        from kvmperf_widgets.delta_explorer import DeltaExplorer

        return DeltaExplorer(self, link)

    def _view(self) -> DeltaView:
        rows = self.rows[: self._most]
        left = len(self.rows) - len(rows)
        what = "share of each side" if self._pairs else "delta in percent points"
        notes = [clean(self.subtitle, 300), f"{what}, {self.names[0]} → {self.names[1]}"]
        if left:
            notes.append(f"the {len(rows)} largest of {len(self.rows):,} deltas")
        return DeltaView(
            clean(self.title, 160), " · ".join(filter(None, notes)), self.names, rows, self._pairs
        )

    def to_svg(self, *, standalone: bool = True) -> str:
        return delta_svg(self._view(), self.theme, standalone)

    def to_spec(self) -> dict[str, Any]:
        return _spec(self._view(), self.theme)

    def to_text(self, width: int | None = None) -> str:
        return _text(self._view(), terminal_width(width))


def _size(delta: float) -> float:
    return abs(delta) if math.isfinite(delta) else 0.0


def _row(values: tuple[Any, ...], largest: float, confidence: float) -> DeltaRow:
    label, *numbers, significant, status, kind = values
    baseline, other, delta, low, high = map(float, numbers)
    strength = float(strengths(np.array(delta), largest)) if significant else 0.0
    return DeltaRow(
        clean(label),
        baseline,
        other,
        delta,
        low,
        high,
        bool(significant),
        clean(status, 20),
        clean(kind, 40),
        strength,
        confidence,
    )


def _text(view: DeltaView, width: int) -> str:
    """A line a row: label, both shares, delta, and a bar left or right of zero."""
    lines = [fit(line, width) for line in (view.title, view.subtitle)]
    if not view.rows:
        return "\n".join([*lines, "(no rows)"])
    shares = [row.shares for row in view.rows]
    changes = [f"{row.change}{'' if row.significant else ' ~'}" for row in view.rows]
    marks = [f"{row.label} ({row.status})" if row.status else row.label for row in view.rows]
    share_width, change_width = max(map(columns_of, shares)), max(map(len, changes))
    label_width = min(max(map(columns_of, marks)), max(12, (width - share_width) // 2 - 4))
    room = width - label_width - share_width - change_width - 8
    half = max(0, min(room // 2, 24))
    largest = max(_size(row.delta) for row in view.rows) or 1.0
    for row, mark, share, change in zip(view.rows, marks, shares, changes, strict=True):
        cells = round(half * _size(row.delta) / largest)
        drawn = ("█" if row.significant else "░") * max(cells, 1 if half else 0)
        bar = pad(drawn, half, row.delta < 0) if row.delta < 0 else " " * half
        bar += "│" + (drawn if row.delta >= 0 else "")
        line = "  ".join(
            (
                pad(fit(mark, label_width), label_width),
                pad(share, share_width, True),
                pad(change, change_width),
                bar if half else "",
            )
        )
        lines.append(line.rstrip())
    if not all(row.significant for row in view.rows):
        lines.append("~ ░ not significant")
    return "\n".join(lines)


def _spec(view: DeltaView, theme_name: ThemeName) -> dict[str, Any]:
    theme = theme_of(theme_name)
    rows = view.rows
    places = list(range(len(rows)))
    hover = ["<br>".join(map(plotly_text, row.hover)) for row in rows]
    colours = [diverging(row.strength, theme) for row in rows]

    def finite(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    def trace(values: list[float], colour: Any, **more: Any) -> dict[str, Any]:
        return {
            "type": "bar",
            "orientation": "h",
            "y": places,
            "x": [finite(v) for v in values],
            "marker": {"color": colour, "line": {"width": 0}},
            "hovertext": hover,
            "hoverinfo": "text",
            "showlegend": False,
            **more,
        }

    legend = [
        ("more in " + view.names[1], diverging(1, theme)),
        ("less in " + view.names[1], diverging(-1, theme)),
        ("not significant", diverging(0, theme)),
    ]
    if view.pairs:
        pale = mix(theme.neutral, theme.background, 0.35)
        legend.append((view.names[0], pale))
        data = [
            trace([r.baseline for r in rows], pale, offset=-0.38, width=0.36),
            trace([r.other for r in rows], colours, offset=0.0, width=0.36),
        ]
    else:
        whiskers = {
            "type": "data",
            "symmetric": False,
            "array": [finite(r.whisker[1] - r.delta) for r in rows],
            "arrayminus": [finite(r.delta - r.whisker[0]) for r in rows],
            "color": theme.ink,
            "thickness": 1.2,
            "width": 4,
        }
        data = [trace([r.delta for r in rows], colours, error_x=whiskers, width=0.62)]
    data += [marker_legend(name, colour) for name, colour in legend]
    layout = base_layout(view.title, view.subtitle, theme, max(len(rows), 1) * 26 + 30)
    notes = [
        {
            "x": 1,
            "xref": "paper",
            "xanchor": "left",
            "y": i,
            "showarrow": False,
            "text": plotly_text(f" {row.shares} {row.status}".rstrip()),
            "font": {"family": "monospace", "size": 11},
        }
        for i, row in enumerate(rows)
    ]
    names = [fit(row.label, 42) for row in rows]
    left = 16 + max(map(columns_of, names), default=0) * 6.8
    layout["margin"] |= {"l": round(left), "r": 190, "b": 44}
    layout |= {
        "barmode": "overlay",
        "hovermode": "closest",
        "annotations": notes,
        "yaxis": {
            "tickvals": places,
            "ticktext": [plotly_text(name) for name in names],
            "tickfont": {"family": "monospace", "size": 11},
            "range": [len(rows) - 0.5, -0.5],
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
        },
        "xaxis": {
            "range": list(view.reach),
            "ticksuffix": " %" if view.pairs else "",
            "title": {"text": "" if view.pairs else "percent points", "font": {"size": 11}},
            "gridcolor": theme.grid,
            "zeroline": True,
            "zerolinecolor": theme.muted,
        },
    }
    return {"data": data, "layout": layout}
