"""The stacks of two profiles as paths of tokens, in which what pairs is the same token."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.modes import GUEST_KERNEL
from kvmperf_magic.profile.groups import group, group_rows, within
from kvmperf_magic.profile.pairing import Side, is_across, pair_profiles
from kvmperf_magic.profile.profile import GUEST_CODES, Profile, categorical
from kvmperf_magic.profile.tree import LABEL
from kvmperf_magic.table import Categorical

_FEW_STACKS = 0.01  # of the weight: a side with no more stacks than that has none
_UNNAMED = re.compile(r":-?\d+")  # the comm of a thread whose name is not in the file


@dataclass(frozen=True)
class PairedPaths:
    """The unique paths of both sides, the baseline's first: path i is
    `tokens[offsets[i]:offsets[i + 1]]`, labels, then frames. A token below `radix` numbers what
    `name`, `dso` and `mode` describe; their last row, token -1, is the root's. `of_sample` has the
    path of each sample of each side.
    leaves: only the innermost frame of every stack is there, as one side has no stacks.
    """

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    of_sample: tuple[NDArray[np.int64], NDArray[np.int64]]
    name: Categorical
    dso: Categorical
    mode: NDArray[np.uint8]
    leaves: bool

    @property
    def radix(self) -> int:
        """More than any token."""
        return len(self.mode) - 1

    @cached_property
    def without_recursion(self) -> PairedPaths:
        """Frames that call themselves directly are one."""
        kept = np.ones(len(self.tokens), dtype=np.bool_)
        kept[1:] = self.tokens[1:] != self.tokens[:-1]
        starts = self.offsets[:-1]
        kept[starts[np.diff(self.offsets) > 0]] = True
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(self, tokens=self.tokens[kept], offsets=before[self.offsets])

    def around(self, wanted: NDArray[np.int64]) -> Around:
        """What calls these tokens, and what they call: all paths are cut at the outermost."""
        found = np.flatnonzero(np.isin(self.tokens, wanted))
        path, first = np.unique(
            np.searchsorted(self.offsets, found, side="right") - 1, return_index=True
        )
        at = found[first]
        cut = []
        for start, end in ((at + 1, self.offsets[path + 1]), (self.offsets[path], at)):
            ends = np.cumsum(end - start)
            offsets = np.concatenate([[0], ends])
            moved = np.repeat(start - offsets[:-1], end - start)
            cut.append((self.tokens[moved + np.arange(offsets[-1])], offsets))
        number = np.full(len(self.offsets) - 1, -1)
        number[path] = np.arange(len(path))
        return Around(
            cut[0], cut[1], (number[self.of_sample[0]], number[self.of_sample[1]]), self.tokens[at]
        )


@dataclass(frozen=True)
class Around:
    """Paths cut in two at a token: tokens and offsets of what follows it and of what leads to it.
    of_sample: which of them each sample of each side has, -1 for those without the token; token:
    where each was cut."""

    after: tuple[NDArray[np.int64], NDArray[np.int64]]
    before: tuple[NDArray[np.int64], NDArray[np.int64]]
    of_sample: tuple[NDArray[np.int64], NDArray[np.int64]]
    token: NDArray[np.int64]


@dataclass(frozen=True)
class _Paths:
    """The unique paths of one side: which one each sample has (int64[n]), the labels of each and
    its frames, path i's at offsets[i]:offsets[i + 1]."""

    of_sample: NDArray[np.int64]
    labels: list[tuple[str, ...]]
    label: NDArray[np.int64]  # of each path, an index into labels
    offsets: NDArray[np.int64]
    frames: NDArray[np.int32]


def paired_paths(a: Profile, b: Profile) -> PairedPaths:
    """The stacks of both profiles, b's beside those of the baseline a.

    Frames pair as `pair_profiles` pairs rows: a host's and a guest's kernel function meet.
    Where one profile is of the host and the other of guests, there are no labels above the
    stacks. Else host stacks stand under their comm, guest stacks under the VM (any names meet if
    there is one VM a side) and "[guest kernel]" or "[guest user]"; vCPUs are not told apart.
    """
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
    return PairedPaths(
        np.concatenate(tokens),
        np.concatenate([offsets[0], offsets[1][1:] + offsets[0][-1]]),
        (sides[0].of_sample, sides[1].of_sample + len(sides[0].label)),
        *_described((a, b), frames, [r.sample for r in rows], names),
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
    labels: list[str],
) -> tuple[Categorical, Categorical, NDArray[np.uint8]]:
    """Name, DSO and mode of every token: of its frame on the other side, and on the baseline's
    where only that has it; of its label; of the root, the last."""
    names, dsos, modes = [], [], []
    for first, second in zip(samples[0].tolist(), samples[1].tolist(), strict=True):
        side, stand_in = (1, second) if second >= 0 else (0, first)
        table, frame = profiles[side].frames, int(frames[side][stand_in])
        names.append(table.symbol.categories[table.symbol.codes[frame]])
        dsos.append(table.dso.categories[table.dso.codes[frame]])
        modes.append(int(table.mode[frame]))
    more = len(labels) + 1
    return (
        categorical([*names, *labels, "all"]),
        categorical([*dsos, *[""] * more]),
        np.array([*modes, *[LABEL] * more], dtype=np.uint8),
    )
