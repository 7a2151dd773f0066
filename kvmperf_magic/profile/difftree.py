"""Two call trees as one: what each frame weighs on both sides, and how sure the difference is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.diffpaths import PairedPaths, paired_paths
from kvmperf_magic.profile.groups import sums
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.stats import (
    Shares,
    binomial_variance,
    block_variance,
    difference,
    time_blocks,
)
from kvmperf_magic.profile.tree import grow
from kvmperf_magic.table import Categorical

BOTH, NEW, VANISHED = range(3)  # values of `DiffTree.status`
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class DiffTree:
    """k nodes, level by level, so that a parent stands before its children; node 0 is the root.

    parent: int32[k], -1 for the root; name, dso: Categorical; mode: uint8[k], an index into
    `tree.KINDS` (of the other side where it has the node, else of the baseline); token: int64[k],
    a number that what is the same has in all trees of the same `DiffStacks`, -1 for "all".
    baseline_self, other_self: float64[k], percent of the side's total that ended in the node;
    baseline, other: with all beneath it. delta, low, high: percent points, other - baseline, and
    its interval; all intervals hold together with `confidence`; significant: bool[k], the
    interval excludes 0. status: int8[k], BOTH, NEW or VANISHED.
    leaves: only the innermost frame of every stack is in the tree, as one side has no stacks.
    """

    parent: NDArray[np.int32]
    name: Categorical
    dso: Categorical
    mode: NDArray[np.uint8]
    token: NDArray[np.int64]
    baseline_self: NDArray[np.float64]
    other_self: NDArray[np.float64]
    baseline: NDArray[np.float64]
    other: NDArray[np.float64]
    delta: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    significant: NDArray[np.bool_]
    status: NDArray[np.int8]
    confidence: float
    leaves: bool

    def __len__(self) -> int:
        return len(self.parent)


@dataclass(frozen=True)
class _Grown:
    """A tree without its numbers: parent, token and depth of every node, and the node in which
    each sample of each side ends, -1 for samples that are not in the tree."""

    parent: NDArray[np.int32]
    token: NDArray[np.int64]
    depth: NDArray[np.int32]
    nodes: tuple[NDArray[np.int64], NDArray[np.int64]]


class DiffStacks:
    """The stacks of two profiles, b against the baseline a: see `diffpaths.paired_paths()`.

    Every tree that is made of them has its own intervals, from the samples that meet in each of
    its nodes. Raises QueryError for a side without weight.
    """

    def __init__(self, a: Profile, b: Profile, *, confidence: float = 0.95) -> None:
        for profile in (a, b):
            if not profile.total:
                raise QueryError(
                    "a side has no samples to compare", "filter less, or record for longer"
                )
        self._profiles = (a, b)
        self._paths = paired_paths(a, b)
        self.confidence = confidence

    @property
    def tokens(self) -> int:
        """The tokens are the numbers below this one."""
        return self._paths.radix

    def tree(self, *, callee: bool = False, collapse: bool = False) -> DiffTree:
        """Both call trees laid over each other. `callee`: each stack turned round, the innermost
        frame first; `collapse`: frames that call themselves directly are one."""
        paths = self._of(collapse)
        parent, token, end, depth = grow(
            paths.tokens, paths.offsets, callee=callee, radix=paths.radix
        )
        first, second = paths.of_sample
        return self._compared([_Grown(parent, token, depth, (end[first], end[second]))])[0]

    def between(
        self, tokens: Sequence[int], *, collapse: bool = False
    ) -> tuple[DiffTree, DiffTree]:
        """What these tokens call and what calls them, as two trees whose root they are, from all
        places together; where one is beneath another, the outermost counts. All intervals of both
        hold together. Raises QueryError for tokens that no stack has."""
        paths = self._of(collapse)
        around = paths.around(np.asarray(tokens, dtype=np.int64))
        if not len(around.token):
            raise QueryError("no stack has these frames")
        weight = np.zeros(paths.radix)
        for profile, path in zip(self._profiles, around.of_sample, strict=True):
            there = path >= 0
            of = around.token[path[there]]
            weight += sums(of, profile.period[there] / profile.total, paths.radix)
        grown = []
        for (cut, offsets), callee in ((around.after, False), (around.before, True)):
            parent, token, end, depth = grow(cut, offsets, callee=callee, radix=paths.radix)
            token[0] = int(np.argmax(weight))
            end = np.append(end, -1)  # of samples that are on no path
            first, second = around.of_sample
            grown.append(_Grown(parent, token, depth, (end[first], end[second])))
        callees, callers = self._compared(grown)
        return callees, callers

    def _of(self, collapse: bool) -> PairedPaths:
        return self._paths.without_recursion if collapse else self._paths

    def _compared(self, trees: Sequence[_Grown]) -> list[DiffTree]:
        """The trees with their numbers; all intervals of all of them hold together."""
        # a frame with one callee and no weight of its own is the same finding as its callee
        tests = [_findings(tree) for tree in trees]
        sides = [
            _together(
                [_shares(p, t, side, tested) for t, (tested, _) in zip(trees, tests, strict=True)]
            )
            for side, p in enumerate(self._profiles)
        ]
        delta, low, high = difference(sides[0], sides[1], self.confidence)
        found, start = [], 0
        for tree, (tested, test) in zip(trees, tests, strict=True):
            row = start + test
            start += len(tested)
            own = [
                100
                * sums(node[node >= 0], p.period[node >= 0].astype(np.float64), len(test))
                / p.total
                for p, node in zip(self._profiles, tree.nodes, strict=True)
            ]
            before, after = (side.samples[row] > 0 for side in sides)
            found.append(
                DiffTree(
                    tree.parent,
                    self._paths.name.take(tree.token),
                    self._paths.dso.take(tree.token),
                    self._paths.mode[tree.token],
                    tree.token,
                    own[0],
                    own[1],
                    100 * sides[0].share[row],
                    100 * sides[1].share[row],
                    100 * delta[row],
                    100 * low[row],
                    100 * high[row],
                    (low[row] > 0) | (high[row] < 0),
                    np.where(before & after, BOTH, np.where(after, NEW, VANISHED)).astype(np.int8),
                    self.confidence,
                    self._paths.leaves,
                )
            )
        return found


def _together(shares: Sequence[Shares]) -> Shares:
    """The rows of all of them, of one profile."""
    share, variance, weight, samples = (
        np.concatenate([getattr(one, column) for one in shares])
        for column in ("share", "variance", "weight", "samples")
    )
    return Shares(share, variance, weight, samples, shares[0].freedom)


def _findings(tree: _Grown) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nodes whose weight is that of no single callee, and for every node which of them has
    the same samples as it."""
    parent, count = tree.parent, len(tree.parent)
    ends = np.zeros(count, dtype=np.bool_)
    for node in tree.nodes:
        ends[node[node >= 0]] = True
    callees = np.bincount(parent[1:], minlength=count)
    same = np.arange(count)
    only = np.flatnonzero((callees[parent[1:]] == 1) & ~ends[parent[1:]]) + 1
    same[parent[only]] = only
    for _ in range(int(tree.depth[-1]).bit_length()):
        same = same[same]
    tested = np.flatnonzero(same == np.arange(count))
    place = np.empty(count, dtype=np.int64)
    place[tested] = np.arange(len(tested))
    return tested, place[same]


