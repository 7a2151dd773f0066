"""A profile out of what `perf script` prints, so that perf's own answers can be compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kvmperf_magic.profile.profile import Profile, Sample, profile_of


@dataclass(frozen=True)
class Recorded:
    """Two recordings by perf, and their profiles."""

    paths: tuple[Path, Path]
    profiles: tuple[Profile, Profile]


FIELDS = "comm,pid,tid,cpu,time,event,ip,sym,dso,period"

_HEAD = re.compile(
    r"\s*(?P<comm>.+?)\s+(?P<pid>-?\d+)/(?P<tid>-?\d+)\s+\[(?P<cpu>\d+)\]\s+"
    r"(?P<sec>\d+)\.(?P<frac>\d+):\s+(?P<period>\d+)\s+(?P<event>\S+):\s*$"
)
_FRAME = re.compile(r"\s+[0-9a-f]+ (?P<symbol>.*) \((?P<dso>[^()]*(?:\(deleted\))?)\)$")


def _mode(dso: str) -> str:
    kernel = dso.startswith("[") and dso not in {"[vdso]", "[unknown]", "[stack]", "[heap]"}
    return "host-kernel" if kernel else "host-user"


def parse_script(text: str) -> Profile:
    samples = []
    for block in text.split("\n\n"):
        head, *lines = block.strip("\n").split("\n")
        if not head:
            continue
        found = _HEAD.match(head)
        assert found, head
        frames = []
        for line in lines:
            frame = _FRAME.match(line)
            assert frame, line
            frames.append((frame["symbol"], frame["dso"], _mode(frame["dso"])))
        assert frames, block
        samples.append(
            Sample(
                frames[::-1],
                period=int(found["period"]),
                time=int(found["sec"] + found["frac"].ljust(9, "0")),
                comm=found["comm"],
                pid=int(found["pid"]),
                tid=int(found["tid"]),
                cpu=int(found["cpu"]),
                event=found["event"],
            )
        )
    return profile_of(samples, "cpu-clock ns")
