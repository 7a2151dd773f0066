"""The heat map's cells: nothing is lost, every sample is in the cell of its time."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.heat import MOST_CELLS, Heat, heat
from kvmperf_magic.profile.profile import Profile, Sample, profile_of

SECOND = 1_000_000_000
NAMES = ("lock", "copy", "spin_lock")

times = st.one_of(
    st.integers(0, 3 * SECOND),
    st.integers(7 * SECOND, 4000 * SECOND),
    st.integers(0, (1 << 64) - 1),
)
rows = st.lists(st.tuples(times, st.integers(0, 1 << 40), st.sampled_from(NAMES)), max_size=60)


def made(samples: list[tuple[int, int, str]]) -> Profile:
    """Samples of (time, period, leaf)."""
    frames = {name: [("main", "prog", "host-user"), (name, "prog", "host-user")] for name in NAMES}
    return profile_of(
        [Sample(frames[name], period, time=time) for time, period, name in samples], "cycles"
    )


def bounds(found: Heat) -> list[tuple[int, int]]:
    """Each cell's first ns and the one after its last, in the order of time."""
    starts = range(found.start, found.end, found.cell)
    return [(at, at + found.cell) for at in starts]


@given(rows)
def test_the_cells_add_up_to_the_samples(samples: list[tuple[int, int, str]]) -> None:
    profile = made(samples)
    found = heat(profile)
    assert found.samples.sum() == len(samples)
    assert found.weight.sum() == profile.total
    assert found.weight.size <= MOST_CELLS
    assert found.part is None
    filled = found.table
    assert filled["samples"].sum() == len(samples)
    assert (filled["end"] - filled["start"] == found.cell).all()


@given(rows, st.integers(0, 1 << 63))
def test_every_sample_is_in_the_cell_of_its_time(
    samples: list[tuple[int, int, str]], origin: int
) -> None:
    found = heat(made(samples), origin=origin)
    at = np.array([time - found.start for time, _, _ in samples], dtype=object) // found.cell
    expected = np.bincount(at.astype(np.int64), minlength=found.samples.size)
    assert found.samples.ravel().tolist() == expected.tolist()
    inside = [found.start <= time < found.end for time, _, _ in samples]
    assert all(inside)


@given(rows.filter(lambda some: any("lock" in name for _, _, name in some)))
def test_shares_are_those_of_a_recount(samples: list[tuple[int, int, str]]) -> None:
    found = heat(made(samples), "/lock/")
    whole: dict[int, int] = {}
    mine: dict[int, int] = {}
    for time, period, name in samples:
        cell = (time - found.start) // found.cell
        whole[cell] = whole.get(cell, 0) + period
        mine[cell] = mine.get(cell, 0) + period * ("lock" in name)
    assert found.matched == tuple(sorted({n for _, _, n in samples if "lock" in n}))
    for cell, share in enumerate(found.share.ravel().tolist()):
        if whole.get(cell):
            assert share == pytest.approx(100 * mine[cell] / whole[cell])
        else:
            assert math.isnan(share)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(
    samples: list[tuple[int, int, str]], random: Random
) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)
    one, other = heat(made(samples)), heat(made(shuffled))
    assert (one.start, one.cell) == (other.start, other.cell)
    assert one.samples.tolist() == other.samples.tolist()


@pytest.mark.parametrize(
    ("seconds", "hertz", "column", "rows"),
    [
        (10, 4000, 1.0, 50),
        (10, 150, 1.0, 25),
        (10, 10, 1.0, 20),
        (9.99, 4000, 1.0, 50),
        (120, 1000, 1.0, 50),
        (300, 1000, 1.0, 50),
        (600, 1000, 2.0, 50),
        (3600, 20, 30.0, 50),
        (86_400, 1, 300.0, 50),
        (2, 4000, 0.1, 50),
        (7.9, 4000, 0.2, 50),
        (0.05, 4000, 0.002, 20),
        (1e-6, 2e6, 1e-6, 20),
    ],
)
def test_cells_fit_the_length_of_the_recording(
    seconds: float, hertz: float, column: float, rows: int
) -> None:
    time = np.arange(0, round(seconds * 1e9), round(1e9 / hertz), dtype=np.uint64)
    few = made([(0, 1, "lock")])
    found = heat(replace(few.select(np.zeros(len(time), np.int64)), time=time))
    assert found.column == round(column * 1e9)
    assert found.weight.shape[1] == rows
    assert 1 <= found.weight.shape[0] <= 301


def test_no_sample_and_one_sample() -> None:
    nothing = heat(made([]), "lock")
    assert nothing.weight.shape == (0, 20)
    assert len(nothing.table) == 0
    one = heat(made([(12_345, 7, "lock")]), "lock")
    assert one.weight.shape == (1, 20)
    assert one.weight[0].tolist() == [7] + [0] * 19
    assert one.share[0, 0] == 100
    assert np.isnan(one.share[0, 1:]).all()


def test_columns_are_the_seconds_of_the_origin() -> None:
    samples = [(5 * SECOND + k * SECOND // 10, 1, "copy") for k in range(7, 93)]
    found = heat(made(samples), origin=2 * SECOND + 1)
    assert found.start == 5 * SECOND + 1
    assert (found.start - found.origin) % found.column == 0


def test_lengths_as_asked_and_what_cannot_be() -> None:
    profile = made([(k * SECOND // 100, 1, "lock") for k in range(1000)])
    assert heat(profile, column=5, cell=0.1).weight.shape == (2, 50)
    assert heat(profile, cell=0.03).cell == 30_000_000
    assert heat(profile, column=0.5).column == SECOND // 2
    for wrong in (
        {"column": 1.0, "cell": 0.3},
        {"cell": 0.0},
        {"cell": 1e-6},
        {"column": math.nan},
    ):
        with pytest.raises(QueryError):
            heat(profile, **wrong)
    with pytest.raises(QueryError, match="no symbol matches"):
        heat(profile, "nothing")
    with pytest.raises(QueryError, match="no regular expression"):
        heat(profile, "/(/")
