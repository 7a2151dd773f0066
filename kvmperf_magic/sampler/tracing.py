"""The TRACING_DATA section: the formats of the tracepoints in a recording.

tools/perf/util/trace-event-info.c: read_tracing_data(), version 0.6. Without it perf does not
open a file that holds tracepoints.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path

from kvmperf_magic.perfdata.abi import EventType
from kvmperf_magic.perfdata.tracingdata import MAGIC
from kvmperf_magic.sampler.eventnames import tracefs
from kvmperf_magic.sampler.events import EventSpec

_MAGIC = MAGIC + b"0.6\0"
_LITTLE_ENDIAN, _LONG_BYTES = 0, 8


def tracing_data(specs: Iterable[EventSpec]) -> bytes:
    """The section; empty where no event is a tracepoint."""
    names = sorted({tuple(s.name.split(":")[:2]) for s in specs if s.type == EventType.TRACEPOINT})
    if not names:
        return b""
    events = tracefs() / "events"
    parts = [_MAGIC, struct.pack("<BBI", _LITTLE_ENDIAN, _LONG_BYTES, mmap.PAGESIZE)]
    for header in ("header_page", "header_event"):
        parts += [header.encode() + b"\0", _sized(events / header)]
    parts.append(struct.pack("<I", 0))  # ftrace's own events
    systems = sorted({system for system, _ in names})
    parts.append(struct.pack("<I", len(systems)))
    for system in systems:
        formats = [events / system / name / "format" for of, name in names if of == system]
        parts.append(system.encode() + b"\0" + struct.pack("<I", len(formats)))
        parts += map(_sized, formats)
    parts.append(struct.pack("<IIQ", 0, 0, 0))  # kallsyms, printk formats, saved command lines
    return b"".join(parts)


def _sized(path: Path) -> bytes:
    content = path.read_bytes()
    return struct.pack("<Q", len(content)) + content
