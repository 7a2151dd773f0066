"""The kernel's own symbol tables, decoded: kernel/kallsyms.c and scripts/kallsyms.c.

A name is a length (two bytes of it where the first has its high bit) and as many bytes, each of
which stands for a token of one or more letters; the first letter is the symbol's type. Addresses
are absolute, or 32-bit offsets of four kinds: from a base; per-CPU symbols as they are and the
rest below a base; or, without a base, from the place of the offset itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.kallsyms import Listing
from kvmperf_magic.table import Categorical

MOST_SYMBOLS = 4_000_000
_MOST_LETTERS = 1 << 26  # of all names: the tables are the guest's, and may be a trap
_LONGEST_TOKEN = 512  # KSYM_NAME_LEN
_AT_ONCE = 1 << 14  # codes whose letters are gathered at once
GROUP = 256  # names a marker
_BIG = 0x80  # of a length: seven more bits follow


@dataclass(frozen=True)
class Tokens:
    """The 256 tokens: letters in one piece, where each begins and how long it is."""

    letters: NDArray[np.uint8]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    @classmethod
    def of(cls, table: bytes, index: bytes) -> Tokens | None:
        """Of kallsyms_token_table and kallsyms_token_index; None where these do not agree."""
        if len(index) < 512:
            return None
        start = np.frombuffer(index, "<u2", 256).astype(np.int64)
        letters = np.frombuffer(table, np.uint8)
        ends = np.flatnonzero(letters == 0)
        if start[0] or (np.diff(start) < 1).any() or len(ends) < 256:
            return None
        stop = ends[:256]
        # each token begins behind the NUL of the one before it
        if (start[1:] != stop[:-1] + 1).any() or (stop - start).max() > _LONGEST_TOKEN:
            return None
        return cls(letters, start, stop - start)


def decode_names(
    data: bytes, count: int, tokens: Tokens, markers: NDArray[np.int64] | None = None
) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]] | None:
    """All names with their types in front: the text, where each begins in it, how long it is.

    `markers` is where every 256th name begins, from the first on, where that is known: this is
    faster then. None where the bytes end before the names do, or the names have no end.
    """
    starts = None if markers is None else _side_by_side(data, count, markers)
    codes_at, codes_length = _codes(data, _one_by_one(data, count) if starts is None else starts)
    if len(codes_at) < count:
        return None
    codes = np.frombuffer(data, np.uint8)
    # the codes of all names without the lengths between them
    total = int(codes_length.sum())
    first = np.cumsum(codes_length) - codes_length
    codes = codes[np.repeat(codes_at - first, codes_length) + np.arange(total)]

    lengths = tokens.length[codes]
    stop = np.cumsum(lengths)
    if len(stop) and stop[-1] > _MOST_LETTERS:
        return None
    pieces = []
    for at in range(0, total, _AT_ONCE):
        here = slice(at, at + _AT_ONCE)
        count_of, behind = lengths[here], stop[here]
        source = tokens.start[codes[here]] - (behind - count_of)
        numbers = np.arange(behind[0] - count_of[0], behind[-1])
        pieces.append(tokens.letters[np.repeat(source, count_of) + numbers].tobytes())
    edges = np.concatenate([[0], stop])
    begin = edges[first]
    return b"".join(pieces), begin, edges[first + codes_length] - begin


def _side_by_side(data: bytes, count: int, markers: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Where each name begins: all groups at once, the first names, the second ones ... None where
    a group does not end where the next one begins."""
    codes = np.frombuffer(data + b"\0", np.uint8)
    last = len(codes) - 2  # a length has a second byte behind it
    at = markers
    starts = np.empty((len(markers), GROUP), np.int64)
    for i in range(GROUP):
        starts[:, i] = at
        inside = np.minimum(at, last)
        first = codes[inside].astype(np.int64)
        second = codes[inside + 1].astype(np.int64)
        big = first >= _BIG
        at = at + np.where(big, (first & ~_BIG | second << 7) + 2, first + 1)
    if not 0 < count <= starts.size or (at[:-1] != markers[1:]).any():
        return None
    found = starts.ravel()[:count]
    return found if found[-1] < len(data) - 1 else None


def _one_by_one(data: bytes, count: int) -> NDArray[np.int64]:
    """The same where one name leads to the next; fewer where the bytes end."""
    starts: list[int] = []
    append = starts.append
    at = 0
    try:
        for _ in range(count):
            append(at)
            first = data[at]
            at += first + 1 if first < _BIG else (first & ~_BIG | data[at + 1] << 7) + 2
    except IndexError:
        starts.pop()
    return np.array(starts, np.int64)


def _codes(data: bytes, begin: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the codes of each name begin and how many there are; without a last one that is cut."""
    codes = np.frombuffer(data, np.uint8)
    length = codes[begin].astype(np.int64)
    big = np.flatnonzero(length >= _BIG)
    if len(big) and begin[big[-1]] + 1 >= len(codes):
        begin, length, big = begin[:-1], length[:-1], big[:-1]
    length[big] = length[big] & ~_BIG | codes[begin[big] + 1].astype(np.int64) << 7
    begin = begin + 1
    begin[big] += 1
    whole = len(begin)
    if whole and begin[-1] + length[-1] > len(codes):
        whole -= 1
    return begin[:whole], length[:whole]


def decode_offsets(
    offsets: NDArray[np.int32], base: int | None, place: int = 0
) -> NDArray[np.uint64]:
    """Addresses from offsets; `base` None: each counts from its own place, the first `place`."""
    wide = offsets.astype(np.int64).view(np.uint64)
    if base is None:
        return wide + np.arange(len(offsets), dtype=np.uint64) * np.uint64(4) + np.uint64(place)
    if (offsets < 0).any():
        # CONFIG_KALLSYMS_ABSOLUTE_PERCPU: an image is smaller than 2 GiB, so these are no distances
        return np.where(offsets < 0, np.uint64((base - 1) % 2**64) - wide, wide)
    return wide + np.uint64(base)


def listing(
    text: bytes, begin: NDArray[np.int64], length: NDArray[np.int64], address: NDArray[np.uint64]
) -> Listing:
    """Decoded names and addresses as symbols; those without a letter are left out."""
    rows = np.flatnonzero(length > 1)
    types = np.frombuffer(text, np.uint8)[begin[rows]]
    return Listing(
        address[rows],
        types,
        text,
        begin[rows] + 1,
        length[rows] - 1,
        Categorical.constant("", len(rows)),
    )


def addresses_of(symbols: Listing, names: Iterable[str]) -> dict[str, int]:
    """Where the first symbol of each of these names is; nothing of those that there are none of."""
    text = np.frombuffer(symbols.strings, np.uint8)
    found = {}
    for name in names:
        rows = np.flatnonzero(symbols.name_length == len(name))
        for i, byte in enumerate(name.encode()):
            rows = rows[text[symbols.name_at[rows] + i] == byte]
        if len(rows):
            found[name] = int(symbols.address[rows[0]])
    return found
