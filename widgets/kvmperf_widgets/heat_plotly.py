"""A heat map of time as a plotly figure: plain dicts, every cell with its words."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_widgets.axis import ticks
from kvmperf_widgets.heat import LEVELS, decimals, shades, span_words
from kvmperf_widgets.plotly_spec import base_layout, plotly_text
from kvmperf_widgets.text import fit, weight
from kvmperf_widgets.theme import theme_of

if TYPE_CHECKING:
    from kvmperf_widgets.heat import HeatMap

_DIGITS = 4  # of a value: what is shown, and what a saved notebook pays for
_MOST_MARKS = 12


def heat_spec(heat: HeatMap) -> dict[str, Any]:
    """`data` and `layout`. Both axes are categories, so that a hover names the cell's time."""
    theme = theme_of(heat.theme)
    layout = base_layout(*heat.head(), theme, 300)
    layout["margin"] |= {"l": 66, "r": 132, "b": 40}
    if not heat.columns:
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
        words = {"text": "no samples", "showarrow": False, "font": {"color": theme.muted}}
        return {"data": [], "layout": {**layout, "annotations": [words]}}
    digits = decimals(heat.column)
    columns = [f"{heat.start + c * heat.column:.{digits}f} s" for c in range(heat.columns)]
    edges = [span_words(row * heat.cell) if row else "0" for row in range(heat.rows + 1)]
    rows = [f"{edges[row]} to {edges[row + 1]}" for row in range(heat.rows)]
    # a category stands in the middle of its cell: a time is half a cell before it
    up = [float(at) for at in ticks(0, heat.column, 5)]
    end = heat.start + heat.columns * heat.column
    along = [float(at) for at in ticks(heat.start, end, _MOST_MARKS)]
    places = decimals(along[1] - along[0]) if len(along) > 1 else digits
    most, more = heat.scale
    factor = 1e-9 if _is_time(heat) else 1.0
    colours = shades(theme)
    marks = [most * part for part in (0.0, 0.5, 1.0)]
    unit = "ns" if factor != 1.0 else ""
    shown = [heat.value_words(m) if heat.part is not None else weight(m, unit) for m in marks]
    trace = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": _rounded(heat, factor),
        "customdata": _counts(heat),
        "zmin": 0,
        "zmax": most * factor,
        "colorscale": [
            [(level + side) / LEVELS, colours[level]] for level in range(LEVELS) for side in (0, 1)
        ],
        "hoverongaps": False,
        "hovertemplate": _template(heat),
        "colorbar": {
            "title": {
                "text": plotly_text(f"{fit(heat.whole_words(), 24)} in {span_words(heat.cell)}"),
                "font": {"size": 11},
                "side": "right",
            },
            "tickvals": [mark * factor for mark in marks],
            "ticktext": ["0", shown[1], shown[2] + (" +" if more else "")],
            "thickness": 12,
            "outlinewidth": 0,
        },
    }
    layout |= {
        "xaxis": {
            "type": "category",
            "showgrid": False,
            "tickvals": [(at - heat.start) / heat.column - 0.5 for at in along],
            "ticktext": [f"{at:.{places}f} s" for at in along],
            "tickangle": 0,
        },
        "yaxis": {
            "type": "category",
            "showgrid": False,
            "tickvals": [at / heat.cell - 0.5 for at in up],
            "ticktext": [span_words(at) if at else "0" for at in up],
        },
    }
    return {"data": [trace], "layout": layout}


def _is_time(heat: HeatMap) -> bool:
    """Whether the values are nanoseconds: plotly is given seconds and puts its prefix there."""
    return heat.part is None and heat.unit.split()[-1:] == ["ns"]


def _rounded(heat: HeatMap, factor: float) -> list[list[float | None]]:
    """[row][column], None without samples."""
    return [
        [None if isnan(value) else float(f"{value:.{_DIGITS}g}") for value in row]
        for row in (heat.values.T * factor).tolist()
    ]


def _counts(heat: HeatMap) -> list[Any]:
    """[row][column]: the samples, with a part [its samples, all]."""
    if heat.part_samples is None:
        return list(heat.samples.T.tolist())
    return list(np.stack([heat.part_samples.T, heat.samples.T], axis=-1).tolist())


def _template(heat: HeatMap) -> str:
    where = "%{x} + %{y}<br>"
    if heat.part is not None:
        share = f"{_literal(heat.name)}: %{{z:.4~g}} %"
        counts = "%{customdata[0]:,} of %{customdata[1]:,} samples"
        return f"{where}{share}<br>{counts}<extra></extra>"
    if heat.unit == "samples":
        return f"{where}%{{customdata:,}} samples<extra></extra>"
    unit = _literal(heat.unit or "events")
    words = unit.split()
    value = " ".join(["%{z:.4~s}s", *words[:-1]]) if _is_time(heat) else "%{z:.4~s} " + unit
    return f"{where}{value}<br>%{{customdata:,}} samples<extra></extra>"


def _literal(text: str) -> str:
    """Text that stands in a template as it is."""
    return plotly_text(text).replace("{", "&#123;")
