"""What `perf script -D` says of a recording: every sample as perf delivers it, and its raw chain.

One run gives both: the dump of each record (misc, raw callchain words, branches, ...) and, right
behind the dump of a sample, the lines that perf script prints of it: one, or one for each
member of a group that it delivers, or none where it drops the sample.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FIELDS = ("comm", "pid", "tid", "cpu", "time", "period", "event", "ip")
_MISSING = re.compile(r"Cannot print '(\w+)' field")
# {cpu} {time} {offset} [{size}]: PERF_RECORD_SAMPLE(IP, {misc}): {pid}/{tid}: {ip} period: ...
_SAMPLE = re.compile(
    rb"((?:\d+ )*)(0x[0-9a-f]+|0) \[0x[0-9a-f]+\]: PERF_RECORD_SAMPLE\(IP, (0x[0-9a-f]+)\): "
    rb"(-?\d+)/(-?\d+): (0x[0-9a-f]+|0) period: (\d+) addr: (0x[0-9a-f]+|0)"
)
# {offset}@{path} [{size}]: event: {type}. Only streams and the parts of a directory have a record
# at 0: in files those are made up by perf, attrs of events that it wants to make of a trace
_RECORD = re.compile(rb"(?:0x[0-9a-f]+@.*|0@(?:pipe|.*/data\.\d+)) \[0x[0-9a-f]+\]: event: (\d+)$")
_FRAME = re.compile(rb"\.\.\.\.\. +\d+: ([0-9a-f]{16})(?: \(PERF_CONTEXT_\w+\))?$")
_BRANCH = re.compile(rb"\.\.\.\.\. +\d+: ([0-9a-f]{16}) -> ([0-9a-f]{16}) (\d+) cycles (.)(.)")
_REGISTER = re.compile(rb"\.\.\.\. \w+ +0x([0-9a-f]{16})$")
_VALUE = re.compile(rb"\.\.\.\.\. id ([0-9a-f]{16}), value ([0-9a-f]{16})")
# parts of a sample of one line, by the name of our field
_NUMBERS = {
    "stack_user": re.compile(rb"\.\.\. ustack: size (\d+), "),
    "weight": re.compile(rb"\.\.\. weight: (\d+)"),
    "data_src": re.compile(rb" \. data_src: (0x[0-9a-f]+)"),
    "phys_addr": re.compile(rb" \.\. phys_addr: (0x[0-9a-f]+|0)$"),
    "time_enabled": re.compile(rb"\.\.\.\.\.\. time enabled ([0-9a-f]{16})$"),
    "time_running": re.compile(rb"\.\.\.\.\.\. time running ([0-9a-f]{16})$"),
    "transaction": re.compile(rb"\.\.\. transaction: ([0-9a-f]+)$"),
}


@dataclass(frozen=True)
class Row:
    """A sample as perf script prints it; cpu and time None where some event records none."""

    time: int | None
    pid: int
    tid: int
    cpu: int | None
    period: int
    event: str
    ip: int
    comm: str
    record: Dumped


@dataclass
class Dumped:
    """A SAMPLE record as -D shows it: its first line, the lines of its parts, and what perf
    script printed of it."""

    offset: int
    misc: int
    cpu: int | None
    time: int | None
    pid: int
    tid: int
    ip: int
    period: int
    addr: int
    parts: list[bytes] = field(default_factory=list)
    printed: list[bytes] = field(default_factory=list)

    def part(self, title: bytes, line: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
        """The lines behind a title."""
        at = next((i for i, one in enumerate(self.parts) if one.startswith(title)), None)
        if at is not None:
            for one in self.parts[at + 1 :]:
                if (found := line.match(one)) is None:
                    return
                yield found

    @property
    def chain(self) -> tuple[int, ...]:
        """The words of the callchain, context markers included."""
        return tuple(int(found[1], 16) for found in self.part(b"... FP chain:", _FRAME))

    @property
    def branches(self) -> list[tuple[int, int, int, bool, bool]]:
        """from, to, cycles, mispredicted, predicted."""
        return [
            (int(f[1], 16), int(f[2], 16), int(f[3]), f[4] == b"M", f[5] == b"P")
            for f in self.part(b"... branch stack:", _BRANCH)
        ]

    def registers(self, which: bytes) -> list[int]:
        """`which`: user or intr."""
        title = b"... %b regs:" % which
        return [int(found[1], 16) for found in self.part(title, _REGISTER)]

    def number(self, name: str) -> int | None:
        """A part of one line, by the name that it has with us; None where there is none."""
        pattern = _NUMBERS[name]
        found = next(filter(None, map(pattern.match, self.parts)), None)
        base = 16 if name in ("transaction", "time_enabled", "time_running") else 0
        return int(found[1], base) if found else None

    @property
    def read(self) -> list[tuple[int, int]]:
        """id and value of each counter."""
        found = filter(None, map(_VALUE.match, self.parts))
        return [(int(f[1], 16), int(f[2], 16)) for f in found]


@dataclass
class Account:
    """All that perf says of a file. `counts`: records by the number of their type."""

    returncode: int
    errors: str
    fields: tuple[str, ...]
    records: list[Dumped]
    counts: Counter[int]

    @property
    def dropped(self) -> list[Dumped]:
        """Samples that perf read and printed nothing of."""
        return [record for record in self.records if not record.printed]

    def rows(self) -> list[Row]:
        """What perf script printed, in its order."""
        line = _line(self.fields)
        return [self._row(line, r, raw) for r in self.records for raw in r.printed]

    def _row(self, line: re.Pattern[str], record: Dumped, raw: bytes) -> Row:
        text = raw.decode("utf-8", "replace")
        found = line.match(text)
        if not found:
            raise AssertionError(f"perf script printed {text!r} for the fields {self.fields}")
        told = found.groupdict()
        return Row(
            time=int(told["time"].replace(".", "")) if "time" in told else None,
            pid=int(told["pid"]),
            tid=int(told["tid"]),
            cpu=int(told["cpu"]) if "cpu" in told else None,
            period=int(told["period"]),
            event=told["event"],
            ip=int(told["ip"], 16),
            comm=told["comm"],
            record=record,
        )


def _line(fields: tuple[str, ...]) -> re.Pattern[str]:
    """tools/perf/builtin-script.c: perf_sample__fprintf_start() and process_event()."""
    parts = [r"\s*(?P<comm>.*?)\s+(?P<pid>-?\d+)/(?P<tid>-?\d+)\s+"]
    if "cpu" in fields:
        parts.append(r"\[(?P<cpu>-?\d+)\]\s+")
    if "time" in fields:
        parts.append(r"(?P<time>\d+\.\d{9}):\s+")
    parts.append(r"(?P<period>\d+)\s+(?P<event>\S.*?):\s+(?P<ip>[0-9a-f]+)\s*$")
    return re.compile("".join(parts))


def run(path: Path) -> Account:
    """Ask perf script, with as many fields as every event of the file has."""
    fields = FIELDS
    while True:
        # without a kallsyms for guests perf script drops guest samples
        done = _perf("script", "-D", "--ns", "-G", "--guestkallsyms=/dev/null",
                     "-F", ",".join(fields), "-i", path)  # fmt: skip
        errors = done.stderr.decode("utf-8", "replace")
        missing = _MISSING.search(errors)
        if done.returncode and missing and missing[1] in fields:
            fields = tuple(name for name in fields if name != missing[1])
            continue
        return _account(done.returncode, errors, fields, done.stdout)


def _perf(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PERF_CONFIG": "/dev/null", "LC_ALL": "C", "PERF_PAGER": "cat"}
    # the home is where perf looks for a cache of debug files
    environment["HOME"] = "/nonexistent"
    for _ in range(4):
        done = subprocess.run(
            ["perf", *map(str, arguments)],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            env=environment,
        )
        # see perfdump.steady(): MMAP2 records marked as having a build id smash perf 6.1's stack
        if b"stack smashing" not in done.stderr:
            break
    return done


def _account(returncode: int, errors: str, fields: tuple[str, ...], out: bytes) -> Account:
    records: list[Dumped] = []
    counts: Counter[int] = Counter()
    current: Dumped | None = None
    for line in out.split(b"\n"):
        start = line[:3]
        if not line or start in (b".  ", b". .", b"."):
            continue
        if start in (b"...", b" . ", b" .."):
            if current is not None:
                current.parts.append(line)
        elif start[:1] == b"0" and (record := _RECORD.match(line)):
            current = None
            counts[int(record[1])] += 1
        elif b": PERF_RECORD_" in line:
            current = None
            if sample := _SAMPLE.match(line):
                current = _dumped(sample, fields)
                records.append(current)
        elif current is not None:
            current.printed.append(line)
    return Account(returncode, errors, fields, records, counts)


def _dumped(found: re.Match[bytes], fields: tuple[str, ...]) -> Dumped:
    """The numbers in front are what the events record of cpu and time."""
    stamps = [int(stamp) for stamp in found[1].split()]
    time = stamps.pop() if "time" in fields and stamps else None
    cpu = stamps.pop() if stamps else None
    return Dumped(
        offset=int(found[2], 0),
        misc=int(found[3], 16),
        cpu=cpu,
        time=time,
        pid=int(found[4]),
        tid=int(found[5]),
        ip=int(found[6], 16),
        period=int(found[7]),
        addr=int(found[8], 0),
    )
