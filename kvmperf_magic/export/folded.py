"""Folded stacks, as flame graph tools read them: `frame;frame;frame weight`, root first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.groups import whole_numbers
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.tree import CallTree, build_tree

# what separates frames and ends lines may not stand in a name
_UNSAFE = str.maketrans({";": ":", "\n": " ", "\r": " "})


def folded(profile: Profile) -> str:
    """A line for each distinct stack of names, sorted frame by frame, with the sum of its periods.

    Host stacks stand under their comm, guest stacks under VM, vCPU and guest ring.
    """
    tree = build_tree(profile, by=("symbol",))
    names = [name.translate(_UNSAFE) for name in tree.name.categories]
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=lambda i: names[i] + ";")] = np.arange(len(names))
    order = _preorder(tree, ranks[tree.name.codes])[1:]
    above = [name + ";" for name in names]
    paths = [""] * (int(tree.depth[-1]) + 1)  # by depth, of the node that is walked through
    parts: list[str] = []
    columns = (tree.depth, tree.name.codes, whole_numbers(tree.self))
    inner = np.zeros(len(tree), np.bool_)
    inner[tree.parent[1:]] = True
    # names that are told apart by an unsafe letter alone
    paths_may_repeat = len({*names}) < len(names)
    nodes = zip(*(column[order].tolist() for column in (*columns, inner)), strict=True)
    for depth, code, weight, has_children in nodes:
        path = paths[depth - 1]
        if weight:
            parts += (path, names[code], f" {weight}\n")
        if has_children:
            paths[depth] = path + above[code]
    return _summed(parts) if paths_may_repeat else "".join(parts)


def _summed(parts: list[str]) -> str:
    """The lines of (path, name, weight) with those of equal paths and names as one."""
    weights: dict[str, int] = {}
    for path, name, weight in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        weights[path + name] = weights.get(path + name, 0) + int(weight)
    ordered = sorted(weights, key=lambda path: [f"{name};" for name in path.split(";")])
    return "".join(f"{path} {weights[path]}\n" for path in ordered)


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
