"""The Firefox Profiler's processed format, version 58 (its docs-developer/CHANGELOG-formats.md and
src/types/profile.ts): what profiler.firefox.com opens. Newer viewers upgrade it themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.export.lanes import About, Cut, cut
from kvmperf_magic.export.units import unit_of
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.groups import group, group_rows, within
from kvmperf_magic.profile.lanes import Lane
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.tree import grow

_VERSION = 58
_GECKO_VERSION = 31
_LIBRARY = 1  # resource type
# a colour a mode, of the few the profiler knows; the first grey one is what has no category
_COLOURS = {
    "host-kernel": "blue",
    "host-user": "lightblue",
    "hypervisor": "green",
    "guest-kernel": "red",
    "guest-user": "orange",
}
_CATEGORIES = ("Other", *_COLOURS)


@dataclass
class _Strings:
    """The table of strings that all threads share."""

    index: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        return self.index.setdefault(text, len(self.index))


def gecko(profile: Profile, about: About) -> str:
    """A thread for each host thread and each vCPU, a process for each guest; five categories, one
    a mode; no markers. Weights are periods, of clocks in milliseconds (the format has no finer)."""
    parts = cut(profile)
    strings = _Strings()
    dsos = {dso: None for frame in parts.frames if (dso := frame.dso)}
    libs = {dso: i for i, dso in enumerate(dsos)}
    start = int(profile.time.min()) if len(profile) else 0
    threads = _threads(profile, parts, start, strings, libs)
    span = (int(profile.time.max()) - start) / 1e6 if len(profile) else 0.0
    wall = (start + (about.wall_offset or 0)) / 1e6 if about.wall_offset is not None else 0.0
    made = {
        "meta": {
            "version": _GECKO_VERSION,
            "preprocessedProfileVersion": _VERSION,
            "product": about.name,
            "importedFrom": "kvmperf_magic",
            "startTime": wall,
            "endTime": wall + span,
            "interval": _interval(parts, profile),
            "processType": 0,
            "stackwalk": 1,
            "debug": False,
            "symbolicated": True,
            "platform": "Linux",
            "oscpu": about.facts.get("recorded on", "Linux"),
            "categories": [
                {
                    "name": name,
                    "color": _COLOURS.get(name, "grey"),
                    "subcategories": ["Other"],
                }
                for name in _CATEGORIES
            ],
            "markerSchema": [],
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "ns"},
            "usesOnlyOneStackType": True,
            "sourceCodeIsNotOnSearchfox": True,
            "keepProfileThreadOrder": True,
            "initialVisibleThreads": list(range(min(len(threads), 20))),
            "initialSelectedThreads": [0] if threads else [],
            "extra": [
                {
                    "label": "Recording",
                    "entries": [
                        {"label": label, "format": "string", "value": value}
                        for label, value in about.facts.items()
                    ],
                }
            ],
        },
        "libs": [
            {
                "arch": "",
                "name": dso.rsplit("/", 1)[-1],
                "path": dso,
                "debugName": dso.rsplit("/", 1)[-1],
                "debugPath": dso,
                "breakpadId": "",
                "codeId": None,
            }
            for dso in dsos
        ],
        "threads": threads,
        "shared": {
            "stringArray": list(strings.index),
            "sources": {"length": 0, "uuid": [], "filename": []},
        },
    }
    return json.dumps(made, separators=(",", ":")) + "\n"


def _interval(parts: Cut, profile: Profile) -> float:
    """Milliseconds between two samples of a lane, as they mostly are: how wide one is drawn."""
    steps = [np.diff(profile.time[lane.rows].astype(np.int64)) for lane in parts.lanes]
    every = np.concatenate(steps) if steps else np.empty(0)
    return max(float(np.median(every)) / 1e6, 0.001) if len(every) else 1.0


def _threads(
    profile: Profile, parts: Cut, start: int, strings: _Strings, libs: dict[str, int]
) -> list[dict[str, Any]]:
    # the stacks that each lane has, merged by prefix; the lane is the first token of a path
    pairs = group_rows([parts.lane, parts.stack], len(profile))
    lane, stack = parts.lane[pairs.row], parts.stack[pairs.row]
    counts = np.diff(parts.offsets)[stack] + 1
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    paths = np.empty(offsets[-1], np.int64)
    is_lane = np.zeros(len(paths), np.bool_)
    is_lane[offsets[:-1]] = True
    paths[is_lane] = len(parts.frames) + lane
    paths[~is_lane] = parts.tokens[within(parts.offsets, stack)]
    radix = len(parts.frames) + len(parts.lanes)
    parent, token, end, depth = grow(paths, offsets, callee=False, radix=radix)
    owner = np.full(len(parent), -1, np.int64)
    bounds = np.searchsorted(depth, np.arange(int(depth[-1]) + 2))
    for level in range(1, len(bounds) - 1):
        here = slice(bounds[level], bounds[level + 1])
        owner[here] = token[here] - len(parts.frames) if level == 1 else owner[parent[here]]
    nodes = np.flatnonzero(depth > 1)
    nodes = nodes[np.argsort(owner[nodes], kind="stable")]
    first = np.searchsorted(owner[nodes], np.arange(len(parts.lanes) + 1))
    place = np.full(len(parent), -1, np.int64)  # of a node in the table of its lane
    place[nodes] = np.arange(len(nodes)) - first[owner[nodes]]
    leaf = place[end][pairs.ids]
    threads = []
    for number, part in enumerate(parts.lanes):
        mine = nodes[first[number] : first[number + 1]]
        frames = group(token[mine])
        threads.append(
            {
                **_identity(part),
                "samples": _samples(profile, part, start, leaf[part.rows]),
                "stackTable": {
                    "frame": frames.ids.tolist(),
                    "prefix": _or_none(place[parent[mine]]),
                    "length": len(mine),
                },
                **_frame_tables(parts, token[mine][frames.row].tolist(), strings, libs),
            }
        )
    return threads


def _identity(lane: Lane) -> dict[str, Any]:
    return {
        "name": lane.thread,
        "isMainThread": not lane.guest and lane.pid == lane.tid,
        "processType": "default",
        "processName": lane.process,
        "processStartupTime": 0,
        "processShutdownTime": None,
        "registerTime": 0,
        "unregisterTime": None,
        "pausedRanges": [],
        # a guest is a process of its own, not the VMM's
        "pid": f"{lane.machine} (guest of {lane.pid})" if lane.guest else str(lane.pid),
        "tid": f"{lane.tid} (guest)" if lane.guest else lane.tid,
        "markers": _columns("data", "name", "startTime", "endTime", "phase", "category"),
        "nativeSymbols": _columns("libIndex", "address", "name", "functionSize"),
    }


def _columns(*names: str) -> dict[str, Any]:
    return {**{name: [] for name in names}, "length": 0}


def _samples(profile: Profile, lane: Lane, start: int, stack: NDArray[np.int64]) -> dict[str, Any]:
    is_time = unit_of(profile).is_time
    weight = profile.period[lane.rows]
    busy = {"threadCPUDelta": weight.tolist()} if is_time else {}
    return {
        **busy,  # nanoseconds since the sample before: what the activity graph is drawn from
        "stack": _or_none(stack),
        "time": ((profile.time[lane.rows].astype(np.int64) - start) / 1e6).tolist(),
        "weight": (weight / 1e6).tolist() if is_time else weight.tolist(),
        "weightType": "tracing-ms" if is_time else "samples",
        "length": len(lane.rows),
    }


def _frame_tables(
    parts: Cut, tokens: Sequence[int], strings: _Strings, libs: dict[str, int]
) -> dict[str, Any]:
    """frameTable, funcTable and resourceTable: a function a frame, a resource a DSO."""
    frames = [parts.frames[token] for token in tokens]
    count = len(frames)
    resources = {dso: i for i, dso in enumerate(dict.fromkeys(f.dso for f in frames if f.dso))}
    modes = [MODES[frame.mode] for frame in frames]
    nothing: list[None] = [None] * count
    zeros = [0] * count
    return {
        "frameTable": {
            "address": [-1] * count,
            "inlineDepth": zeros,
            "category": [_CATEGORIES.index(m) if m in _CATEGORIES else 0 for m in modes],
            "subcategory": zeros,
            "func": list(range(count)),
            "nativeSymbol": nothing,
            "innerWindowID": zeros,
            "line": nothing,
            "column": nothing,
            "length": count,
        },
        "funcTable": {
            "name": [strings.add(frame.name) for frame in frames],
            "isJS": [False] * count,
            "relevantForJS": [False] * count,
            "resource": [resources.get(frame.dso, -1) for frame in frames],
            "source": nothing,
            "lineNumber": nothing,
            "columnNumber": nothing,
            "length": count,
        },
        "resourceTable": {
            "lib": [libs[dso] for dso in resources],
            "name": [strings.add(dso) for dso in resources],
            "host": [None] * len(resources),
            "type": [_LIBRARY] * len(resources),
            "length": len(resources),
        },
    }


def _or_none(index: NDArray[np.int64]) -> list[int | None]:
    """JSON's null for -1."""
    return [i if i >= 0 else None for i in index.tolist()]
