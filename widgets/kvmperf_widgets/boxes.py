"""What the renderers of a flame graph share: boxes with names, colours, hover texts, summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.layout import Layout
from kvmperf_widgets.text import amount, clean, percent, weight
from kvmperf_widgets.theme import KINDS, LABEL
from kvmperf_widgets.tree import Tree


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


@dataclass(frozen=True)
class View:
    """A flame graph as it is to be drawn."""

    title: str
    subtitle: str  # says what the weight is and how much is shown
    boxes: list[Box]
    rows: int
    kinds: list[str]  # the modes that are there, for the legend
    query: str
    matched: str  # "12.3 % matched", "" without a search
    icicle: bool


def view(
    tree: Tree,
    laid: Layout,
    *,
    title: str,
    subtitle: str,
    unit: str,
    icicle: bool,
    query: str = "",
    matches: NDArray[np.bool_] | None = None,
) -> View:
    """Puts words to a layout. `matches` is a mask of the tree's frames that a search found."""
    focused = laid.above
    base = float(laid.total[focused])
    everything = float(tree.total[0])
    hits = np.zeros(len(laid.node), dtype=np.bool_)
    found = ""
    if matches is not None:
        hits = _hits(tree, laid, matches)
        found = f"{percent(matched_share(tree, int(laid.node[focused]), matches))} matched"
    boxes = []
    for i, node in enumerate(laid.node.tolist()):
        total, own = float(laid.total[i]), float(laid.self_value[i])
        shares = f"{percent(_share(total, everything))} of all"
        if focused and i >= focused:
            shares += f", {percent(_share(total, base))} of the focused frame"
        hover: tuple[str, ...]
        if i < focused and node < 0:
            name, kind = f"… {int(laid.merged[i]):,} callers", LABEL
            hover = (name,)
        elif node < 0:
            count, deeper = int(laid.merged[i]), int(laid.deeper[i])
            name, kind = f"… {count:,} narrow frames", LABEL
            if deeper:
                name = f"… {deeper:,} row{'s'[: deeper != 1]} deeper, {count:,} frames"
            hover = (
                name,
                f"{weight(total, unit)} ({shares})",
                "focus on their caller to see them",
            )
        else:
            name = clean(tree.names[tree.name[node]], 300)
            kind = tree.kinds[tree.kind[node]]
            where = (kind, clean(tree.details[tree.detail[node]], 200))
            hover = (
                name,
                f"{weight(total, unit)} ({shares})",
                f"self {weight(own, unit)} ({percent(_share(own, everything))})" if own else "",
                " · ".join(filter(None, where)),
            )
        boxes.append(
            Box(
                name,
                kind,
                tuple(filter(None, hover)),
                float(laid.x[i]),
                float(laid.width[i]),
                int(laid.row[i]),
                total,
                i < focused,
                int(laid.merged[i]),
                bool(hits[i]),
            )
        )
    present = {box.kind for box in boxes if box.kind != LABEL and box.width > 0}
    return View(
        clean(title, 160),
        _joined(
            [
                clean(subtitle, 300),
                f"weight is {clean(unit)}: {_bare(base, unit)} in all" if unit else "",
                f"showing {laid.shown:,} of {laid.frames:,} frames, {percent(laid.share)}",
                _beyond(laid),
            ]
        ),
        boxes,
        int(laid.row.max()) + 1,
        [kind for kind in KINDS if kind in present],
        query,
        found,
        icicle,
    )


def _beyond(laid: Layout) -> str:
    rows = int(laid.deeper.max())
    return f"{percent(laid.beyond)} goes up to {rows:,} rows deeper" if rows else ""


def _bare(value: float, unit: str) -> str:
    return weight(value, "ns") if unit.split()[-1:] == ["ns"] else amount(value)


def _share(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _joined(parts: Sequence[str]) -> str:
    return " · ".join(filter(None, parts))


def matched_share(tree: Tree, root: int, matches: NDArray[np.bool_]) -> float:
    """Percent of the weight of `root` that is in these frames or beneath them.

    A matched frame beneath a matched frame counts once.
    """
    outermost = tree.outermost(_beneath(tree, root) & matches)
    return _share(float(tree.total[outermost].sum()), float(tree.total[root]))


def _beneath(tree: Tree, root: int) -> NDArray[np.bool_]:
    start = np.zeros(len(tree), dtype=np.bool_)
    start[root] = True
    return tree.beneath(start)


def _hits(tree: Tree, laid: Layout, matches: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The boxes to light up: those of matched frames, and every "..." that hides one."""
    whole = laid.node >= 0
    hits = np.zeros(len(laid.node), dtype=np.bool_)
    hits[whole] = matches[laid.node[whole]]
    # a frame without a box of its own is in the "..." of its nearest ancestor that has one
    box_of = np.full(len(tree), -1, dtype=np.int64)
    box_of[laid.node[whole]] = np.flatnonzero(whole)
    shown = box_of >= 0
    for level in tree.levels[1:]:
        hidden = level[~shown[level]]
        box_of[hidden] = box_of[tree.parent[hidden]]
    root = int(laid.node[laid.above])
    lost = _beneath(tree, root) & matches & ~shown & (tree.total > 0)
    dots = np.flatnonzero(~whole)
    hits[dots] = np.isin(laid.parent[dots], box_of[lost])
    return hits
