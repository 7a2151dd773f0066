"""One symbol between its callers and what it calls, from every place it is in."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets import regrow
from kvmperf_widgets.boxes import View, Words, boxes_of, hits_of, matched_share, shown_frames
from kvmperf_widgets.flame_plotly import flame_spec
from kvmperf_widgets.flame_svg import flame_svg
from kvmperf_widgets.flame_text import LEAST_LINE, flame_text
from kvmperf_widgets.layout import Layout, layout
from kvmperf_widgets.paint import Paint, paint
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.text import clean, percent, weight
from kvmperf_widgets.tree import Tree

if TYPE_CHECKING:
    from kvmperf_widgets.flame import FlameGraph

MOST_BOXES = 400  # of each half
MOST_ROWS = 24
MOST_LINES = 20


class Sandwich(Picture):
    """Callers above the symbol, callees beneath it; both as wide as their part of its weight.

    `callers` and `callees` are trees whose root is the symbol, with the weight of all places
    (once, where it stands beneath itself).
    """

    def __init__(self, graph: FlameGraph, places: NDArray[np.bool_]) -> None:
        tree = graph.tree
        self.callers = regrow.callers(tree, places)
        self.callees = regrow.merged(tree, places)
        self.symbol = clean(self.callees.names[self.callees.name[0]], 120)
        self.title = f"{graph.title}: {self.symbol}, its callers and what it calls"
        self.theme = graph.theme
        self._graph = graph
        self._whole = float(tree.total[0])
        self._places = int(np.count_nonzero(tree.outermost(places)))
        self._query = ""

    def search(self, pattern: str) -> Sandwich:
        """Lights up the frames whose name holds this regular expression; "" ends the search."""
        re.compile(pattern)
        other = copy.copy(self)
        other._query = pattern
        return other

    @property
    def self_share(self) -> float:
        """Percent of the symbol's weight that ended in it."""
        total = float(self.callees.total[0])
        return 100 * float(self.callees.self_value[0]) / total if total else 0.0

    def _half(self, tree: Tree, most: int, rows: int, least: float) -> tuple[View, Layout]:
        graph = self._graph
        laid = layout(tree, most=most, rows=rows, least=least)
        words = Words(tree, graph.unit, whole=self._whole)
        matches = tree.named(re.compile(self._query)) if self._query else None
        colours = paint(tree, graph.coloured_by, shown_frames(tree, laid))
        boxes = boxes_of(tree, laid, colours, words, hits_of(tree, laid, matches))
        found = ""
        if matches is not None:
            found = percent(matched_share(tree, 0, matches))
        rows = int(laid.row.max()) + 1
        return View("", "", boxes, rows, colours, self._query, found, True), laid

    def _about(self) -> str:
        total = float(self.callees.total[0])
        places = f"{self._places:,} place{'s'[: self._places != 1]}"
        share = percent(100 * total / self._whole if self._whole else 0.0)
        amount = weight(total, self._graph.unit)
        text = f"{amount}, {share} of all, in {places} · self {percent(self.self_share)} of it"
        return " · ".join(filter(None, (clean(self._graph.subtitle, 200), text)))

    def _matched(self, above: View, below: View) -> str:
        if not self._query:
            return ""
        return f"{above.matched} of callers, {below.matched} of callees matched"

    def _view(self) -> View:
        above, _ = self._half(self.callers, MOST_BOXES, MOST_ROWS, 0.0003)
        below, _ = self._half(self.callees, MOST_BOXES, MOST_ROWS, 0.0003)
        middle = above.rows - 1
        boxes = [replace(box, row=middle + box.row) for box in below.boxes]
        boxes[0] = replace(boxes[0], mark="root")
        boxes += [replace(box, row=middle - box.row) for box in above.boxes[1:]]
        shades = [*below.paint.shades, *above.paint.shades]
        legend = dict([*above.paint.legend, *below.paint.legend])
        return View(
            clean(self.title, 160),
            self._about(),
            boxes,
            above.rows + below.rows - 1,
            Paint(shades, below.paint.of, list(legend.items())),
            self._query,
            self._matched(above, below),
            True,
        )

    def to_svg(self, *, standalone: bool = True) -> str:
        return flame_svg(self._view(), self.theme, standalone)

    def to_spec(self) -> dict[str, Any]:
        return flame_spec(self._view(), self.theme)

    def to_text(self, width: int | None = None) -> str:
        halves = [
            self._half(tree, 2 * MOST_LINES, MOST_LINES, LEAST_LINE)
            for tree in (self.callers, self.callees)
        ]
        matched = self._matched(halves[0][0], halves[1][0])
        lines = [clean(self.title, 160), self._about(), matched]
        for words, (half, laid) in zip(("called by", "calls"), halves, strict=True):
            named = replace(half, title=f"{self.symbol}: {words}", matched="")
            lines.append(flame_text(named, laid.parent.tolist(), width))
        return "\n".join(filter(None, lines))
