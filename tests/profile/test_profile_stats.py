"""The intervals hold what they promise, on seeded draws: alone, together, and when it swings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from kvmperf_magic.profile.stats import (
    Shares,
    difference,
    estimate_shares,
    t_quantile,
    time_blocks,
    wilson,
)

Draw = Callable[[np.random.Generator], NDArray[np.int64]]


@pytest.mark.parametrize(
    ("freedom", "points"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2: upper 5 %, 2.5 %, 0.1 %
    [
        (1, (6.314, 12.706, 318.309)),
        (2, (2.920, 4.303, 22.327)),
        (3, (2.353, 3.182, 10.215)),
        (5, (2.015, 2.571, 5.893)),
        (10, (1.812, 2.228, 4.144)),
        (29, (1.699, 2.045, 3.396)),
        (60, (1.671, 2.000, 3.232)),
        (100, (1.660, 1.984, 3.174)),
        (1e9, (1.645, 1.960, 3.090)),
    ],
)
def test_t_quantile_is_the_table(freedom: float, points: tuple[float, ...]) -> None:
    found = [t_quantile(tail, np.array([freedom]))[0] for tail in (0.05, 0.025, 0.001)]
    assert found == pytest.approx(points, abs=0.00051)


@pytest.mark.parametrize("freedom", [1.0, 2.0, 3.7, 5.0, 17.3, 58.0])
@pytest.mark.parametrize("tail", [0.025, 8e-5, 1e-7])
def test_t_quantile_has_its_tail(freedom: float, tail: float) -> None:
    # the integral of the density beyond it, with x = sqrt(n) tan(angle)
    reach = t_quantile(tail, np.array([freedom]))[0]
    angle = np.linspace(np.arctan(reach / np.sqrt(freedom)), np.pi / 2, 100_001)
    power = np.maximum(np.cos(angle), 0.0) ** (freedom - 1)
    whole = np.linspace(-np.pi / 2, np.pi / 2, 400_001)
    every = np.maximum(np.cos(whole), 0.0) ** (freedom - 1)
    share = _area(power, angle) / _area(every, whole)
    assert share == pytest.approx(tail, rel=2e-5 if freedom != 3.7 else 1e-4)


def _area(y: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    return float((y[1:] + y[:-1]) @ np.diff(x) / 2)


def _estimate(rows: NDArray[np.int64], count: int) -> Shares:
    time = np.arange(len(rows), dtype=np.uint64)
    return estimate_shares(rows, count, np.ones(len(rows)), time)


def _zipf(rows: int, samples: int) -> Draw:
    share = 1 / np.arange(1, rows + 1)
    return lambda random: random.choice(rows, samples, p=share / share.sum())


def _swinging(rows: int, samples: int, lasting: int) -> Draw:
    """Row 0 has 9 % or 28 %, each for `lasting` samples on average; the others share the rest."""

    def draw(random: np.random.Generator) -> NDArray[np.int64]:
        phase = np.cumsum(random.random(samples) < 1 / lasting) + random.integers(2)
        lock = random.random(samples) < np.where(phase % 2, 0.28, 0.09)
        return np.where(lock, 0, random.integers(1, rows, samples))

    return draw


@pytest.mark.parametrize(
    ("draw", "least"),
    [
        (_zipf(10, 500), 0.94),
        (_zipf(300, 3000), 0.94),
        (_swinging(2, 10_000, 100), 0.93),
        (_swinging(2, 10_000, 500), 0.90),  # a state lasts a twentieth of the recording
    ],
)
def test_one_interval_covers_as_promised(draw: Draw, least: float) -> None:
    random = np.random.default_rng(20)
    repeats, hits, reach = 500, 0, []
    for _ in range(repeats):
        one, other = (_estimate(np.minimum(draw(random), 1), 2) for _ in range(2))
        # both rows of two say the same: one comparison
        alone = [
            Shares(s.share[:1], s.variance[:1], s.weight[:1], s.samples[:1], s.freedom)
            for s in (one, other)
        ]
        _, low, high = difference(alone[0], alone[1], 0.95)
        hits += bool(low[0] <= 0 <= high[0])
        reach.append(high[0] - low[0])
    assert hits / repeats >= least
    assert hits / repeats < 1, "intervals that never miss are too wide"


@pytest.mark.parametrize(
    "draw",
    [_zipf(300, 3000), _zipf(300, 300), _swinging(300, 6000, 100), _swinging(300, 6000, 300)],
)
def test_same_against_same_finds_nothing(draw: Draw) -> None:
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(200):
        one, other = (_estimate(draw(random), 300) for _ in range(2))
        _, low, high = difference(one, other, 0.95)
        wrong += bool(((low > 0) | (high < 0)).any())
    assert wrong <= 200 * 0.05


def test_a_real_change_is_found() -> None:
    random = np.random.default_rng(11)
    share = np.full(300, 1 / 300)
    changed = share.copy()
    changed[17] *= 4
    changed /= changed.sum()
    found = others = 0
    for _ in range(50):
        one = _estimate(random.choice(300, 20_000, p=share), 300)
        other = _estimate(random.choice(300, 20_000, p=changed), 300)
        delta, low, high = difference(one, other, 0.95)
        significant = (low > 0) | (high < 0)
        found += bool(significant[17] and delta[17] > 0)
        others += significant.sum() - significant[17]
    assert found == 50
    assert others <= 3


def test_a_few_samples_are_never_significant() -> None:
    rows = np.zeros(10_000, dtype=np.int64)
    with_three = rows.copy()
    with_three[[100, 5000, 9000]] = 1
    heavy = np.where(with_three == 1, 500.0, 1.0)  # three samples, 13 % of the periods
    time = np.arange(10_000, dtype=np.uint64)
    before = _estimate(rows, 2)
    for weight in (np.ones(10_000), heavy):
        after = estimate_shares(with_three, 2, weight, time)
        delta, low, high = difference(before, after, 0.95)
        assert delta[1] > 0
        assert low[1] < 0 < high[1]


def test_strata_are_shares_of_their_own_totals() -> None:
    row = np.array([0, 0, 1, 2] * 50)
    stratum = np.array([0, 0, 0, 1] * 50)
    time = np.arange(200, dtype=np.uint64)
    got = estimate_shares(row, 3, np.full(200, 3.0), time, stratum, np.array([0, 0, 1]))
    assert got.share.tolist() == pytest.approx([2 / 3, 1 / 3, 1.0])
    assert got.samples.tolist() == [100, 50, 50]


def test_blocks_follow_time_not_rows() -> None:
    time = np.arange(1200, dtype=np.uint64)
    block, blocks = time_blocks(time)
    shuffled = np.random.default_rng(3).permutation(1200)
    assert blocks == 30
    assert np.bincount(block).tolist() == [40] * 30
    assert (time_blocks(time[shuffled])[0] == block[shuffled]).all()


def test_many_rows_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).integers(0, 500, 5000)
    whole = _estimate(rows, 500)
    monkeypatch.setattr("kvmperf_magic.profile.stats._CELLS", 300)
    assert (_estimate(rows, 500).variance == whole.variance).all()


def test_wilson_is_the_published_example() -> None:
    # 81 of 263: R. G. Newcombe, Statistics in Medicine 17, 1998, table I
    low, high = wilson(np.array([81 / 263]), np.array([263.0]), 0.95)
    assert (low[0], high[0]) == pytest.approx((0.2553, 0.3662), abs=5e-5)
