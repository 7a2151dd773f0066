"""Recordings by the sampler: read by perf, counted against the CPU time that was burnt."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sampling import THREADS, record, running, spin

from kvmperf_magic.demo.run import MicroGuest
from kvmperf_magic.errors import EventError, FileError, TargetError
from kvmperf_magic.guests.discovery import machines
from kvmperf_magic.perfdata.abi import MISC_GUEST_KERNEL, MISC_GUEST_USER, RecordType, SampleType
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.stream import StreamReader
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

pytestmark = [pytest.mark.root, pytest.mark.alone]
Perf = Callable[..., str]


def evlist(perf: Perf, path: Path) -> list[dict[str, str]]:
    """What `perf evlist -v` says of each event."""
    lines = perf("evlist", "-v", "-i", path).splitlines()
    return [dict(re.findall(r"([a-z_0-9]+)(?: \})?: ([^,]+)", line)) for line in lines]


def burnt(path: Path) -> float:
    """CPU seconds by cpu-clock's periods."""
    file = read(path)
    assert not file.damage
    return float(file.samples.period.sum()) / 1e9


@pytest.mark.perf
def test_a_command_is_sampled_as_long_as_it_runs(tmp_path: Path, perf: Perf) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    stats = record(ours, command=spin(0.5), frequency=2000, callchain=True)
    perf("record", "-q", "-e", "cpu-clock", "-g", "-F2000", "-B", "-o", theirs, *spin(0.5))
    for path in (ours, theirs):
        assert burnt(path) == pytest.approx(0.5, rel=0.15)
    file = read(ours)
    assert set(file.samples.pid.tolist()) == {int(file.samples.pid[0])}
    assert len(file.samples) == stats.samples  # so few are counted
    assert stats.lost == 0
    # the same attr, but that ours can be told from others by IDENTIFIER, and says the CPU
    mine, perfs = evlist(perf, ours)[0], evlist(perf, theirs)[0]
    assert mine.pop("sample_type") == "IP|TID|TIME|CALLCHAIN|CPU|PERIOD|IDENTIFIER"
    assert perfs.pop("sample_type") == "IP|TID|TIME|CALLCHAIN|PERIOD"
    assert mine == perfs
    named = {build_id.filename for build_id in file.build_ids}
    assert any("libc.so" in name for name in named)  # mapped while it was recorded
    script = perf("script", "-i", ours, "-F", "pid,time,period", "-G")
    assert len(script.splitlines()) == len(file.samples)


