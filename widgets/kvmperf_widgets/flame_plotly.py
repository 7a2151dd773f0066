"""A flame graph as a plotly figure: one horizontal bar trace, bounded frames and labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvmperf_widgets.boxes import View
from kvmperf_widgets.flame_svg import LEAST_MARKED
from kvmperf_widgets.plotly_spec import base_layout, marker_legend, plotly_text
from kvmperf_widgets.text import fit
from kvmperf_widgets.theme import MATCH, ThemeName, ink_on, mix, theme_of

MOST_LABELS = 150
ROW = 20
_ONE_ROW, _LEGEND_ROW = 3, 18  # entries of a legend, and px of a row of them
_PIXELS = 880  # what a notebook's cell gives a figure, at the least
_CHARACTER = 6.7  # of an 11 px monospaced character


def flame_spec(view: View, theme_name: ThemeName) -> dict[str, Any]:
    """The figure as plain dicts; x is in percent of the focused frame, y the row."""
    theme = theme_of(theme_name)
    widths = np.array([box.width for box in view.boxes])
    labelled = set(np.argsort(-widths, kind="stable")[:MOST_LABELS].tolist())
    colours, inks, texts = [], [], []
    for i, box in enumerate(view.boxes):
        colour = MATCH if box.matched else box.shade.colour(theme)
        inks.append(ink_on(colour))
        faded = box.above or (view.query and not box.matched)
        colours.append(mix(colour, theme.background, 0.5) if faded else colour)
        room = int((box.width * _PIXELS - 8) / _CHARACTER)
        texts.append(plotly_text(fit(box.name, room)) if i in labelled and room >= 3 else "")
        if faded:
            inks[-1] = ink_on(colours[-1])
    outlines: dict[str, Any] = {"width": 0}
    marked = [bool(box.mark) and box.width * _PIXELS >= LEAST_MARKED for box in view.boxes]
    if any(marked):  # a list costs time: not where nothing is marked
        outlines = {"width": [1.2 if mark else 0 for mark in marked], "color": theme.ink}
    height = view.rows * ROW
    bars = {
        "type": "bar",
        "orientation": "h",
        "base": [round(100 * box.x, 4) for box in view.boxes],
        # a hair narrower than it is, so that neighbours of one colour are told apart
        "x": [round(max(100 * box.width - 0.06, 0.02), 4) for box in view.boxes],
        "y": [box.row for box in view.boxes],
        "width": 0.94,
        "marker": {"color": colours, "line": outlines},
        "text": texts,
        "textposition": "inside",
        "insidetextanchor": "start",
        "textangle": 0,
        "constraintext": "none",
        "textfont": {"family": "monospace", "size": 11, "color": inks},
        "hovertext": ["<br>".join(map(plotly_text, box.hover)) for box in view.boxes],
        "hoverinfo": "text",
        "showlegend": False,
    }
    subtitle = f"{view.subtitle} · {view.matched}" if view.matched else view.subtitle
    layout = base_layout(view.title, subtitle, theme, height)
    layout |= {
        "barmode": "overlay",
        "hovermode": "closest",
        "dragmode": "zoom",
        "xaxis": {"range": [0, 100], "visible": False},
        "yaxis": {
            "range": [view.rows - 0.5, -0.5] if view.icicle else [-0.5, view.rows - 0.5],
            "visible": False,
            "fixedrange": True,
        },
    }
    legend = [
        # a class besides that of the colour is that of an outline
        marker_legend(words, shade.colour(theme), theme.ink if " " in shade.css else "")
        for words, shade in view.paint.legend
        if words
    ]
    if len(legend) > _ONE_ROW:  # two in a narrow cell
        layout["margin"]["t"] += _LEGEND_ROW
        layout["height"] += _LEGEND_ROW
    return {"data": [bars, *legend], "layout": layout}
