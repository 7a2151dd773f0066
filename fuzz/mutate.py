"""Changes to recordings that keep enough of them right to get deep into the reader."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

_HEADER = struct.Struct("<IHH")  # struct perf_event_header
_FILE_HEADER, _PIPE_HEADER = 104, 16
_TYPES = (*range(1, 24), *range(64, 88), 0, 255, 32768, 32775, 0xFFFFFFFF)
_NUMBERS = (
    *(0, 1, 7, 8, 9, 0x7F, 0xFF, 0xFFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    *(1 << 32, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - 4095, (1 << 64) - 2048, (1 << 64) - 1),
)


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """`data` with one to six changes; some bring in records of the `others`."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        if not changed:
            break
        rng.choice(_CHANGES)(changed, rng, others)
    return bytes(changed)


def records_of(data: bytes | bytearray) -> list[tuple[int, int]]:
    """(offset, size) of the records of a file or stream, as far as they can be followed."""
    start, end = _PIPE_HEADER, len(data)
    if len(data) >= _FILE_HEADER and int.from_bytes(data[8:16], "little") == _FILE_HEADER:
        start = int.from_bytes(data[40:48], "little")
        end = min(start + int.from_bytes(data[48:56], "little") or end, end)
    found = []
    while start + _HEADER.size <= end:
        _, _, size = _HEADER.unpack_from(data, start)
        if size < _HEADER.size or start + size > end:
            break
        found.append((start, size))
        start += size
    return found


def _flip(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _number(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """A number that is often at a border, at a place where numbers stand."""
    width = rng.choice((1, 2, 4, 8, 8))
    if len(data) >= width:
        at = rng.randrange(0, len(data) - width + 1, width if len(data) > 2 * width else 1)
        value = rng.choice((*_NUMBERS, rng.getrandbits(64), len(data), len(data) - at))
        data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def _in_head(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """A number of the file header or of the first attr."""
    width = rng.choice((1, 4, 8))
    at = rng.randrange(0, min(len(data), 400), 4)
    data[at : at + width] = (rng.choice(_NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(
        width, "little"
    )


def _cut(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


def _insert(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.choice((1, 4, 8, 8, 64)))


def _remove(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 4, 8, 8, 64))]


def _retype(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Another type, misc or size for one record."""
    if found := records_of(data):
        at, size = rng.choice(found)
        kind, misc, _ = _HEADER.unpack_from(data, at)
        what = rng.randrange(3)
        kind = rng.choice(_TYPES) if what == 0 else kind
        misc = rng.getrandbits(16) if what == 1 else misc
        size = rng.choice((0, 7, 8, 16, size - 8, size + 8, 0xFFF8, 0xFFFF)) if what == 2 else size
        _HEADER.pack_into(data, at, kind, misc, size & 0xFFFF)


def _in_record(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """A border number in a word of one record: lengths and counts stand there."""
    if found := records_of(data):
        at, size = rng.choice(found)
        if size >= 16:
            word = at + 8 * rng.randrange(1, size // 8)
            half = rng.randrange(3)
            width, word = (8, word) if half == 2 else (4, word + 4 * half)
            value = rng.choice((*_NUMBERS, size, size // 8)) & ((1 << 8 * width) - 1)
            data[word : word + width] = value.to_bytes(width, "little")


def _double(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    if found := records_of(data):
        at, size = rng.choice(found)
        to = rng.choice(found)[0]
        data[to:to] = data[at : at + size]


def _drop(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    if found := records_of(data):
        at, size = rng.choice(found)
        del data[at : at + size]


def _graft(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Records of another recording among these."""
    if others and (found := records_of(data)):
        other = rng.choice(others)
        if theirs := records_of(other):
            first = rng.randrange(len(theirs))
            last = theirs[min(first + rng.randrange(1, 5), len(theirs)) - 1]
            to = rng.choice(found)[0]
            data[to:to] = other[theirs[first][0] : last[0] + last[1]]


_CHANGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    *(_flip, _number, _number, _in_head, _cut, _insert, _remove),
    *(_retype, _retype, _in_record, _in_record, _in_record, _double, _drop, _graft),
)
