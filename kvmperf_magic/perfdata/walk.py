"""Finds the records in a run of bytes: header by header, or many headers at a time.

A record starts with struct perf_event_header {u32 type; u16 misc; u16 size}. The chain of
headers is followed from many places at once, places that look like headers; what is kept is
only what the chain from the very first record reaches, so the result is that of the plain walk.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import RecordType

MAX_TYPE = 128  # a start that is guessed must have a type below; the walk itself takes any
CHAINS = 1024
LEAST_CHAINS = 16  # fewer than these are quicker one by one
WINDOW = 256  # words searched for a header behind each guessed place
WORDS_PER_CHAIN = 2048
STEADY = 4096  # ordinary records in a row, after which many are tried at a time again
LEADING = 4096  # records looked at for what a recording says of itself before its samples
# these are followed by a payload that their size does not count
_SLOW = (int(RecordType.AUXTRACE), int(RecordType.HEADER_TRACING_DATA))
# simpleperf's own records have 32 bits of size: its record.h, SimpleperfRecordHeader
_LONG, _LONG_END = 32768, 32768 + 256
_LEADING_END = frozenset(
    map(int, (RecordType.SAMPLE, RecordType.COMPRESSED, RecordType.COMPRESSED2))
)

Buffer = bytes | bytearray | memoryview | mmap.mmap
ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class Walk:
    """Records as columns; `position` and `size` count the words of `words` (u64).

    `end` is the offset in the buffer behind the last whole record; `problem` tells why the walk
    stopped there, empty if at the end. `incomplete`: the record there is cut off, not wrong.
    `tracing` is what followed a TRACING_DATA record, `auxtrace` how many AUXTRACE records there
    were and how many bytes followed them. The words of a walk of the other byte order are
    as in the file; type, misc and size are decoded. `start` is the offset of the first record,
    `offset` that of every record where they had to be copied to stand on words.
    """

    words: NDArray[np.uint64]
    position: NDArray[np.int64]
    size: NDArray[np.int64]
    type: NDArray[np.uint32]
    misc: NDArray[np.uint16]
    end: int
    problem: str
    incomplete: bool
    start: int = 0
    offset: NDArray[np.int64] | None = None
    tracing: bytes = b""
    auxtrace: tuple[int, int] = (0, 0)

    def of_type(self, *types: int) -> NDArray[np.intp]:
        """Rows of these record types, in file order."""
        return np.flatnonzero(np.isin(self.type, types))

    def counts(self) -> dict[int, int]:
        """Records by type."""
        types, counts = np.unique(self.type, return_counts=True)
        return dict(zip(types.tolist(), counts.tolist(), strict=True))

    def offset_of(self, row: int) -> int:
        """Where a record stands in the buffer."""
        if self.offset is not None:
            return int(self.offset[row])
        return self.start + 8 * int(self.position[row])

    def body(self, row: int) -> bytes:
        """The bytes of a record behind its header."""
        start = int(self.position[row])
        return self.words[start + 1 : start + int(self.size[row])].tobytes()


def walk(
    buffer: Buffer, start: int = 0, end: int | None = None, order: ByteOrder = "little"
) -> Walk:
    """All whole records of buffer[start:end]. Never fails: see Walk.problem."""
    end = len(buffer) if end is None else end
    plain = _Plain(buffer, start, end, order)
    found: list[NDArray[np.int64]] = []
    steady = STEADY
    while True:
        if order == "little":
            position, reached = _many_chains(_words(buffer, plain.at, end))
            position <<= 3  # in place: a large file has many
            position += plain.at
            found.append(position)
            plain.at += 8 * reached
            steady = STEADY if reached else 2 * steady
        going = plain.follow(steady if order == "little" else None)
        found.append(np.array(plain.offsets, np.int64))
        plain.offsets.clear()
        if not going:
            parts = [one for one in found if len(one)] or found[:1]
            offsets = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return _laid_out(buffer, start, end, offsets, plain)


def leading(buffer: Buffer, start: int, end: int, order: ByteOrder = "little") -> Walk:
    """The records before the first sample, at most LEADING."""
    plain = _Plain(buffer, start, end, order)
    plain.follow(LEADING, until=_LEADING_END)
    offsets = np.array(plain.offsets, np.int64)
    return _laid_out(buffer, start, plain.at, offsets, plain)


def _words(buffer: Buffer, start: int, end: int) -> NDArray[np.uint64]:
    count = max(end - start, 0) // 8
    return np.frombuffer(buffer, "<u8", count, start) if count else np.zeros(0, "<u8")


def _laid_out(
    buffer: Buffer, start: int, end: int, offset: NDArray[np.int64], plain: _Plain
) -> Walk:
    """Columns of the records at these offsets: of the buffer itself if all of them stand on a
    word of it, else of a copy in which they do."""
    words = _words(buffer, start, end)
    if plain.odd:
        raw = np.frombuffer(buffer, np.uint8)
        headers = raw[offset[:, None] + np.arange(8)].view("<u8").ravel()
    else:
        position = offset
        position -= start
        position >>= 3
        headers = words[position]
    kind, misc, size = header_fields(headers, plain.order)
    padded = (size + 7) >> 3
    if plain.odd:
        position = np.cumsum(padded) - padded
        words = np.zeros(int(padded.sum()), np.uint64)
        into = words.view(np.uint8)
        # records that follow each other without a gap are copied together
        first = np.ones(len(offset), np.bool_)
        first[1:] = offset[1:] != offset[:-1] + 8 * padded[:-1]
        begin = np.flatnonzero(first)
        last = np.append(begin[1:], len(offset)) - 1
        length = offset[last] + size[last] - offset[begin]
        for at, source, count in zip(
            (8 * position[begin]).tolist(), offset[begin].tolist(), length.tolist(), strict=True
        ):
            into[at : at + count] = raw[source : source + count]
    return Walk(
        words=words,
        position=position,
        size=padded,
        type=kind,
        misc=misc,
        end=plain.at,
        problem=plain.problem,
        incomplete=plain.incomplete,
        start=start,
        offset=offset if plain.odd else None,
        tracing=plain.tracing,
        auxtrace=(plain.auxtraces, plain.auxtrace_bytes),
    )


def header_fields(
    headers: NDArray[np.uint64], order: ByteOrder
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.int64]]:
    """Type, misc and size in bytes of headers as they stand in the file."""
    if order == "little":
        kind = headers.astype(np.uint32)
        misc = (headers >> np.uint64(32)).astype(np.uint16)
        size = (headers >> np.uint64(48)).view(np.int64)
    else:
        native = headers.byteswap()
        kind = (native >> np.uint64(32)).astype(np.uint32)
        misc = (native >> np.uint64(16)).astype(np.uint16)
        size = (native & np.uint64(0xFFFF)).astype(np.int64)
    if len(kind) and kind.max() >= _LONG:
        size += np.where(_is_long(kind), misc.astype(np.int64) << 16, 0)
    return kind, misc, size


def _is_long(kind: NDArray[Any]) -> NDArray[np.bool_]:
    return (kind >= _LONG) & (kind < _LONG_END)


class _Plain:
    """One record after the other, by bytes; steps over what follows AUXTRACE and TRACING_DATA."""

    def __init__(self, buffer: Buffer, start: int, end: int, order: ByteOrder) -> None:
        self.buffer, self.start, self.at, self.end = buffer, start, start, end
        self.order: ByteOrder = order
        self.offsets: list[int] = []
        self.odd = False  # some record does not stand on a word counted from the start
        self.problem = ""
        self.incomplete = False
        self.tracing = b""
        self.auxtraces = self.auxtrace_bytes = 0

    def follow(self, steady: int | None, until: frozenset[int] = frozenset()) -> bool:
        """To the end, or until `steady` ordinary records came in a row; whether there may be
        more. A record of a type of `until` ends it too, and is not taken."""
        unpack = struct.Struct("<IHH" if self.order == "little" else ">IHH").unpack_from
        buffer, end, at, left = self.buffer, self.end, self.at, steady
        while at + 8 <= end:
            kind, misc, size = unpack(buffer, at)
            if kind in until:
                break
            if _LONG <= kind < _LONG_END:
                size += misc << 16
            if size < 8:
                self.problem = f"a record of type {kind} says it has {size} bytes"
                break
            payload = self._payload(kind, at, size) if kind in _SLOW else 0
            if at + size + payload > end:
                self.problem = f"a record of {size + payload} bytes is cut off after {end - at}"
                self.incomplete = True
                break
            if payload:
                self._keep(kind, at + size, payload)
            self.offsets.append(at)
            odd = bool((at - self.start) % 8 or size % 8)
            self.odd |= odd
            at += size + payload
            if left is not None:
                left = steady if payload or size % 8 else left - 1
                if not left:
                    self.at = at
                    return True
        if 0 < end - at < 8:
            self.problem = f"{end - at} bytes are left behind the last record"
            self.incomplete = True
        self.at = at
        return False

    def _payload(self, kind: int, at: int, size: int) -> int:
        """Bytes that follow the record without being counted in its size."""
        wide = 8 if kind == RecordType.AUXTRACE else 4
        if size < 8 + wide or at + 8 + wide > self.end:
            return 0
        told = int.from_bytes(self.buffer[at + 8 : at + 8 + wide], self.order)
        if kind == RecordType.AUXTRACE:
            return told
        # simpleperf counts it in the record
        return 0 if told <= size - 12 else -(-told // 8) * 8

    def _keep(self, kind: int, at: int, size: int) -> None:
        if kind == RecordType.AUXTRACE:
            self.auxtraces += 1
            self.auxtrace_bytes += size
        else:
            self.tracing = bytes(self.buffer[at : at + size])


def _sizes(header: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sizes in words of what these headers say; 0 where the fast walk cannot go on."""
    size = (header >> np.uint64(48)).astype(np.int64)
    kind = header & np.uint64(0xFFFFFFFF)
    slow = (kind == _SLOW[0]) | (kind == _SLOW[1]) | _is_long(kind)
    return np.where((size & 7 == 0) & ~slow, size >> 3, 0)