@pytest.mark.perf
@pytest.mark.compiler  # readelf comes with one
def test_the_whole_machine(tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "data"
    with running(THREADS) as program:
        record(path, 0.5, frequency=1000, events=["cycles"])
    pids = set(perf("script", "-i", path, "-F", "pid").split())
    cpus = os.cpu_count() or 1
    file = read(path)
    # an idle CPU is sampled less often, with the same period
    assert len(file.samples) == pytest.approx(0.5 * 1000 * cpus, rel=0.5)
    assert [e.name for e in file.events][-1] == "dummy:HG"
    assert str(program.pid) in pids
    # kernel and user code that ran before has names by the synthesised maps
    symbols = perf("report", "-i", path, "--stdio", "-s", "sym", "--pid", program.pid)
    assert (
        "sha256" in symbols
        or "SHA256" in symbols
        or "libcrypto" in perf("report", "-i", path, "--stdio", "-s", "dso", "--pid", program.pid)
    )
    assert "[k] 0x" not in perf("report", "-i", path, "--stdio", "-s", "sym")
    listed = dict(
        line.split(" ", 1)[::-1] for line in perf("buildid-list", "-i", path).splitlines()
    )
    kernel = perf("buildid-list", "-k").strip()
    assert listed["[kernel.kallsyms]"] == kernel
    libc = next(name for name in listed if "libc.so" in name or "ld-linux" in name)
    notes = subprocess.run(["readelf", "-n", libc], check=True, capture_output=True, text=True)
    assert f"Build ID: {listed[libc]}" in notes.stdout


def test_running_threads_and_what_they_start(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with running(THREADS) as program:
        tids = {int(t) for t in os.listdir(f"/proc/{program.pid}/task")}  # noqa: PTH208
        record(path, 0.4, pids=[program.pid], frequency=1000)
        one = max(tids)
        record(tmp_path / "tid", 0.3, tids=[one], frequency=1000)
    samples = read(path).samples
    assert set(samples.pid.tolist()) == {program.pid}
    assert len(set(samples.tid.tolist())) == 2
    assert set(samples.tid.tolist()) <= tids
    assert set(read(tmp_path / "tid").samples.tid.tolist()) == {one}


def test_threads_started_later_are_inherited(tmp_path: Path) -> None:
    code = "import time, subprocess, sys\nprint('ready', flush=True)\ntime.sleep(0.3)\n"
    code += f"subprocess.run({spin(0.2)!r})\ntime.sleep(9)"
    with running(code) as program:
        record(tmp_path / "data", 1.2, pids=[program.pid], frequency=1000)
    file = read(tmp_path / "data")
    children = {int(t) for t in file.samples.tid if t != program.pid}
    assert len(children) == 1
    assert children <= set(file.sideband.fork["tid"].tolist())
    periods = file.samples.period[file.samples.tid != program.pid].sum()
    assert periods / 1e9 == pytest.approx(0.2, rel=0.5)


def test_it_ends_when_all_targets_have(tmp_path: Path) -> None:
    program = subprocess.Popen(spin(0.3))
    options = SamplerOptions(["cpu-clock"], pids=[program.pid], output=str(tmp_path / "data"))
    with SamplerProcess.start(options) as process:
        program.wait()
        assert process.wait(3)
    assert len(read(tmp_path / "data").samples) > 100


def test_cpus(tmp_path: Path) -> None:
    record(tmp_path / "data", 0.2, cpus=[0], frequency=500)
    file = read(tmp_path / "data")
    assert set(file.samples.cpu.tolist()) == {0}
    assert [len(e.ids) for e in file.events] == [1, 1]


@pytest.mark.perf
def test_tracepoints_are_recorded_raw_and_all(tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "data"
    code = "import os\nfor _ in range(100): os.sched_yield(); os.getppid()"
    command = [sys.executable, "-I", "-S", "-c", code]
    record(path, command=command, events=["syscalls:sys_enter_getppid,cpu-clock"], frequency=1000)
    file = read(path)
    assert file.events[0].attr.sample_type & SampleType.RAW
    assert (file.samples.event == 0).sum() == 100
    assert (file.samples.event == 1).any()
    # with the formats in the file perf decodes them
    script = perf("script", "-i", path, "-F", "event,trace").splitlines()
    assert len(script) == len(file.samples)
    assert sum("getppid" in line for line in script) == 100


@pytest.mark.perf
def test_groups_are_told(tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "data"
    record(path, command=spin(0.1), events=["{cpu-clock,page-faults}:u,task-clock"])
    assert perf("evlist", "-g", "-i", path).splitlines()[:2] == [
        "{cpu-clock,page-faults}",
        "task-clock",
    ]
    file = read(path)
    assert {0, 1, 2} <= set(file.samples.event.tolist())


@pytest.mark.perf
def test_user_stacks_and_registers(tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "data"
    record(path, command=spin(0.2), user_stack=4096, frequency=500)
    dump = perf("report", "-D", "-i", path)
    assert dump.count("ustack: size") > 30
    assert re.search(r"user regs: mask 0x\w+ ABI 64-bit", dump)


def test_what_a_small_ring_loses_is_counted(tmp_path: Path) -> None:
    """Records that overflow while the sampler cannot run are lost, and both counts agree.

    On one CPU: the kernel tells of a loss in the next record of the same ring, so a program that
    moves on leaves losses of which no record tells.
    """
    path = tmp_path / "data"
    cpu = min(os.sched_getaffinity(0))
    options = SamplerOptions(
        ["cpu-clock"], command=spin(0.7, cpu), frequency=8000, mmap_pages=1, output=str(path)
    )
    with SamplerProcess.start(options) as process:
        os.kill(process.pid, 19)  # SIGSTOP
        time.sleep(0.4)
        os.kill(process.pid, 18)
        assert process.wait(5)
        stats = process.stats()
    assert stats.lost > 100
    file = read(path)
    told = int(file.sideband.lost["lost"].sum())
    assert told == pytest.approx(stats.lost, rel=0.1)
    assert file.kvmperf["progress"]["lost"] == stats.lost


def test_the_file_tells_the_counts_of_its_end(tmp_path: Path) -> None:
    """Not those of the last time that somebody was told how it goes, half a second earlier."""
    path = tmp_path / "data"
    options = SamplerOptions(["cpu-clock"], command=spin(0.2), output=str(path))
    with SamplerProcess.start(options) as process:
        assert process.wait(30)
        stats = process.stats()
    told = read(path).kvmperf["progress"]
    assert told["elapsed"] >= 0.2
    assert {name: told[name] for name in ("samples", "lost", "throttled", "dropped")} == {
        name: getattr(stats, name) for name in ("samples", "lost", "throttled", "dropped")
    }


def test_an_existing_file_becomes_old(tmp_path: Path) -> None:
    path = tmp_path / "data"
    record(path, command=spin(0.05))
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    record(path, command=spin(0.05))
    assert hashlib.sha256((tmp_path / "data.old").read_bytes()).hexdigest() == first
    assert len(read(path).samples)


def test_the_command_has_our_output_and_its_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    options = SamplerOptions(
        ["cpu-clock"], command=[sys.executable, "-c", code], output=str(tmp_path / "data")
    )
    with SamplerProcess.start(options) as process:
        assert process.wait(10)
        assert process.command_status == 7
    assert capfd.readouterr() == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"events": ["nonsense"]}, EventError, "nonsense"),
        ({"events": ["kvm:no_such"]}, EventError, "no tracepoint kvm:no_such"),
        ({"pids": [2**22 + 7]}, TargetError, "no process"),
        ({"cpus": [4711]}, TargetError, "4711 is not online"),
        ({"command": ["/nonexistent/program"]}, TargetError, "No such file"),
        ({"mmap_pages": 3}, TargetError, "ring of 3 pages"),
        ({"output": "/nonexistent/folder/data"}, FileError, "No such file"),
    ],
)
def test_errors_of_the_child_are_raised_here(
    tmp_path: Path, options: dict[str, object], error: type[Exception], says: str
) -> None:
    told = {"events": ["cpu-clock"], "output": str(tmp_path / "data"), **options}
    with pytest.raises(error, match=says) as caught:
        SamplerProcess.start(SamplerOptions.from_json(told))
    assert getattr(caught.value, "hint", "")


def _stream(process: SamplerProcess) -> tuple[StreamReader, int, int]:
    """All of a stream until its end: the reader, the number of batches and of samples."""
    reader, batches, samples = StreamReader(), 0, 0
    assert process.stream is not None
    while data := os.read(process.stream, 1 << 20):
        samples += len(reader.feed(data).samples)
        batches += 1
    return reader, batches, samples


def test_a_stream_is_read_while_it_is_recorded() -> None:
    with SamplerProcess.start(SamplerOptions(["cpu-clock"], frequency=1000)) as process:
        stopper = threading.Timer(0.6, process.stop)
        stopper.start()
        reader, batches, samples = _stream(process)
        stopper.join()
        stats = process.stats()
    assert batches > 3
    assert samples > 300
    assert samples == pytest.approx(stats.samples, rel=0.25)
    assert [e.name for e in reader.events] == ["cpu-clock", "dummy:HG"]
    assert reader.pending == 0
    assert reader.kvmperf["progress"]["dropped"] == 0


def test_a_slow_reader_loses_nothing_while_the_queue_lasts() -> None:
    """The pipe is full long before the end; what waits in memory comes when it is read."""
    options = SamplerOptions(
        ["cpu-clock"], command=spin(0.5), frequency=4000, user_stack=8192, duration=5
    )
    with SamplerProcess.start(options) as process:
        time.sleep(1.0)
        stats = process.stats()
        assert stats.bytes > 4 << 20
        _, _, samples = _stream(process)
    assert samples > 1000
    assert stats.dropped == 0


def files_events(file: PerfFile) -> dict[str, int]:
    counts = np.bincount(file.samples.event, minlength=len(file.events))
    return {event.name: int(n) for event, n in zip(file.events, counts, strict=True)}


@pytest.mark.kvm
@pytest.mark.perf
def test_a_guest_is_sampled(tmp_path: Path, perf: Perf) -> None:
    """Where the guest runs natively its samples say so; perf keeps host and guest apart."""
    path = tmp_path / "data"
    with MicroGuest(1) as guest:
        told = [machine.to_json() for machine in machines()]
        vmm = guest.pid
        record(path, 0.5, pids=[vmm], host=False, guest=True, machines=told)
    file = read(path)
    modes = file.samples.misc & 7
    assert np.isin(modes, (MISC_GUEST_KERNEL, MISC_GUEST_USER)).mean() > 0.9
    assert set(file.samples.pid.tolist()) == {vmm}
    maps = [row for row in file.sideband.mmap.rows() if row["filename"].startswith("[guest")]
    assert (vmm, f"[guest.kernel.kallsyms.{vmm}]") in [(m["pid"], m["filename"]) for m in maps]
    assert file.kvmperf["machines"] == told
    report = perf("kvm", "--guest", "-i", path, "report", "--stdio", "-n", "-s", "pid")
    assert "cpu-clock" in report
    # the guest's map does not hide the host's kernel from a perf that is not told of guests
    assert "[kernel.kallsyms]" in perf("script", "-i", path, "--show-mmap-events")


def test_cost_of_recording(tmp_path: Path) -> None:
    """Well under one per cent of a core at 4 kHz on every CPU, even on a loaded test machine."""
    options = SamplerOptions(["cpu-clock"], frequency=4000, output=str(tmp_path / "data"))
    with running(THREADS), SamplerProcess.start(options) as process:
        spent = Path(f"/proc/{process.pid}/schedstat")
        before = int(spent.read_text().split()[0])
        time.sleep(2)
        used = (int(spent.read_text().split()[0]) - before) / 2e9
        process.stop()
    assert files_events(read(tmp_path / "data"))["cpu-clock"] > 4000 * 2
    assert used < 0.01
    assert read(tmp_path / "data").counts[RecordType.FINISHED_ROUND] >= 7
