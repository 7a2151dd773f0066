"""The trees that can be made of a tree: turned round, laid over each other, with frames left out.

A tree stands for weighted stacks. Each function here says what it makes of the stacks; where
stacks become equal, or begin equally, their frames become one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.tree import Tree, split_by

BEYOND = "… further callers"
# A tree of callers can have as many frames as the sum of the depths of all frames. When it has
# grown to so many, only callers that can be seen are grown on; after so many steps, none.
_MOST_FRAMES = 300_000
_MOST_STEPS = 4_000_000
_LEAST = 0.0003  # of the weight


def merged(tree: Tree, roots: NDArray[np.bool_]) -> Tree:
    """One tree of all that these frames call: their subtrees laid over each other.

    A frame beneath another of them is part of that one's subtree. The new root bears the name
    of the heaviest.
    """
    roots = tree.outermost(roots)
    inside = tree.beneath(roots)
    steps = np.full(len(tree), -1, dtype=np.int32)
    steps[roots] = 0
    for level in tree.levels[1:]:
        below = level[inside[level] & ~roots[level]]
        steps[below] = steps[tree.parent[below]] + 1
    chosen = np.flatnonzero(roots)
    growing = _Growing(tree, _heaviest(tree, chosen))
    new = np.zeros(len(tree), dtype=np.int64)
    growing.add(new[chosen], tree.self_value[chosen])
    members = np.flatnonzero(steps > 0)
    for group in split_by(steps[members] - 1):
        frames = members[group]
        new[frames] = growing.grow(new[tree.parent[frames]], frames)
        growing.add(new[frames], tree.self_value[frames])
    return growing.tree()


def reversed_tree(tree: Tree, root: int = 0) -> Tree:
    """The tree of callers: beneath the root stand the frames where weight ended, and beneath
    each those that called it. Only what is beneath `root` counts."""
    start = np.zeros(len(tree), dtype=np.bool_)
    start[root] = True
    ends = np.flatnonzero(tree.beneath(start) & (tree.self_value > 0))
    return _climbed(tree, root, ends, tree.self_value[ends], stop=root)


def callers(tree: Tree, frames: NDArray[np.bool_]) -> Tree:
    """The tree of what calls these frames: they are its root, with the weight of all that is in
    them (once, where one is beneath another); beneath it stand their callers."""
    chosen = np.flatnonzero(tree.outermost(frames))
    above = np.maximum(tree.parent[chosen], 0).astype(np.intp)
    return _climbed(tree, _heaviest(tree, chosen), above, tree.total[chosen], stop=0)


def without(tree: Tree, frames: NDArray[np.bool_]) -> tuple[Tree, NDArray[np.int64]]:
    """These frames taken out of their stacks (the root stays): what ended in them ends in their
    caller, what they call is called by it. With the new number of each frame, i64[k]; a frame
    that was taken out has that of its caller."""
    kept = ~frames
    kept[0] = True
    near = np.zeros(len(tree), dtype=np.int64)  # the kept frame at or above each
    steps = np.zeros(len(tree), dtype=np.int32)
    for level in tree.levels[1:]:
        above = tree.parent[level]
        near[level] = np.where(kept[level], level, near[above])
        steps[level] = steps[above] + kept[level]
    growing = _Growing(tree, 0)
    new = np.zeros(len(tree), dtype=np.int64)
    members = np.flatnonzero(kept)[1:]
    for group in split_by(steps[members] - 1):
        below = members[group]
        new[below] = growing.grow(new[near[tree.parent[below]]], below)
    new = new[near]
    growing.add(new, tree.self_value)
    return growing.tree(), new


def without_recursion(tree: Tree) -> tuple[Tree, NDArray[np.int64]]:
    """Frames that call themselves directly become one; as `without`."""
    identity = tree.identity
    return without(tree, (tree.parent >= 0) & (identity == identity[tree.parent]))


def dropped(tree: Tree, frames: NDArray[np.bool_]) -> Tree:
    """All stacks that hold one of these frames left out. The frames keep their numbers."""
    return replace(tree, self_value=np.where(tree.beneath(frames), 0.0, tree.self_value))


def _heaviest(tree: Tree, frames: NDArray[np.intp]) -> int:
    return int(frames[np.argmax(tree.total[frames])])


def _climbed(
    tree: Tree, root: int, frames: NDArray[np.intp], weight: NDArray[np.float64], stop: int
) -> Tree:
    """The paths from these frames up to (without) `stop`, beneath one root."""
    growing = _Growing(tree, root)
    least = _LEAST * float(weight.sum())
    new = np.zeros(len(frames), dtype=np.int64)
    steps = 0
    while len(frames):
        going = frames != stop
        growing.add(new[~going], weight[~going])
        frames, new, weight = frames[going], new[going], weight[going]
        steps += len(frames)
        if growing.count > _MOST_FRAMES:
            first = int(new.min(initial=growing.count))
            wide = np.bincount(new - first, weight)[new - first] >= least
            wide &= steps < _MOST_STEPS
            growing.end(new[~wide], weight[~wide])
            frames, new, weight = frames[wide], new[wide], weight[wide]
        if len(frames):
            new = growing.grow(new, frames)
            frames = tree.parent[frames].astype(np.intp)
    return growing.tree()


class _Growing:
    """A tree built level by level out of frames of another one; equal siblings become one."""

    def __init__(self, source: Tree, root: int) -> None:
        self._source = source
        self._identity = source.identity
        self._identities = int(self._identity.max()) + 1
        self._parents = [np.array([-1], dtype=np.int64)]
        self._frames = [np.array([root], dtype=np.int64)]
        self._ends = [np.empty(0, dtype=np.int64)]
        self._weights = [np.empty(0)]
        self.count = 1

    def grow(self, parents: NDArray[np.int64], frames: NDArray[np.intp]) -> NDArray[np.int64]:
        """Puts these source frames beneath these new parents; gives their new numbers."""
        first, inverse = _grouped(parents * self._identities + self._identity[frames])
        return self._put(parents[first], frames[first].astype(np.int64))[inverse]

    def end(self, parents: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Gives each of these new parents one child for what is beyond, with this weight."""
        if len(parents):
            first, inverse = _grouped(parents)
            numbers = self._put(parents[first], np.full(len(first), -1))
            self.add(numbers[inverse], weights)

    def _put(self, parents: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
        self._parents.append(parents)
        self._frames.append(frames)
        self.count += len(frames)
        return np.arange(self.count - len(frames), self.count)

    def add(self, frames: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        self._ends.append(frames)
        self._weights.append(weights)

    def tree(self) -> Tree:
        source, frames = self._source, np.concatenate(self._frames)
        ends, weights = np.concatenate(self._ends), np.concatenate(self._weights)
        name, kind, detail = source.name[frames], source.kind[frames], source.detail[frames]
        names, kinds, details = source.names, source.kinds, source.details
        beyond = frames < 0
        if beyond.any():
            names, kinds, details = [*names, BEYOND], [*kinds, ""], [*details, ""]
            name[beyond], kind[beyond] = len(names) - 1, len(kinds) - 1
            detail[beyond] = len(details) - 1
        value = np.zeros(self.count)
        value[:] = np.bincount(ends, weights, minlength=self.count)
        parent = np.concatenate(self._parents).astype(np.int32)
        return Tree(parent, name, names, value, kind, kinds, detail, details)


def _grouped(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For equal keys one number: the position of one of each, the number of every key."""
    if not len(keys):
        return keys, keys
    low = int(keys.min())
    span = int(keys.max()) - low + 1
    if span > 4 * len(keys) + 1024:
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first, inverse.reshape(-1)
    # few enough to count every possible key: no sort
    present = np.zeros(span, dtype=np.bool_)
    present[keys - low] = True
    inverse = (np.cumsum(present) - 1)[keys - low]
    first = np.empty(int(present.sum()), dtype=np.int64)
    first[inverse] = np.arange(len(keys))
    return first, inverse
