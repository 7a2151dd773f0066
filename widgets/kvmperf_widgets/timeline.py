"""The share of symbols over time, with a band of confidence: the swing that a sum hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kvmperf_widgets.axis import ticks
from kvmperf_widgets.flame_text import terminal_width
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.plotly_spec import base_layout, plotly_text
from kvmperf_widgets.spark import spark
from kvmperf_widgets.svg import (
    CHARACTER,
    WIDTH,
    document,
    element,
    header,
    label,
    line,
    number,
    rectangle,
)
from kvmperf_widgets.text import clean, columns_of, fit, pad, percent
from kvmperf_widgets.theme import Theme, ThemeName, theme_of

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_TOP, _BOTTOM, _LEFT, _RIGHT = 84, 320, 58, WIDTH - 24
_SPOT, _LINE = 5.0, 12.0  # of the mark of an extreme the radius, of its label the height


@dataclass(frozen=True)
class ShareLine:
    """One symbol: its share of each time bucket in percent, NaN where nothing was sampled.

    `low` and `high` bound the share in each bucket; both may be empty.
    """

    label: str
    share: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def extremes(self) -> tuple[int, int] | None:
        """The buckets of the least and of the largest share; None without any."""
        known = [i for i, value in enumerate(self.share) if math.isfinite(value)]
        if not known:
            return None
        return min(known, key=lambda i: self.share[i]), max(known, key=lambda i: self.share[i])

    def runs(self) -> list[range]:
        """The stretches of buckets that have a share, without the gaps."""
        runs, start = [], None
        for i, value in enumerate((*self.share, math.nan)):
            if math.isfinite(value):
                start = i if start is None else start
            elif start is not None:
                runs.append(range(start, i))
                start = None
        return runs

    def swing(self) -> str:
        """`9.1 % … 28.0 %`, or a word where nothing was sampled."""
        ends = self.extremes()
        if ends is None:
            return "no samples"
        return f"{percent(self.share[ends[0]])} … {percent(self.share[ends[1]])}"


class ShareLines(Picture):
    """`time` holds the middle of each bucket, in seconds; at most six lines."""

    def __init__(
        self,
        time: Sequence[float],
        lines: Sequence[ShareLine],
        *,
        title: str = "",
        subtitle: str = "",
        theme: ThemeName = "auto",
    ) -> None:
        if len(lines) > len(PALETTE):
            raise ValueError(f"at most {len(PALETTE)} lines can be told apart, not {len(lines)}")
        for one in lines:
            if len(one.share) != len(time) or {len(one.low), len(one.high)} - {0, len(time)}:
                raise ValueError(f"{one.label!r} does not have one share a time bucket")
        self.time = [float(t) for t in time]
        self.lines = list(lines)
        self.title = title or "Share over time"
        self.subtitle = subtitle
        self.theme: ThemeName = theme

    def _head(self) -> tuple[str, str]:
        swing = [f"{clean(one.label, 60)} {one.swing()}" for one in self.lines[:2]]
        notes = [clean(self.subtitle, 300), *swing]
        return clean(self.title, 160), " · ".join(filter(None, notes))

    def _top(self) -> float:
        values = [v for one in self.lines for v in (*one.share, *one.high) if math.isfinite(v)]
        return min(max(max(values, default=1.0) * 1.12, 0.5), 105.0)

    def _x(self, time: float) -> float:
        start, end = (self.time[0], self.time[-1]) if self.time else (0.0, 1.0)
        return _LEFT + (time - start) * (_RIGHT - _LEFT) / ((end - start) or 1.0)

    def _y(self, value: float, most: float) -> float:
        return _BOTTOM - min(max(value, 0.0), most) * (_BOTTOM - _TOP) / most

    def _labels(self) -> list[dict[int, str]]:
        """Of each line the buckets with a label (its extremes), and on which side of the point:
        where it is cut by no edge and covers no other label or point, if there is such a side. An
        extreme without room for its label has none; the subtitle tells it."""
        most = self._top()
        points: list[tuple[int, int, float, float]] = []
        choices: list[dict[str, _Rectangle]] = []
        for n, one in enumerate(self.lines):
            ends = one.extremes()
            for i in dict.fromkeys(ends or ()):  # a level line has but one
                x, y = self._x(self.time[i]), self._y(one.share[i], most)
                width = columns_of(percent(one.share[i])) * CHARACTER
                sides = _sides(above=ends is not None and i == ends[1])
                points.append((n, i, x, y))
                choices.append({side: _label_box(side, x, y, width) for side in sides})
        marks = [(x - _SPOT, y - _SPOT, x + _SPOT, y + _SPOT) for _, _, x, y in points]
        chosen = [next(iter(boxes)) for boxes in choices]
        for _ in range(3):  # each in turn makes room for the others
            for k, boxes in enumerate(choices):
                others = [choices[j][side] for j, side in enumerate(chosen) if j != k]
                chosen[k] = min(boxes, key=lambda side: _in_the_way(boxes[side], marks + others))
        labels: list[dict[int, str]] = [{} for _ in self.lines]
        standing: list[_Rectangle] = []
        # the largest share first: of two that are too near the other goes without
        for k in sorted(range(len(points)), key=lambda k: points[k][3]):
            n, i, _, _ = points[k]
            box = choices[k][chosen[k]]
            if not standing or (_is_inside(box) and not _covered(box, standing)):
                labels[n][i] = chosen[k]
                standing.append(box)
        return labels

    def to_svg(self, *, standalone: bool = True) -> str:
        title, subtitle = self._head()
        start, end = (self.time[0], self.time[-1]) if self.time else (0.0, 1.0)
        most = self._top()

        def x(i: int) -> float:
            return self._x(self.time[i])

        def y(value: float) -> float:
            return self._y(value, most)

        parts = [header(title, subtitle)]
        for value in ticks(0, most, 6):
            parts.append(line(_LEFT, y(value), _RIGHT, y(value), "grid" if value else "axis"))
            parts.append(label(_LEFT - 8, y(value) + 4, f"{value:g} %", "end mu"))
        for value in ticks(start, end, 10):
            at = self._x(value)
            parts.append(line(at, _BOTTOM, at, _BOTTOM + 4, "axis"))
            parts.append(label(at, _BOTTOM + 17, f"{value:g} s", "mid mu"))
        place = 12.0
        for n, one in enumerate(self.lines):
            name = fit(clean(one.label), 48)
            parts.append(rectangle(place, 56, 12, 12, f"s{n}"))
            parts.append(label(place + 17, 66, name, "mu"))
            place += 17 + columns_of(name) * CHARACTER + 20
            parts.append(_drawn(one, n, x, y))
        for one, sides in zip(self.lines, self._labels(), strict=True):
            for i, side in sides.items():
                text = percent(one.share[i])
                box = _label_box(side, x(i), y(one.share[i]), columns_of(text) * CHARACTER)
                parts.append(label(box[0], box[3] - 2.5, text, "halo"))
        return document(
            parts,
            _BOTTOM + 30,
            theme=self.theme,
            description=f"{title}. {subtitle}",
            rules=_rules,
            kind="kvmp-lines",
            standalone=standalone,
        )

    def to_spec(self) -> dict[str, Any]:
        theme = theme_of(self.theme)
        data: list[dict[str, Any]] = []
        for n, (one, sides) in enumerate(zip(self.lines, self._labels(), strict=True)):
            colour, name = PALETTE[n], plotly_text(one.label)
            if one.low:
                for run in one.runs():
                    there = [self.time[i] for i in run]
                    low, high = [one.low[i] for i in run], [one.high[i] for i in run]
                    data.append(
                        {
                            "type": "scatter",
                            "x": there + there[::-1],
                            "y": high + low[::-1],
                            "fill": "toself",
                            "fillcolor": colour,
                            "opacity": 0.22,
                            "line": {"width": 0},
                            "mode": "lines",
                            "hoverinfo": "skip",
                            "showlegend": False,
                        }
                    )
            texts = [percent(v) if i in sides else "" for i, v in enumerate(one.share)]
            data.append(
                {
                    "type": "scatter",
                    "x": self.time,
                    "y": [v if math.isfinite(v) else None for v in one.share],
                    "mode": "lines+markers+text",
                    "text": texts,
                    "textposition": [sides.get(i, "top center") for i in range(len(texts))],
                    "cliponaxis": False,
                    "marker": {"size": [8 if i in sides else 0 for i in range(len(texts))]},
                    "line": {"color": colour, "width": 2},
                    "name": name,
                    "hovertemplate": name + "<br>%{x:.2f} s: %{y:.2f} %<extra></extra>",
                }
            )
        layout = base_layout(*self._head(), theme, 280)
        layout["margin"] |= {"l": 56, "b": 40}
        layout |= {
            "showlegend": True,
            "xaxis": {"ticksuffix": " s", "gridcolor": theme.grid, "zeroline": False},
            "yaxis": {
                "ticksuffix": " %",
                "gridcolor": theme.grid,
                "range": [0, 1.08 * self._top()],
            },
        }
        return {"data": data, "layout": layout}

    def to_text(self, width: int | None = None) -> str:
        width = terminal_width(width)
        lines = [fit(text, width) for text in self._head() if text]
        names = [fit(clean(one.label), width // 3) for one in self.lines]
        room = max(map(columns_of, names), default=0)
        most = self._top()
        for name, one in zip(names, self.lines, strict=True):
            space = max(8, width - room - columns_of(one.swing()) - 4)
            lines.append(f"{pad(name, room)}  {spark(one.share, most, space)}  {one.swing()}")
        if self.time:
            lines.append(f"{pad('', room)}  {self.time[0]:g} s to {self.time[-1]:g} s")
        return "\n".join(lines)


def _rules(theme: Theme) -> dict[str, str]:
    rules = {}
    for n, colour in enumerate(PALETTE):
        rules[f".s{n}"] = f"fill:{colour}"
        rules[f".l{n}"] = f"stroke:{colour};stroke-width:2;fill:none;stroke-linejoin:round"
        rules[f".b{n}"] = f"fill:{colour};fill-opacity:.2"
    rules[".halo"] = f"stroke:{theme.background};stroke-width:3;paint-order:stroke"
    rules[".ends"] = f"stroke:{theme.background};stroke-width:1.5"
    return rules


def _drawn(one: ShareLine, n: int, x: Callable[[int], float], y: Callable[[float], float]) -> str:
    parts = [element("title", {}, text=f"{one.label}: {one.swing()}")]

    def points(run: Sequence[int], values: Sequence[float]) -> str:
        return " ".join(f"{number(x(i))},{number(y(values[i]))}" for i in run)

    for run in one.runs():
        if one.low:
            bounds = f"{points(run, one.high)} {points(run[::-1], one.low)}"
            parts.append(element("polygon", {"class": f"b{n}", "points": bounds}))
        parts.append(element("polyline", {"class": f"l{n}", "points": points(run, one.share)}))
    for i in dict.fromkeys(one.extremes() or ()):
        at: dict[str, str | float] = {"cx": x(i), "cy": y(one.share[i]), "r": _SPOT - 0.5}
        parts.append(element("circle", {"class": f"s{n} ends", **at}))
    return element("g", {}, "".join(parts))


_Rectangle: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom


def _sides(above: bool) -> list[str]:
    """The sides of a point for its label, the best first; in plotly's words (textposition)."""
    order = ("top", "bottom") if above else ("bottom", "top")
    beside = [f"{at} {side}" for at in order for side in ("center", "right", "left")]
    return [*beside, "middle right", "middle left"]


