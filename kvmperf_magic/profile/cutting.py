"""Fewer nodes of the same weight: rare stacks are cut to their callers and where they ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.cells import Cells, Frames, beneath, depth_first, parents_of
from kvmperf_magic.profile.groups import group, group_rows, sums
from kvmperf_magic.profile.tree import LABEL
from kvmperf_magic.table import Categorical

CUT = "..."  # stands for the frames that were left out
RARE = "[rare symbols]"


@dataclass(frozen=True)
class Cut:
    """Cells of which `shortened` samples are of stacks with frames left out in their midst, and
    `renamed` of functions that are now RARE."""

    cells: Cells
    shortened: int
    renamed: int


def cut(cells: Cells, least: int, rare: int) -> Cut:
    """Leaves a node its place only where `least` samples are in or beneath it.

    Of a rarer stack its callers down to there are kept and the function it ended in, with CUT
    between them; functions in which fewer than `rare` samples ended are RARE ones of their mode.
    No weight, facet, mode or time changes, and no function's own weight but that of RARE.
    """
    own = sums(cells.node, cells.samples.astype(np.float64), len(cells.depth))
    parent = parents_of(cells.depth)
    before = np.concatenate([[0.0], np.cumsum(own)])
    kept = before[beneath(cells.depth, parent)] - before[:-1] >= least
    kept[0] = True
    ended = _renamed(cells, own, rare)

    # a cut node is beneath the last one before it whose caller is kept
    numbers = np.arange(len(kept))
    highest = ~kept & kept[np.maximum(parent, 0)]
    above = parent[np.maximum.accumulate(np.where(highest, numbers, 0))]
    leaves = np.flatnonzero(~kept & (own > 0))
    deep = ~highest[leaves]

    new = np.cumsum(kept) - 1
    dots = group(new[above[leaves[deep]]])
    dotted_at = new[above[leaves[deep]]][dots.row]
    leaf_parent = new[above[leaves]]
    leaf_parent[deep] = new[-1] + 1 + dots.ids
    ends = group_rows([leaf_parent, ended.of[cells.frame[leaves]]], len(leaves))

    kept_parent = parent[kept]
    kept_parent[1:] = new[kept_parent[1:]]
    parents = np.concatenate([kept_parent, dotted_at, leaf_parent[ends.row]])
    first_dot, first_end = len(kept_parent), len(kept_parent) + len(dots)
    depth = np.concatenate([cells.depth[kept], np.zeros(len(dots) + len(ends), np.int32)])
    for part in (slice(first_dot, first_end), slice(first_end, None)):
        depth[part] = depth[parents[part]] + 1
    frame = np.concatenate(
        [
            cells.frame[kept],
            np.full(len(dots), len(ended.frames) - 1),
            ended.of[cells.frame[leaves[ends.row]]],
        ]
    )
    place = depth_first(parents.astype(np.int32), depth.astype(np.int32))
    where = np.zeros(len(kept), np.int64)
    where[kept] = place[:first_dot]
    where[leaves] = place[first_end:][ends.ids]

    own_frame = cells.frame.copy()
    own_frame[leaves] = ended.of[cells.frame[leaves]]
    return Cut(
        _moved(cells, where, _placed(depth, place), _placed(frame, place), ended.frames),
        int(own[leaves[deep]].sum()),
        int(own[own_frame != cells.frame].sum()),
    )


@dataclass(frozen=True)
class _Ended:
    """A frame's place among `frames` where it is the end of a cut stack; CUT is their last."""

    of: NDArray[np.int32]
    frames: Frames


def _renamed(cells: Cells, own: NDArray[np.float64], rare: int) -> _Ended:
    frames = cells.frames
    count = np.bincount(cells.frame, own, len(frames))
    kinds = len(MODES)
    more = Categorical(np.array([*[0] * kinds, 1], np.int32), [RARE, CUT])
    together = Frames(
        _behind(frames.symbol, more),
        _behind(frames.dso, Categorical.constant("", kinds + 1)),
        np.concatenate([frames.mode, np.arange(kinds), [LABEL]]).astype(np.uint8),
    )
    is_rare = (count < rare) & (frames.mode != LABEL)
    of = np.where(is_rare, len(frames) + frames.mode.astype(np.int64), np.arange(len(frames)))
    return _Ended(of.astype(np.int32), together)


def _behind(one: Categorical, other: Categorical) -> Categorical:
    codes = np.concatenate([one.codes, other.codes + np.int32(len(one.categories))])
    return Categorical(codes, [*one.categories, *other.categories])


def _placed(column: NDArray[np.integer], place: NDArray[np.int64]) -> NDArray[np.int32]:
    placed = np.empty(len(column), np.int32)
    placed[place] = column
    return placed


def _moved(
    cells: Cells,
    where: NDArray[np.int64],
    depth: NDArray[np.int32],
    frame: NDArray[np.int32],
    frames: Frames,
) -> Cells:
    """The cells on other nodes; those that are the same now are summed up."""
    node = where[cells.node]
    of = group_rows([node, cells.facet, cells.step], len(node))
    return replace(
        cells,
        depth=depth,
        frame=frame,
        frames=frames,
        node=node[of.row].astype(np.int32),
        facet=cells.facet[of.row],
        step=cells.step[of.row],
        weight=sums(of.ids, cells.weight, len(of)),
        samples=sums(of.ids, cells.samples.astype(np.float64), len(of)).astype(np.int64),
    )
