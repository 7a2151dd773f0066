"""The canvas explorer: every frame of a flame graph, zoomed, dragged and searched in the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from kvmperf_widgets.diff_flame import DiffFlameGraph
from kvmperf_widgets.flame import FlameGraph
from kvmperf_widgets.live import LivePicture, LiveWidget, source
from kvmperf_widgets.paint import Paint, Shade
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, LIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmperf_widgets.tree_picture import TreePicture

# these define explore() and unpacked()
SCRIPTS = (
    *("pattern.js", "explorer_tree.js", "explorer_view.js", "explorer_paint.js"),
    *("explorer_words.js", "explorer_input.js", "explorer.js"),
)
_MOST_LANES = 200  # threads and vCPUs that a list offers: the heaviest
_CHANGES = ("baseline", "other", "delta", "low", "high")


class ExplorerWidget(LiveWidget):
    """The widget itself, to be put among others; `Explorer` is what a cell shows.

    Pictures of one `link` belong together: what is clicked in one is searched for in the others.
    """

    _esm = source("asked.js", "live.js", *SCRIPTS, "explorer_widget.js")
    _css = source("explorer.css")
    asked_for = "tree"
    link = traitlets.Unicode("").tag(sync=True)

    def __init__(self, graph: TreePicture, picture: str = "", link: str = "") -> None:
        super().__init__(lambda: packed(graph), theme=graph.theme, picture=picture, link=link)
        self._graph = graph

    def _on_message(self, widget: Any, content: Any, buffers: list[Any]) -> None:
        super()._on_message(widget, content, buffers)
        kind = content.get("type") if isinstance(content, dict) else None
        lane = content.get("lane") if kind == "over time" else None
        if isinstance(lane, int) and isinstance(self._graph, FlameGraph):
            header, columns = packed(self._graph.over_time(lane if lane >= 0 else None))
            self.send({"type": "over time", **header}, columns)


class Explorer(LivePicture):
    """All frames of a flame graph on a canvas, alive in the page beside the kernel.

    Wheel zooms, dragging moves, a click zooms to a frame, with shift it shows the frame between
    callers and callees, the other button of the mouse opens a menu. Keys: `/` search, `r` reset,
    arrows and Enter, `m` menu, `s` sandwich, `v` reverse, `i` icicle, `c` collapse recursion, `+`
    and `-`.
    """

    def __init__(self, graph: TreePicture, link: str = "") -> None:
        super().__init__(graph)
        self.widget = ExplorerWidget(graph, self._id, link)


def packed(graph: TreePicture) -> tuple[dict[str, Any], list[bytes]]:
    """The tree for the page: names, palettes and words as JSON, and columns as bytes, whose names
    and kinds (i4, u1, f8) are `columns` of the JSON; a colour column has the palette's name."""
    tree = graph.tree
    used, name = np.unique(tree.name, return_inverse=True)
    columns: dict[str, tuple[str, NDArray[Any]]] = {
        "parent": ("i4", tree.parent),
        "self": ("f8", tree.self_value),
        "name": ("i4", name.reshape(-1)),
        "kind": ("u1", tree.kind),
        "detail": ("i4", tree.detail),
    }
    palettes = graph.palettes(tree.total > 0)
    columns |= {by: ("u1", colours.of) for by, colours in palettes}
    header: dict[str, Any] = {
        "title": clean(graph.title, 160),
        "subtitle": clean(graph.about, 300),
        "unit": clean(graph.unit, 60),
        "focus": graph.focused,
        "query": graph.query,
        "order": graph.ordered,
        "icicle": graph.downwards,
        "names": [clean(tree.names[i], 300) for i in used.tolist()],
        "kinds": [clean(kind, 40) for kind in tree.kinds],
        "details": [clean(detail, 200) for detail in tree.details],
        "palettes": [_palette(by, colours) for by, colours in palettes],
        "themes": [asdict(LIGHT), asdict(DARK)],
    }
    if isinstance(graph, FlameGraph):
        header["lanes"] = [clean(lane, 80) for lane in graph.lanes[:_MOST_LANES]]
    if isinstance(graph, DiffFlameGraph):
        changes = graph.changes
        header["changes"] = {
            "names": [clean(side, 40) for side in changes.names],
            "confidence": round(100 * changes.confidence, 2),
        }
        columns |= {column: ("f8", getattr(changes, column)) for column in _CHANGES}
        columns |= {"significant": ("u1", changes.significant), "status": ("u1", changes.status)}
    header["columns"] = [[column, kind] for column, (kind, _) in columns.items()]
    return header, [values.astype(f"<{kind}").tobytes() for kind, values in columns.values()]


def _palette(by: str, colours: Paint) -> dict[str, Any]:
    return {
        "by": by,
        "shades": [_both(shade) for shade in colours.shades],
        # a class besides that of the colour is that of its outline
        "legend": [
            [words, _both(shade), " ".join(shade.css.split()[1:])]
            for words, shade in colours.legend
        ],
    }


def _both(shade: Shade) -> list[str]:
    return [shade.light, shade.dark]
