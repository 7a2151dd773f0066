"""Copies of recordings that perf 6.1 refuses, changed as little as it takes for perf to read them.

What is changed never touches a sample. All of it is done on the bytes, record by record, with
nothing of our reader.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

zstandard = pytest.importorskip("zstandard")

ATTR_SIZE = 128  # perf 6.1's struct perf_event_attr
EVENT_TYPE = 65  # a record that perf skips
TRACING_DATA = 66
AUXTRACE_INFO, AUXTRACE = 70, 71
COMPRESSED, COMPRESSED2 = 81, 83
OWN_RECORDS = 32768  # simpleperf's own types begin here
TYPE_TRACEPOINT, TYPE_RAW = 2, 4


class Record(NamedTuple):
    type: int
    data: bytes  # header included
    payload: bytes  # what follows an AUXTRACE record


@dataclass
class Layout:
    """Where a little-endian perf.data has its sections; a stream has only data."""

    pipe: bool
    attr_size: int
    attrs: tuple[int, int]
    data: tuple[int, int]

    @classmethod
    def of(cls, raw: bytes) -> Layout:
        (size,) = struct.unpack_from("<Q", raw, 8)
        if size == 16:
            return cls(True, 0, (0, 0), (16, len(raw) - 16))
        attr_size, attrs, attrs_size, data, data_size = struct.unpack_from("<5Q", raw, 16)
        return cls(False, attr_size, (attrs, attrs_size), (data, data_size))


def records(raw: bytes) -> Iterator[Record]:
    """The records of the data section."""
    at, size = Layout.of(raw).data
    yield from _walk(raw[at : at + size])


def _walk(data: bytes) -> Iterator[Record]:
    at = 0
    while at + 8 <= len(data):
        kind, _, size = struct.unpack_from("<IHH", data, at)
        follows = struct.unpack_from("<Q", data, at + 8)[0] if kind == AUXTRACE else 0
        end = at + size
        yield Record(kind, data[at:end], data[end : end + follows])
        at = end + follows


def with_short_attrs(raw: bytes) -> bytes:
    """Attrs cut to the size that perf 6.1 knows; what is cut is config3 or later."""
    layout = Layout.of(raw)
    start, size = layout.attrs
    out = bytearray(raw)
    entries = []
    for at in range(start, start + size, layout.attr_size):
        entry = bytearray(raw[at : at + ATTR_SIZE])
        struct.pack_into("<I", entry, 4, ATTR_SIZE)
        entries.append(bytes(entry) + raw[at + layout.attr_size - 16 : at + layout.attr_size])
    table = b"".join(entries)
    out[start : start + len(table)] = table
    struct.pack_into("<QQQ", out, 16, ATTR_SIZE + 16, start, len(table))
    return bytes(out)


def without_tracepoints(raw: bytes) -> bytes:
    """Tracepoints as raw events of the same number: perf wants no tracing data for those."""
    layout = Layout.of(raw)
    start, size = layout.attrs
    out = bytearray(raw)
    for at in range(start, start + size, layout.attr_size):
        if struct.unpack_from("<I", out, at)[0] == TYPE_TRACEPOINT:
            struct.pack_into("<I", out, at, TYPE_RAW)
    return bytes(out)


def without_own_records(raw: bytes) -> bytes:
    """simpleperf's own records, and its tracing data that stands inside its record and not behind
    it, renamed to a type that perf skips."""

    def renamed(record: Record) -> Record:
        if record.type < OWN_RECORDS and record.type != TRACING_DATA:
            return record
        return record._replace(data=struct.pack("<I", EVENT_TYPE) + record.data[4:])

    return _rewritten(raw, renamed)


def without_auxtrace(raw: bytes) -> bytes:
    """No AUXTRACE_INFO, no AUXTRACE and none of the trace that follows it."""
    return _rewritten(raw, lambda r: None if r.type in (AUXTRACE_INFO, AUXTRACE) else r)


def decompressed(raw: bytes) -> bytes:
    """What perf record -z packed, as plain records: one zstd stream through all of them."""
    inflate = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    packed = b""
    out: list[Record] = []
    for record in records(raw):
        if record.type == COMPRESSED:
            packed += inflate.decompress(record.data[8:])
        elif record.type == COMPRESSED2:
            (size,) = struct.unpack_from("<Q", record.data, 8)
            packed += inflate.decompress(record.data[16 : 16 + size])
        else:
            out.append(record)
            continue
        whole = list(_whole(packed))
        out += whole
        packed = packed[sum(len(r.data) for r in whole) :]
    return _with_data(raw, out)


def _whole(data: bytes) -> Iterator[Record]:
    """The records that are there to their last byte."""
    at = 0
    while at + 8 <= len(data):
        kind, _, size = struct.unpack_from("<IHH", data, at)
        if at + size > len(data):
            return
        yield Record(kind, data[at : at + size], b"")
        at += size


def _rewritten(raw: bytes, change: Callable[[Record], Record | None]) -> bytes:
    return _with_data(raw, [new for r in records(raw) if (new := change(r)) is not None])


def _with_data(raw: bytes, kept: list[Record]) -> bytes:
    """Other records: behind the old file, and the table of features behind them."""
    data = b"".join(r.data + r.payload for r in kept)
    layout = Layout.of(raw)
    if layout.pipe:
        return raw[:16] + data
    out = bytearray(raw)
    struct.pack_into("<QQ", out, 40, len(raw), len(data))
    features = sum(raw[at].bit_count() for at in range(72, 104))
    table = sum(layout.data)
    return bytes(out) + data + raw[table : table + 16 * features]
