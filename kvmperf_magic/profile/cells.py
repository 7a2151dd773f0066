"""Samples summed by stack, by whose they are and by time: what a page filters without asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.groups import codes_of, group, group_rows, sums
from kvmperf_magic.profile.profile import Pairs, Profile
from kvmperf_magic.profile.report import FRAME_KEYS
from kvmperf_magic.profile.tree import call_tree, grow, labels_of, paths_of
from kvmperf_magic.table import Categorical

FACETS = ("comm", "machine", "vcpu", "event")

_WIDTHS = tuple(k * 10**power for power in range(18) for k in (1, 2, 5))  # ns


@dataclass(frozen=True)
class Frames:
    """What nodes are of, a row a frame: `mode` is an index into `tree.KINDS`."""

    symbol: Categorical
    dso: Categorical
    mode: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.mode)

    def take(self, rows: Any) -> Frames:
        return Frames(self.symbol.take(rows), self.dso.take(rows), self.mode[rows])


@dataclass(frozen=True)
class Steps:
    """`count` steps of time: step i begins `i * width` ns after `start`, ns of the recording's
    clock; seconds are counted from `origin`."""

    origin: int
    start: int
    width: int
    count: int

    @classmethod
    def of(cls, time: NDArray[np.uint64], origin: int, most: int) -> Steps:
        """At most this many for samples at these times, whose width is 1, 2 or 5 times a power of
        ten; the first begins a whole number of them after the origin."""
        first, last = (int(time.min()), int(time.max())) if len(time) else (origin, origin)
        for width in _WIDTHS:
            phase = (first - origin) % width
            if phase <= first and last - first + phase < most * width:
                return cls(origin, first - phase, width, (last - first + phase) // width + 1)
        width = (last - first) // most + 1
        return cls(origin, first, width, (last - first) // width + 1)

    def second(self, step: int) -> float:
        """When a step begins."""
        return (self.start - self.origin + step * self.width) / 1e9

    def around(self, start: float, end: float) -> tuple[int, int]:
        """The first and the last step of those that hold this time, as far as there are any."""
        first, last = (
            (self.origin + round(second * 1e9) - before - self.start) // self.width
            for second, before in ((start, 0), (end, 1))
        )
        first = min(max(first, 0), self.count - 1)
        return first, min(max(last, first), self.count - 1)


@dataclass(frozen=True)
class Cells:
    """What falls on each cell, which is one node, one facet and one step of time.

    Nodes are those of the call tree of all samples, depth first, so that all that is beneath a
    node stands right behind it; node 0 is the root. `depth` (int32) and `frame` (int32, a row of
    `frames`) have a row a node. `facets`: a row for each combination of comm, machine, vcpu,
    event, and what was asked for besides. `node`, `facet`, `step` (int32), `weight` (float64, sums
    of periods) and `samples` (int64) have a row a cell; its node is where the samples end, its step
    one of `steps`.
    """

    depth: NDArray[np.int32]
    frame: NDArray[np.int32]
    frames: Frames
    facets: dict[str, Categorical | NDArray[Any]]
    node: NDArray[np.int32]
    facet: NDArray[np.int32]
    step: NDArray[np.int32]
    weight: NDArray[np.float64]
    samples: NDArray[np.int64]
    steps: Steps

    def __len__(self) -> int:
        return len(self.node)


class Gathering:
    """Of every sample of a profile its node and its facet; `cells()` sums them up by time.

    `more` are sort keys of samples (pid, tid, cpu) that a facet is to tell besides.
    """

    def __init__(self, profile: Profile, more: Sequence[str] = ()) -> None:
        self._profile = profile
        self._weight = profile.period.astype(np.float64)
        ids, labels = labels_of(profile, "auto")
        columns = {key: getattr(profile, key) for key in (*FACETS, *more)}
        facets = group_rows([ids, *map(codes_of, columns.values())], len(profile))
        self._facet = facets.ids
        self._facets = {
            key: column.take(facets.row) if isinstance(column, Categorical) else column[facets.row]
            for key, column in columns.items()
        }
        merged, stacks = profile.stacks.merged
        found = group(facets.ids * len(stacks) + merged[profile.stack])
        pairs = Pairs(
            ids[found.row],
            merged[profile.stack[found.row]],
            sums(found.ids, self._weight, len(found)),
            np.bincount(found.ids, minlength=len(found)),
            stacks,
        )
        paths = paths_of(profile, pairs, labels, FRAME_KEYS, guest_only=True)
        parent, token, end, depth = grow(
            paths.tokens, paths.offsets, callee=False, radix=paths.radix
        )
        tree = call_tree(profile, pairs, paths, parent, token, end, depth)
        place = depth_first(tree.parent, tree.depth)
        self._node = place[end][found.ids]
        self._depth = np.empty_like(tree.depth)
        self._depth[place] = tree.depth
        whole = Frames(tree.name, tree.dso, tree.mode)
        of = group_rows([codes_of(whole.symbol), codes_of(whole.dso), whole.mode], len(tree))
        self._frame = np.empty(len(tree), np.int32)
        self._frame[place] = of.ids
        self._frames = whole.take(of.row)

    def cells(self, steps: Steps) -> Cells:
        time = self._profile.time
        step = ((time - np.uint64(steps.start)) // np.uint64(steps.width)).astype(np.int64)
        of = group_rows([self._node, self._facet, step], len(time))
        return Cells(
            self._depth,
            self._frame,
            self._frames,
            self._facets,
            self._node[of.row].astype(np.int32),
            self._facet[of.row].astype(np.int32),
            step[of.row].astype(np.int32),
            sums(of.ids, self._weight, len(of)),
            np.bincount(of.ids, minlength=len(of)),
            steps,
        )


def depth_first(parent: NDArray[np.int32], depth: NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each node where every node stands right before all that is beneath it."""
    order = np.lexsort((parent, depth))
    bounds = np.searchsorted(depth[order], np.arange(int(depth.max()) + 2))
    levels = [order[a:b] for a, b in pairwise(bounds.tolist())]
    size = np.ones(len(parent), np.int64)
    for level in levels[:0:-1]:
        np.add.at(size, parent[level], size[level])
    place = np.zeros(len(parent), np.int64)
    for level in levels[1:]:
        above = parent[level]
        before = np.cumsum(size[level]) - size[level]
        eldest = np.searchsorted(above, above)  # of its siblings
        place[level] = place[above] + 1 + before - before[eldest]
    return place


def parents_of(depth: NDArray[np.int32]) -> NDArray[np.int64]:
    """The parent of each node of a tree that stands depth first; -1 for the root."""
    parent = np.full(len(depth), -1, np.int64)
    order = np.argsort(depth, kind="stable")
    bounds = np.searchsorted(depth[order], np.arange(int(depth.max()) + 2))
    for level in range(1, len(bounds) - 1):
        above = order[bounds[level - 1] : bounds[level]]
        here = order[bounds[level] : bounds[level + 1]]
        parent[here] = above[np.searchsorted(above, here) - 1]
    return parent


def beneath(depth: NDArray[np.int32], parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place behind all that is beneath each node."""
    size = np.ones(len(depth), np.int64)
    order = np.argsort(depth, kind="stable")
    bounds = np.searchsorted(depth[order], np.arange(int(depth.max()) + 2))
    for level in range(len(bounds) - 2, 0, -1):
        here = order[bounds[level] : bounds[level + 1]]
        np.add.at(size, parent[here], size[here])
    return np.arange(len(depth)) + size
