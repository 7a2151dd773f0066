"""Numbers of equal keys, against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.numbering import mix, number

KEYS = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=300)


def expected(keys: list[int]) -> tuple[list[int], list[int]]:
    seen: dict[int, int] = {}
    numbers = [seen.setdefault(key, len(seen)) for key in keys]
    return numbers, [keys.index(key) for key in seen]


@given(KEYS)
def test_number(keys: list[int]) -> None:
    ids, first = number(np.array(keys, np.uint64))
    assert (ids.tolist(), first.tolist()) == expected(keys)


@pytest.mark.parametrize("shift", [0, 8, 40, 56])
def test_keys_that_differ_in_few_bits(shift: int) -> None:
    """However bad the keys are, all of them are told apart."""
    keys = np.arange(5000, dtype=np.uint64) << np.uint64(shift)
    keys = np.concatenate([keys, keys[::-1]])
    ids, first = number(keys)
    assert (keys[first][ids] == keys).all()
    assert len(np.unique(keys)) == len(first) == ids.max() + 1


def test_mix_is_one_to_one() -> None:
    keys = np.arange(1 << 16, dtype=np.uint64)
    assert len(np.unique(mix(keys))) == len(keys)
    assert keys[5] == 5  # its argument stays as it is
