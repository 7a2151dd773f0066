"""Finds the records in a run of bytes: header by header, or many headers at a time.

A record starts with struct perf_event_header {u32 type; u16 misc; u16 size}. The chain of
headers is followed from many places at once, places that look like headers; what is kept is
only what the chain from the very first record reaches, so the result is that of the plain walk.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import RecordType

MAX_TYPE = 128  # a start that is guessed must have a type below; the walk itself takes any
CHAINS = 1024
LEAST_CHAINS = 16  # fewer than these are quicker one by one
WINDOW = 256  # words searched for a header behind each guessed place
WORDS_PER_CHAIN = 2048
# these are followed by a payload that their size does not count
_SLOW = (int(RecordType.AUXTRACE), int(RecordType.HEADER_TRACING_DATA))

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True)
class Walk:
    """Records as columns; `position` and `size` count the words of `words` (u64).

    `end` is the offset in the buffer behind the last whole record; `problem` tells why the walk
    stopped there, empty if at the end. `incomplete`: the record there is cut off, not wrong.
    """

    words: NDArray[np.uint64]
    position: NDArray[np.int64]
    size: NDArray[np.int64]
    type: NDArray[np.uint32]
    misc: NDArray[np.uint16]
    end: int
    problem: str
    incomplete: bool

    def of_type(self, *types: int) -> NDArray[np.intp]:
        """Rows of these record types, in file order."""
        return np.flatnonzero(np.isin(self.type, types))

    def counts(self) -> dict[int, int]:
        """Records by type."""
        types, counts = np.unique(self.type, return_counts=True)
        return dict(zip(types.tolist(), counts.tolist(), strict=True))

    def body(self, row: int) -> bytes:
        """The bytes of a record behind its header."""
        start = int(self.position[row])
        return self.words[start + 1 : start + int(self.size[row])].tobytes()


def walk(buffer: Buffer, start: int = 0, end: int | None = None) -> Walk:
    """All whole records of buffer[start:end]. Never fails: see Walk.problem."""
    end = len(buffer) if end is None else end
    count = max(end - start, 0) // 8
    words = np.frombuffer(buffer, "<u8", count, start) if count else np.zeros(0, "<u8")
    position, reached = _many_chains(words)
    plain = _Plain(buffer, start + 8 * reached, end)
    if not plain.offsets:
        return _columns(words, position, plain)
    if not plain.odd:
        rest = (np.array(plain.offsets, np.int64) - start) // 8
        return _columns(words, np.concatenate([position, rest]), plain)
    # records that are not 8-aligned: lay the rest out anew, so that everything is words again
    pieces = [words[:reached].tobytes()]
    rest = np.zeros(len(plain.offsets), np.int64)
    at = reached
    for i, (offset, size) in enumerate(zip(plain.offsets, plain.sizes, strict=True)):
        padded = -(-size // 8)
        pieces.append(bytes(buffer[offset : offset + size]).ljust(8 * padded, b"\0"))
        rest[i] = at
        at += padded
    return _columns(np.frombuffer(b"".join(pieces), "<u8"), np.concatenate([position, rest]), plain)


def _columns(words: NDArray[np.uint64], position: NDArray[np.int64], plain: _Plain) -> Walk:
    header = words[position]
    return Walk(
        words=words,
        position=position,
        size=((header >> np.uint64(48)).astype(np.int64) + 7) // 8,
        type=(header & np.uint64(0xFFFFFFFF)).astype(np.uint32),
        misc=(header >> np.uint64(32)).astype(np.uint16),
        end=plain.end,
        problem=plain.problem,
        incomplete=plain.incomplete,
    )


class _Plain:
    """One record after the other, by bytes; steps over what follows AUXTRACE and TRACING_DATA."""

    def __init__(self, buffer: Buffer, start: int, end: int) -> None:
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.odd = False
        self.problem = ""
        self.incomplete = False
        at = start
        unpack = struct.Struct("<IHH").unpack_from
        while at + 8 <= end:
            kind, _, size = unpack(buffer, at)
            if size < 8:
                self.problem = f"a record of type {kind} says it has {size} bytes"
                break
            whole = size + (self._payload(buffer, kind, at, size, end) if kind >= 64 else 0)
            if at + whole > end:
                self.problem = f"a record of {whole} bytes is cut off after {end - at}"
                self.incomplete = True
                break
            self.offsets.append(at)
            self.sizes.append(size)
            self.odd |= bool((at - start) % 8 or size % 8)
            at += whole
        if at < end and not self.problem:
            self.problem = f"{end - at} bytes are left behind the last record"
            self.incomplete = True
        self.end = at

    @staticmethod
    def _payload(buffer: Buffer, kind: int, at: int, size: int, end: int) -> int:
        """Bytes that follow the record without being counted in its size."""
        if kind == RecordType.AUXTRACE and size >= 16 and at + 16 <= end:
            return int.from_bytes(buffer[at + 8 : at + 16], "little")
        if kind == RecordType.HEADER_TRACING_DATA and size >= 12 and at + 12 <= end:
            return -(-int.from_bytes(buffer[at + 8 : at + 12], "little") // 8) * 8
        return 0


def _sizes(header: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sizes in words of what these headers say; 0 where the fast walk cannot go on."""
    size = (header >> np.uint64(48)).astype(np.int64)
    kind = header & np.uint64(0xFFFFFFFF)
    slow = (kind == _SLOW[0]) | (kind == _SLOW[1])
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
        if header >> 48 & 7 or header & 0xFFFFFFFF in _SLOW or not 0 < size <= len(raw) - at:
            break
        between.append(at)
        at += size
    followed = table[kept].ravel()
    position = np.concatenate([followed[followed >= 0], np.array(between, np.int64)])
    position.sort()
    return position, at
