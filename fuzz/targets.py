"""What is tried with an input. Only the project's own exceptions may come out."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata import features
from kvmperf_magic.perfdata.attr import Attr, event_name
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.packed import MAGIC
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.perfdata.stream import StreamReader
from kvmperf_magic.perfdata.tracingdata import parse
from kvmperf_magic.recording import open_recording
from kvmperf_magic.symbols import jitdump, kept
from kvmperf_magic.table import Table

_INPUT = Path(tempfile.mkdtemp(prefix="kvmperf-fuzz-")) / "input"


def _columns(table: Table) -> None:
    for name in table.columns:
        table.column(name)


def file(data: bytes) -> None:
    """All that a file or stream holds: every column of every table."""
    _INPUT.write_bytes(data)
    with suppress(FileError):
        opened = read(_INPUT)
        samples = opened.samples
        fields = Fields(samples, opened.events)
        for name in fields.names():
            fields.column(name)
        for name in opened.sideband:
            _columns(opened.sideband[name])
        assert sum(opened.counts.values()) >= 0
        assert all(one.message for one in opened.damage)


def answers(data: bytes) -> None:
    """From the bytes to the report and the folded stacks, by way of the names."""
    _INPUT.write_bytes(data)
    with suppress(FileError):
        recording = open_recording(_INPUT, cache=False)
        repr(recording)
        _columns(recording.samples)
        _columns(recording.events)
        _columns(recording.records)
        if len(recording):
            repr(recording.report().report.table)
            recording.to_folded()


def stream(data: bytes) -> None:
    """The same bytes fed in pieces."""
    rng = random.Random(len(data))
    reader = StreamReader()
    at = 0
    with suppress(FileError):
        while at < len(data):
            step = rng.choice((1, 7, 100, 4096, len(data)))
            reader.feed(data[at : at + step])
            at += step


def section(data: bytes) -> None:
    """One feature section; its number is the first byte."""
    with suppress(ValueError, struct.error):  # the reader takes both for damage
        features.decode(data[0] if data else 0, data[1:], {})


def attr(data: bytes) -> None:
    with suppress(ValueError):
        event_name(Attr.decode(data))


def tracing(data: bytes) -> None:
    """TRACING_DATA: the formats of tracepoints."""
    with suppress(ValueError):
        parse(data)


def packed(data: bytes) -> None:
    """A .kvmperf, the digest of whose directory is made right, so that the directory counts; or a
    perf.data that carries its names."""
    end = 32 + int.from_bytes(data[8:16], "little")
    if data.startswith(MAGIC) and end <= len(data):
        data = data[:16] + blake2b(data[32:end], digest_size=16).digest() + data[32:]
    answers(data)


def symbols(data: bytes) -> None:
    """The names that a recording carries: what is sound can be used and told again."""
    with suppress(ValueError):
        keeping = kept.decode(data)
        kept.decode(kept.encode(keeping))
        for one in keeping.tables:
            if one.table is not None:
                one.table.find(one.table.start)
                assert len(one.table.names) == len(one.table)
                one.table.table()
            if one.segments is not None:
                one.segments.addresses(one.segments.offset)
            if one.lines is not None:
                for address in one.lines.address.tolist():
                    one.lines.at(address)
        for jit in keeping.jits().values():
            jit.table(int(jit.generation(jit.starts[-1:])[0]))


def jitdumps(data: bytes) -> None:
    """jit-PID.dump."""
    with suppress(ValueError):
        jit = jitdump.parse(data)
        for one in range(len(jit.starts)):
            assert len(jit.table(one).names) <= jit.count


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (file, answers, stream, section, attr, tracing, packed, symbols, jitdumps)
}
