"""Two call trees as one: what each frame weighs on both sides, and how sure the difference is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import GUEST_KERNEL
from kvmperf_magic.profile.groups import group, group_rows, sums, within
from kvmperf_magic.profile.pairing import Side, is_across, pair_profiles
from kvmperf_magic.profile.profile import GUEST_CODES, Profile, categorical
from kvmperf_magic.profile.stats import (
    Shares,
    binomial_variance,
    block_variance,
    difference,
    time_blocks,
)
from kvmperf_magic.profile.tree import LABEL, grow
from kvmperf_magic.table import Categorical

BOTH, NEW, VANISHED = range(3)  # values of `DiffTree.status`
_FEW_STACKS = 0.01  # of the weight: a side with no more stacks than that has none
_ROWS_AT_ONCE = 20_000
_UNNAMED = re.compile(r":-?\d+")  # the comm of a thread whose name is not in the file


@dataclass(frozen=True)
class DiffTree:
    """k nodes, level by level, so that a parent stands before its children; node 0 is the root.

    parent: int32[k], -1 for the root; name, dso: Categorical; mode: uint8[k], an index into
    `tree.KINDS` (of the other side where it has the node, else of the baseline).
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
class _Paths:
    """The unique paths of one side: which one each sample has (int64[n]), the labels of each and
    its frames, path i's at offsets[i]:offsets[i + 1]."""

    of_sample: NDArray[np.int64]
    labels: list[tuple[str, ...]]
    label: NDArray[np.int64]  # of each path, an index into labels
    offsets: NDArray[np.int64]
    frames: NDArray[np.int32]


def diff_tree(a: Profile, b: Profile, *, confidence: float = 0.95) -> DiffTree:
    """The call trees of both profiles laid over each other, b against the baseline a.

    Frames pair as `pair_profiles` pairs rows: a host's and a guest's kernel function meet.
    Where one profile is of the host and the other of guests, there are no labels above the
    stacks. Else host stacks stand under their comm, guest stacks under the VM (any names meet if
    there is one VM a side) and "[guest kernel]" or "[guest user]"; vCPUs are not told apart.
    Raises QueryError for a side without weight.
    """
    for profile in (a, b):
        if not profile.total:
            raise QueryError(
                "a side has no samples to compare", "filter less, or record for longer"
            )
    across = is_across(a, b)
    sides = [_paths(p, labels) for p, labels in zip((a, b), _labels(a, b, across), strict=True)]
    flat = [_is_flat(p, side) for p, side in zip((a, b), sides, strict=True)]
    leaves = flat[0] != flat[1]
    if leaves:
        sides = [_leaves(side) for side in sides]
    frames, rows = _paired(a, b, sides)

    names = list(dict.fromkeys(name for side in sides for path in side.labels for name in path))
    number = {name: len(rows[0].sample) + i for i, name in enumerate(names)}
    tokens, offsets = zip(
        *(_tokens(s, f, r.row, number) for s, f, r in zip(sides, frames, rows, strict=True)),
        strict=True,
    )
    parent, token, end, depth = grow(
        np.concatenate(tokens),
        np.concatenate([offsets[0], offsets[1][1:] + offsets[0][-1]]),
        callee=False,
        radix=len(rows[0].sample) + len(names),
    )
    count = len(sides[0].label)
    nodes = (end[:count][sides[0].of_sample], end[count:][sides[1].of_sample])
    name, dso, mode = _described((a, b), frames, [r.sample for r in rows], token, names)

    # a frame with one callee and no weight of its own is the same finding as its callee
    tested, test = _findings(parent, depth, nodes)
    shares = [
        _shares(p, node, parent, depth, tested) for p, node in zip((a, b), nodes, strict=True)
    ]
    delta, low, high = (x[test] for x in difference(shares[0], shares[1], confidence))
    before, after = (s.samples[test] > 0 for s in shares)
    own = [
        100 * sums(node, p.period.astype(np.float64), len(parent)) / p.total
        for p, node in zip((a, b), nodes, strict=True)
    ]
    return DiffTree(
        parent,
        name,
        dso,
        mode,
        own[0],
        own[1],
        100 * shares[0].share[test],
        100 * shares[1].share[test],
        100 * delta,
        100 * low,
        100 * high,
        (low > 0) | (high < 0),
        np.where(before & after, BOTH, np.where(after, NEW, VANISHED)).astype(np.int8),
        confidence,
        leaves,
    )


