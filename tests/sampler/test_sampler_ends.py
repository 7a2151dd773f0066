"""However a recording ends, its file is readable and no process is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sampling import THREADS, alive, running, spin, until

import kvmperf_magic
from kvmperf_magic.errors import FileError, SamplerError
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.perfdata.records import GUEST_MAGIC
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

pytestmark = [pytest.mark.root, pytest.mark.alone]
PARENT = """
import os, sys, time
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess
command = sys.argv[2:] or None
process = SamplerProcess.start(SamplerOptions(["cpu-clock"], output=sys.argv[1], command=command))
print("ready", process.pid, flush=True)
if os.fork():
    time.sleep(60)
time.sleep(3)  # a forked child keeps the pipe to the recording process open
"""


@pytest.mark.perf
def test_killed_at_any_moment_the_file_is_readable(
    tmp_path: Path, perf: Callable[..., str]
) -> None:
    moments = random.Random(7)
    for i in range(4):
        path = tmp_path / f"data{i}"
        options = SamplerOptions(["cpu-clock"], frequency=5000, callchain=True, output=str(path))
        with running(THREADS), SamplerProcess.start(options) as process:
            lived = moments.uniform(0.0, 1.2)
            time.sleep(lived)
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(SamplerError, match="SIGKILL") as caught:
                process.wait(5)
        assert str(path) in caught.value.hint
        file = read(path)
        assert all("not flushed" in damage.message for damage in file.damage)
        # up to the last flush: what is missing is younger than half a second
        times = file.samples.time
        assert lived < 0.6 or float(times.max() - times.min()) / 1e9 > lived - 0.6
        assert len(perf("script", "-i", path, "-F", "pid", "-G").split()) == len(file.samples)


@pytest.mark.parametrize("command", [[], spin(60)])
def test_it_ends_with_its_parent(tmp_path: Path, command: list[str]) -> None:
    """A SIGKILL of the parent, while a fork of it holds all its pipes: the file gets finished."""
    path = tmp_path / "data"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), *command],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(kvmperf_magic.__file__).parents[1])},
    )
    assert parent.stdout is not None
    with parent.stdout:
        word, pid = parent.stdout.readline().split()
        assert word == b"ready"
        started = _children(int(pid))
        assert len(started) == bool(command)
        time.sleep(0.3)
        parent.kill()
        parent.wait()
        assert until(lambda: not alive(int(pid)), 15)
        assert not any(alive(c) for c in started)
    file = read(path)
    assert file.kvmperf["ended"] > file.kvmperf["started"]
    assert len(file.samples)


def _children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_command_ends_with_a_killed_sampler(tmp_path: Path) -> None:
    options = SamplerOptions(["cpu-clock"], command=spin(60), output=str(tmp_path / "data"))
    with SamplerProcess.start(options) as process:
        (command,) = _children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SamplerError):
            process.wait(5)
    assert until(lambda: not alive(command))


def test_stop_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    code = f"import subprocess; subprocess.run({spin(60)!r})"
    options = SamplerOptions(
        ["cpu-clock"], command=[sys.executable, "-c", code], output=str(tmp_path / "data")
    )
    with SamplerProcess.start(options) as process:
        (command,) = _children(process.pid)
        assert until(lambda: _children(command))
        (below,) = _children(command)
        process.stop()
    assert not alive(command)
    assert until(lambda: not alive(below))
    assert process.command_status == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_signal_finishes_the_file(tmp_path: Path, number: signal.Signals) -> None:
    options = SamplerOptions(["cpu-clock"], output=str(tmp_path / "data"))
    with SamplerProcess.start(options) as process:
        os.kill(process.pid, signal.SIGINT)  # the parent's business, not heard
        assert not process.wait(0.3)
        os.kill(process.pid, number)
        assert process.wait(3)
    assert "progress" in read(tmp_path / "data").kvmperf


def test_duration_ends_it(tmp_path: Path) -> None:
    options = SamplerOptions(["cpu-clock"], duration=0.4, output=str(tmp_path / "data"))
    with SamplerProcess.start(options) as process:
        assert process.wait(3)
        assert process.stats().elapsed == pytest.approx(0.4, abs=0.2)


@pytest.mark.parametrize("command", [None, [sys.executable, "-S", "-c", "pass"]])
def test_what_lingers_samples_no_more_and_takes_what_is_still_found(
    tmp_path: Path, command: list[str] | None
) -> None:
    path = tmp_path / "data"
    options = SamplerOptions(["cpu-clock"], command=command, linger=True, output=str(path))
    with SamplerProcess.start(options) as process:
        if command is None:
            process.enough()
        assert until(lambda: not process.running(), 30)
        assert not process.wait(0)
        bytes_then = path.stat().st_size
        process.attach(GUEST_MAGIC, b"found at the end")
        process.stop()
    file = read(path)
    assert file.guest_notes(GUEST_MAGIC) == [b"found at the end"]
    assert file.samples.record.max(initial=0) * 8 < bytes_then
    assert "progress" in file.kvmperf


def test_a_forgotten_recording_is_no_leak(tmp_path: Path) -> None:
    process = SamplerProcess.start(SamplerOptions(["cpu-clock"], output=str(tmp_path / "data")))
    stream = SamplerProcess.start(SamplerOptions(["cpu-clock"]))
    pids = [process.pid, stream.pid]
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    del process, stream
    assert not any(alive(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) < descriptors  # noqa: PTH208


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.perf
def test_a_full_disk_keeps_what_was_recorded(small_disk: Path, perf: Callable[..., str]) -> None:
    path = small_disk / "data"
    options = SamplerOptions(
        ["cpu-clock"], command=spin(20), user_stack=4096, frequency=4000, output=str(path)
    )
    with SamplerProcess.start(options) as process:
        with pytest.raises(FileError, match="No space left") as caught:
            process.wait(10)
        assert not process.running()
    assert caught.value.path == str(path)
    assert "free some space" in caught.value.hint
    file = read(path)
    assert len(file.samples) > 50
    assert len(perf("script", "-i", path, "-F", "pid", "-G").split()) == len(file.samples)


def test_a_reader_that_goes_away_ends_the_stream() -> None:
    process = SamplerProcess.start(SamplerOptions(["cpu-clock"]))
    pid, stream = process.pid, process.stream
    assert stream is not None
    process.close()
    assert not alive(pid)
    assert process.stream is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(stream)
