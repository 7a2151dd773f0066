"""Group reads against perf script: which samples it makes of values, with which periods."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kvmperf_magic.perfdata.attr import EventIds
from kvmperf_magic.perfdata.groupread import GroupReads
from kvmperf_magic.perfdata.reader import read

LOOP = "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; ls -R /proc/self >/dev/null 2>&1"


def ours(path: Path) -> list[list[str]]:
    file = read(path)
    names = [event.name for event in file.events]
    # perf script cuts the nanoseconds off
    return [
        [str(tid), f"{time // 10**9}.{time % 10**9 // 1000:06d}", str(period), names[event]]
        for tid, time, period, event in zip(
            file.samples.tid.tolist(),
            file.samples.time.tolist(),
            file.samples.period.tolist(),
            file.samples.event.tolist(),
            strict=True,
        )
    ]


def printed(perf: Callable[..., str], path: Path) -> list[list[str]]:
    """tid, time, period, event of each line."""
    lines = perf("script", "-i", path, "-G", "-F", "tid,time,period,event").splitlines()
    fields = [line.split(maxsplit=3) for line in lines if line.strip()]
    return [
        [tid, time.rstrip(":"), period, name.strip().rstrip(":")]
        for tid, time, period, name in fields
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("groups")

    def record(event: str, *options: str) -> Path:
        path = folder / f"perf.data.{abs(hash((event, options)))}"
        command = ["perf", "record", "-q", "-F", "500", "-o", path, "-e", event, *options]
        subprocess.run(
            [*command, "--", "sh", "-c", LOOP], check=True, capture_output=True, timeout=60
        )
        return path

    return record


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.parametrize(
    "event",
    [
        "{cpu-clock,task-clock,page-faults}:S",
        "{task-clock,context-switches,page-faults}:S,page-faults",
        "cpu-clock,task-clock",
    ],
)
def test_a_group_read_gives_perfs_samples(
    event: str, recorded: Callable[[str], Path], perf: Callable[..., str]
) -> None:
    path = recorded(event)
    expected = printed(perf, path)
    assert ours(path) == expected
    assert len({line[3] for line in expected}) > 1


@pytest.mark.perf
@pytest.mark.fixtures
def test_a_published_group_read_gives_perfs_samples(
    fixtures: Path, perf: Callable[..., str]
) -> None:
    path = fixtures / "recordings/GrapheneOS__platform_system_extras__perf_with_add_counter.data"
    expected = printed(perf, path)
    assert ours(path) == expected
    assert len(expected) == 24


@pytest.mark.fixtures
def test_periods_go_on_from_batch_to_batch(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fixtures / "recordings/GrapheneOS__platform_system_extras__perf_with_add_counter.data"
    whole = read(path).samples
    with monkeypatch.context() as patched:
        patched.setattr(GroupReads, "deliver", lambda self, samples, events: samples)
        file = read(path)
        samples = file.samples
    assert len(samples) == 12
    ids = EventIds(file.events)
    reads = GroupReads()
    parts = [reads.deliver(samples.take(slice(i, i + 5)), ids) for i in range(0, len(samples), 5)]
    assert np.concatenate([part.period for part in parts]).tolist() == whole.period.tolist()
    assert np.concatenate([part.event for part in parts]).tolist() == whole.event.tolist()
