"""Where the frames of a flame graph stand: arrays in, arrays out, nothing drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.tree import Tree

__all__ = ["ORDERS", "Layout", "Order", "Tree", "layout"]

Order = Literal["name", "heavy", "time"]
ORDERS: tuple[Order, ...] = ("name", "heavy", "time")


@dataclass(frozen=True)
class Layout:
    """m boxes, sorted by row, then from left to right.

    The first `above` boxes are the ancestors of the focused frame, as wide as it; box `above`
    is the focused frame itself. A box whose `node` is -1 is a "...": the siblings that were too
    narrow or led too deep, merged, with all that is beneath them (or, among the first `above`,
    ancestors that have no row of their own). Nothing is lost: the totals of a box's children and
    its own self value make its total.
    """

    node: NDArray[np.int32]  # the frame of the tree, -1 for "..."
    parent: NDArray[np.int32]  # a box, -1 for the first
    x: NDArray[np.float64]  # left edge, 0..1 of the focused frame
    width: NDArray[np.float64]
    row: NDArray[np.int32]  # from 0, the outermost caller's
    total: NDArray[np.float64]
    self_value: NDArray[np.float64]
    merged: NDArray[np.int32]  # how many frames this box stands for
    deeper: NDArray[np.int32]  # > 0: how many rows a "..." of the last row stands for
    box: NDArray[np.int32]  # of each frame of the tree its box; -1: that of its caller, or none
    above: int
    frames: int  # frames with weight from the focused one up
    shown: int  # of them, those that have a box of their own
    share: float  # percent of the weight that is in no "..." of narrow frames
    beyond: float  # percent of the weight in a "..." that stands for deeper rows


def layout(
    tree: Tree,
    root: int = 0,
    *,
    most: int = 800,
    least: float = 0.0,
    rows: int | None = None,
    callers: int | None = None,
    order: Order = "name",
) -> Layout:
    """The `most` widest frames from `root` on, none narrower than `least` (share of the root).

    `rows` bounds the rows from `root` on (what is deeper becomes a "..." in the last of them),
    `callers` those of its ancestors; None: as many as there are. A frame is shown only if its
    parent is. Frames without weight have no box.

    Siblings stand in the order of their names or the heaviest first, and those that are pruned
    become one "..." behind them. In the order of "time" they stand as the tree has them, and what
    is pruned between two of them becomes a "..." there.
    """
    if most < 2 or (rows is not None and rows < 2):
        raise ValueError("a layout has room for at least 2 boxes: the root and a '...'")
    if callers is not None and callers < 1:
        raise ValueError("a layout has room for at least 1 row of callers")
    start = np.zeros(len(tree), dtype=np.bool_)
    start[root] = True
    total = tree.total
    inside = tree.beneath(start) & (total > 0)
    inside[root] = True
    weight = float(total[root])
    candidates = np.flatnonzero(inside)
    deepest = tree.deepest(inside)
    base = int(tree.depth[root])
    last = int(deepest[root]) if rows is None else base + rows - 1
    # the last row is for leaves and for the "..." of what goes on
    near = (tree.depth < last) | ((tree.depth == last) & (deepest == last))
    families = _Families(tree, candidates, in_runs=order == "time")
    kept = _prune(families, _widest(inside & near & (total >= least * weight), total, most), most)
    tops, run = families.pruned(kept)

    sizes = tree.sum_up(inside.astype(np.float64)).astype(np.int64)
    runs = int(run.max(initial=-1)) + 1
    first = np.empty(runs, dtype=np.int64)
    first[run[::-1]] = tops[::-1]
    hidden = np.bincount(run, sizes[tops], runs).astype(np.int64)
    rest = np.bincount(run, total[tops], runs)
    end = np.zeros(runs, dtype=np.int64)
    np.maximum.at(end, run, deepest[tops])
    several = hidden > 1
    alone = ~several[run]
    kept = np.concatenate([kept, tops[alone]])  # its "..." would be as wide as it
    tops, run = tops[~alone], (np.cumsum(several) - 1)[run[~alone]]
    first, rest, hidden, end = first[several], rest[several], hidden[several], end[several]
    groups = tree.parent[first]

    path, stands_for = _callers(tree, root, callers)
    above = len(path)
    none = np.full(len(groups), -1, dtype=np.int64)
    node = np.concatenate([path, kept, none])
    totals = np.concatenate([np.where(path < 0, 0.0, total[path]), total[kept], rest])
    row = above - base + np.concatenate([tree.depth[kept], tree.depth[groups] + 1])
    row = np.concatenate([np.arange(above), row])
    box_of = np.full(len(tree), -1, dtype=np.int64)
    box_of[kept] = np.arange(above, above + len(kept))
    parent = np.arange(-1, len(node) - 1)  # right for the ancestors and for the focused frame
    parent[above + 1 :] = box_of[np.concatenate([tree.parent[kept[1:]], groups])]
    position = np.concatenate([path, kept, first])
    x = _place(tree, node, parent, row, totals, above, _ranks(tree, node, position, totals, order))
    divisor = weight or 1.0
    width = totals / divisor
    width[: above if weight else above + 1] = 1.0
    at_end = (tree.depth[groups] + 1 == last) & (end > last)

    def per_box(ancestors: Any, frames: Any, dots: Any) -> NDArray[Any]:
        count = np.full(len(kept), frames)
        return np.concatenate([np.broadcast_to(ancestors, above), count, dots])[final]

    final = np.lexsort((x, row))
    place = np.empty(len(final) + 1, dtype=np.int64)
    place[final] = np.arange(len(final))
    place[-1] = -1
    box_of[tops] = above + len(kept) + run
    box = place[box_of]
    return Layout(
        node=node[final].astype(np.int32),
        parent=place[parent[final]].astype(np.int32),
        x=x[final] / divisor,
        width=width[final],
        row=row[final].astype(np.int32),
        total=totals[final],
        self_value=np.where(node < 0, totals, tree.self_value[node])[final],
        merged=per_box(stands_for, 1, hidden).astype(np.int32),
        deeper=per_box(0, 0, np.where(at_end, end - last + 1, 0)).astype(np.int32),
        box=box.astype(np.int32),
        above=above,
        frames=len(candidates),
        shown=len(kept),
        share=100.0 - 100 * float(rest[~at_end].sum()) / divisor,
        beyond=100 * float(rest[at_end].sum()) / divisor,
    )


def _callers(
    tree: Tree, root: int, most: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ancestors of `root`, one a row, and how many frames each stands for: those in the
    middle become one "..." (-1) where there are more than `most`."""
    path = np.array(tree.ancestors(root), dtype=np.int64)
    count = np.ones(len(path), dtype=np.int64)
    if most is None or len(path) <= most:
        return path, count
    outer, inner = most // 2, most - most // 2 - 1
    middle = len(path) - outer - inner
    path = np.concatenate([path[:outer], [-1], path[outer + middle :]])
    return path, np.concatenate([count[:outer], [middle], count[outer + middle :]])


