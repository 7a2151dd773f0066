"""The canvas explorer: every frame of a flame graph, zoomed, dragged and searched in the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_widgets.live import LivePicture, LiveWidget, source
from kvmperf_widgets.paint import COLOURS, Shade, paint
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, LIGHT

if TYPE_CHECKING:
    from kvmperf_widgets.flame import FlameGraph

SCRIPTS = ("explorer_tree.js", "explorer.js")  # these define explore() and unpacked()


class ExplorerWidget(LiveWidget):
    """The widget itself, to be put among others; `Explorer` is what a cell shows."""

    _esm = source("live.js", *SCRIPTS, "explorer_widget.js")
    _css = source("explorer.css")
    asked_for = "tree"

    def __init__(self, graph: FlameGraph, picture: str = "") -> None:
        super().__init__(lambda: packed(graph), theme=graph.theme, picture=picture)


class Explorer(LivePicture):
    """All frames of a flame graph on a canvas, alive in the page beside the kernel.

    Wheel zooms, dragging moves, a click zooms to a frame, with shift it shows the frame between
    callers and callees. Keys: `/` search, `r` reset, arrows and Enter, `s` sandwich, `v` reverse,
    `i` icicle, `c` collapse recursion, `+` and `-`.
    """

    def __init__(self, graph: FlameGraph) -> None:
        super().__init__(graph)
        self.widget = ExplorerWidget(graph, self._id)


def packed(graph: FlameGraph) -> tuple[dict[str, Any], list[bytes]]:
    """The tree for the page: names, palettes and words as JSON; as bytes the columns parent
    (i4), self (f8), name (i4), kind (u1), detail (i4) and the shade in each palette (u1)."""
    tree = graph.tree
    used, name = np.unique(tree.name, return_inverse=True)
    seen = tree.total > 0
    palettes, shades = [], []
    order = [graph.coloured_by, *(by for by in COLOURS if by != graph.coloured_by)]
    for by in order:
        colours = paint(tree, by, seen)
        shades.append(colours.of.astype(np.uint8).tobytes())
        palettes.append(
            {
                "by": by,
                "shades": [_both(shade) for shade in colours.shades],
                "legend": [[words, _both(shade)] for words, shade in colours.legend],
            }
        )
    header = {
        "title": clean(graph.title, 160),
        "subtitle": clean(graph.subtitle, 300),
        "unit": clean(graph.unit, 60),
        "focus": graph.focused,
        "names": [clean(tree.names[i], 300) for i in used.tolist()],
        "kinds": [clean(kind, 40) for kind in tree.kinds],
        "details": [clean(detail, 200) for detail in tree.details],
        "palettes": palettes,
        "themes": [asdict(LIGHT), asdict(DARK)],
    }
    columns = [
        tree.parent.astype("<i4"),
        tree.self_value.astype("<f8"),
        name.reshape(-1).astype("<i4"),
        tree.kind.astype("u1"),
        tree.detail.astype("<i4"),
    ]
    return header, [*(column.tobytes() for column in columns), *shades]


def _both(shade: Shade) -> list[str]:
    return [shade.light, shade.dark]
