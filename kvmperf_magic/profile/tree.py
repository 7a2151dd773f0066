"""The call tree of a profile, host and guests under one root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import GUEST_KERNEL, MODES
from kvmperf_magic.profile.groups import codes_of, group, group_rows, keys_of, sums, within
from kvmperf_magic.profile.profile import (
    GUEST_CODES,
    Pairs,
    Profile,
    categorical,
    pairs_of,
)
from kvmperf_magic.profile.report import FRAME_KEYS, SORT_KEYS, frame_groups
from kvmperf_magic.table import Categorical

LABEL = len(MODES)  # the `mode` of nodes that are no frames: the root, a comm, a VM, a vCPU
# parent and token of every node, the last node of every path, the depth of every node
Grown: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]
KINDS = (*MODES, "")  # the names of the values of `CallTree.mode`


@dataclass(frozen=True)
class CallTree:
    """k nodes, level by level, so that a parent stands before its children; node 0 is the root.

    parent: int32[k], -1 for the root; name, dso: Categorical; mode: uint8[k], an index into
    `KINDS`; depth: int32[k], 0 for the root; self, total: float64[k], sums of periods in `unit`;
    samples: int64[k], samples that end in the node.
    """

    parent: NDArray[np.int32]
    name: Categorical
    dso: Categorical
    mode: NDArray[np.uint8]
    depth: NDArray[np.int32]
    self: NDArray[np.float64]
    total: NDArray[np.float64]
    samples: NDArray[np.int64]
    unit: str

    def __len__(self) -> int:
        return len(self.parent)


def build_tree(
    profile: Profile,
    roots: Literal["auto"] | str | Sequence[str] = "auto",
    *,
    order: Literal["caller", "callee"] = "caller",
    by: Sequence[str] = FRAME_KEYS,
) -> CallTree:
    """The call tree of all samples; frames equal in these of symbol, dso and mode are one.

    `roots` are the labels above the stacks. "auto": host samples stand under their comm, guest
    samples under the VM, "vCPU n", where it is known the process that ran there ("dd", "dd ?"
    where that is not sure), and "[guest kernel]" or "[guest user]" (the leaf's mode), with only
    the guest's frames below: what the VMM's thread did to get there is no part of the guest.
    Else any sort keys of a sample ("comm,tid"), and whole stacks below.
    order="callee" turns every path round: the leaf first, its callers below, labels last.
    """
    if order not in {"caller", "callee"}:
        raise QueryError(f"no order {order!r}", "order: caller, callee")
    ids, labels = labels_of(profile, roots)
    pairs = pairs_of(profile, ids, len(labels))
    paths = paths_of(profile, pairs, labels, by, guest_only=roots == "auto")
    parent, token, end, depth = grow(
        paths.tokens, paths.offsets, callee=order == "callee", radix=paths.radix
    )
    return call_tree(profile, pairs, paths, parent, token, end, depth)


@dataclass(frozen=True)
class Paths:
    """Of every pair its labels, then its frames, as tokens: path i is
    `tokens[offsets[i]:offsets[i + 1]]`. A token below `entries` is a frame that `entry` gives (of
    each row of the frame table); above it is a label, one of `names`."""

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    entry: NDArray[np.int64]
    entries: int
    names: list[str]

    @property
    def radix(self) -> int:
        """More than any token."""
        return self.entries + len(self.names)


def labels_of(
    profile: Profile, roots: Literal["auto"] | str | Sequence[str]
) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    """The label group of every sample, and the labels of the groups: see `build_tree`."""
    return _auto_labels(profile) if roots == "auto" else _key_labels(profile, roots)


def paths_of(
    profile: Profile,
    pairs: Pairs,
    labels: list[tuple[str, ...]],
    by: Sequence[str],
    *,
    guest_only: bool,
) -> Paths:
    """The paths of these pairs, whose groups are of `labels`."""
    entry = frame_groups(profile, by)
    entries = int(entry.max(initial=-1)) + 1
    names = list(dict.fromkeys(label for path in labels for label in path))
    number = {name: entries + i for i, name in enumerate(names)}
    label_offsets = np.cumsum([0, *map(len, labels)])
    label_tokens = np.array([number[label] for path in labels for label in path], np.int64)
    frames, frame_lengths = _frames(profile, pairs, guest_only=guest_only)
    label_lengths = np.diff(label_offsets)[pairs.group]
    lengths = label_lengths + frame_lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    is_label = position < np.repeat(label_lengths, lengths)
    tokens = np.empty(offsets[-1], dtype=np.int64)
    tokens[is_label] = label_tokens[within(label_offsets, pairs.group)]
    tokens[~is_label] = entry[frames]
    return Paths(tokens, offsets, entry, entries, names)


def call_tree(
    profile: Profile,
    pairs: Pairs,
    paths: Paths,
    parent: NDArray[np.int32],
    token: NDArray[np.int64],
    end: NDArray[np.int64],
    depth: NDArray[np.int32],
) -> CallTree:
    """The tree of these nodes, of which `end` (one a pair) have weight of their own."""
    own = sums(end, pairs.weight, len(parent))
    samples = np.bincount(end, pairs.samples, minlength=len(parent)).astype(np.int64)
    name, dso, mode = _describe(profile, token, paths.entry, paths.entries, paths.names)
    return CallTree(
        parent, name, dso, mode, depth, own, _totals(own, parent, depth), samples, profile.unit
    )


def _auto_labels(profile: Profile) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    """The label group of every sample, and the labels of the groups."""
    guest = np.isin(profile.mode, GUEST_CODES)
    columns = [
        guest,
        np.where(guest, 0, codes_of(profile.comm)),
        np.where(guest, codes_of(profile.machine), 0),
        np.where(guest, profile.vcpu, 0),
        np.where(guest, profile.mode, 0),
    ]
    if profile.tasks_later is not None:
        columns += [
            np.where(guest, codes_of(profile.guest_comm), 0),
            np.where(guest & (profile.guest_pid >= 0), 1 + (profile.guest_sure == 1), 0),
        ]
    groups = group_rows([c.astype(np.int64) for c in columns], len(profile))
    labels: list[tuple[str, ...]] = []
    for row in groups.row.tolist():
        if guest[row]:
            vcpu = int(profile.vcpu[row])
            kernel = profile.mode[row] == GUEST_KERNEL
            labels.append(
                (
                    profile.machine.categories[profile.machine.codes[row]],
                    f"vCPU {vcpu}" if vcpu >= 0 else "vCPU ?",
                    *_process(profile, row),
                    "[guest kernel]" if kernel else "[guest user]",
                )
            )
        else:
            labels.append((profile.comm.categories[profile.comm.codes[row]],))
    return groups.ids, labels


def _process(profile: Profile, row: int) -> tuple[str, ...]:
    """The label of the process that a sample's vCPU ran, if it is known."""
    if profile.guest_pid[row] < 0:
        return ()
    name = profile.guest_comm.categories[profile.guest_comm.codes[row]] or "[no name]"
    return (name if profile.guest_sure[row] == 1 else f"{name} ?",)


def _key_labels(
    profile: Profile, roots: str | Sequence[str]
) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    keys = keys_of(roots, SORT_KEYS) if roots else ()
    columns = [getattr(profile, key) for key in keys]
    groups = group_rows([codes_of(column) for column in columns], len(profile))
    labels = []
    for row in groups.row.tolist():
        path = []
        for key, column in zip(keys, columns, strict=True):
            if isinstance(column, Categorical):
                path.append(column.categories[column.codes[row]])
            else:
                path.append(MODES[column[row]] if key == "mode" else f"{key} {column[row]}")
        labels.append(tuple(path))
    return groups.ids, labels


def _frames(
    profile: Profile, pairs: Pairs, *, guest_only: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The frames of all pairs' stacks, one after the other, and how many each has."""
    stacks = pairs.stacks
    frames = stacks.frames[within(stacks.offsets, pairs.stack)]
    lengths = stacks.offsets[pairs.stack + 1] - stacks.offsets[pairs.stack]
    if not guest_only:
        return frames, lengths
    is_guest = np.isin(profile.frames.mode, GUEST_CODES)
    in_guest = is_guest[stacks.leaves[pairs.stack]]
    kept = is_guest[frames] | np.repeat(~in_guest, lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return frames[kept], np.bincount(owner[kept], minlength=len(lengths)).astype(np.int64)


def grow(
    tokens: NDArray[np.int64], offsets: NDArray[np.int64], *, callee: bool, radix: int
) -> Grown:
    """Merges paths of tokens (int64 below `radix`; path i is tokens[offsets[i]:offsets[i + 1]])
    level by level: parent, token and depth of every node, and the last node of every path. Node 0,
    the root, has parent and token -1."""
    lengths = np.diff(offsets)
    end = np.zeros(len(lengths), dtype=np.int64)
    parents = [np.array([-1], dtype=np.int64)]
    node_tokens = [np.array([-1], dtype=np.int64)]
    nodes, level = 1, 0
    active = np.flatnonzero(lengths)
    while len(active):
        at = offsets[active + 1] - 1 - level if callee else offsets[active] + level
        token = tokens[at]
        found = group(end[active] * radix + token)
        parents.append(end[active][found.row])
        node_tokens.append(token[found.row])
        end[active] = nodes + found.ids
        nodes += len(found)
        level += 1
        active = active[lengths[active] > level]
    return joined(parents, node_tokens, end)


def joined(
    parents: list[NDArray[np.int64]], tokens: list[NDArray[np.int64]], end: NDArray[np.int64]
) -> Grown:
    """The nodes of all levels, the root's first, as one tree."""
    depth = np.repeat(np.arange(len(parents)), [len(level) for level in parents])
    return (
        np.concatenate(parents).astype(np.int32),
        np.concatenate(tokens),
        end,
        depth.astype(np.int32),
    )


def _totals(
    own: NDArray[np.float64], parent: NDArray[np.int32], depth: NDArray[np.int32]
) -> NDArray[np.float64]:
    total = own.copy()
    starts = np.searchsorted(depth, np.arange(int(depth[-1]) + 2))
    for level in range(int(depth[-1]), 0, -1):
        above, here, below = starts[level - 1], starts[level], starts[level + 1]
        total[above:here] += sums(parent[here:below] - above, total[here:below], here - above)
    return total


def _describe(
    profile: Profile,
    token: NDArray[np.int64],
    entry: NDArray[np.int64],
    entries: int,
    labels: list[str],
) -> tuple[Categorical, Categorical, NDArray[np.uint8]]:
    """Name, DSO and mode of every node: of its frame, or of its label."""
    frame_of = np.zeros(entries + 1, dtype=np.int64)
    frame_of[entry] = np.arange(len(entry))
    is_frame = (token >= 0) & (token < entries)
    frame = frame_of[token[is_frame]]
    own_names = categorical(["all", *labels])
    known = profile.frames.symbol.categories
    name = np.empty(len(token), dtype=np.int32)
    name[is_frame] = profile.frames.symbol.codes[frame]
    which = np.where(token[~is_frame] < 0, 0, token[~is_frame] - entries + 1)
    name[~is_frame] = own_names.codes[which] + len(known)
    dsos = profile.frames.dso.categories
    dso = np.full(len(token), len(dsos), dtype=np.int32)
    dso[is_frame] = profile.frames.dso.codes[frame]
    mode = np.full(len(token), LABEL, dtype=np.uint8)
    mode[is_frame] = profile.frames.mode[frame]
    return (
        Categorical(name, [*known, *own_names.categories]),
        Categorical(dso, [*dsos, ""]),
        mode,
    )