def _label_box(side: str, x: float, y: float, width: float) -> _Rectangle:
    down, across = side.split()
    top = y + {"top": -_SPOT - _LINE - 2, "middle": -_LINE / 2, "bottom": _SPOT + 2}[down]
    room = _SPOT + 3 if down == "middle" else 0.0
    left = x + {"left": -width - room, "center": -width / 2, "right": room}[across]
    return left, top, left + width, top + _LINE


def _in_the_way(box: _Rectangle, taken: Sequence[_Rectangle]) -> float:
    """How much of a label is outside of the plot or on top of something, in square pixels."""
    left, top, right, bottom = box
    inside = max(0.0, min(right, _RIGHT + 8) - max(left, _LEFT)) * (
        min(bottom, _BOTTOM) - max(top, _TOP - _LINE)
    )
    return (right - left) * _LINE - inside + _covered(box, taken)


def _is_inside(box: _Rectangle) -> bool:
    left, top, right, bottom = box
    return left >= _LEFT and top >= _TOP - _LINE and right <= _RIGHT + 8 and bottom <= _BOTTOM


def _covered(box: _Rectangle, taken: Sequence[_Rectangle]) -> float:
    """How much of a box is on top of others, in square pixels."""
    left, top, right, bottom = box
    return sum(
        max(0.0, min(right, other[2]) - max(left, other[0]))
        * max(0.0, min(bottom, other[3]) - max(top, other[1]))
        for other in taken
    )
