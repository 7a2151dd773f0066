"""What exporters share: samples cut into lanes, stacks as every picture of ours shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.modes import GUEST_KERNEL, GUEST_USER
from kvmperf_magic.profile.groups import group, within
from kvmperf_magic.profile.lanes import Lane, lanes_of
from kvmperf_magic.profile.profile import GUEST_CODES, Profile
from kvmperf_magic.profile.report import FRAME_KEYS, frame_groups

# the frame that guest stacks begin with: the folded stacks' and the flame graph's labels
RINGS = {GUEST_KERNEL: "[guest kernel]", GUEST_USER: "[guest user]"}


@dataclass(frozen=True)
class About:
    """What a file says of itself: a title, facts in order, and what must be added to the time of
    a sample for nanoseconds of the wall clock (None: not known)."""

    name: str
    facts: dict[str, str]
    wall_offset: int | None = None


@dataclass(frozen=True)
class Frame:
    """A symbol in a DSO in a mode (a code), or the label of a ring, which is in no DSO."""

    name: str
    dso: str
    mode: int


@dataclass(frozen=True)
class Cut:
    """n samples: `lane` and `stack` of each, int64[n]. Stack i, root first, is
    tokens[offsets[i]:offsets[i + 1]], indices into `frames`."""

    lanes: list[Lane]
    lane: NDArray[np.int64]
    stack: NDArray[np.int64]
    offsets: NDArray[np.int64]
    tokens: NDArray[np.int64]
    frames: list[Frame]


def cut(profile: Profile) -> Cut:
    """The samples by lane, heaviest lane first, with the stacks they use.

    A guest stack is its ring's label and the guest's frames: what the VMM's thread did to get
    there is no part of the guest. Frames equal in symbol, DSO and mode are one.
    """
    lanes, lane = lanes_of(profile)
    used = group(profile.stack)
    ids = profile.stack[used.row].astype(np.int64)
    entry = frame_groups(profile, FRAME_KEYS)
    entries = int(entry.max(initial=-1)) + 1
    stacks, frames = profile.stacks, profile.frames
    flat = stacks.frames[within(stacks.offsets, ids)]
    owner = np.repeat(np.arange(len(ids)), np.diff(stacks.offsets)[ids])
    leaf_mode = frames.mode[stacks.leaves[ids]]
    in_guest = np.isin(leaf_mode, GUEST_CODES)
    kept = np.isin(frames.mode[flat], GUEST_CODES) | ~in_guest[owner]
    counts = np.bincount(owner[kept], minlength=len(ids)) + in_guest
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tokens = np.empty(offsets[-1], np.int64)
    is_ring = np.zeros(len(tokens), np.bool_)
    is_ring[offsets[:-1][in_guest]] = True
    tokens[is_ring] = entries + (leaf_mode[in_guest] == GUEST_USER)
    tokens[~is_ring] = entry[flat[kept]]

    # only the frames that these stacks have
    found = group(tokens)
    some = np.zeros(entries, np.int64)
    some[entry] = np.arange(len(entry))
    symbol, dso = frames.symbol, frames.dso
    table = []
    for token in tokens[found.row].tolist():
        if token >= entries:
            mode = (GUEST_KERNEL, GUEST_USER)[token - entries]
            table.append(Frame(RINGS[mode], "", mode))
        else:
            at = some[token]
            name, where = symbol.categories[symbol.codes[at]], dso.categories[dso.codes[at]]
            table.append(Frame(name, where, int(frames.mode[at])))
    return Cut(lanes, lane, used.ids, offsets, found.ids, table)
