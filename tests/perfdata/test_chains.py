"""Chains against lists of lists."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.perfdata.chains import Chains

WORD = st.integers(0, 2**64 - 1)
ROWS = st.lists(st.lists(WORD, max_size=5), max_size=12)


def chains_of(rows: list[list[int]]) -> Chains:
    """With a word between the chains, as the records' other fields are."""
    words: list[int] = []
    start = []
    for row in rows:
        words.append(7)
        start.append(len(words))
        words += row
    return Chains(
        np.array(words, np.uint64), np.array(start, np.int64), np.array([*map(len, rows)], np.int64)
    )


def rows_of(chains: Chains) -> list[list[int]]:
    offsets, words = chains.compact()
    bounds = offsets.tolist()
    assert bounds[-1] == len(words)
    return [words[a:b].tolist() for a, b in pairwise(bounds)]


@given(ROWS, st.data())
def test_rows(rows: list[list[int]], data: st.DataObject) -> None:
    chains = chains_of(rows)
    assert rows_of(chains) == rows
    assert rows_of(Chains.of(*chains.compact())) == rows
    index = st.integers(0, len(rows) - 1)
    taken = data.draw(st.lists(index, max_size=20) if rows else st.just([]))
    assert rows_of(chains.take(np.array(taken, np.intp))) == [rows[i] for i in taken]
    assert rows_of(chains.take(slice(2, 5))) == rows[2:5]


@given(ROWS, ROWS)
def test_joined(a: list[list[int]], b: list[list[int]]) -> None:
    first, second = chains_of(a), chains_of(b)
    assert rows_of(Chains.joined([first, second, first])) == a + b + a
    again = Chains.joined([first.take(slice(0, 3)), first])
    assert again.words is first.words
    assert rows_of(again) == a[:3] + a


@given(ROWS, ROWS, st.randoms())
def test_replaced(rows: list[list[int]], new: list[list[int]], random: Random) -> None:
    where = list(range(len(rows)))
    random.shuffle(where)
    where = where[: len(new)]
    new = new[: len(where)]
    changed = chains_of(rows).replaced(np.array(where, np.intp), *chains_of(new).compact())
    expected = [*rows]
    for i, row in zip(where, new, strict=True):
        expected[i] = row
    assert rows_of(changed) == expected


def test_none() -> None:
    assert rows_of(Chains.none(3)) == [[], [], []]
    assert len(Chains.none(3).take(np.array([0, 0]))) == 2
