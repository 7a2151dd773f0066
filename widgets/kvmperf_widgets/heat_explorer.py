"""The heat map on a canvas: a range is dragged over it, and whoever listens hears of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import traitlets

from kvmperf_widgets.live import LivePicture, LiveWidget, source
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, LIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmperf_widgets.heat import HeatMap


class HeatWidget(LiveWidget):
    """The widget itself, to be put among others; `HeatExplorer` is what a cell shows.

    `selected` is [] or [from, until] in seconds, as the map counts them.
    """

    _esm = source("asked.js", "live.js", "heat.js", "heat_widget.js")
    _css = source("explorer.css")
    asked_for = "cells"
    selected = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(self, heat: HeatMap, picture: str = "") -> None:
        super().__init__(lambda: packed(heat), theme=heat.theme, picture=picture)


class HeatExplorer(LivePicture):
    """A heat map alive in the page beside the kernel.

    Dragging selects from cell to cell, a click a column, a click with shift up to there. Keys:
    arrows, with shift they select; Enter the column; Control and A everything; Escape nothing.
    """

    def __init__(self, heat: HeatMap) -> None:
        super().__init__(heat)
        self.widget = HeatWidget(heat, self._id)


def packed(heat: HeatMap) -> tuple[dict[str, Any], list[bytes]]:
    """The map for the page: words and colours as JSON; as bytes, all [column][row], the columns
    level (u1), weight and samples (f8), and of a part its weight and samples (f8)."""
    levels, *numbers = columns(heat).values()
    return told(heat), [
        levels.astype("u1").tobytes(),
        *(one.astype("<f8").tobytes() for one in numbers),
    ]


def columns(heat: HeatMap) -> dict[str, NDArray[Any]]:
    """The numbers of its cells, [column][row], flat: level, weight, samples, and of a part its
    weight and samples."""
    found: dict[str, NDArray[Any] | None] = {
        "levels": heat.levels,
        "weight": heat.weight,
        "samples": heat.samples,
        "part": heat.part,
        "partSamples": heat.part_samples,
    }
    return {name: column.reshape(-1) for name, column in found.items() if column is not None}


def told(heat: HeatMap) -> dict[str, Any]:
    """Its words and colours."""
    from kvmperf_widgets.heat import shades

    title, subtitle = heat.head()
    return {
        "title": title,
        "subtitle": subtitle,
        "theme": heat.theme,
        "unit": clean(heat.unit or "events", 60),
        "name": clean(heat.name, 120),
        "scale": heat.scale_words(),
        "start": heat.start,
        "cell": heat.cell,
        "columns": heat.columns,
        "rows": heat.rows,
        "themes": [asdict(LIGHT), asdict(DARK)],
        "shades": [shades(LIGHT), shades(DARK)],
    }
