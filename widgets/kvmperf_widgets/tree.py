"""A weighted tree of frames as flat arrays, and the trees that can be made of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tree:
    """k frames. Frame 0 is the root, `parent[0] == -1`, and parents stand before children.

    `names[name[i]]` names frame i, `kinds[kind[i]]` is its mode ("" for labels such as a VM),
    `details[detail[i]]` more of it (the DSO). `self_value[i]` is the weight that ended in it.
    """

    parent: NDArray[np.int32]
    name: NDArray[np.int32]
    names: list[str]
    self_value: NDArray[np.float64]
    kind: NDArray[np.int32]
    kinds: list[str]
    detail: NDArray[np.int32]
    details: list[str]

    def __post_init__(self) -> None:
        count = len(self.parent)
        columns = (self.name, self.self_value, self.kind, self.detail)
        if not count or any(len(column) != count for column in columns):
            raise ValueError("the arrays of a tree have one length, at least 1 (the root)")
        if self.parent[0] != -1 or np.any(
            (self.parent[1:] < 0) | (self.parent[1:] >= np.arange(1, count))
        ):
            raise ValueError("parent[0] is -1, and every other parent stands before its child")
        if not np.all(np.isfinite(self.self_value)) or np.any(self.self_value < 0):
            raise ValueError("the weights of a tree are finite and not negative")

    def __len__(self) -> int:
        return len(self.parent)

    @cached_property
    def depth(self) -> NDArray[np.int32]:
        """Steps from the root, i32[k]; by pointer doubling."""
        depth = (self.parent >= 0).astype(np.int32)
        above = np.maximum(self.parent, 0)
        while above.any():
            depth += depth[above]
            above = above[above]
        return depth

    @cached_property
    def levels(self) -> list[NDArray[np.intp]]:
        """The frames of each depth, in order of index."""
        return _split_by(self.depth)

    @cached_property
    def total(self) -> NDArray[np.float64]:
        """Weight of each frame and all beneath it, f64[k]."""
        return self.sum_up(self.self_value)

    def sum_up(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each frame's value and those of all frames beneath it, f64[k]."""
        total = values.astype(np.float64)
        for frames in reversed(self.levels[1:]):
            np.add.at(total, self.parent[frames], total[frames])
        return total

    def beneath(self, roots: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The frames of this mask and all beneath them, as a mask."""
        inside = roots.copy()
        for frames in self.levels[1:]:
            inside[frames] |= inside[self.parent[frames]]
        return inside

    def deepest(self, frames: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The depth of the deepest of these frames beneath each of them, i32[k]; -1 elsewhere."""
        deepest = np.where(frames, self.depth, np.int32(-1))
        for level in reversed(self.levels[1:]):
            np.maximum.at(deepest, self.parent[level], deepest[level])
        return np.where(frames, deepest, np.int32(-1))

    def outermost(self, frames: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of these frames that stand beneath no other of them: what may be summed."""
        covered = np.zeros(len(self), dtype=np.bool_)
        for level in self.levels[1:]:
            above = self.parent[level]
            covered[level] = covered[above] | frames[above]
        return frames & ~covered

    def ancestors(self, frame: int) -> list[int]:
        """The frames above this one, the root first."""
        path = []
        frame = int(self.parent[frame])
        while frame >= 0:
            path.append(frame)
            frame = int(self.parent[frame])
        return path[::-1]

    def _identity(self) -> NDArray[np.int64]:
        """Equal where name, kind and detail are, i64[k], 0.. dense."""
        key = self.name.astype(np.int64) * len(self.kinds) + self.kind
        key = key * len(self.details) + self.detail
        identity: NDArray[np.int64] = np.unique(key, return_inverse=True)[1].reshape(-1)
        return identity

    def merged(self, roots: NDArray[np.bool_]) -> Tree:
        """One tree of all that these frames call: their subtrees laid over each other.

        A frame beneath another of them is part of that one's subtree. The new root bears the
        name of the heaviest.
        """
        roots = self.outermost(roots)
        inside = self.beneath(roots)
        steps = np.full(len(self), -1, dtype=np.int32)
        steps[roots] = 0
        for level in self.levels[1:]:
            level = level[inside[level] & ~roots[level]]  # noqa: PLW2901 (narrowed, not renamed)
            steps[level] = steps[self.parent[level]] + 1
        chosen = np.flatnonzero(roots)
        heaviest = int(chosen[np.argmax(self.total[chosen])])
        growing = _Growing(self, heaviest)
        new = np.zeros(len(self), dtype=np.int64)
        growing.add(np.zeros(len(chosen), dtype=np.int64), self.self_value[chosen])
        members = np.flatnonzero(steps > 0)
        for group in _split_by(steps[members] - 1):
            frames = members[group]
            new[frames] = growing.grow(new[self.parent[frames]], frames)
            growing.add(new[frames], self.self_value[frames])
        return growing.tree()

    def reversed(self, root: int = 0) -> Tree:
        """The tree of callers: beneath the root stand the frames where weight ended, heaviest
        or not, and beneath each those that called it. Only what is beneath `root` counts."""
        inside = np.zeros(len(self), dtype=np.bool_)
        inside[root] = True
        growing = _Growing(self, root)
        frames = np.flatnonzero(self.beneath(inside) & (self.self_value > 0))
        weight = self.self_value[frames]
        current, new = frames, np.zeros(len(frames), dtype=np.int64)
        while len(current):
            ended = current == root
            growing.add(new[ended], weight[ended])
            current, new, weight = current[~ended], new[~ended], weight[~ended]
            if len(current):
                new = growing.grow(new, current)
                current = self.parent[current]
        return growing.tree()


class _Growing:
    """A tree built level by level out of frames of another one; equal siblings become one."""

    def __init__(self, source: Tree, root: int) -> None:
        self._source = source
        self._identity = source._identity()
        self._identities = int(self._identity.max()) + 1
        self._parents = [np.array([-1], dtype=np.int64)]
        self._frames = [np.array([root], dtype=np.int64)]
        self._ends: list[NDArray[np.int64]] = []
        self._weights: list[NDArray[np.float64]] = []
        self._count = 1

    def grow(self, parents: NDArray[np.int64], frames: NDArray[np.intp]) -> NDArray[np.int64]:
        """Puts these source frames beneath these new parents; gives their new numbers."""
        key = parents * self._identities + self._identity[frames]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        self._parents.append(parents[first])
        self._frames.append(frames[first].astype(np.int64))
        new: NDArray[np.int64] = inverse.reshape(-1) + self._count
        self._count += len(first)
        return new

    def add(self, frames: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        self._ends.append(frames)
        self._weights.append(weights)

    def tree(self) -> Tree:
        source, frames = self._source, np.concatenate(self._frames)
        value = np.zeros(self._count)
        for ends, weights in zip(self._ends, self._weights, strict=True):
            np.add.at(value, ends, weights)
        return Tree(
            np.concatenate(self._parents).astype(np.int32),
            source.name[frames],
            source.names,
            value,
            source.kind[frames],
            source.kinds,
            source.detail[frames],
            source.details,
        )


def _split_by(keys: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """The positions of each of the keys 0, 1, ... max, in order."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.cumsum(np.bincount(keys))[:-1])
