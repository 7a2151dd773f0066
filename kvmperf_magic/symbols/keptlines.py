"""The source lines of the addresses that samples hit, as a recording can carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.lines import Place
from kvmperf_magic.table import Categorical

# the columns: an address a row, then what is at it, the outermost first
ADDRESSES = {"line_address": "<u8", "line_places": "<u4"}
PLACES = {"line_inlined": "<i4", "line_at": "<i4"}


@dataclass(frozen=True)
class KeptLines:
    """Of `address` (uint64[n], ascending) the places, one row each: those of row i are
    `offsets[i]` to `offsets[i + 1]` (int64[n + 1]) of `inlined` and `line`, see `Place`."""

    address: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    inlined: Categorical
    line: Categorical

    @classmethod
    def of(cls, known: Mapping[int, Sequence[Place]], moved: int = 0) -> KeptLines:
        """What is known of some addresses, which lie so much further up."""
        there = sorted(((at + moved) % 2**64, places) for at, places in known.items() if places)
        flat = [place for _, places in there for place in places]
        return cls(
            np.array([at for at, _ in there], np.uint64),
            np.cumsum([0, *(len(places) for _, places in there)]),
            _numbered([place.inlined for place in flat]),
            _numbered([place.line for place in flat]),
        )

    def at(self, address: int) -> tuple[Place, ...]:
        """The places of an address; () where nothing is known."""
        row = int(np.searchsorted(self.address, np.uint64(address)))
        if row == len(self.address) or int(self.address[row]) != address:
            return ()
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return tuple(map(Place, self.inlined.take(part).values(), self.line.take(part).values()))

    @property
    def told(self) -> dict[str, Any]:
        """How many addresses there are, and the texts of the places."""
        return {
            "addresses": len(self.address),
            "inlined": self.inlined.categories,
            "at": self.line.categories,
        }

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """ADDRESSES and PLACES."""
        counts = np.diff(self.offsets)
        values = (self.address, counts, self.inlined.codes, self.line.codes)
        return dict(zip((*ADDRESSES, *PLACES), values, strict=True))


def sound(
    address: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    codes: Sequence[NDArray[np.int32]],
    texts: Sequence[Sequence[str]],
) -> KeptLines:
    """Lines of these columns; ValueError where they contradict themselves."""
    if (address[1:] <= address[:-1]).any():
        raise ValueError("the addresses of its lines are not in order")
    for column, known in zip(codes, texts, strict=True):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < len(known):
            raise ValueError("a place of its lines that it does not tell of")
    inlined, line = (
        Categorical(column.astype(np.int32), list(known))
        for column, known in zip(codes, texts, strict=True)
    )
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    return KeptLines(address.astype(np.uint64), offsets, inlined, line)


def _numbered(texts: Sequence[str]) -> Categorical:
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(text, len(numbers)) for text in texts]
    return Categorical(np.array(codes, np.int32), list(numbers))
