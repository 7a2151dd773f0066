"""Every magic as an ordinary user: what they may record is; the rest is said, with the way out."""

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

import numpy as np
import pytest
from guest import running_guest

import kvmperf_magic
import kvmperf_widgets

pytestmark = [pytest.mark.root, pytest.mark.alone]

NOBODY = 65534
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
SPIN = "import time\nend = time.time() + 0.5\nwhile time.time() < end:\n i = 0\n"
SPIN += " while i < 9999: i += 1"  # most of its time is in the function that interprets
SCRIPT = """
import json, sys
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "kvmperf_magic")
answers = []
for name, line, after in json.loads(sys.argv[1]):
    with capture_output() as said:
        try:
            result = shell.run_line_magic(name, line)
            shell.user_ns["r"] = result
            if after:
                exec(after, shell.user_ns)
            answer = {"shows": repr(result)}
        except UsageError as error:
            answer = {"error": str(error)}
    answers.append(answer | {"said": said.stdout + said.stderr})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with copies of our packages that nobody may read, and one they may write."""
    folder = Path(tempfile.mkdtemp(prefix="kvmperf-user-", dir="/tmp"))
    try:
        for package in (kvmperf_magic, kvmperf_widgets):
            source = Path(package.__file__).parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("*.pyc"))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        out = folder / "out"
        out.mkdir()
        os.chown(out, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=[2, 3], ids=["paranoid2", "paranoid3"])
def paranoid(request: pytest.FixtureRequest) -> Iterator[int]:
    before = PARANOID.read_text()
    PARANOID.write_text(str(request.param))
    yield request.param
    PARANOID.write_text(before)


def as_nobody(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python with our dependencies, as the user nobody: this one or Debian's of its version."""
    libraries = str(Path(np.__file__).parents[1])
    failed = []
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, *arguments],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd=place / "out",
                env={
                    "PYTHONPATH": f"{place}:{libraries}",
                    "PATH": "/usr/bin:/bin",
                    "HOME": str(place / "out"),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )
        except PermissionError as error:
            failed.append(str(error))
            continue
        assert done.returncode == 0, done.stderr
        return done
    pytest.fail(f"no Python that an ordinary user may run: {failed}")


def answers(place: Path, *lines: tuple[str, str, str]) -> list[dict[str, Any]]:
    done = as_nobody(place, "-c", SCRIPT, json.dumps(lines))
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_own_processes_are_recorded_reported_and_compared(place: Path, paranoid: int) -> None:
    command = f'-- /usr/bin/python3 -c "{SPIN}"'
    first, second, report, diff = answers(
        place,
        ("kvm_record", f"--host -F 1000 -o one {command}", ""),
        ("kvm_record", f"--host -F 1000 -o two {command}", ""),
        ("kvm_report", "one --sort symbol", ""),
        ("kvm_diff", "one two", ""),
    )
    for recorded in (first, second):
        assert "error" not in recorded, recorded
        assert "host-user 100.0 %" in recorded["shows"]
        assert f"perf_event_paranoid is {paranoid}" in recorded["said"]
        assert "user code only" in recorded["said"]
    assert "_PyEval_EvalFrameDefault" in report["shows"]
    assert "significant" in diff["shows"]


def test_the_whole_machine_becomes_what_is_theirs(place: Path, paranoid: int) -> None:

    (recorded,) = answers(place, ("kvm_record", "--host -F 1000 --duration 0.5 -o mine", ""))
    assert "error" not in recorded, recorded
    assert "only your own" in recorded["said"]
    assert "sysctl" in recorded["said"]
    assert "mine" in recorded["shows"]


@pytest.mark.kvm
def test_what_is_another_users_is_refused_with_the_way_out(place: Path, paranoid: int) -> None:
    with running_guest(1, "roots") as vm:
        listed, guest, top = answers(
            place,
            ("kvm_list", "", ""),
            ("kvm_record", f"--guest --pid {vm.pid} --duration 0.2", ""),
            ("kvm_top", f"--pid {vm.pid}", ""),
        )
    assert "perf_event_paranoid" in listed["shows"]
    for refused in (guest, top):
        assert "error" in refused, refused
        assert "\n" not in refused["error"]
        assert "sudo" in refused["error"] or "root" in refused["error"]


def test_a_live_view_of_ones_own(place: Path, paranoid: int) -> None:
    look = (
        "import time; end = time.time() + 8\n"
        "while time.time() < end and not len(r.table): sum(range(1000))\n"
        "shown = len(r.table); r.stop(); assert shown, r.error"
    )
    (top,) = answers(place, ("kvm_top", "--host -F 1000 --delay 0.3", look))
    assert "error" not in top, top
    assert "PerfTop:" in top["shows"]
    assert "only your own" in top["said"]
