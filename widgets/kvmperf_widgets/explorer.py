"""The canvas explorer: every frame of a flame graph, zoomed, dragged and searched in the page."""

from __future__ import annotations

from contextlib import suppress
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
        graph = self._graph
        if kind == "over time" and isinstance(graph, FlameGraph):
            lane = content.get("lane")
            if isinstance(lane, int):
                self._answer(content, packed(graph.over_time(lane if lane >= 0 else None)))
        elif kind == "shape" and isinstance(graph, DiffFlameGraph):
            reverse, collapse = (content.get(name) is True for name in ("reversed", "collapsed"))
            self._answer(content, packed(*_shaped(graph, reverse, collapse, content.get("key"))))

    def _answer(self, asked: dict[str, Any], found: tuple[dict[str, Any], list[bytes]]) -> None:
        header, columns = found
        self.send({"type": asked["type"], "of": asked.get("of"), **header}, columns)


def packed_lane(graph: FlameGraph, wanted: Any) -> tuple[dict[str, Any], list[bytes]]:
    """As `packed()`, in the order of time: of the lane of this name, of all where there is none;
    `lane` of the header says which."""
    names = [clean(lane, 80) for lane in graph.lanes[:_MOST_LANES]]
    lane = names.index(wanted) if wanted in names else None
    header, columns = packed(graph.over_time(lane))
    return {**header, "lane": -1 if lane is None else lane}, columns


def _shaped(
    graph: DiffFlameGraph, reverse: bool, collapse: bool, key: Any
) -> tuple[DiffFlameGraph, ...]:
    """What the page wants to see; of a frame (by its key) callees and callers."""
    wanted = graph.shaped(reverse=reverse, collapse=collapse)
    if type(key) is int:
        with suppress(LookupError):
            return wanted.between([key])
    return (wanted,)


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


def packed(
    graph: TreePicture, callers: DiffFlameGraph | None = None
) -> tuple[dict[str, Any], list[bytes]]:
    """The tree for the page: names, palettes and words as JSON, and columns as bytes, whose names
    and kinds (i4, u1, f8) are `columns` of the JSON; a colour column has the palette's name.

    With `callers` the frames of that other tree of the same stacks stand behind those of the first;
    its root is number `cut`."""
    tree, parts = graph.tree, [graph] if callers is None else [graph, callers]
    trees = [part.tree for part in parts]

    def both(column: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, column) for one in trees])

    used, name = np.unique(both("name"), return_inverse=True)
    columns: dict[str, tuple[str, NDArray[Any]]] = {
        "parent": ("i4", both("parent")),
        "self": ("f8", both("self_value")),
        "name": ("i4", name.reshape(-1)),
        "kind": ("u1", both("kind")),
        "detail": ("i4", both("detail")),
    }
    seen = [one.total > 0 for one in trees]
    palettes = [part.palettes(mask) for part, mask in zip(parts, seen, strict=True)]
    for several in zip(*palettes, strict=True):
        columns[several[0][0]] = ("u1", np.concatenate([colours.of for _, colours in several]))
    told = [_palette(by, colours) for by, colours in palettes[0]]
    if callers is not None:
        told[0]["legend"] = _legend(graph.joint_legend(seen[0], callers, seen[1]))
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
        "palettes": told,
        "themes": [asdict(LIGHT), asdict(DARK)],
        "cut": None if callers is None else len(tree),
    }
    if isinstance(graph, FlameGraph):
        header["lanes"] = [clean(lane, 80) for lane in graph.lanes[:_MOST_LANES]]
    if isinstance(graph, DiffFlameGraph):
        changes = graph.changes
        header["changes"] = {
            "names": [clean(side, 40) for side in changes.names],
            "confidence": round(100 * changes.confidence, 2),
        }
        header["shape"] = {
            "known": graph.can_regrow,
            "reversed": graph.reversed,
            "collapsed": graph.collapsed,
        }
        kinds = dict.fromkeys(_CHANGES, "f8") | {"significant": "u1", "status": "u1"}
        of = [part.changes for part in parts if isinstance(part, DiffFlameGraph)]
        columns |= {
            column: (kind, np.concatenate([getattr(one, column) for one in of]))
            for column, kind in kinds.items()
        }
        keys = [part.key for part in parts if isinstance(part, DiffFlameGraph)]
        columns["key"] = ("i4", np.concatenate(keys))
    header["columns"] = [[column, kind] for column, (kind, _) in columns.items()]
    return header, [values.astype(f"<{kind}").tobytes() for kind, values in columns.values()]


def _palette(by: str, colours: Paint) -> dict[str, Any]:
    return {
        "by": by,
        "shades": [_both(shade) for shade in colours.shades],
        "legend": _legend(colours.legend),
    }


def _legend(entries: list[tuple[str, Shade]]) -> list[list[Any]]:
    """Words and colours of each, and the class of its outline."""
    return [[words, _both(shade), " ".join(shade.css.split()[1:])] for words, shade in entries]


def _both(shade: Shade) -> list[str]:
    return [shade.light, shade.dark]