def _shares(profile: Profile, tree: _Grown, side: int, tested: NDArray[np.int64]) -> Shares:
    """`stats.estimate_shares` for rows that hold each other: with all beneath, of these nodes."""
    count, node = len(tree.parent), tree.nodes[side]
    there = node >= 0
    inside = node[there]
    weight = profile.period.astype(np.float64)
    block, blocks = time_blocks(profile.time)
    cells = sums(inside * blocks + block[there], weight[there], count * blocks)
    cells = _sum_up(cells, tree)[tested]
    samples = _sum_up(sums(inside, np.ones(len(inside)), count), tree)[tested, 0]
    whole = sums(block, weight, blocks)[np.newaxis]
    size = float(weight.sum()) ** 2 / float((weight**2).sum())
    total = cells.sum(axis=1)
    share = total / profile.total
    variance = binomial_variance(share, size)
    if blocks > 1:
        for start in range(0, len(cells), _ROWS_AT_ONCE):
            here = slice(start, start + _ROWS_AT_ONCE)
            variance[here] = np.maximum(variance[here], block_variance(cells[here], whole))
    freedom = blocks - 1.0 if blocks > 1 else max(size - 1, 1.0)
    return Shares(share, variance, total, samples.astype(np.int64), freedom)


def _sum_up(values: NDArray[np.float64], tree: _Grown) -> NDArray[np.float64]:
    """The columns of each node (`values` has k rows of them, flat) and of all beneath it."""
    total = values.reshape(len(tree.parent), -1)
    depth = tree.depth
    starts = np.searchsorted(depth, np.arange(int(depth[-1]) + 2))
    for level in range(int(depth[-1]), 0, -1):
        here = slice(starts[level], starts[level + 1])
        above = tree.parent[here]  # siblings stand side by side
        first = np.flatnonzero(np.concatenate([[True], above[1:] != above[:-1]]))
        total[above[first]] += np.add.reduceat(total[here], first, axis=0)
    return total
