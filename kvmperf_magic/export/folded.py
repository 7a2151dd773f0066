"""Folded stacks, as flame graph tools read them: `frame;frame;frame weight`, root first."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.groups import whole_numbers
from kvmperf_magic.profile.profile import Profile, Stacked
from kvmperf_magic.profile.tree import CallTree, build_tree
from kvmperf_magic.table import Categorical

# what separates frames and ends lines may not stand in a name
_UNSAFE = str.maketrans({";": ":", "\n": " ", "\r": " "})


def folded(profile: Profile) -> str:
    """A line for each distinct stack of names, sorted frame by frame, with the sum of its periods.

    Host stacks stand under their comm, guest stacks under VM, vCPU and guest ring.
    """
    tree = build_tree(_in_lines(profile), by=("symbol",))
    names = tree.name.categories
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=lambda i: names[i] + ";")] = np.arange(len(names))
    order = _preorder(tree, ranks[tree.name.codes])[1:]
    above = [name + ";" for name in names]
    paths = [""] * (int(tree.depth[-1]) + 1)  # by depth, of the node that is walked through
    parts: list[str] = []
    columns = (tree.depth, tree.name.codes, whole_numbers(tree.self))
    inner = np.zeros(len(tree), np.bool_)
    inner[tree.parent[1:]] = True
    nodes = zip(*(column[order].tolist() for column in (*columns, inner)), strict=True)
    for depth, code, weight, has_children in nodes:
        path = paths[depth - 1]
        if weight:
            parts += (path, names[code], f" {weight}\n")
        if has_children:
            paths[depth] = path + above[code]
    return "".join(parts)


def _in_lines(profile: Profile) -> Profile:
    """With names that can stand in a line; those that become equal are one."""

    def safe(names: Categorical) -> Categorical:
        return Categorical(names.codes, [name.translate(_UNSAFE) for name in names.categories])

    def later() -> Stacked:
        frames = replace(profile.frames, symbol=safe(profile.frames.symbol))
        return replace(profile.stacked, frames=frames)

    comm, machine = safe(profile.comm), safe(profile.machine)
    return replace(profile, comm=comm, machine=machine, stacked_later=later)


def _preorder(tree: CallTree, rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nodes, each before its children, siblings by rank."""
    starts = np.searchsorted(tree.depth, np.arange(int(tree.depth[-1]) + 2)).tolist()
    levels = list(pairwise(starts))
    size = np.ones(len(tree), np.int64)
    for first, last in levels[:0:-1]:
        np.add.at(size, tree.parent[first:last], size[first:last])
    position = np.zeros(len(tree), np.int64)
    for first, last in levels[1:]:
        parent = tree.parent[first:last]
        by = np.lexsort((rank[first:last], parent))
        before = np.cumsum(size[first:last][by]) - size[first:last][by]
        heads = np.append(True, parent[by][1:] != parent[by][:-1])
        before -= np.maximum.accumulate(np.where(heads, before, 0))
        position[first:last][by] = position[parent[by]] + 1 + before
    order = np.empty(len(tree), np.int64)
    order[position] = np.arange(len(tree))
    return order
