"""Where a kernel has its symbol tables: as it says itself, or found by their shape.

Kernels from 6.0 on tell the addresses in vmcoreinfo. Older ones do not, but the tables stand in
one row (scripts/kallsyms.c: write_src()), each at a multiple of 8:

    before 6.4:  offsets, relative_base, num_syms, names, markers, token_table, token_index
    (or, without relative base: addresses, num_syms, names ...)
    since then:  num_syms, names, markers, token_table, token_index, offsets, relative_base
    7.x:         the same at multiples of 4, without relative_base: offsets from their own places

with one more, seqs_of_names, behind the markers in some. The token table holds every digit as a
token of its own, one after the other: from there the other tables are found and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.kalltables import (
    GROUP,
    MOST_SYMBOLS,
    Tokens,
    decode_names,
    decode_offsets,
    listing,
)
from kvmperf_magic.guests.vmcoreinfo import Vmcoreinfo
from kvmperf_magic.symbols.kallsyms import Listing

Reader = Callable[[int, int], bytes]  # (virtual address, size) -> bytes, b"" where not readable

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_ZERO = ord("0")
_MOST_NAMES = 16 << 20  # bytes; a distribution's have two or three
_MOST_PLACES = 64  # where the digits stand that are followed
_TOKENS = 1 << 16  # as far as 16-bit indices reach
_CHUNK = 2 << 20
_OVERLAP = 4096
_LONGEST = 200  # bytes of a name as it is stored; real ones have less than 130
_BEFORE_TOKENS = (1 << 20, 4 << 20)  # markers and what may lie between them and the tokens
_LARGEST_IMAGE = 1 << 30  # arch/x86/include/asm/page_64_types.h: KERNEL_IMAGE_SIZE
_LOWEST, _HIGHEST = 0xFFFFFFFF00000000, 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class Told:
    """A kernel's symbols, and in words how its tables were found.

    Addresses that count `from_place` are as the reader has the tables: where it reads other
    addresses than the kernel's own, they are to be shifted.
    """

    symbols: Listing
    how: str
    from_place: bool = False


def by_vmcoreinfo(info: Vmcoreinfo, read: Reader) -> Told | None:
    """By the addresses that the kernel tells; None where it tells none, or wrong ones."""
    names_at, count_at = info.symbol("kallsyms_names"), info.symbol("kallsyms_num_syms")
    table_at, index_at = info.symbol("kallsyms_token_table"), info.symbol("kallsyms_token_index")
    if not (names_at and count_at and table_at and index_at):
        return None
    count = int.from_bytes(read(count_at, 4), "little")
    tokens = Tokens.of(read(table_at, _TOKENS), read(index_at, 512))
    # in every order of the tables the names end before the tokens begin
    room = table_at - names_at
    if tokens is None or not 0 < count <= MOST_SYMBOLS or not 0 < room <= _MOST_NAMES:
        return None
    decoded = decode_names(read(names_at, room), count, tokens)
    if decoded is None:
        return None
    addresses = _told_addresses(info, read, count)
    if addresses is None:
        return None
    return Told(listing(*decoded, addresses), "kallsyms tables, by vmcoreinfo")


def _told_addresses(info: Vmcoreinfo, read: Reader, count: int) -> NDArray[np.uint64] | None:
    absolute, offsets_at = info.symbol("kallsyms_addresses"), info.symbol("kallsyms_offsets")
    if absolute:
        data = read(absolute, count * 8)
        return np.frombuffer(data, np.uint64) if data else None
    data = read(offsets_at, count * 4) if offsets_at else b""
    if not data:
        return None
    offsets = np.frombuffer(data, np.int32)
    base_at = info.symbol("kallsyms_relative_base")
    if not base_at:
        return decode_offsets(offsets, None, offsets_at or 0)
    return decode_offsets(offsets, int.from_bytes(read(base_at, 8), "little"))


def by_shape(start: int, end: int, read: Reader) -> Told | None:
    """By searching the image between these addresses; the first tables that are consistent."""
    for digits in islice(_digits(start, end, read), _MOST_PLACES):
        found = _around(digits, read)
        if found is not None:
            return Told(found[0], "kallsyms tables, by their shape", found[1])
    return None


def _digits(start: int, end: int, read: Reader) -> Iterator[int]:
    """Addresses of ten tokens that are the digits."""
    at = start
    while at < end:
        data = read(at, min(_CHUNK + _OVERLAP, end - at))
        if not data:  # the image ends within this piece: take what there is
            data = _as_far(at, min(_CHUNK + _OVERLAP, end - at), read)
        place = data.find(_DIGITS)
        while place >= 0:
            if place < _CHUNK:
                yield at + place
            place = data.find(_DIGITS, place + 1)
        if len(data) <= _CHUNK:
            return
        at += _CHUNK


def _as_far(at: int, size: int, read: Reader) -> bytes:
    """The readable beginning of a range."""
    good = 0
    while size > _OVERLAP:
        size //= 2
        if read(at + good, size):
            good += size
    return read(at, good) if good else b""


def _around(digits: int, read: Reader) -> tuple[Listing, bool] | None:
    """The tables around the ten digit tokens, if they are consistent; whether from their place."""
    rest = read(digits, 8192)
    tail = np.flatnonzero(np.frombuffer(rest, np.uint8) == 0)
    if len(tail) < 256 - _ZERO:
        return None
    # the index follows, at the next multiple of 8 where the assembler was told so
    end = digits + int(tail[255 - _ZERO]) + 1
    for index_at in range(-(-end // 4) * 4, end + 16, 4):
        index = read(index_at, 512)
        table_at = digits - int.from_bytes(index[2 * _ZERO : 2 * _ZERO + 2], "little")
        tokens = Tokens.of(read(table_at, index_at - table_at), index)
        if tokens is not None and table_at < digits:
            return _names_before(table_at, index_at + 512, tokens, read)
    return None


def _names_before(
    table_at: int, behind: int, tokens: Tokens, read: Reader
) -> tuple[Listing, bool] | None:
    """Markers and names in front of the token table, then the addresses."""
    # markers have 8 bytes before 5.0
    for room, width in product(_BEFORE_TOKENS, (4, 8)):
        markers_at, markers = _markers(table_at, room, width, read)
        for count_at, count in _counts(markers_at, markers, read):
            for names_at in (count_at + 8, count_at + 4):
                decoded = _names(names_at, markers_at, count, markers, tokens, read)
                if decoded is None:
                    continue
                for addresses in _addresses(count_at, behind, count, read):
                    return listing(*decoded, addresses), False
                offsets = np.frombuffer(read(behind, count * 4), np.int32)
                if len(offsets) == count and _from_place(offsets):
                    return listing(*decoded, decode_offsets(offsets, None, behind)), True
    return None


def _markers(table_at: int, room: int, width: int, read: Reader) -> tuple[int, NDArray[np.int64]]:
    """The offsets of every 256th name, and where they are; none where there are none.

    They begin with a zero and rise by the size of 256 names, for the longest such way there is.
    """
    data = b""
    while room >= 1024 and not data:  # the image may begin nearer than that
        data = read(table_at - room, room)
        room //= 2
    words = np.frombuffer(data, f"<u{width}")
    step = np.diff(words)  # wraps where it falls
    good = (step >= GROUP) & (step <= GROUP * _LONGEST) & (words[1:] <= _MOST_NAMES)
    edges = np.flatnonzero(np.diff(good, prepend=False, append=False)).reshape(-1, 2)
    edges = edges[words[edges[:, 0]] == 0] if len(edges) else edges
    if not len(edges):
        return 0, np.zeros(0, np.int64)
    first, last = edges[np.argmax(edges[:, 1] - edges[:, 0])].tolist()
    at = table_at - len(data) + first * width
    return at, words[first : last + 1].astype(np.int64)


def _counts(markers_at: int, markers: NDArray[np.int64], read: Reader) -> Iterator[tuple[int, int]]:
    """Places before the names that hold a number of names which fits the markers."""
    if len(markers) < 2:
        return
    last = markers_at - int(markers[-1])  # where the names would begin with an empty last group
    lowest = (last - GROUP * _LONGEST - 24) // 4 * 4
    words = np.frombuffer(read(lowest, (last - lowest) // 4 * 4), np.uint32)
    fits = (words > (len(markers) - 1) * GROUP) & (words <= len(markers) * GROUP)
    for row in np.flatnonzero(fits)[::-1].tolist():
        yield lowest + row * 4, int(words[row])


def _names(
    names_at: int,
    markers_at: int,
    count: int,
    markers: NDArray[np.int64],
    tokens: Tokens,
    read: Reader,
) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]] | None:
    """The names, if the groups of them begin where the markers say."""
    data = read(names_at, markers_at - names_at)
    at = 0
    for _ in range(GROUP):
        if at + 1 >= len(data):
            return None
        length = data[at]
        at += 1 + length if length < 0x80 else 2 + (length & 0x7F | data[at + 1] << 7)
    if at != markers[1]:
        return None
    return decode_names(data, count, tokens, markers)


def _addresses(
    count_at: int, behind: int, count: int, read: Reader
) -> Iterator[NDArray[np.uint64]]:
    """Addresses that can be right, in any of the places where they may stand."""
    offsets_size = -(-count * 4 // 8) * 8
    for base_at, offsets_at in (
        (count_at - 8, count_at - 8 - offsets_size),
        (-(-behind // 8) * 8 + offsets_size, -(-behind // 8) * 8),
    ):
        base = int.from_bytes(read(base_at, 8), "little")
        data = read(offsets_at, count * 4)
        if base >= _LOWEST and data:
            found = decode_offsets(np.frombuffer(data, np.int32), base)
            if _ascending(found):
                yield found
    data = read(count_at - count * 8, count * 8)
    if data:
        found = np.frombuffer(data, np.uint64)
        if _ascending(found):
            yield found


def _ascending(address: NDArray[np.uint64]) -> bool:
    """Symbols are sorted; nearly all lie in the image, per-CPU ones at its beginning."""
    inside = (address >= np.uint64(_LOWEST)) & (address < np.uint64(_HIGHEST))
    return bool((address[1:] >= address[:-1]).all() and inside.mean() > 0.5)


def _from_place(offsets: NDArray[np.int32]) -> bool:
    """Whether these can count from their own places: symbols are sorted then, and no two of them
    are further apart than an image is large."""
    far = offsets.astype(np.int64) + np.arange(len(offsets)) * 4
    return bool((far[1:] >= far[:-1]).all() and 0 < far[-1] - far[0] < _LARGEST_IMAGE)
