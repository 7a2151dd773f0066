"""Distinct callchains: hashed where they stand, split at their context markers, made frames.

All of it goes block by block on all cores. A frame is first a number of a distinct (space, mode,
ip), found within its block and then among all blocks; only the distinct ones are given names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import is_guest, split_chains
from kvmperf_magic.modes import HOST_USER
from kvmperf_magic.numbering import mix, number
from kvmperf_magic.parallel import blocks
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.whose import Whose

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Addresses:
    """Stacks, root first, of distinct addresses: frame j of stack i is address
    `which[offsets[i] + j]` (int32), of which `ip`, `mode` and `kind` (a row of `Whose` it is met
    in) have a row each."""

    offsets: NDArray[np.int64]
    which: NDArray[np.int32]
    ip: NDArray[np.uint64]
    mode: NDArray[np.uint8]
    kind: NDArray[np.int64]


@dataclass(frozen=True)
class _Part:
    """One block of stacks: their lengths, frames as local numbers, and what these are."""

    counts: NDArray[np.int64]
    which: NDArray[np.int64]
    key: NDArray[np.uint64]
    ip: NDArray[np.uint64]
    mode: NDArray[np.uint8]
    kind: NDArray[np.int64]


def chain_hashes(chains: Chains) -> NDArray[np.uint64]:
    """One hash a chain; the order of its words counts."""
    hashed = np.zeros(len(chains), dtype=np.uint64)

    def work(rows: slice) -> None:
        block = chains.take(rows)
        ends = np.cumsum(block.length)
        before = ends - block.length
        place = np.arange(ends[-1])
        words = block.words[place + np.repeat(block.start - before, block.length)]
        place -= np.repeat(before - 1, block.length)  # from 1: a word 0 counts as well
        salt = place.view(np.uint64)
        salt *= _GOLDEN
        salt += words
        sums = np.zeros(len(words) + 1, dtype=np.uint64)
        np.cumsum(mix(salt), out=sums[1:])
        hashed[rows] = sums[ends] - sums[before]

    blocks(work, len(chains))
    return hashed


def split(chains: Chains, ip: NDArray[np.uint64], kind: NDArray[np.int64], of: Whose) -> Addresses:
    """The frames of these chains, of samples at `ip` of these kinds."""

    def work(rows: slice) -> _Part:
        return _split_block(chains.take(rows), ip[rows], kind[rows], of)

    parts = blocks(work, len(chains))
    counts = np.concatenate([np.zeros(0, np.int64), *(part.counts for part in parts)])
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    keys = np.concatenate([np.zeros(0, np.uint64), *(part.key for part in parts)])
    together, first = number(keys)
    together = together.astype(np.int32)
    which = np.empty(offsets[-1], np.int32)
    at = base = 0
    for part in parts:
        np.take(
            together[base : base + len(part.key)], part.which, out=which[at : at + len(part.which)]
        )
        at += len(part.which)
        base += len(part.key)
    return Addresses(
        offsets,
        which,
        np.concatenate([np.zeros(0, np.uint64), *(part.ip for part in parts)])[first],
        np.concatenate([np.zeros(0, np.uint8), *(part.mode for part in parts)])[first],
        np.concatenate([np.zeros(0, np.int64), *(part.kind for part in parts)])[first],
    )


def _split_block(
    chains: Chains, ip: NDArray[np.uint64], kind: NDArray[np.int64], of: Whose
) -> _Part:
    frames = split_chains(*chains.compact(), ip, of.mode[kind])
    counts = np.diff(frames.offsets)
    # what an address means something in: a user epoch, the host kernel (-1), or a VM
    space = np.where(
        frames.mode == HOST_USER, np.repeat(of.epoch[kind], counts), np.int32(-1)
    ).astype(np.int64)
    guest = is_guest(frames.mode)
    if guest.any():
        space[guest] = np.repeat(of.machine_pid[kind], counts)[guest]
    space <<= 8
    space |= frames.mode
    key = mix(mix(space.view(np.uint64)) ^ frames.ip)
    local, first = number(key)
    row = np.searchsorted(frames.offsets, first, side="right") - 1
    # leaf first becomes root first
    turned = np.repeat(frames.offsets[:-1] + frames.offsets[1:] - 1, counts)
    turned -= np.arange(len(key))
    return _Part(counts, local[turned], key[first], frames.ip[first], frames.mode[first], kind[row])
