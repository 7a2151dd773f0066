"""What an ordinary user may do, by perf_event_paranoid, and what they are told otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sampling import SPIN

import kvmperf_magic
from kvmperf_magic.modes import HOST_USER
from kvmperf_magic.perfdata.reader import read

pytestmark = [pytest.mark.root, pytest.mark.alone]
NOBODY = 65534
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
RECORD = """
import json, os, sys
from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess
told = json.loads(sys.argv[1])
if told.get("pids") == ["self"]: told["pids"] = [os.getpid()]
try:
    with SamplerProcess.start(SamplerOptions(**told)) as process:
        if told.get("pids"):
            sum(range(10**7))
            process.stop()
        process.wait(10)
        print(json.dumps({"messages": process.messages, "events": process.events}))
except KvmperfError as error:
    print(json.dumps({"error": type(error).__name__, "says": error.message, "hint": error.hint}))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that nobody may use, with a copy of the package that nobody may read."""
    folder = Path(tempfile.mkdtemp(prefix="kvmperf-nobody-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        source = Path(kvmperf_magic.__file__).parent
        shutil.copytree(source, folder / "kvmperf_magic", ignore=shutil.ignore_patterns("*.pyc"))
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        out = folder / "out"
        out.mkdir()
        os.chown(out, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=[2, 3])
def paranoid(request: pytest.FixtureRequest) -> Iterator[int]:
    before = PARANOID.read_text()
    PARANOID.write_text(str(request.param))
    yield request.param
    PARANOID.write_text(before)


def _python() -> str:
    """A Python that this user may run."""
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [python, "-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            done = subprocess.run(probe, check=False, user=NOBODY, group=NOBODY, extra_groups=[])
        except OSError:
            continue
        if not done.returncode:
            return python
    pytest.fail("no Python 3.11 that an ordinary user may run (e.g. /usr/bin/python3)")


def record(place: Path, **options: Any) -> dict[str, Any]:
    """Record as nobody; what SamplerProcess told or raised."""
    told = {"output": str(place / "out" / "data"), "frequency": 1000, **options}
    done = subprocess.run(
        [_python(), "-S", "-c", RECORD, json.dumps(told)],
        check=False,
        capture_output=True,
        text=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd=place,
        env={"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_own_programs_in_user_mode(place: Path, paranoid: int) -> None:
    spin = [_python(), "-I", "-S", "-c", SPIN.format(seconds=0.4)]
    for options in ({"command": spin}, {"pids": ["self"]}):
        answer = record(place, events=["cycles"], **options)
        if "error" in answer:  # Debian's and others' kernels refuse all at 3
            assert paranoid == 3
            assert answer["error"] == "NotPermittedError"
            assert "perf_event_paranoid=2" in answer["hint"]
            continue
        user_only = [m for m in answer["messages"] if "user code only" in m]
        assert len(user_only) == 1
        assert f"perf_event_paranoid is {paranoid}" in user_only[0]
        assert answer["events"][0] in {"cycles:u", "cpu-clock:u"}
        samples = read(place / "out" / "data").samples
        assert len(samples) > 20
        assert set((samples.misc & 7).tolist()) == {HOST_USER + 1}


def test_what_is_not_theirs_is_refused_with_the_way_out(place: Path, paranoid: int) -> None:
    for options, says in (
        ({"events": ["cpu-clock"]}, "whole machine"),
        ({"events": ["cpu-clock"], "cpus": [0]}, "whole machine"),
        ({"events": ["cpu-clock"], "pids": [1]}, "thread 1"),
        ({"events": ["sched:sched_switch"]}, "tracepoint"),
    ):
        answer = record(place, **options)
        assert answer["error"] == "NotPermittedError", answer
        assert says in answer["says"]
        assert "sudo " in answer["hint"]
        assert f"is {paranoid}" in answer["says"] or says != "whole machine"


def test_locked_memory_for_rings_is_halved_until_it_fits(place: Path, paranoid: int) -> None:
    del paranoid
    spin = [_python(), "-I", "-S", "-c", SPIN.format(seconds=0.3)]
    answer = record(place, events=["cpu-clock:u"], command=spin, mmap_pages=16384)
    if "error" not in answer:
        assert any("perf_event_mlock_kb" in m for m in answer["messages"])
        assert len(read(place / "out" / "data").samples) > 20
