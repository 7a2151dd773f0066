"""A heat map of time as self-contained SVG: cells as strokes of one path a colour, so that maps
of thousands of cells stay small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmperf_widgets.axis import ticks
from kvmperf_widgets.heat import LEVELS, NONE, decimals, shades, span_words
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
from kvmperf_widgets.text import columns_of, escape
from kvmperf_widgets.theme import Theme

if TYPE_CHECKING:
    from kvmperf_widgets.heat import HeatMap

_TOP, _HEIGHT, _LEFT, _RIGHT = 84, 300, 66, WIDTH - 24


def heat_svg(heat: HeatMap, standalone: bool) -> str:
    title, subtitle = heat.head()
    parts = [header(title, subtitle), element("rect", {**_box(), "class": "none"})]
    if heat.columns:
        parts += [*_legend(heat), _cells(heat), *_axes(heat), _hover(heat)]
    else:
        parts.append(label(WIDTH / 2, _TOP + _HEIGHT / 2, "no samples", "mid mu"))
    return document(
        parts,
        _TOP + _HEIGHT + 30,
        theme=heat.theme,
        description=f"{title}. {subtitle}",
        rules=_rules,
        kind="kvmp-heat",
        standalone=standalone,
    )


def _box() -> dict[str, str | float]:
    return {"x": _LEFT, "y": _TOP, "width": _RIGHT - _LEFT, "height": _HEIGHT}


def _rules(theme: Theme) -> dict[str, str]:
    rules = {
        ".none": f"fill:{theme.background};stroke:{theme.grid}",
        ".hot": "fill:none;pointer-events:all",
        ".hot:hover": f"stroke:{theme.ink};stroke-width:1.5",
    }
    for level, colour in enumerate(shades(theme)):
        rules[f".w{level}"] = f"fill:{colour}"
        rules[f".cells .w{level}"] = f"stroke:{colour};fill:none"
    return rules


def _legend(heat: HeatMap) -> list[str]:
    """The steps of the scale in a row, what the last stands for, and what has no colour."""
    x, y = float(_LEFT), 58
    parts = []
    for level in range(LEVELS):
        parts.append(rectangle(x, y, 16, 12, f"w{level}"))
        x += 16
    words = heat.scale_words()
    parts.append(label(x + 6, y + 10, words, "mu"))
    x += 28 + columns_of(words) * CHARACTER
    parts.append(rectangle(x, y, 12, 12, "none"))
    parts.append(label(x + 18, y + 10, "no samples", "mu"))
    return parts


def _width(heat: HeatMap) -> float:
    return (_RIGHT - _LEFT) / max(heat.columns, 1)


def _cells(heat: HeatMap) -> str:
    """Of each column the runs of one colour as lines upwards, one unit wide, in a grid of cells."""
    levels = heat.levels
    starts = np.ones(levels.shape, np.bool_)
    starts[:, 1:] = levels[:, 1:] != levels[:, :-1]
    first = np.flatnonzero(starts)
    length = np.diff(first, append=levels.size)
    column, row = np.divmod(first, heat.rows)
    found = levels.reshape(-1)[first]
    lines: dict[int, list[str]] = {level: [] for level in range(LEVELS)}
    runs = zip(found.tolist(), column.tolist(), row.tolist(), length.tolist(), strict=True)
    for level, x, y, reach in runs:
        if level != NONE:
            lines[level].append(f"M{x} {y}v{reach}")
    paths = [
        f'<path class="w{level}" d="{"".join(drawn)}"/>' for level, drawn in lines.items() if drawn
    ]
    scale = f"{_width(heat):.6f} {-_HEIGHT / heat.rows:.6f}"
    place = f"translate({number(_LEFT + _width(heat) / 2)} {_TOP + _HEIGHT}) scale({scale})"
    grid: dict[str, str | float] = {"class": "cells", "transform": place}
    return element("g", {**grid, "shape-rendering": "crispEdges"}, "".join(paths))


def _axes(heat: HeatMap) -> list[str]:
    bottom = _TOP + _HEIGHT
    parts = [line(_LEFT, bottom, _RIGHT, bottom, "axis")]
    end = heat.start + heat.columns * heat.column
    marks = ticks(heat.start, end, 10)
    digits = decimals(marks[1] - marks[0]) if len(marks) > 1 else decimals(heat.column)
    for at in marks:
        x = _LEFT + (at - heat.start) * _width(heat) / heat.column
        parts.append(line(x, bottom, x, bottom + 4, "axis"))
        parts.append(label(x, bottom + 17, f"{at:.{digits}f} s", "mid mu"))
    for at in ticks(0, heat.column, 5):
        y = bottom - at * _HEIGHT / heat.column
        parts.append(line(_LEFT - 4, y, _LEFT, y, "axis"))
        parts.append(label(_LEFT - 8, y + 4, span_words(at) if at else "0", "end mu"))
    return parts


def _hover(heat: HeatMap) -> str:
    """Each column tells what is in it: a word for every cell would be far larger than the map."""
    parts = []
    for column in range(heat.columns):
        box = {**_box(), "x": _LEFT + column * _width(heat), "width": _width(heat)}
        first, last = column * heat.rows, (column + 1) * heat.rows
        lines = heat.cells_words(first, last)
        values = heat.values[column]
        if np.isfinite(values).any():
            hottest = first + int(np.nanargmax(values))
            most = heat.value_words(float(np.nanmax(values)))
            lines.append(f"most: {most} at {heat.time_words(hottest)}")
        tip = element("title", {}, "&#10;".join(map(escape, lines)))
        parts.append(element("rect", {**box, "class": "hot"}, tip))
    return "".join(parts)
