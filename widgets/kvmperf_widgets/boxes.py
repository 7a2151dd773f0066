"""What the renderers of a flame graph share: boxes with names, colours, hover texts, summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.layout import Layout
from kvmperf_widgets.paint import PLAIN, Paint, Shade
from kvmperf_widgets.text import amount, clean, percent, weight
from kvmperf_widgets.theme import LABEL
from kvmperf_widgets.tree import Tree

_LEAST_SELF = 0.005  # percent: what would be told as 0.00 %


@dataclass(frozen=True)
class Box:
    """One box, cleaned (not escaped); x and width are shares (0..1) of the whole picture."""

    name: str
    kind: str
    hover: tuple[str, ...]
    x: float
    width: float
    row: int
    total: float
    above: bool  # an ancestor of the focused frame
    merged: int  # > 1: a "..." of that many frames
    matched: bool
    shade: Shade
    mark: str = ""  # outlined: "new" or "vanished" of two profiles, "root" of a sandwich
    note: str = ""  # what a line of text says of it besides


@dataclass(frozen=True)
class View:
    """A flame graph as it is to be drawn."""

    title: str
    subtitle: str  # says what the weight is and how much is shown
    boxes: list[Box]
    rows: int
    paint: Paint
    query: str
    matched: str  # "12.3 % matched", "" without a search
    icicle: bool


class Words:
    """What the hover text of a frame says."""

    def __init__(
        self, tree: Tree, unit: str, *, whole: float | None = None, of: str = "the focused frame"
    ) -> None:
        self.tree = tree
        self.unit = unit
        self.whole = float(tree.total[0]) if whole is None else whole
        self.of = of

    def name(self, node: int) -> str:
        return clean(self.tree.names[self.tree.name[node]], 300)

    def shares(self, total: float, base: float | None) -> str:
        """`base` is the weight of the focused frame, None for what is not within it."""
        text = f"{percent(share_of(total, self.whole))} of all"
        return text + (f", {percent(share_of(total, base))} of {self.of}" if base else "")

    def dots(self, total: float, base: float | None) -> str:
        return f"{self.amount(total)} ({self.shares(total, base)})"

    def amount(self, value: float) -> str:
        """A sum of periods; the picture itself says what of."""
        return weight(value, "ns") if self.unit.split()[-1:] == ["ns"] else amount(value)

    def frame(self, node: int, total: float, own: float, base: float | None) -> list[str]:
        """The lines beneath the name; empty ones are left out."""
        tree = self.tree
        where = (tree.kinds[tree.kind[node]], clean(tree.details[tree.detail[node]], 200))
        told = share_of(own, self.whole) >= _LEAST_SELF
        return [
            f"{self.amount(total)} ({self.shares(total, base)})",
            f"self {self.amount(own)} ({percent(share_of(own, self.whole))})" if told else "",
            " · ".join(filter(None, where)),
        ]

    def mark(self, node: int) -> str:
        return ""

    def note(self, node: int) -> str:
        return ""

    def sum(self, base: float) -> str:
        """What the weight is and how much of it there is."""
        if not self.unit:
            return ""
        return f"weight is {clean(self.unit)}: {self.amount(base)} in all"


def boxes_of(
    tree: Tree, laid: Layout, paint: Paint, words: Words, hits: NDArray[np.bool_]
) -> list[Box]:
    """The boxes of a layout with their words; `hits` (one a box) are lit up."""
    focused = laid.above
    base = float(laid.total[focused])
    boxes = []
    for i, node in enumerate(laid.node.tolist()):
        total = float(laid.total[i])
        within = base if focused and i >= focused else None
        mark = note = ""
        lines: Sequence[str] = ()
        if node >= 0:
            name, kind, shade = words.name(node), tree.kinds[tree.kind[node]], paint.of[node]
            lines = words.frame(node, total, float(laid.self_value[i]), within)
            mark, note = words.mark(node), words.note(node)
        else:
            kind, shade = LABEL, -1
            count, deeper = int(laid.merged[i]), int(laid.deeper[i])
            if i < focused:
                name = f"… {count:,} callers"
            else:
                name = f"… {count:,} narrow frames"
                if deeper:
                    name = f"… {deeper:,} row{'s'[: deeper != 1]} deeper, {count:,} frames"
                lines = (words.dots(total, within), "focus on their caller to see them")
        boxes.append(
            Box(
                name,
                kind,
                tuple(filter(None, (name, *lines))),
                float(laid.x[i]),
                float(laid.width[i]),
                int(laid.row[i]),
                total,
                i < focused,
                int(laid.merged[i]),
                bool(hits[i]),
                paint.shades[shade] if shade >= 0 else PLAIN,
                mark,
                note,
            )
        )
    return boxes


def shown_frames(tree: Tree, laid: Layout) -> NDArray[np.bool_]:
    """The frames that have a box with a width, as a mask."""
    shown = np.zeros(len(tree), dtype=np.bool_)
    shown[laid.node[(laid.node >= 0) & (laid.width > 0)]] = True
    return shown


def subtitle(text: str, words: Words, laid: Layout) -> str:
    """What it is of, what the weight is and how much is shown."""
    rows = int(laid.deeper.max())
    return joined(
        [
            clean(text, 300),
            words.sum(float(laid.total[laid.above])),
            f"showing {laid.shown:,} of {laid.frames:,} frames, {percent(laid.share)}",
            f"{percent(laid.beyond)} goes up to {rows:,} rows deeper" if rows else "",
        ]
    )


def joined(parts: Sequence[str]) -> str:
    return " · ".join(filter(None, parts))


def share_of(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def matched_share(tree: Tree, root: int, matches: NDArray[np.bool_]) -> float:
    """Percent of the weight of `root` that is in these frames or beneath them.

    A matched frame beneath a matched frame counts once.
    """
    outermost = tree.outermost(_beneath(tree, root) & matches)
    return share_of(float(tree.total[outermost].sum()), float(tree.total[root]))


def _beneath(tree: Tree, root: int) -> NDArray[np.bool_]:
    start = np.zeros(len(tree), dtype=np.bool_)
    start[root] = True
    return tree.beneath(start)


def hits_of(tree: Tree, laid: Layout, matches: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """The boxes to light up: those of matched frames, and every "..." that hides one."""
    whole = laid.node >= 0
    hits = np.zeros(len(laid.node), dtype=np.bool_)
    if matches is None:
        return hits
    hits[whole] = matches[laid.node[whole]]
    # a frame without a box of its own is in the "..." of its nearest ancestor that is in one
    box = laid.box.copy()
    for level in tree.levels[1:]:
        hidden = level[box[level] < 0]
        box[hidden] = box[tree.parent[hidden]]
    found = box[_beneath(tree, int(laid.node[laid.above])) & matches & (tree.total > 0)]
    hits[found] |= ~whole[found]
    return hits
