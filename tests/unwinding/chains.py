"""Callchains of a recording: ours, and those that perf script prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from kvmperf_magic.perfdata.abi import CONTEXT_MAX
from kvmperf_magic.recording import Recording, open_recording

Key = tuple[int, int]  # tid, ns
_HEAD = re.compile(r"\s*(\d+)\s+(\d+)\.(\d{9}):")


def of_perf(perf: Callable[..., str], path: Path, *more: str) -> dict[Key, list[int]]:
    """Every sample's frames; those of user files as offsets, as perf prints them."""
    listed: dict[Key, list[int]] = {}
    told = perf("script", "-i", path, "--no-inline", "--ns", "-F", "tid,time,ip", *more)
    frames: list[int] = []
    for line in told.splitlines():
        if head := _HEAD.match(line):
            frames = []
            listed[int(head[1]), int(head[2]) * 10**9 + int(head[3])] = frames
        elif line.strip():
            frames.append(int(line.split()[0], 16))
    return listed


def of_ours(recording: Recording) -> dict[Key, list[int]]:
    """The same of ours: an address in a file is its offset there."""
    source = recording._source
    samples, spaces = source.file.samples, source.spaces
    offsets, words = source.chains.compact()
    epoch = spaces.epoch_of(samples.pid, samples.time)
    listed: dict[Key, list[int]] = {}
    for i in range(len(samples)):
        ips = words[offsets[i] : offsets[i + 1]]
        ips = ips[ips < np.uint64(CONTEXT_MAX)]
        maps = spaces.maps(int(epoch[i]))
        at = maps.find(ips)
        mapped = at >= 0
        ips[mapped] += maps.pgoff[at[mapped]] - maps.start[at[mapped]]
        listed[int(samples.tid[i]), int(samples.time[i])] = ips.tolist()
    return listed


def raw(path: Path) -> list[list[int]]:
    """Our chains of a recording, sample after sample, markers and all."""
    chains = open_recording(path)._source.chains
    offsets, words = chains.compact()
    return [words[a:b].tolist() for a, b in pairwise(offsets.tolist())]
