"""speedscope's own format: a sampled profile for each host thread and for each vCPU.

Its file-format-schema.json says what it is; the viewer is speedscope.app or the npm package.
"""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np

from kvmperf_magic.export.lanes import About, cut
from kvmperf_magic.export.units import unit_of
from kvmperf_magic.profile.profile import Profile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope(profile: Profile, about: About) -> str:
    """The samples in the order of time, each with its period as weight; a frame's file is its DSO.

    A frame is one of symbol, DSO and mode; guest stacks begin with [guest kernel] or [guest user].
    """
    parts = cut(profile)
    starts, tokens = parts.offsets.tolist(), parts.tokens.tolist()
    # each distinct stack is spelled once, samples repeat the spelling
    spelled = np.empty(len(starts) - 1, object)
    spelled[:] = [
        json.dumps(tokens[start:end], separators=(",", ":")) for start, end in pairwise(starts)
    ]
    unit = unit_of(profile)
    profiles = []
    for lane in parts.lanes:
        weights = profile.period[lane.rows].tolist()
        head = {
            "type": "sampled",
            "name": lane.name,
            "unit": unit.name if unit.is_time else "none",
            "startValue": 0,
            "endValue": sum(weights),
            "weights": weights,
        }
        samples = ",".join(spelled[parts.stack[lane.rows]])
        profiles.append(f'{json.dumps(head)[:-1]}, "samples": [{samples}]}}')
    frames = [
        {"name": frame.name, "file": frame.dso} if frame.dso else {"name": frame.name}
        for frame in parts.frames
    ]
    top = {
        "$schema": _SCHEMA,
        "name": about.name,
        "exporter": "kvmperf_magic",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
    }
    return f'{json.dumps(top)[:-1]}, "profiles": [{", ".join(profiles)}]}}\n'
