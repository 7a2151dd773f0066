"""Turns records of a big-endian machine into ours: as if a little-endian one had written them.

Every field keeps its place in its word. All words are swapped at once; then the halves of words
that hold two u32 change places, and byte strings are put back. tools/perf/util/session.c does
this in its *_swap() functions. The payload of tracepoints (RAW) and stacks stays as recorded.
Attrs and feature sections are turned in turned.py.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata import turned
from kvmperf_magic.perfdata.abi import (
    MISC_MMAP_BUILD_ID,
    AttrFlag,
    Feature,
    RecordType,
    SampleType,
)
from kvmperf_magic.perfdata.attr import EventIds
from kvmperf_magic.perfdata.layout import TRAILER
from kvmperf_magic.perfdata.parts import Parts, Shape
from kvmperf_magic.perfdata.walk import Walk

_R = RecordType
# words of a record that hold two u32, and the first word of a string that goes to the trailer
_KERNEL: dict[int, tuple[tuple[int, ...], int | None]] = {
    _R.MMAP: ((1,), 5),
    _R.COMM: ((1,), 2),
    _R.EXIT: ((1, 2), None),
    _R.FORK: ((1, 2), None),
    _R.READ: ((1,), None),
    _R.MMAP2: ((1, 5, 8), 9),
    _R.ITRACE_START: ((1,), None),
    _R.SWITCH_CPU_WIDE: ((1,), None),
    _R.NAMESPACES: ((1,), None),
    _R.KSYMBOL: ((), 3),
    _R.BPF_EVENT: ((), 2),
    _R.CGROUP: ((), 2),
    _R.TEXT_POKE: ((), 2),
}
# those that perf makes up have no trailer
_TOOLS: dict[int, tuple[tuple[int, ...], int | None]] = {
    _R.HEADER_EVENT_TYPE: ((), 2),
    _R.HEADER_TRACING_DATA: ((1,), None),
    _R.AUXTRACE_INFO: ((1,), None),
    _R.AUXTRACE: ((4, 5), None),
    _R.AUXTRACE_ERROR: ((1, 2, 3), 6),
    _R.STAT: ((2,), None),
    _R.EVENT_UPDATE: ((), 3),
    _R.CPU_MAP: ((), 1),
    _R.BPF_METADATA: ((), 1),
}
_PAIRS = int(SampleType.TID), int(SampleType.CPU)


def native(walked: Walk, cpus: int = 0) -> Walk:
    """A copy in our order, of all but what the attrs decide: see finish(). `cpus`: the number
    that an NRCPUS before told."""
    words = walked.words.byteswap()
    at = walked.position
    size = walked.size.astype(np.uint64)
    kind, misc = walked.type.astype(np.uint64), walked.misc.astype(np.uint64)
    bytes_ = np.minimum(size * np.uint64(8), np.uint64(0xFFF8))
    words[at] = kind | misc << np.uint64(32) | bytes_ << np.uint64(48)
    turned_ = replace(walked, words=words)
    for one, (pairs, string) in _TOOLS.items():
        rows = walked.of_type(one)
        _turn(turned_, rows, pairs, string, np.zeros(len(rows), np.int64))
    _turn_descriptions(walked, words, cpus)
    for row in walked.of_type(_R.THREAD_MAP).tolist():  # {u64 count; {u64 pid; char comm[16]}}
        start, end = int(at[row]) + 2, int(at[row] + walked.size[row])
        names = [place for place in range(start, end) if (place - start) % 3]
        words[names] = walked.words[names]
    return turned_


def finish(walked: Walk, events: EventIds) -> None:
    """Turn, in place, what stands where an attr says: samples, and the trailers of others."""
    trailer = _Trailers(walked, events)
    for kind, (pairs, string) in _KERNEL.items():
        rows = walked.of_type(kind)
        if len(rows):
            _turn(walked, rows, pairs, string, trailer.words(rows))
    rows = np.flatnonzero((walked.type < _R.HEADER_ATTR) & (walked.type != _R.SAMPLE))
    trailer.turn(rows)
    _turn_odd_fields(walked)
    _turn_samples(walked, events)


def _turn(
    walked: Walk,
    rows: NDArray[np.intp],
    pairs: tuple[int, ...],
    string: int | None,
    trailer: NDArray[np.int64],
) -> None:
    position, size = walked.position[rows], walked.size[rows]
    for word in pairs:
        _swap_halves(walked.words, position[size > word] + word)
    if string is not None:
        length = np.maximum(size - string - trailer, 0)
        _put_back(walked.words, position + string, length)


def _swap_halves(words: NDArray[np.uint64], at: NDArray[np.int64]) -> None:
    value = words[at]
    words[at] = value << np.uint64(32) | value >> np.uint64(32)


def _put_back(
    words: NDArray[np.uint64], start: NDArray[np.int64], length: NDArray[np.int64]
) -> None:
    """Bytes of these runs of words as they stand in the file."""
    shift = np.cumsum(length) - length
    places = np.repeat(start - shift, length) + np.arange(int(length.sum()))
    words[places] = words[places].byteswap()


def _turn_descriptions(walked: Walk, words: NDArray[np.uint64], cpus: int) -> None:
    """HEADER_ATTR {attr; ids}, HEADER_FEATURE {u64 number; section}, HEADER_BUILD_ID {u32 pid;
    bytes}."""
    for row in walked.of_type(_R.HEADER_ATTR, _R.HEADER_FEATURE, _R.HEADER_BUILD_ID).tolist():
        start, size = int(walked.position[row]), int(walked.size[row])
        body = walked.body(row)
        if walked.type[row] == _R.HEADER_ATTR:
            length = int.from_bytes(body[4:8], "big") or 64
            body = turned.attr(body[:length]) + turned.words(body[length:])
        elif walked.type[row] == _R.HEADER_FEATURE:
            feature, data = int.from_bytes(body[:8], "big"), body[8:]
            if feature == Feature.NRCPUS:
                cpus = int.from_bytes(data[:4], "big")
            with suppress(ValueError):  # damaged: its decoder will say so
                data = turned.section(feature, data, cpus)
            body = (feature.to_bytes(8, "little") + data)[: len(body)]
        else:
            body = body[3::-1] + body[4:]
        words[start + 1 : start + size] = np.frombuffer(body, "<u8")


def _turn_odd_fields(walked: Walk) -> None:
    """Fields of u16 and u8; of what they stand for there are few records."""
    words = walked.words
    rows = walked.of_type(_R.MMAP2)
    rows = rows[(walked.misc[rows] & MISC_MMAP_BUILD_ID) != 0]
    rows = rows[walked.size[rows] > 8]
    at = walked.position[rows]
    _swap_halves(words, at + 5)  # {u8 size; u8, u16 reserved; u8 build_id[20]}: not two u32
    _put_back(words, at + 5, np.full(len(at), 3))
    forms = (
        (_R.KSYMBOL, 2, ">IHH", "<IHH"),
        (_R.BPF_EVENT, 1, ">HHI", "<HHI"),
        (_R.TEXT_POKE, 2, "<HHI", ">HHI"),  # among bytes that were put back already
    )
    for kind, word, theirs, ours in forms:
        rows = walked.of_type(kind)
        for place in (walked.position[rows[walked.size[rows] > word]] + word).tolist():
            if kind == _R.TEXT_POKE:
                old, new, code = struct.unpack(">HH4s", words[place].tobytes())
                raw = struct.pack("<HH4s", old, new, code)
            else:
                raw = struct.pack(ours, *struct.unpack(theirs, words[place].byteswap().tobytes()))
            words[place] = np.frombuffer(raw, "<u8")[0]


class _Trailers:
    """The trailers (sample_id_all) of records that are no samples."""

    def __init__(self, walked: Walk, events: EventIds) -> None:
        self._walked, self._events = walked, events
        attrs = [event.attr for event in events.events]
        self._types = np.array(
            [a.sample_type if a.has(AttrFlag.SAMPLE_ID_ALL) else 0 for a in attrs] or [0], np.uint64
        )

    def _types_of(self, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
        """The sample_type that a record's trailer follows."""
        if len(np.unique(self._types)) == 1:
            return np.full(len(rows), self._types[0])
        # IDENTIFIER is the last word of a trailer, for this very purpose
        last = self._walked.position[rows] + self._walked.size[rows] - 1
        event = self._events.of(self._walked.words[last])
        return np.where(event >= 0, self._types[event], np.uint64(0)).astype(np.uint64)

    def words(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """How long each trailer is, in words."""
        types = self._types_of(rows)
        length = np.zeros(len(rows), np.int64)
        for field in TRAILER:
            length += (types & np.uint64(field)) != 0
        return length

    def turn(self, rows: NDArray[np.intp]) -> None:
        types = self._types_of(rows)
        back = np.zeros(len(rows), np.int64)
        for field in reversed(TRAILER):
            has = (types & np.uint64(field)) != 0
            back += has
            if field in _PAIRS:
                mine = has & (back < self._walked.size[rows])
                end = self._walked.position[rows] + self._walked.size[rows]
                _swap_halves(self._walked.words, (end - back)[mine])


def _turn_samples(walked: Walk, events: EventIds) -> None:
    rows = walked.of_type(_R.SAMPLE)
    position, size = walked.position[rows], walked.size[rows]
    at = events.sample_id_word()
    place = np.minimum(at or 0, size - 1)
    ids = walked.words[position + place] if at is not None else np.zeros(len(rows), np.uint64)
    event = events.of(ids)
    shapes = [Shape.of(one.attr) for one in events.events]
    for shape in dict.fromkeys(shapes):
        mine = np.isin(event, [i for i, one in enumerate(shapes) if one == shape])
        mine &= size >= shape.layout.fixed
        _turn_shape(shape, walked.words, position[mine], (position + size)[mine])


def _turn_shape(
    shape: Shape, words: NDArray[np.uint64], record: NDArray[np.int64], end: NDArray[np.int64]
) -> None:
    """Samples of one layout; its parts behind the fixed ones are found one after the other."""
    for field in _PAIRS:
        place = shape.layout.word(SampleType(field))
        if place is not None:
            _swap_halves(words, record + place)
    parts = Parts(shape, words, record, end)
    if parts.has(SampleType.RAW):  # {u32 size; bytes}
        begin = parts.begin(SampleType.RAW)
        begin, behind = begin[begin < end], end[begin < end]
        told = (words[begin] >> np.uint64(32)).astype(np.int64)
        _put_back(words, begin, np.minimum((told + 11) // 8, behind - begin))
        halves = words[begin] >> np.uint64(32) << np.uint64(32)
        words[begin] = halves | told.astype(np.uint64)
    if parts.has(SampleType.BRANCH_STACK):
        start, count = parts.branches()
        shift = np.cumsum(count) - count
        flags = np.repeat(start - 3 * shift, count) + 3 * np.arange(int(count.sum())) + 2
        words[flags] = _branch_flags(words[flags])
    for part in (SampleType.STACK_USER, SampleType.AUX):
        if parts.has(part):
            begin = parts.begin(part)
            room = np.maximum(end - begin - 1, 0)
            _put_back(words, begin + 1, np.minimum((parts.count(part) + 7) // 8, room))


# struct perf_branch_entry: a compiler for a big-endian machine lays bit fields from the top
_BRANCH_FIELDS = (1, 1, 1, 1, 16, 4, 2, 4, 3)


def _branch_flags(theirs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """evsel__bitfield_swap_branch_flags()."""
    ours = np.zeros_like(theirs)
    low = 0
    for width in _BRANCH_FIELDS:
        mask = np.uint64((1 << width) - 1)
        ours |= (theirs >> np.uint64(64 - low - width) & mask) << np.uint64(low)
        low += width
    return ours
