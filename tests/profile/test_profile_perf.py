"""perf's own answers as the oracle: report with and without children, and diff."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from script_profile import Recorded

from kvmperf_magic.profile.diff import compare
from kvmperf_magic.profile.report import report

pytestmark = [pytest.mark.perf, pytest.mark.root, pytest.mark.compiler]

Run = Callable[..., str]


def _rows(text: str, separator: str = "|") -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [[cell.strip() for cell in line.split(separator)] for line in lines]


def _name(cell: str) -> str:
    """The symbol of perf's "[k] name"; what perf prints as an address has none."""
    name = cell.split("] ", 1)[-1].strip()
    return "[unknown]" if name.removeprefix("0x").strip("0123456789abcdef") == "" else name


def _report(perf: Run, path: Path, *options: str) -> list[list[str]]:
    return _rows(perf("report", "--stdio", "-g", "none", "-t", "|", "-i", path, *options))


def test_flat_report_is_perfs(perf: Run, recorded: Recorded) -> None:
    for path, profile in zip(recorded.paths, recorded.profiles, strict=True):
        theirs: Counter[tuple[str, ...]] = Counter()
        samples: Counter[tuple[str, ...]] = Counter()
        fields = "period,sample,comm,dso,sym"
        for period, count, comm, dso, symbol in _report(perf, path, "--no-children", "-F", fields):
            theirs[comm, dso, _name(symbol)] += int(period)
            samples[comm, dso, _name(symbol)] += int(count)
        ours: Counter[tuple[str, ...]] = Counter()
        our_samples: Counter[tuple[str, ...]] = Counter()
        made = report(profile)
        for row in made.table.rows():
            key = (row["comm"], row["dso"].rsplit("/", 1)[-1], row["symbol"])
            ours[key] += int(row["self"])
            our_samples[key] += row["samples"]
        assert len(theirs) > 5
        assert ours == theirs
        assert our_samples == samples
        assert made.total == sum(theirs.values())


@pytest.mark.parametrize("key", ["comm", "dso", "pid", "cpu", "comm,dso"])
def test_children_by_other_keys_are_perfs(perf: Run, recorded: Recorded, key: str) -> None:
    path, profile = recorded.paths[1], recorded.profiles[1]
    theirs = {}
    for both, own, *values in _report(
        perf, path, "--children", "-F", f"overhead_children,overhead,{key}"
    ):
        # perf writes a pid as "123:comm"
        names = tuple(v.split(":")[0] if key == "pid" else v for v in values)
        if not names[-1].startswith("[unknown]"):
            theirs[names] = (float(both.rstrip("%")), float(own.rstrip("%")))
    ours = {
        tuple(str(row[k]).rsplit("/", 1)[-1] for k in key.split(",")): row
        for row in report(profile, key).table.rows()
    }
    assert theirs
    for names, (both, own) in theirs.items():
        # cpu is printed with leading zeros
        row = ours[(str(int(names[0])),) if key == "cpu" else names]
        assert row["children_overhead"] == pytest.approx(both, abs=0.006), names
        assert row["overhead"] == pytest.approx(own, abs=0.006), names


def test_children_count_recursion_once_as_perf_does(perf: Run, recorded: Recorded) -> None:
    for path, profile in zip(recorded.paths, recorded.profiles, strict=True):
        rows = _report(perf, path, "--children", "-F", "overhead_children,overhead,sym")
        times = Counter(_name(symbol) for _, _, symbol in rows)
        # several functions may have one name: perf keeps those apart, a table of names cannot
        theirs = {
            _name(symbol): (float(both.rstrip("%")), float(own.rstrip("%")))
            for both, own, symbol in rows
            if times[_name(symbol)] == 1 and _name(symbol) != "[unknown]"
        }
        assert {"walk", "ping", "pong", "main"} <= theirs.keys()
        made = report(profile, "sym", order="children")
        ours = {r["symbol"]: (r["children_overhead"], r["overhead"]) for r in made.table.rows()}
        for name, wanted in theirs.items():
            assert ours[name] == pytest.approx(wanted, abs=0.006), name
        ranks = made.table["children"]
        assert (ranks[:-1] >= ranks[1:]).all()


def _diff(perf: Run, recorded: Recorded, *options: str) -> dict[str, tuple[str, str]]:
    """Perf's (baseline, computed) of every symbol whose name stands for one row."""
    text = perf("diff", "-t", "|", "-s", "sym", *options, *recorded.paths)
    found = defaultdict(list)
    for baseline, computed, symbol in _rows(text):
        found[_name(symbol)].append((baseline.rstrip("%"), computed.rstrip("%")))
    return {n: v[0] for n, v in found.items() if len(v) == 1 and n != "[unknown]"}


def test_diff_is_perfs_where_perf_is_right(perf: Run, recorded: Recorded) -> None:
    a, b = recorded.profiles
    ours = {row["symbol"]: row for row in compare(a, b, pair="symbol").table.rows()}
    paired = 0
    for name, (baseline, delta) in _diff(perf, recorded).items():
        row = ours[name]
        if baseline and delta:
            paired += 1
            assert row["baseline"] == pytest.approx(float(baseline), abs=0.006), name
            assert row["delta"] == pytest.approx(float(delta), abs=0.006), name
            assert row["status"] == ""
        elif baseline:  # perf leaves the delta blank: the symbol vanished, and so did its share
            assert row["status"] == "vanished"
            assert row["delta"] == pytest.approx(-float(baseline), abs=0.006), name
        else:  # perf prints the new share as delta, or nothing
            assert row["status"] == "new"
            assert row["baseline"] == 0
            assert row["delta"] == row["other"] > 0
    assert paired > 5
    assert ours["only_first"]["status"] == "vanished"
    assert ours["only_second"]["status"] == "new"


@pytest.mark.parametrize(
    ("compute", "column"), [("ratio", "ratio"), ("wdiff:1,2", "wdiff"), ("delta", "delta")]
)
def test_computes_are_perfs(perf: Run, recorded: Recorded, compute: str, column: str) -> None:
    made = compare(*recorded.profiles, pair="symbol", compute=compute)
    ours = {row["symbol"]: row for row in made.table.rows()}
    compared = 0
    for name, (baseline, computed) in _diff(perf, recorded, "-c", compute).items():
        if baseline and computed:
            compared += 1
            wanted = float(computed)
            assert ours[name][column] == pytest.approx(wanted, rel=1e-6, abs=0.006), name
    assert compared > 5
    ranked = made.table[column]
    ranked = ranked[~np.isnan(ranked)]
    assert (ranked[:-1] >= ranked[1:]).all()


def test_the_programs_change_is_significant(recorded: Recorded) -> None:
    a, b = recorded.profiles
    rows = {r["symbol"]: r for r in compare(a, b).table.rows()}
    for name in ("only_first", "only_second", "five"):
        assert rows[name]["significant"], rows[name]
    halves = [a.select(slice(start, None, 2)) for start in (0, 1)]
    assert not compare(*halves).table["significant"].any()
