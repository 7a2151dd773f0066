"""One symbol between its callers and what it calls, from every place it is in."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.boxes import (
    View,
    boxes_of,
    hits_of,
    joined,
    matched_share,
    share_of,
    shown_frames,
)
from kvmperf_widgets.flame_plotly import flame_spec
from kvmperf_widgets.flame_svg import flame_svg
from kvmperf_widgets.flame_text import LEAST_LINE, flame_text
from kvmperf_widgets.layout import Layout, layout
from kvmperf_widgets.paint import Paint
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.text import clean, percent
from kvmperf_widgets.tree import Tree
from kvmperf_widgets.tree_picture import TreePicture

MOST_BOXES = 400  # of each half
MOST_ROWS = 24
MOST_LINES = 20


class Sandwich(Picture):
    """Callers above the symbol, callees beneath it; both as wide as their part of its weight.

    Both are pictures of trees whose root is the symbol, with the weight of all places (once, where
    it stands beneath itself). `about` says what it is of.
    """

    def __init__(
        self, callers: TreePicture, callees: TreePicture, title: str, about: str = ""
    ) -> None:
        self._above, self._below = callers, callees
        self.symbol = clean(self.callees.names[self.callees.name[0]], 120)
        self.title = title
        self.theme = callees.theme
        self._said = about
        self._query = ""

    @property
    def callers(self) -> Tree:
        """What calls the symbol."""
        return self._above.tree

    @property
    def callees(self) -> Tree:
        """What it calls."""
        return self._below.tree

    def search(self, pattern: str) -> Sandwich:
        """Lights up the frames whose name holds this regular expression; "" ends the search."""
        re.compile(pattern)
        other = copy.copy(self)
        other._query = pattern
        return other

    @property
    def self_share(self) -> float:
        """Percent of the symbol's weight that ended in it."""
        return share_of(float(self.callees.self_value[0]), float(self.callees.total[0]))

    def _half(
        self, part: TreePicture, most: int, rows: int, least: float
    ) -> tuple[View, Layout, NDArray[np.bool_]]:
        """How one side is to be drawn, and which of its frames are."""
        tree = part.tree
        laid = layout(tree, most=most, rows=rows, least=least)
        shown = shown_frames(tree, laid)
        matches = tree.named(re.compile(self._query)) if self._query else None
        colours = part._paint(shown)
        boxes = boxes_of(tree, laid, colours, part._words(), hits_of(tree, laid, matches))
        found = ""
        if matches is not None:
            found = percent(matched_share(tree, 0, matches))
        rows = int(laid.row.max()) + 1
        return View("", "", boxes, rows, colours, self._query, found, True), laid, shown

    def _about(self) -> str:
        return joined([self._said, f"self {percent(self.self_share)} of it"])

    def _matched(self, above: View, below: View) -> str:
        if not self._query:
            return ""
        return f"{above.matched} of callers, {below.matched} of callees matched"

    def _view(self) -> View:
        above, _, shown_above = self._half(self._above, MOST_BOXES, MOST_ROWS, 0.0003)
        below, _, shown_below = self._half(self._below, MOST_BOXES, MOST_ROWS, 0.0003)
        middle = above.rows - 1
        boxes = [replace(box, row=middle + box.row) for box in below.boxes]
        boxes[0] = replace(boxes[0], mark="root")
        boxes += [replace(box, row=middle - box.row) for box in above.boxes[1:]]
        shades = [*below.paint.shades, *above.paint.shades]
        legend = self._below.joint_legend(shown_below, self._above, shown_above)
        return View(
            clean(self.title, 160),
            self._about(),
            boxes,
            above.rows + below.rows - 1,
            Paint(shades, below.paint.of, legend),
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
            self._half(part, 2 * MOST_LINES, MOST_LINES, LEAST_LINE)
            for part in (self._above, self._below)
        ]
        matched = self._matched(halves[0][0], halves[1][0])
        lines = [clean(self.title, 160), self._about(), matched]
        for words, (half, laid, _) in zip(("called by", "calls"), halves, strict=True):
            named = replace(half, title=f"{self.symbol}: {words}", matched="")
            lines.append(flame_text(named, laid.parent.tolist(), width))
        return "\n".join(filter(None, lines))
