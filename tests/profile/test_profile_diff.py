"""What pairs with what, what 100 % is, and what a diff says of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.diff import Diff, compare
from kvmperf_magic.profile.profile import Profile, Sample, profile_of
from kvmperf_magic.profile.timeline import timeline

HOST, GUEST = "[kernel.kallsyms]", "[guest.kernel.kallsyms]"


def _profile(counts: dict[tuple[str, str, str], int], **fields: Any) -> Profile:
    """So many samples of each (symbol, dso, mode), well mixed over time."""
    rows = [frame for frame, count in counts.items() for _ in range(count)]
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    return profile_of(
        [Sample([rows[i]], period=10, time=t, **fields) for t, i in enumerate(order.tolist())]
    )


def _by_symbol(diff: Diff) -> dict[str, dict[str, Any]]:
    rows = list(diff.table.rows())
    found = {row["symbol"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_host_and_guest_kernel_pair_by_name() -> None:
    host = _profile(
        {
            ("_raw_spin_lock", HOST, "host-kernel"): 29,
            ("ext4_readdir", "[ext4]", "host-kernel"): 171,
            ("copy_page", HOST, "host-kernel"): 800,
        }
    )
    guest = _profile(
        {
            ("_raw_spin_lock", GUEST, "guest-kernel"): 281,
            ("ext4_readdir", GUEST, "guest-kernel"): 119,
            ("clear_page", GUEST, "guest-kernel"): 600,
        },
        machine="vm",
    )
    diff = compare(host, guest, names=("host", "guest"))
    rows = _by_symbol(diff)
    lock = rows["_raw_spin_lock"]
    assert (lock["baseline"], lock["other"]) == pytest.approx((2.9, 28.1))
    assert lock["delta"] == pytest.approx(25.2)
    assert lock["ratio"] == pytest.approx(281 / 29)
    assert lock["significant"]
    assert 0 < lock["ci_low"] < 25.2 < lock["ci_high"]
    assert (lock["dso"], lock["mode"]) == (GUEST, "guest-kernel")
    assert (lock["baseline_dso"], lock["baseline_mode"]) == (HOST, "host-kernel")
    assert rows["ext4_readdir"]["status"] == ""
    assert (rows["copy_page"]["status"], rows["copy_page"]["delta"]) == ("vanished", -80)
    assert (rows["clear_page"]["status"], rows["clear_page"]["baseline"]) == ("new", 0)
    assert math.isnan(rows["clear_page"]["ratio"])
    assert diff.table["symbol"].tolist()[:2] == ["copy_page", "clear_page"], "by delta-abs"
    assert sum(r["delta"] for r in rows.values()) == pytest.approx(0)
    assert "host → guest: 4 rows" in repr(diff)
    assert "_raw_spin_lock" in diff._repr_html_()
    # perf kvm diff --host --guest pairs none of these: the DSOs differ
    assert set(compare(host, guest, pair="dso,symbol").table["status"]) == {"new", "vanished"}


@pytest.mark.parametrize("mode", ["guest-user", "guest-kernel"])
def test_one_program_on_the_host_and_as_a_guest_pairs_by_name(mode: str) -> None:
    names = ["__ticket_spin_lock", "bitmap_search", "[unknown]"]
    host = _profile({(n, "/opt/demo/micro", "host-user"): 100 for n in names})
    guest = _profile({(n, "/opt/demo/guest.elf", mode): 100 for n in names})
    diff = compare(host, guest)
    rows = [r for r in diff.table.rows() if r["symbol"] != "[unknown]"]
    assert [(r["status"], r["baseline_samples"], r["other_samples"]) for r in rows] == [
        ("", 100, 100)
    ] * 2
    unknown = [r for r in diff.table.rows() if r["symbol"] == "[unknown]"]
    assert sorted(r["status"] for r in unknown) == ["new", "vanished"], "no name, no pair"


def test_names_alone_do_not_pair_what_is_not_the_same() -> None:
    # two candidates on one side; a kernel's memcpy and libc's
    host = _profile(
        {
            ("lock", "/a", "host-user"): 9,
            ("lock", "/b", "host-user"): 9,
            ("memcpy", "/lib/libc.so.6", "host-user"): 9,
        }
    )
    guest = _profile(
        {("lock", "/c", "guest-user"): 9, ("memcpy", GUEST, "guest-kernel"): 9},
    )
    assert "" not in compare(host, guest).table["status"].tolist()
    unnamed = [_profile({("[unknown]", HOST, f"{s}-kernel"): 9}) for s in ("host", "guest")]
    assert "" not in compare(*unnamed).table["status"].tolist()
    assert compare(host, guest, pair="symbol").table["status"].tolist() == ["", ""]


def test_within_one_side_programs_pair_by_basename_and_sides_stay_apart() -> None:
    def both(folder: str) -> Profile:
        return _profile(
            {
                ("main", f"{folder}/prog", "host-user"): 50,
                ("main", f"{folder}/other", "host-user"): 10,
                ("schedule", HOST, "host-kernel"): 30,
                ("schedule", GUEST, "guest-kernel"): 20,
            }
        )

    assert compare(both("/old"), both("/new"), pair="dso,sym").table["status"].tolist() == [""] * 4
    table = compare(both("/old"), both("/new")).table
    assert table["status"].tolist() == [""] * 4
    assert not table["delta"].any()
    assert sorted(table["mode"].tolist()) == ["guest-kernel", "host-kernel", *["host-user"] * 2]


def test_totals_say_what_is_a_hundred_percent() -> None:
    host = _profile({("lock", HOST, "host-kernel"): 10, ("main", "/a", "host-user"): 30})
    guest = _profile({("lock", GUEST, "guest-kernel"): 10, ("main", "/b", "guest-user"): 10})

    def shares(total: str) -> dict[str, tuple[float, float]]:
        rows = _by_symbol(compare(host, guest, total=total))
        return {n: (r["baseline"], r["other"]) for n, r in rows.items()}

    assert shares("all") == {"lock": (25, 50), "main": (75, 50)}
    assert shares("kernel") == {"lock": (100, 100)}
    assert shares("mode") == {"lock": (100, 100), "main": (100, 100)}
    gone = _profile({("old", HOST, "host-kernel"): 90, ("lock", HOST, "host-kernel"): 10})
    rows = _by_symbol(compare(gone, guest, total="mode"))
    assert rows["old"]["delta"] == -90
    assert rows["old"]["significant"], "0 of the guest kernel's samples, not of nothing"
    only_user = guest.in_modes("guest-user")
    old = _by_symbol(compare(gone, only_user, total="mode"))["old"]
    assert (old["ci_low"], old["ci_high"]) == (-100, 100), "nothing is known of its kernel"
    by_symbol = compare(host, guest, total="mode", pair="symbol")
    assert {r["symbol"]: r["other"] for r in by_symbol.table.rows()} == {"lock": 100, "main": 100}


def test_other_keys_and_limits() -> None:
    one = _profile({("a", "/x", "host-user"): 98, ("b", "/x", "host-user"): 2}, comm="sh", cpu=1)
    two = _profile({("a", "/x", "host-user"): 100}, comm="bash", cpu=1)
    table = compare(one, two, pair="comm").table
    assert dict(zip(table["comm"], table["delta"], strict=True)) == {"sh": -100, "bash": 100}
    assert "symbol" not in table
    mixed = {("a", "/x", "host-user"): 2, ("a", "/y", "host-user"): 5, ("a", "/z", "host-user"): 1}
    heaviest = compare(_profile(mixed), _profile(mixed), pair="symbol").table
    assert (heaviest["dso"].tolist(), heaviest["baseline_dso"].tolist()) == (["/y"], ["/y"])
    by_cpu = compare(one, two, pair="cpu,symbol").table
    assert by_cpu["cpu"].tolist() == [1, 1]
    assert compare(one, two, percent_limit=5).table["symbol"].tolist() == ["a"]


def test_the_same_profile_twice_and_two_halves_show_no_change() -> None:
    names = {(f"f{i}", "/x", "host-user"): 40 + 7 * i for i in range(40)}
    whole = _profile(names)
    assert not compare(whole, whole).table["significant"].any()
    halves = [whole.select(slice(i, None, 2)) for i in (0, 1)]
    diff = compare(*halves)
    table = diff.table
    assert not table["significant"].any()
    outside = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    assert (table["significant"] == outside).all()
    narrow = compare(*halves, confidence=0.5).table
    assert (narrow["ci_high"] - narrow["ci_low"] < table["ci_high"] - table["ci_low"]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"compute": "sum"},
        {"compute": "ratio:1,2"},
        {"compute": "wdiff:1"},
        {"total": "user"},
        {"pair": "colour"},
        {"confidence": 95},
    ],
)
def test_unknown_words_are_query_errors(options: dict[str, Any]) -> None:
    one = _profile({("a", "/x", "host-user"): 2})
    with pytest.raises(QueryError):
        compare(one, one, **options)


def test_a_side_without_samples_is_named() -> None:
    one = _profile({("a", "/x", "host-user"): 2})
    with pytest.raises(QueryError, match="guest has no samples"):
        compare(one, one.in_modes("guest"), names=("host", "guest"))
    with pytest.raises(QueryError, match="no kernel samples"):
        compare(one, one, total="kernel")


def test_timeline_shows_the_swing() -> None:
    random = np.random.default_rng(2)
    seconds = np.sort(random.random(40_000)) * 60
    share = np.where(seconds // 10 % 2, 0.28, 0.09)
    lock = random.random(40_000) < share
    swing = profile_of(
        Sample([("lock" if mine else "work", HOST, "guest-kernel")], 5, time=int(at * 1e9))
        for at, mine in zip(seconds.tolist(), lock.tolist(), strict=True)
    )
    line = timeline(swing, "lock", buckets=30)
    table = line.table
    assert line.min == pytest.approx(9, abs=3)
    assert line.max == pytest.approx(28, abs=4)
    assert line.mean == pytest.approx(100 * lock.mean())
    assert table["bucket_samples"].sum() == 40_000
    assert table["samples"].sum() == lock.sum()
    middle = (table["start"] - table["start"][0] + 1e9) / 1e9
    truth = np.where(middle // 10 % 2, 28, 9)
    inside = (table["low"] <= truth) & (truth <= table["high"])
    assert inside.mean() >= 0.85
    assert timeline(swing, "^l.ck$").matched == ("lock",)
    assert timeline(swing, "/^l.ck$/").matched == ("lock",)
    assert timeline(swing, ".").mean == 100
    assert "lock: " in repr(line)


def test_timeline_keeps_empty_buckets_and_names_what_is_wrong() -> None:
    pair = profile_of([Sample([("a.b", "", "host-user")], time=t) for t in (5, 1000)])
    line = timeline(pair, "a.b", buckets=10)
    assert line.table["bucket_samples"].tolist() == [1, *[0] * 8, 1]
    assert np.isnan(line.table["share"][1:-1]).all()
    assert timeline(pair.select(slice(1)), "a.b").mean == 100
    for wrong in ("nothing", "(", "(?P<"):
        with pytest.raises(QueryError):
            timeline(pair, wrong)
    with pytest.raises(QueryError):
        timeline(pair, "a.b", buckets=0)
    with pytest.raises(QueryError):
        timeline(pair.select(slice(0)), "a.b")
