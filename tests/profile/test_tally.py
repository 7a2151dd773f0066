"""Counts that fade and trends, against a plain recomputation of all that ever came."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmperf_magic.modes import MODES
from kvmperf_magic.profile import tally as counting
from kvmperf_magic.profile.profile import Sample, profile_of
from kvmperf_magic.profile.tally import STRIP, TREND, News, Row, Tally, news_of

ALL_MODES = np.ones(len(MODES), np.bool_)


def news(rows: dict[Row, tuple[int, int]], modes: dict[int, int] | None = None) -> News:
    """These periods and samples by row, and weight in host-user by machine."""
    weights = {pid: np.array([0.0, weight, 0, 0, 0, 0]) for pid, weight in (modes or {}).items()}
    return News(
        list(rows),
        np.array([period for period, _ in rows.values()], np.int64),
        np.array([samples for _, samples in rows.values()], np.int64),
        weights,
    )


def plain(
    steps: Iterable[tuple[dict[Row, tuple[int, int]], int, bool]],
) -> tuple[dict[Row, int], dict[Row, float], dict[Row, list[int]]]:
    """Period, samples and trend of each row after these (news, buckets, decay)."""
    period: dict[Row, int] = {}
    samples: dict[Row, float] = {}
    came: list[tuple[int, Row, int]] = []
    bucket = 0
    for rows, buckets, decay in steps:
        bucket += buckets
        period = {row: n * 7 // 8 if decay else 0 for row, n in period.items()}
        samples = {row: n * 7 / 8 if decay else 0 for row, n in samples.items()}
        recent = {row for at, row, _ in came if bucket - at < TREND}
        samples = {row: n for row, n in samples.items() if period[row] or row in recent}
        for row, (weight, count) in rows.items():
            period[row] = period.get(row, 0) + weight
            samples[row] = samples.get(row, 0) + count
            came.append((bucket, row, weight))
    trend = {row: [0] * TREND for row in period}
    for at, row, weight in came:
        if bucket - at < TREND:
            trend[row][TREND - 1 - bucket + at] += weight
    return period, samples, trend


ROWS = st.tuples(st.sampled_from(["lock", "copy", "search"]), st.sampled_from([0, 17, 18]))
STEPS = st.lists(
    st.tuples(
        st.dictionaries(ROWS, st.tuples(st.integers(1, 1 << 20), st.integers(1, 9)), max_size=6),
        st.sampled_from([0, 1, 1, 1, 2, 50, TREND, 1000]),
        st.booleans(),
    ),
    max_size=25,
)


@given(STEPS)
@settings(deadline=None)
def test_it_is_what_a_plain_recomputation_gives(steps: list[Any]) -> None:
    tally = Tally()
    for rows, buckets, decay in steps:
        tally = tally.then(news(rows), buckets, decay=decay)
    period, samples, trend = plain(steps)
    kept = {row for row in period if period[row] or any(trend[row])}
    assert set(tally.rows) == kept  # nothing is kept for good
    assert len(tally.rows) == len(kept)
    for i, row in enumerate(tally.rows):
        assert tally.period[i] == period[row]
        assert tally.samples[i] == pytest.approx(samples[row])
        assert tally.trend[i].tolist() == trend[row]


def test_modes_have_a_longer_memory_and_go_with_their_machine() -> None:
    tally = Tally().then(news({("lock", 17): (80, 1)}, {0: 5, 17: 80}))
    for _ in range(STRIP - 1):
        tally = tally.then(news({}, {0: 1}), 1)
    assert tally.modes[17][1].tolist() == [80.0] + [0.0] * (STRIP - 1)
    assert tally.modes[0][1].tolist() == [5.0] + [1.0] * (STRIP - 1)
    assert set(tally.then(News(), 1).modes) == {0}


def test_what_is_shown_does_not_change_under_ones_eyes() -> None:
    first = Tally().then(news({("lock", 0): (800, 8)}, {0: 800}))
    before = (first.period.copy(), first.trend.copy(), first.modes[0].copy())
    second = first.then(news({("lock", 0): (800, 8)}, {0: 800}), 0)
    assert second.period.tolist() == [700 + 800]
    assert second.trend[0, -1] == 1600
    for was, now in zip(before, (first.period, first.trend, first.modes[0]), strict=True):
        assert np.array_equal(was, now)


def test_zeroing_forgets_counts_and_keeps_trends() -> None:
    tally = Tally().then(news({("lock", 0): (800, 8)})).zeroed()
    assert tally.period.tolist() == [0]
    assert tally.trend[0, -1] == 800
    again = tally.then(news({("lock", 0): (5, 1)}), 1)
    assert again.period.tolist() == [5]
    assert again.trend[0, -2:].tolist() == [800, 5]


@given(st.integers(1, 90), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_too_many_rows_become_one_a_machine_and_no_weight_is_lost(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "MOST_ROWS", 40)
        names: list[Row] = [(f"f{i}", i, int(random.integers(3))) for i in range(count)]
        weights = random.permutation(count) + 1
        came = {row: (int(w), 1) for row, w in zip(names, weights, strict=True)}
        tally = Tally().then(news(came))
    assert len(tally.rows) == len(set(tally.rows)) <= 40 + 3
    assert tally.period.sum() == weights.sum()
    assert tally.samples.sum() == count
    assert tally.trend[:, -1].sum() == weights.sum()
    for pid in range(3):
        own = [i for i, row in enumerate(tally.rows) if row[-1] == pid]
        assert tally.period[own].sum() == sum(w for row, (w, _) in came.items() if row[-1] == pid)
    if count > 40:
        kept = {row for row in tally.rows if row[0] != counting.OTHERS}
        assert kept == set(sorted(came, key=lambda row: -came[row][0])[:30])
        assert ((counting.OTHERS, -1) in {row[:2] for row in tally.rows}) is True


def test_news_are_summed_by_key_and_machine() -> None:
    def sample(symbol: str, mode: str, machine: str, period: int, comm: str = "a") -> Sample:
        frames = [(symbol, "k", mode)]
        return Sample(frames, period, machine=machine, pid=7 if machine == "vm" else 1, comm=comm)

    profile = profile_of(
        [
            sample("lock", "guest-kernel", "vm", 10),
            sample("lock", "guest-kernel", "vm", 20),
            sample("lock", "host-kernel", "host", 5),
            sample("idle", "host-user", "host", 3),
            sample("lock", "host-kernel", "host", 2, comm="b"),
        ]
    )
    pids = np.array([7, 7, 0, 0, 0], np.int32)
    shown = ALL_MODES.copy()
    shown[MODES.index("host-user")] = False
    found = news_of(profile, pids, ["symbol", "mode", "pid"], shown)
    sums = zip(found.period.tolist(), found.samples.tolist(), strict=True)
    assert dict(zip(found.rows, sums, strict=True)) == {
        ("lock", "guest-kernel", 7, 7): (30, 2),
        ("lock", "host-kernel", 1, 0): (7, 2),
    }
    assert {pid: of.tolist() for pid, of in found.modes.items()} == {
        0: [7.0, 3.0, 0, 0, 0, 0],
        7: [0, 0, 0, 30.0, 0, 0],
    }
    assert news_of(profile, pids, ["comm"], ALL_MODES).rows == [("a", 0), ("a", 7), ("b", 0)]
    nothing = news_of(profile, pids, ["symbol", "cpu"], ~ALL_MODES)
    assert not nothing.rows
    assert set(nothing.modes) == {0, 7}  # the strip shows what the table hides
    assert len(Tally().then(nothing).rows) == 0


def test_periods_that_cannot_be_do_not_overflow() -> None:
    huge = [Sample([("f", "d", "host-user")], 2**63) for _ in range(4)]
    found = news_of(profile_of(huge), np.zeros(4, np.int32), ["symbol"], ALL_MODES)
    tally = Tally()
    for _ in range(40):
        tally = tally.then(found, 1)
        assert tally.period[0] > 0
