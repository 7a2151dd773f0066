"""However a recording ends, what came until then is kept and readable."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import kvmperf_magic as kvm
from kvmperf_magic import recorder
from kvmperf_magic.errors import SamplerError
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.recorder import Recorder

pytestmark = [pytest.mark.root, pytest.mark.alone]

_SCRIPT = """
import sys, kvmperf_magic as kvm
recording = kvm.record(host=True, frequency=1000, duration=30, output=sys.argv[1])
print(len(recording), recording.duration, recording.lost)
"""


def started(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    end = time.monotonic() + 10
    while time.monotonic() < end and not (path.exists() and path.stat().st_size > 100_000):
        time.sleep(0.05)
    time.sleep(1)
    return process


def test_ctrl_c_ends_it_and_keeps_the_data(tmp_path: Path) -> None:
    with started(tmp_path / "data") as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "interrupted: what was recorded until now is kept" in err
    found = re.match(r"(\d+) ([\d.]+) 100.00% complete", out.strip())
    assert found, out
    assert int(found[1]) > 300
    assert 0.3 < float(found[2]) < 20


def test_a_killed_parent_leaves_a_whole_file(tmp_path: Path, perf: Callable[..., str]) -> None:
    path = tmp_path / "data"
    with started(path) as process:
        process.kill()
        process.communicate()
    for _ in range(100):  # the recorder notices, and finishes the file
        time.sleep(0.05)
        if not kvm.open(path).lost.damage:
            break
    recording = kvm.open(path)
    assert not recording.lost.damage
    assert recording.header.hostname == os.uname().nodename
    assert len(perf("script", "-i", path, "-F", "pid").split()) == len(recording) > 300


def test_a_killed_recorder_is_an_error_that_names_the_file(
    tmp_path: Path, perf: Callable[..., str]
) -> None:
    path = tmp_path / "data"
    recorder = Recorder(path, host=True, frequency=2000).__enter__()
    recorder.wait(1.2, progress=False)
    os.kill(recorder.process.pid, signal.SIGKILL)
    with pytest.raises(SamplerError, match="SIGKILL") as caught:
        recorder.__exit__(None, None, None)
    assert str(path) in caught.value.hint
    recording = kvm.open(path)
    assert len(recording) > 300
    assert "[unknown]" not in set(recording.filter(modes="host-kernel").samples["symbol"])
    assert len(perf("script", "-i", path, "-F", "pid").split()) == len(recording)


def test_an_existing_file_becomes_old(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for _ in range(2):
        kvm.record(host=True, frequency=100, duration=0.2, output=path, progress=False)
    assert kvm.open(f"{path}.old").header.hostname == kvm.open(path).header.hostname


def test_a_cut_file_is_shown_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "data"
    whole = kvm.record(host=True, frequency=2000, duration=0.5, output=path, progress=False)
    data = path.read_bytes()
    offset = int.from_bytes(data[40:48], "little")  # of the data section
    middle = int(read(path).samples.record[len(whole) // 2]) * 8
    path.write_bytes(data[: offset + middle])
    cut = kvm.open(path)
    assert 0 < len(cut) < len(whole)
    of_cut, of_whole = (
        set(zip(r.samples["time"].tolist(), r.samples["cpu"].tolist(), strict=True))
        for r in (cut, whole)
    )
    assert of_cut < of_whole
    assert "damaged at 0x" in str(cut.lost)
    assert "damaged at 0x" in repr(cut)


def test_what_was_lost_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    spin = [sys.executable, "-S", "-c", "i = 0\nwhile i < 20000000: i += 1"]
    with Recorder(
        tmp_path / "data", said.append, host=True, command=spin, frequency=8000, mmap_pages=1
    ) as recorder:
        os.kill(recorder.process.pid, signal.SIGSTOP)  # nobody empties the ring meanwhile
        time.sleep(0.3)
        os.kill(recorder.process.pid, signal.SIGCONT)
        recorder.wait(None, progress=False)
    recording = recorder.recording
    assert recording.lost.records >= recorder.process.stats().lost > 100
    assert recording.lost.complete < 1
    assert f"{recording.lost.records:,} lost" in repr(recording)
    assert any(f"{recording.lost.records:,} lost" in line for line in said)


@pytest.mark.parametrize("what", ["Collector.stop", "TaskSampler.__init__"])
def test_no_ctrl_c_leaves_a_process_that_records(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look at the guests can take a while: this is where it comes."""
    name, method = what.split(".")
    of = getattr(recorder, name)
    plain = getattr(of, method)

    def interrupted(*given: object, **told: object) -> None:
        monkeypatch.setattr(of, method, plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(of, method, interrupted)
    one = Recorder(tmp_path / "data", lambda _: None, guest=True, host=True, events="cpu-clock")
    with pytest.raises(KeyboardInterrupt), one:
        pass
    assert not one.process.running()
    assert not [t for t in threading.enumerate() if t.name == "kvmperf-tasks"]


def test_two_of_one_name_are_two(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "data"
    wishes = {"host": True, "frequency": 500}
    with (
        Recorder(path, said.append, **wishes) as first,
        Recorder(path, said.append, command=["true"], **wishes) as second,
    ):
        second.wait(progress=False)
    assert second.recording.path == str(path)
    assert first.recording.path == f"{path}.old"
    assert any("data.old" in line for line in said)
    assert first.recording.duration > second.recording.duration
