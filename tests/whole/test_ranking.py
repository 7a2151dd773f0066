"""A tally as somebody looks at it: filtered, sorted, one machine or all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.profile import Sample, profile_of
from kvmperf_magic.profile.tally import TREND, News, Row, Tally, news_of
from kvmperf_magic.ranking import KEYS, Look, Ranked, machine_shares, mode_shares, rank, sort_keys

NAMES = {0: "host", 7: "web", 8: "db"}
ALL_MODES = np.ones(len(MODES), np.bool_)
CAME: dict[Row, tuple[int, int]] = {  # symbol, dso, mode, pid
    ("lock", "[guest]", "guest-kernel", 7): (500, 5),
    ("copy", "[guest]", "guest-kernel", 7): (100, 1),
    ("lock", "[guest]", "guest-kernel", 8): (100, 4),
    ("lock", "[kernel]", "host-kernel", 0): (200, 2),
    ("main", "/usr/bin/qemu", "host-user", 0): (100, 9),
}


def tally(came: dict[Row, tuple[int, int]] = CAME) -> Tally:
    modes = {pid: np.zeros(len(MODES)) for pid in NAMES}
    for (_, _, mode, pid), (period, _) in came.items():
        modes[int(pid)][MODES.index(str(mode))] += period
    period, samples = (np.array(n, np.int64) for n in zip(*came.values(), strict=True))
    return Tally().then(News(list(came), period, samples, modes))


def seen(look: Look, shown: np.ndarray = ALL_MODES) -> Ranked:
    return rank(tally(), look, NAMES, shown)


def test_all_machines_the_heaviest_first() -> None:
    ranked = seen(Look())
    assert ranked.table.columns == ["overhead", "samples", *KEYS]
    assert next(ranked.table.rows()) == {
        "overhead": 50.0,
        "samples": 5,
        "symbol": "lock",
        "dso": "[guest]",
        "mode": "guest-kernel",
        "machine": "web",
    }
    assert ranked.table["overhead"].tolist() == [50, 20, 10, 10, 10]
    assert ranked.trend.shape == (5, TREND)
    assert ranked.trend[:, -1].tolist() == [50, 20, 10, 10, 10]
    assert np.isnan(ranked.trend[:, :-1]).all()  # nothing was sampled then
    assert (ranked.matched, ranked.found) == (100.0, 5)


def test_rows_by_what_guests_run_say_how_sure_that_is() -> None:
    sure, guess = ((7, 1.0), (7, 0.5))
    drawn = [
        Sample([("lock", "k", "guest-kernel")], period, machine="vm", guest_comm=comm,
               guest_pid=pid, guest_sure=certain)
        for period, comm, (pid, certain) in (
            (600, "dd", sure), (200, "dd", guess), (150, "sh", guess), (50, "", (-1, 0.0)))
    ]  # fmt: skip
    machines = np.full(len(drawn), 7, np.int32)
    look = Look(sort_keys("guest_comm,symbol"))
    news = news_of(profile_of(drawn), machines, look.keys, ALL_MODES)
    counted = Tally().then(news)
    for _ in range(3):  # what fades is as sure as before
        table = rank(counted, look, NAMES, ALL_MODES).table
        assert table.columns == ["overhead", "samples", "guest_sure", "guest_comm", "symbol"]
        assert table["guest_comm"].tolist() == ["dd", "sh", ""]
        assert table["guest_sure"] == pytest.approx([75, 0, 0], abs=0.5)
        counted = counted.then(News())
    assert rank(counted, replace(look, filter="^dd$"), NAMES, ALL_MODES).found == 1
    assert counted.zeroed().sure.tolist() == [0, 0, 0]


def test_one_machine_is_all_there_is() -> None:
    ranked = seen(Look(machine=7))
    assert ranked.table["symbol"].tolist() == ["lock", "copy"]
    assert ranked.table["overhead"] == pytest.approx([500 / 6, 100 / 6])
    assert ranked.trend[:, -1] == pytest.approx([500 / 6, 100 / 6])
    assert seen(Look(machine=99)).found == 0
    assert mode_shares(tally(), 0)[:2, -1] == pytest.approx([200 / 3, 100 / 3])
    assert machine_shares(tally()) == {0: 30.0, 7: 60.0, 8: 10.0}


def test_trends_are_of_the_modes_that_are_shown() -> None:
    guests = np.array(["guest" in mode for mode in MODES])
    came = {row: told for row, told in CAME.items() if "guest" in str(row[2])}
    modes = {0: np.array([1e9, 0, 0, 0, 0, 0]), 7: np.array([0, 0, 0, 600.0, 0, 0])}
    period, samples = (np.array(n, np.int64) for n in zip(*came.values(), strict=True))
    counted = Tally().then(News(list(came), period, samples, modes))
    assert rank(counted, Look(), NAMES, guests).trend[0, -1] == pytest.approx(100 * 500 / 600)


def test_the_filter_finds_symbols_and_dsos_and_says_how_much() -> None:
    ranked = seen(Look(filter="^lock$"))
    assert set(ranked.table["symbol"]) == {"lock"}
    assert (ranked.matched, ranked.found) == (80.0, 3)
    assert ranked.table["overhead"].tolist() == [50, 20, 10]  # of all, not of what was found
    assert seen(Look(filter="/qemu")).table["symbol"].tolist() == ["main"]
    assert seen(Look(filter="web")).found == 0  # machines have their tabs
    assert seen(Look(filter="^lock$", machine=0)).matched == pytest.approx(200 / 3)
    with pytest.raises(QueryError, match="no regular expression"):
        Look(filter="(")


def test_few_rows_are_those_that_weigh_most_in_any_order() -> None:
    ranked = seen(Look(entries=2, sort="symbol"))
    assert ranked.found == 5
    assert ranked.table["overhead"].tolist() == [50, 20]
    named = seen(Look(sort="symbol")).table["symbol"].tolist()
    assert named == sorted(named)
    assert seen(Look(sort="-symbol")).table["symbol"].tolist() == named[::-1]
    assert seen(Look(sort="samples")).table["samples"].tolist() == [9, 5, 4, 2, 1]
    assert seen(Look(sort="-overhead")).table["overhead"].tolist() == [10, 10, 10, 20, 50]
    trend = seen(Look(sort="-overhead")).trend[:, -1].tolist()
    assert trend == [10, 10, 10, 20, 50]  # goes with its row
    with pytest.raises(QueryError, match=r"no sort key 'comm' .*symbol"):
        Look(sort="comm")


def test_the_count_filter_wants_more_samples_than_it_says() -> None:
    assert sorted(seen(Look(count_filter=4)).table["samples"].tolist()) == [5, 9]
    assert seen(Look(count_filter=4)).matched == 100.0
    for wrong in (-1, 2.5, "3"):
        with pytest.raises(QueryError, match="whole number"):
            Look(count_filter=wrong)  # type: ignore[arg-type]


def test_machines_that_are_not_told_apart_share_rows() -> None:
    assert sort_keys("sym, overhead,dso") == ("symbol", "dso")
    look = Look(keys=("symbol",))
    came: dict[Row, tuple[int, int]] = {}
    for row, told in CAME.items():
        short = (row[0], row[-1])
        was = came.get(short, (0, 0))
        came[short] = (was[0] + told[0], was[1] + told[1])
    period, samples = (np.array(n, np.int64) for n in zip(*came.values(), strict=True))
    counted = Tally().then(News(list(came), period, samples, {0: np.full(len(MODES), 1000 / 6)}))
    ranked = rank(counted, look, NAMES, ALL_MODES)
    assert ranked.table.columns == ["overhead", "samples", "symbol"]
    assert next(ranked.table.rows()) == {"overhead": 80.0, "samples": 11, "symbol": "lock"}
    assert ranked.trend[0, -1] == pytest.approx(80)
    alone = rank(counted, Look(keys=("symbol",), machine=8), NAMES, ALL_MODES)
    assert list(alone.table.rows()) == [{"overhead": 100.0, "samples": 4, "symbol": "lock"}]


def test_keys_are_perfs() -> None:
    assert sort_keys(None) == sort_keys("overhead") == KEYS
    assert sort_keys("comm,dso") == ("comm", "dso")
    with pytest.raises(QueryError, match="no sort key 'nothing'"):
        sort_keys("comm,nothing")


def test_nothing_at_all_is_a_table_too() -> None:
    ranked = rank(Tally(), Look(), {}, ALL_MODES)
    assert len(ranked.table) == ranked.found == 0
    assert ranked.table.columns == ["overhead", "samples", *KEYS]
    assert np.isnan(mode_shares(Tally(), None)).all()
