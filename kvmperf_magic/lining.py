"""Stacks with source lines, and with what the compiler inlined as frames of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.groups import group_rows, within
from kvmperf_magic.profile.profile import FrameTable, Profile, Stacked, Stacks, categorical
from kvmperf_magic.stacks import Addresses
from kvmperf_magic.symbols.lines import Located
from kvmperf_magic.table import Categorical

# (ip, mode, kind) of addresses -> their places
Locate = Callable[[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]], Located]


def lined(
    profile: Profile, addresses: Addresses, locate: Locate, *, inline: bool
) -> tuple[Profile, Addresses]:
    """The profile with the line of every frame, and what its frames then are.

    A caller is looked up where it called, not where it goes on; `inline` makes each inlined
    function a frame, `NAME (inlined)`. The addresses are those of profile.stacks.
    """
    stacked = profile.stacked
    offsets, which = addresses.offsets, addresses.which.astype(np.int64)
    leaf = np.zeros(len(which), np.int64)
    leaf[offsets[1:] - 1] = 1
    keys, met = np.unique(which * 2 + leaf, return_inverse=True)
    which, caller = keys >> 1, (keys & 1) == 0
    ip = addresses.ip[which]
    asked = ip - (caller & (ip > 0)).astype(np.uint64)
    places = locate(asked, addresses.mode[which], addresses.kind[which])
    bounds, inlined, line = places.frames(inline=inline)

    # which frame of the old table an address is
    old = np.zeros(len(addresses.ip), np.int64)
    old[addresses.which] = stacked.stacks.frames
    counts = np.diff(bounds)
    own = np.repeat(old[which], counts)
    frames, numbers = _frames(stacked.frames, own, categorical(inlined), categorical(line))

    grown = np.concatenate([[0], np.cumsum(counts[met])])[offsets]
    positions = within(bounds, met)
    stacks = Stacks(grown, numbers[positions].astype(np.int32))
    owner = np.repeat(np.arange(len(keys)), counts)
    found = Addresses(
        grown,
        owner[positions].astype(np.int32),
        ip,
        addresses.mode[which],
        addresses.kind[which],
    )
    leaves = stacks.leaves[stacked.stack]
    assert frames.srcline is not None
    made = replace(
        profile,
        symbol=frames.symbol.take(leaves),
        srcline=frames.srcline.take(leaves),
        stacked_later=lambda: Stacked(stacked.stack, stacks, frames),
    )
    return made, found


def _frames(
    old: FrameTable, own: NDArray[np.int64], inlined: Categorical, line: Categorical
) -> tuple[FrameTable, NDArray[np.int64]]:
    """A table of different frames, and which of them each row is: row i of frame own[i] of the
    old table, under the name of what was inlined there, if anything was."""
    names = [*old.symbol.categories, *inlined.categories]
    there = np.array([bool(name) for name in inlined.categories], np.bool_)[inlined.codes]
    code = np.where(there, inlined.codes + len(old.symbol.categories), old.symbol.codes[own])
    symbol = Categorical(code.astype(np.int32), names)
    columns: list[NDArray[Any]] = [symbol.codes, old.dso.codes[own], old.mode[own], line.codes]
    groups = group_rows(columns, len(own))
    rows = groups.row
    table = FrameTable(
        symbol.take(rows), old.dso.take(own[rows]), old.mode[own[rows]], line.take(rows)
    )
    return table, groups.ids
