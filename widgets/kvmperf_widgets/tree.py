"""A weighted tree of frames as flat arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import tint_of


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
        return split_by(self.depth)

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

    @cached_property
    def identity(self) -> NDArray[np.int64]:
        """Equal where name, kind and detail are, i64[k], 0.. dense."""
        key = self.name.astype(np.int64) * len(self.kinds) + self.kind
        key = key * len(self.details) + self.detail
        identity: NDArray[np.int64] = np.unique(key, return_inverse=True)[1].reshape(-1)
        return identity

    @cached_property
    def tints(self) -> NDArray[np.int32]:
        """The tint of each name that a frame has, i32[names]."""
        tints = np.zeros(len(self.names), dtype=np.int32)
        used = np.flatnonzero(np.bincount(self.name, minlength=len(self.names)))
        tints[used] = [tint_of(clean(self.names[i], 300)) for i in used.tolist()]
        return tints

    def named(self, pattern: re.Pattern[str]) -> NDArray[np.bool_]:
        """The frames in whose name the pattern is found, as a mask."""
        found = np.array([pattern.search(name) is not None for name in self.names], dtype=np.bool_)
        return found[self.name]


def split_by(keys: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """The positions of each of the keys 0, 1, ... max, in order."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.cumsum(np.bincount(keys))[:-1])
