"""perf and we agree on every sample of our recordings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from guest import running_guest
from perfdump import dumped
from perfdump import ours as raw

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.perfdata.reader import read

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.perf, pytest.mark.alone]

_LINE = re.compile(
    r"^ *(?P<pid>-?\d+)/(?P<tid>-?\d+) +\[(?P<cpu>\d+)\] +(?P<s>\d+)\.(?P<ns>\d{9}): +"
    r"(?P<period>\d+) +(?P<event>\S+): +(?P<ip>[0-9a-f]+)?$"
)


def scripted(perf: Callable[..., str], path: str) -> list[tuple[object, ...]]:
    """Every sample as perf script has it; without guestkallsyms it drops those of guests."""
    fields = "pid,tid,cpu,time,period,event,ip"
    text = perf("script", "--ns", "--guestkallsyms=/dev/null", "-i", path, "-F", fields, "-G")
    samples: list[tuple[object, ...]] = []
    for found in filter(None, map(_LINE.match, text.splitlines())):
        time = int(found["s"]) * 10**9 + int(found["ns"])
        numbers = (int(found[name]) for name in ("pid", "tid", "cpu", "period"))
        samples.append((time, *numbers, found["event"], int(found["ip"] or "0", 16)))
    return samples


@pytest.mark.parametrize("what", ["host", "guest", "both"])
def test_sample_by_sample(perf: Callable[..., str], tmp_path: Path, what: str) -> None:
    """Time, pid, tid, cpu, period, event and ip; of the host's also cpumode and every frame."""
    with demo.HostBaseline(threads=2) if what == "host" else running_guest(2, "agree"):
        recording = kvm.record(
            host=what != "guest",
            guest=what != "host",
            callchain=what == "host",
            frequency=2000,
            duration=1.5,
            output=tmp_path / what,
            progress=False,
            guest_elf=demo.guest_elf(),
        )
    s = recording.samples
    columns = [s[name].tolist() for name in ("time", "pid", "tid", "cpu", "period", "event", "ip")]
    ours = list(zip(*columns, strict=True))
    assert len(ours) > 500
    if what == "host":
        # perf script shows user frames as offsets in their files: the dump has the addresses
        file = read(recording.path)
        assert file.samples.chains.length.sum() > 3 * len(ours)
        ordered = [
            sorted(them, key=lambda x: (x.time, x.cpu))
            for them in (raw(file), dumped(perf, Path(recording.path)))
        ]
        assert ordered[0] == ordered[1]
        events = perf("script", "-i", recording.path, "-F", "event", "-G").split()
        assert set(events) == {f"{name}:" for name in s["event"]}
    else:
        assert sorted(ours) == sorted(scripted(perf, recording.path))


def test_perf_report_and_evlist_open_it(perf: Callable[..., str], tmp_path: Path) -> None:
    with running_guest(2, "open"):
        recording = kvm.record(
            host=True, guest=True, frequency=1000, duration=1, output=tmp_path / "x", progress=False
        )
    path = recording.path
    assert "cpu-clock" in perf("evlist", "-v", "-i", path)
    report = perf("report", "--stdio", "-i", path)
    assert "of event 'cpu-clock'" in report
    mode = "guest-kernel" if recording.filter(modes="guest-kernel") else "guest-user"
    guest = perf("kvm", "--guest", "report", "--stdio", "-s", "sym", "-F", "sample,sym", "-i", path)
    letter = {"guest-kernel": "g", "guest-user": "u"}[mode]
    counts = [int(n) for n in re.findall(rf"^ +(\d+) +\[{letter}\]", guest, re.MULTILINE)]
    assert sum(counts) == len(recording.filter(modes=mode)) > 0
    ids = perf("buildid-list", "-i", path)
    assert "[kernel.kallsyms]" in ids
    assert demo.guest_elf() not in ids


_SEARCH = {"ext3_test_allocatable", "bitmap_search_next_usable_block", "ext3_try_to_allocate"}
_DBENCH = _SEARCH | {"find_revoke_record", "ext3_free_blocks_sb", "journal_get_undo_access"}


@pytest.mark.parametrize(("phase", "paired"), [("dbench", _DBENCH), ("search", _SEARCH)])
def test_perf_diff_agrees(
    phase: str, paired: set[str], perf: Callable[..., str], tmp_path: Path
) -> None:
    """`perf diff -s sym` on two of our host recordings: baseline, and delta of what is paired.

    One thread, so that what both spend time in is known: nobody waits for a lock.
    """
    recordings = []
    for name, runs in (("a", "dbench"), ("b", phase)):
        with demo.HostBaseline(threads=1, phase=runs) as program:
            recordings.append(
                kvm.record(
                    host=True,
                    pid=program.pid,
                    frequency=2000,
                    duration=1.5,
                    output=tmp_path / name,
                    progress=False,
                )
            )
    said = perf("diff", "-s", "sym", *(r.path for r in recordings))
    rows = re.findall(r"^ +(?:([\d.]+)%)? +([+-][\d.]+)?%? +\[[.k]\] (\S+)", said, re.MULTILINE)
    theirs = {name: (float(base), float(delta)) for base, delta, name in rows if base and delta}
    table = kvm.diff(*recordings, pair="symbol").table
    ours = {
        row["symbol"]: (row["baseline"], row["delta"]) for row in table.rows() if not row["status"]
    }
    assert paired <= theirs.keys()
    for name, (base, delta) in theirs.items():
        assert ours[name] == pytest.approx((base, delta), abs=0.0101), name