def _labels(
    a: Profile, b: Profile, across: bool
) -> list[tuple[NDArray[np.int64], list[tuple[str, ...]]]]:
    """Of each profile the label group of every sample, and the labels of the groups."""
    if across:
        return [(np.zeros(len(p), np.int64), [()]) for p in (a, b)]
    vms = [_vms(p) for p in (a, b)]
    alone = all(len(found) == 1 for found in vms)
    return [_labels_of(p, min(vms[1]) if alone else "") for p in (a, b)]


def _vms(profile: Profile) -> set[str]:
    guest = np.isin(profile.mode, GUEST_CODES)
    machine = profile.machine
    return {machine.categories[i] for i in np.unique(machine.codes[guest]).tolist()}


def _labels_of(profile: Profile, vm: str) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    guest = np.isin(profile.mode, GUEST_CODES)
    columns = [
        guest,
        np.where(guest, profile.machine.codes, profile.comm.codes),
        np.where(guest, profile.mode, 0),
    ]
    groups = group_rows([c.astype(np.int64) for c in columns], len(profile))
    labels: list[tuple[str, ...]] = []
    for row in groups.row.tolist():
        if guest[row]:
            ring = "kernel" if profile.mode[row] == GUEST_KERNEL else "user"
            name = vm or profile.machine.categories[profile.machine.codes[row]]
            labels.append((name, f"[guest {ring}]"))
        else:
            comm = profile.comm.categories[profile.comm.codes[row]]
            labels.append(("[thread]" if _UNNAMED.fullmatch(comm) else comm,))
    return groups.ids, labels


