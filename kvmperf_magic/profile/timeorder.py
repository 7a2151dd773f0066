"""The call tree in the order of time: what came first stands first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.profile import Pairs, Profile, pairs_of
from kvmperf_magic.profile.report import FRAME_KEYS
from kvmperf_magic.profile.tree import (
    CallTree,
    Grown,
    Paths,
    call_tree,
    joined,
    labels_of,
    paths_of,
)

SLICES = 2000
MOST_NODES = 200_000


def time_tree(
    profile: Profile,
    roots: Literal["auto"] | str | Sequence[str] = "auto",
    *,
    slices: int = SLICES,
    most: int = MOST_NODES,
) -> CallTree:
    """The tree of `build_tree`, its siblings in the order of time.

    Time is cut into slices of as many samples each. A frame is one node as long as it is in every
    slice that its caller is in; where the caller goes on without it, it ends, and begins anew when
    it is called again.
    Labels are one node each. Fewer slices than wished for are taken where the tree would have
    more than `most` nodes.
    """
    ids, labels = labels_of(profile, roots)
    slices = max(1, min(slices, len(profile)))
    while True:
        cut = np.arange(len(profile)) * slices // max(len(profile), 1)
        pairs = pairs_of(profile, cut * len(labels) + ids, slices * len(labels))
        order = np.argsort(pairs.group, kind="stable")
        pairs = replace(
            pairs,
            group=pairs.group[order],
            stack=pairs.stack[order],
            weight=pairs.weight[order],
            samples=pairs.samples[order],
        )
        at, group = np.divmod(pairs.group, max(len(labels), 1))
        found = _tree(profile, roots, replace(pairs, group=group), labels, at, most)
        if found is not None:
            return found
        slices = slices // 2


def _tree(
    profile: Profile,
    roots: Literal["auto"] | str | Sequence[str],
    pairs: Pairs,
    labels: list[tuple[str, ...]],
    at: NDArray[np.int64],
    most: int,
) -> CallTree | None:
    """The tree of these pairs, which are sorted by their slices `at`; None: too many nodes."""
    paths = paths_of(profile, pairs, labels, FRAME_KEYS, guest_only=roots == "auto")
    grown = _grow(paths, at, most if at[-1:].any() else None)
    return None if grown is None else call_tree(profile, pairs, paths, *grown)


def _grow(paths: Paths, at: NDArray[np.int64], most: int | None) -> Grown | None:
    """As `tree.grow`, where nodes are one only as long as their caller has no slice without them.
    `turn` numbers the slices of each caller."""
    tokens, offsets = paths.tokens, paths.offsets
    lengths = np.diff(offsets)
    end = np.zeros(len(lengths), dtype=np.int64)
    parents = [np.array([-1], dtype=np.int64)]
    node_tokens = [np.array([-1], dtype=np.int64)]
    nodes, level, turn = 1, 0, at.copy()
    active = np.flatnonzero(lengths)
    while len(active):
        token = tokens[offsets[active] + level]
        key = end[active] * paths.radix + token
        order = np.argsort(key, kind="stable")  # of one key by slice, as the paths stand
        key, token, path = key[order], token[order], active[order]
        new = np.ones(len(order), dtype=np.bool_)
        left = (np.diff(turn[path]) > 1) & (token[1:] < paths.entries)
        new[1:] = (key[1:] != key[:-1]) | left
        first = np.flatnonzero(new)
        above = end[path[first]]
        standing = np.lexsort((token[first], at[path[first]], above))
        place = np.empty(len(first), dtype=np.int64)
        place[standing] = np.arange(nodes, nodes + len(first))
        end[path] = place[np.cumsum(new) - 1]
        new[1:] |= np.diff(at[path]) != 0
        turn[path] = np.cumsum(new)
        parents.append(above[standing])
        node_tokens.append(token[first][standing])
        nodes += len(first)
        if most is not None and nodes > most:
            return None
        level += 1
        active = active[lengths[active] > level]
    return joined(parents, node_tokens, end)
