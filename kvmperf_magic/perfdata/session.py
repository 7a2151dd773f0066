"""Turns walked records into events, samples and sideband: what files and streams have in common.

tools/perf/util/session.c does this record by record. The records from type 64 on that describe
the rest (attrs, names, ids, features of a stream) take effect before the samples beside them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kvmperf_magic.perfdata import byteorder, simpleperf, tracingdata, turned
from kvmperf_magic.perfdata import features as sections
from kvmperf_magic.perfdata.abi import EventType, Feature, RecordType
from kvmperf_magic.perfdata.attr import Attr, Event, EventIds, event_name
from kvmperf_magic.perfdata.compressed import Decompressor
from kvmperf_magic.perfdata.cursor import text
from kvmperf_magic.perfdata.features import BuildId
from kvmperf_magic.perfdata.groupread import GroupReads
from kvmperf_magic.perfdata.records import EVENT_UPDATE_NAME, GUEST_MAGIC, NOTE_MAGIC, TASKS_MAGIC
from kvmperf_magic.perfdata.samples import GuestIds, SampleColumns, decode_samples
from kvmperf_magic.perfdata.sideband import Sideband, decode_sideband
from kvmperf_magic.perfdata.walk import ByteOrder, Walk

# kinds of events whose made-up names are the names everybody knows
_GENERIC = (EventType.HARDWARE, EventType.SOFTWARE, EventType.HW_CACHE, EventType.BREAKPOINT)


@dataclass(frozen=True)
class Batch:
    """What one run of records held; `counts` is by record type."""

    samples: SampleColumns
    sideband: Sideband
    counts: dict[int, int]


@dataclass
class Session:
    """What is known of a recording so far; `problems` are one-line notes on what was left out."""

    path: str | Path
    order: ByteOrder = "little"  # of the recording
    events: list[Event] = field(default_factory=list)
    features: dict[int, Any] = field(default_factory=dict)
    build_ids: list[BuildId] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tracing: bytes = b""  # what came with a TRACING_DATA record
    guest_notes: list[tuple[bytes, bytes]] = field(default_factory=list)  # magic, what was packed
    _notes: dict[bytes, list[bytes]] = field(default_factory=dict)
    _noted: dict[str, Any] = field(default_factory=dict)
    _guests: dict[int, tuple[int, int]] = field(default_factory=dict)
    _reads: GroupReads = field(default_factory=GroupReads)
    _records: int = 0
    _named_from: bytes = b""  # the tracing data that events were named from
    _split: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.zstd = Decompressor(self.path, self.order)

    def take(self, walked: Walk) -> Batch:
        """Decode these records. FileError where they are compressed and zstandard is missing."""
        return self.decode(self.unpack(walked))

    def unpack(self, walked: Walk) -> Walk:
        """The same records, uncompressed, in our byte order but for samples and the like."""
        return self.native(self.zstd.expand(walked))

    def native(self, walked: Walk) -> Walk:
        """The same in our byte order, as far as no attr is needed for it."""
        return walked if self.order == "little" else byteorder.native(walked, self._cpus)

    def decode(self, walked: Walk) -> Batch:
        """Decode unpacked records, all that describes the recording first."""
        self.describe(walked)
        ids = EventIds(self.events)
        if self.order == "big":
            byteorder.finish(walked, ids)
        samples, problems = decode_samples(walked, ids, self._guest_ids())
        samples = self._reads.deliver(samples, ids)
        sideband, others = decode_sideband(walked, ids, self._records)
        self._records += len(walked.position)
        self.problems += problems + others
        return Batch(samples, sideband, walked.counts())

    def finish(self, offset: int) -> list[tuple[int, str]]:
        """A run of records ends here: what was damaged where in what it had compressed."""
        self.zstd.finish(offset)
        damage, limit = self.zstd.damage, self.zstd.buffer
        self.zstd = Decompressor(self.path, self.order, limit)
        return damage

    def describe(self, walked: Walk) -> None:
        """Take only what these records say of the recording itself: attrs, names, features."""
        self.tracing = walked.tracing or self.tracing
        for row in walked.of_type(*_DESCRIBING).tolist():
            kind = int(walked.type[row])
            try:
                _DESCRIBING[kind](self, walked, row)
            except (ValueError, struct.error) as error:
                name = RecordType(kind).name if kind < _SIMPLEPERF else kind
                self.problems.append(f"a record of type {name}: {error}")
        self._name_unnamed()
        self._name_tracepoints()

    @property
    def kvmperf(self) -> dict[str, Any]:
        """What our own recorder noted; what it wrote when it finished counts most."""
        return {**self._noted, **self.features.get(Feature.KVMPERF, {})}

    @property
    def _cpus(self) -> int:
        """The number of CPUs, which some sections are as long as; 0 until it is known."""
        return int(self.features.get(Feature.NRCPUS, (0, 0))[0])

    def add_event(self, raw_attr: bytes, ids: bytes) -> None:
        """An event with its ids (u64 each). ValueError for an attr that is too short."""
        if self.order == "big":
            raw_attr, ids = turned.attr(raw_attr), turned.words(ids)
        self._add_event(raw_attr, ids)

    def _add_event(self, raw_attr: bytes, ids: bytes) -> None:
        attr = Attr.decode(raw_attr)
        numbers = np.frombuffer(ids[: len(ids) // 8 * 8], "<u8")
        self.events.append(Event(event_name(attr), attr, numbers))

    def add_feature(self, feature: int, data: bytes) -> None:
        """A feature section, decoded where we can. ValueError where it is damaged."""
        if self.order == "big":
            data = turned.section(feature, data, self._cpus)
        self._add_feature(feature, data)

    def _add_feature(self, feature: int, data: bytes) -> None:
        value = sections.decode(feature, data, self.features)
        self.features[feature] = value
        if feature == Feature.COMPRESSED:  # {u32 version, type, level, ratio, mmap_len}
            self.zstd.buffer = int.from_bytes(data[16:20], "little") or None
        if feature == Feature.BUILD_ID:
            self.build_ids += value
        elif feature == Feature.EVENT_DESC:
            # both are in the order of the attrs: evlist__set_event_name() goes by index
            for i, desc in enumerate(value[: len(self.events)]):
                if desc.name:
                    self.events[i] = replace(self.events[i], name=desc.name)

    def _name_unnamed(self) -> None:
        """Better names for events that nobody named: simpleperf's, or those of their PMUs."""
        pmus = self.features.get(Feature.PMU_MAPPINGS, {})
        told = simpleperf.event_names(self.features.get(simpleperf.META_INFO, {}))
        if not pmus and not told:
            return
        for i, event in enumerate(self.events):
            attr = event.attr
            if event.name == event_name(attr) and attr.type not in _GENERIC:
                name = told.get((attr.type, attr.config)) or told.get((attr.type, 0))
                self.events[i] = replace(event, name=name or event_name(attr, pmus))

    def _attr(self, walked: Walk, row: int) -> None:
        body = walked.body(row)
        size = int.from_bytes(body[4:8], "little") or 64
        self._add_event(body[:size], body[size:])

    def _update(self, walked: Walk, row: int) -> None:
        """EVENT_UPDATE: of its kinds only the name matters here."""
        body = walked.body(row)
        kind, id = struct.unpack_from("<QQ", body)
        if kind != EVENT_UPDATE_NAME:
            return
        for i, event in enumerate(self.events):
            if id in event.ids:
                self.events[i] = replace(event, name=text(body[16:]))

    def _feature(self, walked: Walk, row: int) -> None:
        body = walked.body(row)
        (feature,) = struct.unpack_from("<Q", body)
        if len(body) > 8:  # perf ends its list with an empty one
            self._add_feature(feature, body[8:])

    def _build_id(self, walked: Walk, row: int) -> None:
        start = int(walked.position[row])
        whole = walked.words[start : start + int(walked.size[row])].tobytes()
        self.build_ids += sections.decode_build_ids(whole)

    def _event_type(self, walked: Walk, row: int) -> None:
        """HEADER_EVENT_TYPE: perf's own say nothing any more; ours is part of a note."""
        body = walked.body(row)
        magic = body[: len(NOTE_MAGIC)]
        if magic not in (NOTE_MAGIC, GUEST_MAGIC, TASKS_MAGIC):
            return
        part, parts = struct.unpack_from("<II", body, len(magic))
        pieces = self._notes[magic] = [*self._notes.get(magic, [])[:part], body[16:]]
        if len(pieces) != parts:
            return
        whole = b"".join(pieces)
        if magic == NOTE_MAGIC:
            self._noted = sections.decode_kvmperf(whole)
        else:
            self.guest_notes.append((magic, whole))

    def _id_index(self, walked: Walk, row: int) -> None:
        """ID_INDEX: only entries with a guest (the second part, perf 6.0) tell us something."""
        start, size = int(walked.position[row]), int(walked.size[row])
        words = walked.words[start : start + size].tolist()
        count = words[1] if size > 1 else 0
        if 2 + 6 * count > size:
            return
        for i in range(count):
            pid, vcpu = words[2 + 4 * count + 2 * i : 4 + 4 * count + 2 * i]
            if pid:
                self._guests[words[2 + 4 * i]] = pid & 0x7FFFFFFF, vcpu & 0x7FFFFFFF

    def _name_tracepoints(self) -> None:
        """Events of which only the id is known: TRACING_DATA names them `system:name`, as
        evsel__prepare_tracepoint_event() does."""
        payload = self.features.get(Feature.TRACING_DATA) or self.tracing
        if not payload or payload == self._named_from:
            return
        self._named_from = payload
        tracepoints = [
            (i, event)
            for i, event in enumerate(self.events)
            if event.attr.type == EventType.TRACEPOINT
        ]
        try:
            formats = tracingdata.parse(payload).events if tracepoints else {}
        except ValueError as error:
            self.problems.append(f"TRACING_DATA: {error}")
            return
        for i, event in tracepoints:
            format = formats.get(event.attr.config)
            if format and event.name == event_name(event.attr):
                self.events[i] = replace(event, name=format.event)

    def _simpleperf(self, walked: Walk, row: int) -> None:
        """simpleperf's TRACING_DATA {u32 size, payload}, the payload in the record; what is too
        long for its records of old comes in pieces (record.h: TracingDataRecord, SplitRecord)."""
        start = int(walked.position[row])
        size = int(walked.words[start]) >> 48 | int(walked.misc[row]) << 16
        raw = walked.words[start : start + int(walked.size[row])].tobytes()[:size]
        kind = int(walked.type[row])
        if kind == _SPLIT:
            self._split += raw[8:]
            return
        if kind == _SPLIT_END:
            raw = bytes(self._split)
            self._split = bytearray()
        kind, _, length = struct.unpack_from("<III", raw)
        if kind in (_TRACING_DATA, RecordType.HEADER_TRACING_DATA) and 12 + length <= len(raw):
            self.tracing = raw[12 : 12 + length]

    def _guest_ids(self) -> GuestIds:
        ids = sorted(self._guests)
        return GuestIds(
            np.array(ids, np.uint64),
            np.array([self._guests[i][0] for i in ids], np.int32),
            np.array([self._guests[i][1] for i in ids], np.int32),
        )


_SIMPLEPERF = 32768  # its own types of records begin here: simpleperf's record.h
_SPLIT, _SPLIT_END, _TRACING_DATA = 32772, 32773, 32777
_DESCRIBING = {
    int(RecordType.HEADER_ATTR): Session._attr,
    int(RecordType.HEADER_EVENT_TYPE): Session._event_type,
    int(RecordType.EVENT_UPDATE): Session._update,
    int(RecordType.HEADER_FEATURE): Session._feature,
    int(RecordType.HEADER_BUILD_ID): Session._build_id,
    int(RecordType.ID_INDEX): Session._id_index,
    int(RecordType.HEADER_TRACING_DATA): Session._simpleperf,
    **dict.fromkeys((_SPLIT, _SPLIT_END, _TRACING_DATA), Session._simpleperf),
}
