"""Folded stacks against perf's own collapse of the same recording."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import kvmperf_magic
from kvmperf_magic.export.folded import folded
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.recording import Recording

_WORK = "import re; [re.sub('a+b', 'x', 'a' * 300) for _ in range(30000)]"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording by perf with call stacks."""
    path = tmp_path_factory.mktemp("folded") / "perf.data"
    event = ["-e", "cpu-clock", "-c", "1000000", "-g", "-o", str(path)]
    command = ["perf", "record", "-q", *event, "--", "python3", "-c", _WORK]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.mark.perf
@pytest.mark.root
def test_the_lines_are_those_of_perfs_stackcollapse(
    recorded: Path, perf: Callable[..., str]
) -> None:
    ran = perf("script", "report", "stackcollapse", "-i", recorded, check=False)
    theirs: Counter[str] = Counter()
    for line in ran.splitlines():
        path, _, count = line.rpartition(" ")
        theirs[path] += int(count)
    if not theirs:
        pytest.skip("this perf was built without Python, its stackcollapse cannot run")
    ours: Counter[str] = Counter()
    for line in kvmperf_magic.open(recorded).to_folded().splitlines():
        path, _, weight = line.rpartition(" ")
        ours[path] += int(weight) // 1_000_000  # it counts samples, all of one period
    assert ours.total() == theirs.total()
    same = (ours & theirs).total()
    assert same / theirs.total() > 0.995, list((theirs - ours).items())[:5]


def test_guests_stand_under_vm_vcpu_and_ring(both: Recording) -> None:
    lines = both.to_folded().splitlines()
    guest = [line for line in lines if line.startswith("web1;vCPU ")]
    assert {line.split(";")[2] for line in guest} == {"[guest user]"}
    weight = sum(int(line.rpartition(" ")[2]) for line in guest)
    assert weight == both.filter(modes="guest").profile.total
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == both.profile.total


def test_hostile_names_stay_on_their_line(mixed: Profile) -> None:
    lines = folded(mixed).split("\n")
    assert lines.pop() == ""
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == pytest.approx(mixed.total)
    assert any("\u202egnirts\u202c" in line for line in lines)
    assert any("x" * 4096 in line for line in lines)
