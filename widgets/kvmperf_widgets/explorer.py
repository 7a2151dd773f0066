"""The canvas explorer: every frame of a flame graph, zoomed, dragged and searched in the page.

A live widget (anywidget: no build step). What a notebook saves of it is the picture it was made
from: the explorer takes that picture's place in the page and adds nothing to the document, and
its data are sent when the page asks for them, not kept as the widget's state.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from kvmperf_widgets.paint import COLOURS, Shade, paint
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, LIGHT

if TYPE_CHECKING:
    from kvmperf_widgets.flame import FlameGraph


def _source(name: str) -> str:
    return files("kvmperf_widgets").joinpath(name).read_text(encoding="utf-8")


class ExplorerWidget(anywidget.AnyWidget):
    """The widget itself, to be put among others; `Explorer` is what a cell shows."""

    _esm = _source("explorer_tree.js") + _source("explorer.js")
    _css = _source("explorer.css")
    theme = traitlets.Unicode("auto").tag(sync=True)
    picture = traitlets.Unicode("").tag(sync=True)  # whose place it takes in the page

    def __init__(self, graph: FlameGraph, picture: str = "") -> None:
        super().__init__(theme=graph.theme, picture=picture)
        self._graph = graph
        self.on_msg(self._on_message)

    def _on_message(self, _widget: Any, content: Any, _buffers: list[Any]) -> None:
        if isinstance(content, dict) and content.get("type") == "tree":
            header, buffers = packed(self._graph)
            self.send({"type": "tree", **header}, buffers)


class Explorer:
    """All frames of a flame graph on a canvas, alive in the page beside the kernel.

    Wheel zooms, dragging moves, a click zooms to a frame, with shift it shows the frame between
    callers and callees. Keys: `/` search, `r` reset, arrows and Enter, `s` sandwich, `v` reverse,
    `i` icicle, `c` collapse recursion, `+` and `-`.
    """

    def __init__(self, graph: FlameGraph) -> None:
        self._id = uuid.uuid4().hex
        self._graph = graph
        self.widget = ExplorerWidget(graph, self._id)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        """The picture, marked so that the page's side of the widget finds it."""
        bundle = self._graph._repr_mimebundle_(include, exclude)
        if PLOTLY in bundle:
            bundle[PLOTLY]["layout"]["meta"] = {"kvmperf": self._id}
        return bundle

    def __repr__(self) -> str:
        return repr(self._graph)


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