def _paths(profile: Profile, labels: tuple[NDArray[np.int64], list[tuple[str, ...]]]) -> _Paths:
    """The paths of a profile; below a guest's labels only the guest's frames."""
    ids, names = labels
    stacks = profile.stacks
    found = group(ids * len(stacks) + profile.stack)
    stack = profile.stack[found.row].astype(np.int64)
    frames = stacks.frames[within(stacks.offsets, stack)]
    lengths = stacks.offsets[stack + 1] - stacks.offsets[stack]
    guest_frame = np.isin(profile.frames.mode, GUEST_CODES)[frames]
    in_guest = np.isin(profile.mode[found.row], GUEST_CODES)
    kept = guest_frame | np.repeat(~in_guest, lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    lengths = np.bincount(owner[kept], minlength=len(lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return _Paths(found.ids, names, ids[found.row], offsets, frames[kept])


def _is_flat(profile: Profile, paths: _Paths) -> bool:
    """Whether hardly any stack has more than its leaf."""
    deep = (np.diff(paths.offsets) > 1)[paths.of_sample]
    return float(profile.period[deep].sum(dtype=np.float64)) <= _FEW_STACKS * profile.total


def _leaves(paths: _Paths) -> _Paths:
    count = len(paths.label)
    leaf = paths.frames[paths.offsets[1:] - 1]
    return replace(paths, offsets=np.arange(count + 1), frames=leaf)


def _paired(
    a: Profile, b: Profile, sides: list[_Paths]
) -> tuple[list[NDArray[np.int64]], tuple[Side, Side]]:
    """Of each side the frames that are used, and how they pair: frames stand in for samples."""
    used, stand_ins = [], []
    for profile, paths in zip((a, b), sides, strict=True):
        found, times = np.unique(paths.frames, return_counts=True)
        table = profile.frames
        some = profile.select(np.zeros(len(found), dtype=np.int64))
        stand_ins.append(
            replace(
                some,
                symbol=table.symbol.take(found),
                dso=table.dso.take(found),
                mode=table.mode[found],
                period=times.astype(np.uint64),
            )
        )
        used.append(found.astype(np.int64))
    return used, pair_profiles(stand_ins[0], stand_ins[1])


def _tokens(
    paths: _Paths, used: NDArray[np.int64], row: NDArray[np.int64], number: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every path as its labels, then its frames, one run of tokens after the other."""
    label_offsets = np.cumsum([0, *map(len, paths.labels)])
    label_tokens = np.array([number[n] for path in paths.labels for n in path], dtype=np.int64)
    above = np.diff(label_offsets)[paths.label]
    lengths = above + np.diff(paths.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    is_label = position < np.repeat(above, lengths)
    tokens = np.empty(offsets[-1], dtype=np.int64)
    tokens[is_label] = label_tokens[within(label_offsets, paths.label)]
    tokens[~is_label] = row[np.searchsorted(used, paths.frames)]
    return tokens, offsets


def _described(
    profiles: tuple[Profile, Profile],
    frames: list[NDArray[np.int64]],
    samples: list[NDArray[np.int64]],
    token: NDArray[np.int64],
    labels: list[str],
) -> tuple[Categorical, Categorical, NDArray[np.uint8]]:
    """Name, DSO and mode of every node: of its label, or of its frame on the other side, and
    on the baseline's where only that has it."""
    names, dsos, modes = [], [], []
    for first, second in zip(samples[0].tolist(), samples[1].tolist(), strict=True):
        side, stand_in = (1, second) if second >= 0 else (0, first)
        table, frame = profiles[side].frames, int(frames[side][stand_in])
        names.append(table.symbol.categories[table.symbol.codes[frame]])
        dsos.append(table.dso.categories[table.dso.codes[frame]])
        modes.append(int(table.mode[frame]))
    # the root's token is -1: the last of each
    everything = categorical([*names, *labels, "all"])
    where = categorical([*dsos, *[""] * (len(labels) + 1)])
    mode = np.array([*modes, *[LABEL] * (len(labels) + 1)], dtype=np.uint8)
    return everything.take(token), where.take(token), mode[token]


def _findings(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    nodes: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nodes whose weight is that of no single callee, and for every node which of them has
    the same samples as it."""
    count = len(parent)
    ends = np.zeros(count, dtype=np.bool_)
    for node in nodes:
        ends[node] = True
    callees = np.bincount(parent[1:], minlength=count)
    same = np.arange(count)
    only = np.flatnonzero((callees[parent[1:]] == 1) & ~ends[parent[1:]]) + 1
    same[parent[only]] = only
    for _ in range(int(depth[-1]).bit_length()):
        same = same[same]
    tested = np.flatnonzero(same == np.arange(count))
    place = np.empty(count, dtype=np.int64)
    place[tested] = np.arange(len(tested))
    return tested, place[same]


def _shares(
    profile: Profile,
    node: NDArray[np.int64],
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    tested: NDArray[np.int64],
) -> Shares:
    """`stats.estimate_shares` for rows that hold each other: with all beneath, of these nodes."""
    count = len(parent)
    weight = profile.period.astype(np.float64)
    block, blocks = time_blocks(profile.time)
    cells = _sum_up(sums(node * blocks + block, weight, count * blocks), parent, depth)[tested]
    samples = _sum_up(sums(node, np.ones(len(node)), count), parent, depth)[tested, 0]
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


def _sum_up(
    values: NDArray[np.float64], parent: NDArray[np.int32], depth: NDArray[np.int32]
) -> NDArray[np.float64]:
    """The columns of each node (`values` has k rows of them, flat) and of all beneath it."""
    total = values.reshape(len(parent), -1)
    starts = np.searchsorted(depth, np.arange(int(depth[-1]) + 2))
    for level in range(int(depth[-1]), 0, -1):
        here = slice(starts[level], starts[level + 1])
        above = parent[here]  # siblings stand side by side
        first = np.flatnonzero(np.concatenate([[True], above[1:] != above[:-1]]))
        total[above[first]] += np.add.reduceat(total[here], first, axis=0)
    return total
