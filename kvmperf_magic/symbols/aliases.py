"""Which of several names of one address counts: tools/perf/util/symbol.c, choose_best_symbol().

Preferred are, in this order: a size, a type, not weak, global, fewer leading underscores, a longer
name, the earlier one. perf judges names in their readable form (`operator new[]` is longer than
`operator new`, though `_Znam` is not longer than `_Znwm`); to make all names readable would take
longer than all else, so those that only this decides between are kept until one is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rivals:
    """Names of r addresses: those of address i lie at `name_at[offsets[i] : offsets[i + 1]]`."""

    offsets: NDArray[np.int64]
    name_at: NDArray[np.int64]
    name_length: NDArray[np.int64]

    def names(self, which: int, strings: bytes) -> list[str]:
        mine = slice(int(self.offsets[which]), int(self.offsets[which + 1]))
        places = zip(self.name_at[mine].tolist(), self.name_length[mine].tolist(), strict=True)
        return [strings[at : at + length].decode("utf-8", "replace") for at, length in places]


NO_RIVALS = Rivals(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def best_name(readable: Sequence[str]) -> str:
    """The one of these names that perf shows."""
    return min(readable, key=lambda name: (len(name) - len(name.lstrip("_")), -len(name)))


def best_aliases(
    start: NDArray[np.uint64],
    end: NDArray[np.uint64],
    strings: bytes,
    name_at: NDArray[np.int64],
    name_length: NDArray[np.int64],
    *,
    label: NDArray[np.bool_],
    weak: NDArray[np.bool_],
    local: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int32], Rivals]:
    """Of symbols sorted by address: the rows to keep, one an address, by their names as they
    stand; which rivals each of these has (-1: none); the rivals."""
    same = start[1:] == start[:-1]
    if not same.any():
        return np.arange(len(start)), np.full(len(start), -1, np.int32), NO_RIVALS
    crowded = np.append(same, False) | np.append(False, same)
    rows = np.flatnonzero(crowded)
    text = np.frombuffer(strings, np.uint8)
    underscores = np.zeros(len(rows), np.int64)
    going = np.arange(len(rows))
    for i in range(16):
        going = going[name_length[rows[going]] > i]
        going = going[text[name_at[rows[going]] + i] == ord("_")]
        if not len(going):
            break
        underscores[going] += 1
    worth = (end[rows] == start[rows]).astype(np.uint8)
    for less in (label, weak, local):
        worth = worth << 1 | less[rows]
    order = np.lexsort((-name_length[rows], underscores, worth, start[rows]))
    ranked, worth = rows[order], worth[order]
    first = np.append(True, start[ranked[1:]] != start[ranked[:-1]])
    best = ranked[first]
    keep = np.sort(np.concatenate([np.flatnonzero(~crowded), best]))

    group = np.cumsum(first) - 1
    rival = ~first & (worth == worth[first][group])
    count = np.bincount(group[rival], minlength=len(best))
    rivalry = np.full(len(keep), -1, np.int32)
    has = np.flatnonzero(count)
    rivalry[np.searchsorted(keep, best[has])] = np.arange(len(has))
    chosen = ranked[rival]
    offsets = np.concatenate([[0], np.cumsum(count[has])]).astype(np.int64)
    return keep, rivalry, Rivals(offsets, name_at[chosen], name_length[chosen])