def _starts(words: NDArray[np.uint64], chains: int) -> NDArray[np.int64]:
    """Places spread over the words from which four headers in a row look right; the first is 0."""
    places = (np.arange(chains) * (len(words) // chains)).astype(np.int64)
    spots = (places[:, None] + np.arange(WINDOW)).ravel()
    at = spots
    for _ in range(4):
        header = words[at]
        kind = header & np.uint64(0xFFFFFFFF)
        size = _sizes(header)
        right = (size > 0) & (kind > 0) & (kind < MAX_TYPE) & (at + size < len(words))
        at, spots = (at + size)[right], spots[right]
    first = spots[np.unique(np.searchsorted(places, spots, "right"), return_index=True)[1]]
    return np.concatenate([[0], first[first > 0]])


def _many_chains(words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], int]:
    """Positions of the first records, and the word up to which they were followed."""
    chains = min(CHAINS, len(words) // WORDS_PER_CHAIN)
    starts = _starts(words, chains) if chains > LEAST_CHAINS else np.zeros(0, np.int64)
    if len(starts) <= LEAST_CHAINS:
        return np.zeros(0, np.int64), 0
    limit = np.append(starts[1:], len(words))
    last = starts.copy()  # where each chain stands
    live = np.arange(len(starts))
    steps: list[NDArray[np.int64]] = []
    while len(live) > LEAST_CHAINS:
        at = last[live]
        size = _sizes(words[at])
        on = (size > 0) & (at + size <= len(words))
        live, at, size = live[on], at[on], size[on]
        step = np.full(len(starts), -1, np.int64)
        step[live] = at
        steps.append(step)
        last[live] = at + size
        live = live[last[live] < limit[live]]
    table = np.stack(steps, axis=1)  # a row a chain
    return _joined(words, table, starts, last)


def _joined(
    words: NDArray[np.uint64],
    table: NDArray[np.int64],
    starts: NDArray[np.int64],
    last: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int]:
    """The chains that the first one really reaches, and the records between them."""
    kept: list[int] = []
    between: list[int] = []
    at = chain = 0
    raw = words.data.cast("B").cast("Q")
    known = starts.tolist()
    while at < len(words):
        while chain < len(known) and known[chain] < at:
            chain += 1
        if chain < len(known) and known[chain] == at:
            kept.append(chain)
            if at == (at := int(last[chain])):
                break
            continue
        header = raw[at]
        size = header >> 51
        kind = header & 0xFFFFFFFF
        slow = kind in _SLOW or _LONG <= kind < _LONG_END
        if header >> 48 & 7 or slow or not 0 < size <= len(raw) - at:
            break
        between.append(at)
        at += size
    followed = table[kept].ravel()
    position = np.concatenate([followed[followed >= 0], np.array(between, np.int64)])
    position.sort()
    return position, at