def _ranks(
    tree: Tree,
    node: NDArray[np.int64],
    position: NDArray[np.int64],
    totals: NDArray[np.float64],
    order: Order,
) -> tuple[NDArray[Any], ...]:
    """What to sort siblings by, the last first."""
    if order == "time":
        return (position,)
    if order == "heavy":
        return position, -totals, node < 0
    names = [tree.names[i] for i in tree.name[node]]
    ranks = {name: i for i, name in enumerate(sorted(set(names)))}
    rank = np.array([ranks[name] for name in names], dtype=np.int64)
    return node, rank, node < 0


def _place(
    tree: Tree,
    node: NDArray[np.int64],
    parent: NDArray[np.int64],
    row: NDArray[np.int64],
    totals: NDArray[np.float64],
    above: int,
    ranks: tuple[NDArray[Any], ...],
) -> NDArray[np.float64]:
    """The left edge of every box, as weight: siblings side by side."""
    siblings = np.lexsort((*ranks, parent))
    running = np.cumsum(totals[siblings]) - totals[siblings]  # sums within each parent
    first = np.r_[True, np.diff(parent[siblings]) != 0]
    offset = np.empty(len(parent))
    offset[siblings] = running - running[first][np.cumsum(first) - 1]
    x = np.zeros(len(parent))
    for level in range(above + 1, int(row.max()) + 1):
        boxes = np.flatnonzero(row == level)
        x[boxes] = x[parent[boxes]] + offset[boxes]
    return x


class _Families:
    """Frames by their parents: what is not kept becomes one "..." of each parent or, `in_runs`,
    of each run of such siblings that stand side by side in the tree."""

    def __init__(self, tree: Tree, frames: NDArray[np.intp], *, in_runs: bool) -> None:
        self._parent = tree.parent
        above = tree.parent[frames]
        self._frames = frames[np.lexsort((frames, above))] if in_runs else frames
        self._in_runs = in_runs
        above = tree.parent[self._frames]
        self._same = np.r_[False, above[1:] == above[:-1]]
        self._keep = np.zeros(len(tree), dtype=np.bool_)
        self._loses = np.zeros(len(tree), dtype=np.bool_)

    def pruned(self, kept: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The topmost of the frames that are not kept, and the number of the "..." of each."""
        keep = self._keep
        keep[:] = False
        keep[kept] = True
        frames = self._frames
        above = self._parent[frames]
        # the parent of the first is not among the frames
        lost = ~keep[frames] & keep[above] & (above >= 0)
        tops = frames[lost]
        if not self._in_runs:
            loses = self._loses
            loses[:] = False
            loses[above[lost]] = True
            return tops, (np.cumsum(loses) - 1)[above[lost]]
        goes_on = self._same & np.r_[False, lost[:-1]]
        return tops, np.cumsum(~goes_on[lost]) - 1


def _widest(frames: NDArray[np.bool_], total: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """The `most` heaviest of these frames. Parents are as heavy as their children and stand
    before them: what a frame comes after holds its ancestors."""
    found = np.flatnonzero(frames)
    if len(found) > most:  # only those are worth sorting
        found = found[total[found] >= np.partition(total[found], -most)[-most]]
    return found[np.lexsort((found, -total[found]))][:most]


def _prune(families: _Families, widest: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """The frames that are kept; every "..." needs a box too, so they may be fewer than `most`."""
    low, high = 1, len(widest)
    while low < high:
        middle = (low + high + 1) // 2
        _, dots = families.pruned(widest[:middle])
        if middle + int(dots.max(initial=-1)) + 1 <= most:
            low = middle
        else:
            high = middle - 1
    return widest[:low]
