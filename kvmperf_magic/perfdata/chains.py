"""Callchains of many samples where they stand: a start and a length each, in shared words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chains:
    """The chain of row i is words[start[i] : start[i] + length[i]]: leaf first, context markers
    included. Chains may stand anywhere in `words`, overlap, and have words between them. `cut`
    counts those that said they were longer than their record."""

    words: NDArray[np.uint64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def none(cls, rows: int) -> Chains:
        """So many empty chains."""
        nothing = np.zeros(rows, np.int64)
        return cls(np.zeros(0, np.uint64), nothing, nothing)

    @classmethod
    def of(cls, offsets: NDArray[np.int64], words: NDArray[np.uint64]) -> Chains:
        """Chains one behind the other: of row i words[offsets[i] : offsets[i + 1]]."""
        return cls(words, offsets[:-1], np.diff(offsets))

    @classmethod
    def joined(cls, parts: Sequence[Chains]) -> Chains:
        """The rows of several (at least one), one part after the other; parts of the same words
        go on sharing them."""
        if len(parts) == 1:
            return parts[0]
        unique = {id(part.words): part.words for part in parts}
        sizes = [len(words) for words in unique.values()]
        shift = dict(zip(unique, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        words = [*unique.values()]
        return cls(
            words[0] if len(words) == 1 else np.concatenate(words),
            np.concatenate([part.start + shift[id(part.words)] for part in parts]),
            np.concatenate([part.length for part in parts]),
            sum(part.cut for part in parts),
        )

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Chains:
        """Only these rows, in this order; rows may repeat."""
        return Chains(self.words, self.start[rows], self.length[rows], self.cut)

    def places(self) -> NDArray[np.int64]:
        """Where the words of all chains stand, chain after chain."""
        ends = np.cumsum(self.length)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(self.start - ends + self.length, self.length) + np.arange(total)

    def compact(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """A copy with nothing between: of row i words[offsets[i] : offsets[i + 1]]."""
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.length, out=offsets[1:])
        return offsets, self.words[self.places()]

    def replaced(
        self, rows: NDArray[np.intp], offsets: NDArray[np.int64], words: NDArray[np.uint64]
    ) -> Chains:
        """With other chains for these (distinct) rows: words[offsets[k] : offsets[k + 1]] for
        rows[k]. What is kept of the old ones is copied together."""
        length = self.length.copy()
        length[rows] = 0
        kept, old = Chains(self.words, self.start, length).compact()
        start = kept[:-1].copy()
        start[rows] = offsets[:-1] + len(old)
        length[rows] = np.diff(offsets)
        return Chains(np.concatenate([old, words]), start, length)
