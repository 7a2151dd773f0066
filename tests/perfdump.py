"""What `perf report -D` says of every sample of a file, and recordings made with perf."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kvmperf_magic.perfdata.reader import PerfFile

_SAMPLE = re.compile(
    r"^(?:(?P<cpu>\d+) )?(?P<time>\d+) (?:0x[0-9a-f]+|0) \[0x[0-9a-f]+\]: PERF_RECORD_SAMPLE"
    r"\(IP, (?P<misc>0x[0-9a-f]+)\): (?P<pid>-?\d+)/(?P<tid>-?\d+): (?P<ip>0x[0-9a-f]+|0) "
    r"period: (?P<period>\d+)"
)
_FRAME = re.compile(r"^\.\.\.\.\. +\d+: ([0-9a-f]{16})$")


Perf = Callable[..., str]


def steady(perf: Perf) -> Perf:
    """perf, asked again where it aborts.

    While any recorder on the machine asks for build ids, the kernel marks everybody's MMAP2 as
    having one; perf 6.1 then takes a device number for its length and smashes its own stack
    (util/build-id.c:1010), on record and on report.
    """

    def run(*arguments: str | Path, **options: bool) -> str:
        for _ in range(4):
            try:
                return perf(*arguments, **options)
            except AssertionError as error:
                if "stack smashing" not in str(error):
                    raise
        return perf(*arguments, **options)

    return run


@dataclass
class Sample:
    cpu: int
    time: int
    misc: int
    pid: int
    tid: int
    ip: int
    period: int
    chain: list[int] = field(default_factory=list)


def dumped(perf: Perf, path: Path) -> list[Sample]:
    """Samples in perf's order, raw callchain words included."""
    samples: list[Sample] = []
    for line in steady(perf)("report", "-D", "-i", path).splitlines():
        if found := _SAMPLE.match(line):
            values = {k: int(v or "-1", 0) for k, v in found.groupdict().items()}
            samples.append(Sample(**values))
        elif samples and (frame := _FRAME.match(line)):
            samples[-1].chain.append(int(frame[1], 16))
    return samples


def ours(file: PerfFile) -> list[Sample]:
    """The same of our columns."""
    s = file.samples
    columns = (s.cpu, s.time, s.misc, s.pid, s.tid, s.ip, s.period)
    rows = zip(*(c.tolist() for c in columns), strict=True)
    bounds, words = (part.tolist() for part in s.chains.compact())
    return [Sample(*row, chain=words[bounds[i] : bounds[i + 1]]) for i, row in enumerate(rows)]
