"""Fields of tracepoint samples as perf's own Python interface hands them out: an oracle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.reader import PerfFile
from kvmperf_magic.perfdata.tracepoints import columns
from kvmperf_magic.perfdata.tracingdata import parse
from kvmperf_magic.table import Categorical, Ragged

# perf calls this for every sample of an event that the script has no function for
_SCRIPT = """
import json
left = {most}
def trace_unhandled(event, context, fields, sample):
    global left
    left -= 1
    if left < 0:
        return
    told = {{k: v if isinstance(v, (int, str)) else list(v) for k, v in fields.items()}}
    s = sample["sample"]
    print("ROW", json.dumps([event, s["time"], s["cpu"], told]))
"""
# perf has these of the sample, not of the tracepoint's own fields
_PERFS = ("common_cpu", "common_s", "common_ns", "common_comm", "common_callchain")

MOST = 50_000  # samples compared: the first ones

Row = tuple[int, int, str, tuple[tuple[str, Any], ...]]


def perf_with_python(perf: Callable[..., str]) -> None:
    """Skips the test where this perf was built without."""
    if not re.search(r"libpython: \[ on", perf("version", "--build-options")):
        pytest.skip("this perf has no Python")


def perf_rows(perf: Callable[..., str], folder: Path, recording: Path) -> list[Row]:
    """(time, cpu, system__name, fields), sorted. An array that is no string is its bytes."""
    script = folder / "rows.py"
    script.write_text(_SCRIPT.format(most=MOST))
    said = perf("script", "--guestkallsyms=/dev/null", "-i", recording, "-s", script)
    found = []
    for line in said.splitlines():
        if line.startswith("ROW "):
            event, time, cpu, told = json.loads(line[4:])
            fields = {k: v for k, v in told.items() if k not in _PERFS}
            values = {k: bytes(v) if isinstance(v, list) else v for k, v in fields.items()}
            found.append((time, cpu, event, tuple(sorted(values.items()))))
    return _first(found)


def our_rows(file: PerfFile) -> list[Row]:
    """The same of ours."""
    assert file.tracing
    formats = parse(file.tracing).events
    raw = Fields(file.samples, file.events).raw
    found: list[Row] = []
    for i, event in enumerate(file.events):
        rows = (file.samples.event[:MOST] == i).nonzero()[0]
        if event.attr.config not in formats or not len(rows):
            continue
        format = formats[event.attr.config]
        decoded = columns(format, raw.take(rows))
        shown: dict[str, list[Any]] = {}
        for field in format.fields:
            if field.name.startswith("common_") and field.name != "common_pid":
                continue
            column = decoded[field.name]
            if isinstance(column, Categorical):
                shown[field.name] = column.values().tolist()
            elif isinstance(column, Ragged):
                shown[field.name] = [row.tobytes() for row in column]
            else:
                # perf does not extend the sign of what is shorter than its 64 bits
                mask = (1 << 8 * field.size) - 1 if field.size < 8 else -1
                shown[field.name] = [int(value) & mask for value in column.tolist()]
        name = format.event.replace(":", "__")
        times = file.samples.time[rows].tolist()
        cpus = file.samples.cpu[rows].tolist()
        for k in range(len(rows)):
            values = tuple(sorted((field, shown[field][k]) for field in shown))
            found.append((times[k], cpus[k], name, values))
    return _first(found)


def _first(rows: list[Row]) -> list[Row]:
    """In order; where there are more than were asked for, without those of the last instant."""
    rows.sort(key=repr)
    if len(rows) < MOST:
        return rows
    last = max(row[0] for row in rows)
    return [row for row in rows if row[0] < last]
