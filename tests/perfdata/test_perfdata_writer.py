"""What we write: perf reads it, we read it back, and nothing that happens to it spoils it."""

from __future__ import annotations

import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import written
from perfdump import ours
from written import EVENTS, SAMPLES, VMM

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata.abi import MISC_GUEST_KERNEL, MISC_MMAP_BUILD_ID, RecordType
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.writer import PerfDataWriter, PipeWriter

Perf = Callable[..., str]
IN_TIME = sorted(SAMPLES, key=lambda one: one.time)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "perf.data"
    with PerfDataWriter(path, EVENTS) as writer:
        written.write(writer)
    return path


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "stream"
    with path.open("wb") as out:
        written.write(PipeWriter(out.fileno(), EVENTS))
    return path


@pytest.fixture(params=["file", "stream"])
def either(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def check(found: PerfFile) -> None:
    """All of what written.py writes is there."""
    theirs = [(s.cpu, s.time, s.misc, s.pid, s.tid, s.ip, s.period, list(s.chain)) for s in IN_TIME]
    assert sorted(tuple(vars(s).values()) for s in ours(found)) == sorted(theirs)
    assert found.samples.time.tolist() == [s.time for s in IN_TIME]
    assert sorted(found.samples.event) == sorted(s.event for s in SAMPLES)
    assert [e.name for e in found.events] == ["cpu-clock", "task-clock"]
    assert [e.ids.tolist() for e in found.events] == [[11, 12], [21, 22]]
    side = found.sideband
    assert side.comm["comm"].tolist() == ["hello", "CPU 0/KVM"]
    assert side.mmap["filename"].tolist()[1:] == [
        f"[guest.kernel.kallsyms.{VMM}]_text",
        "/bin/hello",
        "/bin/vmm",
    ]
    assert side.mmap["build_id"].tolist() == ["", "", "", "01" * 20]
    assert side.lost["lost"].tolist() == [3, 5]
    assert side.lost["kind"].tolist() == [RecordType.LOST, RecordType.LOST_SAMPLES]
    assert side.throttle["id"].tolist() == [11]
    assert found.kvmperf == written.NOTE


def test_we_read_it_back(either: Path) -> None:
    found = read(either)
    check(found)
    assert found.damage == []
    assert found.header.hostname == "höst"
    assert found.header.cmdline == ["kvmperf", "record", "--guest"]
    assert [b.filename for b in found.build_ids] == ["/bin/hello", "[guest.kernel.kallsyms.77]"]
    assert [b.pid for b in found.build_ids] == [-1, VMM]


@pytest.mark.perf
def test_perf_script_reads_it(either: Path, perf: Perf) -> None:
    # perf 6.1 leaves guest samples out unless it is given a guest kernel
    fields = "tid,pid,cpu,time,event,period,ip"
    out = perf("script", "-i", either, "--guestkallsyms=/dev/null", "--ns", "-G", "-F", fields)
    pattern = r" *(\d+)/(\d+) +\[(\d+)\] +(\d+)\.(\d+): +(\d+) +(\S+): +([0-9a-f]+)$"
    assert sorted(re.findall(pattern, out, re.MULTILINE)) == sorted(
        (
            *(str(s.pid), str(s.tid), f"{s.cpu:03}", str(s.time // 10**9)),
            *(f"{s.time % 10**9:09}", str(s.period), EVENTS[s.event].name, f"{s.ip:x}"),
        )
        for s in SAMPLES
    )


@pytest.mark.perf
def test_perf_report_reads_it(either: Path, perf: Perf) -> None:
    report = perf("report", "-i", either, "--stdio", "-g", "none")
    for i, event in enumerate(EVENTS):
        periods = [s.period for s in SAMPLES if s.event == i]
        assert f"# Samples: {len(periods)}  of event '{event.name}'" in report
        assert f"# Event count (approx.): {sum(periods)}" in report


@pytest.mark.perf
def test_perf_kvm_reads_it(file: Path, perf: Perf) -> None:
    report = perf("kvm", "--guest", "report", "-i", file, "--stdio", "-g", "none", "--sort", "dso")
    expected = []
    for i in range(len(EVENTS)):
        kernel = sum(s.period for s in SAMPLES if s.event == i and s.misc == MISC_GUEST_KERNEL)
        expected.append(f"{100 * kernel / sum(s.period for s in SAMPLES if s.event == i):.2f}")
    assert re.findall(rf"([\d.]+)% +\[guest.kernel.kallsyms.{VMM}\]", report) == expected


@pytest.mark.perf
def test_perf_reads_the_header(file: Path, perf: Perf) -> None:
    header = perf("report", "-i", file, "--header-only", "-I")
    for line in (
        *("hostname : höst", "os release : 6.18.0-test", "perf version : kvmperf 0.1"),
        *("arch : x86_64", "nrcpus online : 2", "nrcpus avail : 2", "cpudesc : Some CPU"),
        *("cpuid : GenuineIntel,6,1,2", "total memory : 123456 kB", "sibling sockets : 0-1"),
        *("cmdline : kvmperf record --guest", "CPU 1: Core ID 1, Die ID 0, Socket ID 0"),
        *("name = task-clock, , id = { 21, 22 }", "pmu mappings: software = 1, tracepoint = 2"),
        *("node0 meminfo  : total = 1000 kB", "clockid: monotonic (1)"),
        *("time of first sample : 1000.000000", "clockid frequency: 1000 MHz"),
    ):
        assert line in header, line
    assert perf("evlist", "-i", file).split() == ["cpu-clock", "task-clock"]
    assert "sample_type: IP|TID|TIME|CALLCHAIN|CPU|PERIOD|IDENTIFIER" in perf(
        "evlist", "-v", "-i", file
    )
    assert perf("buildid-list", "-i", file).splitlines() == [
        f"{'ab' * 20} /bin/hello",
        f"{'cd' * 20} [guest.kernel.kallsyms.77]",
    ]


def test_comms_by_time(tmp_path: Path) -> None:
    """A COMM names a thread, a FORK hands the name on, ties go by the file's order."""
    path = tmp_path / "perf.data"
    st = written.SAMPLE_TYPE

    def at(time: int) -> bytes:
        return r.sample_id(st, time=time, id=11)

    with PerfDataWriter(path, EVENTS) as writer:
        writer.write(r.comm(1, 1, "sh", trailer=at(0)), r.fork(2, 1, 2, 1, 0, at(0)))
        writer.write(r.fork(3, 9, 3, 9, 0, at(0)))  # of nobody we know
        writer.write(r.comm(2, 2, "child", trailer=at(50)))
        writer.write(r.comm(1, 1, "renamed", exec=True, trailer=at(40)))
        writer.write(r.fork(4, 1, 4, 1, 40, at(40)))
        writer.flush()
    side = read(path).sideband
    asked = [(1, 0), (1, 39), (1, 40), (2, 49), (2, 50), (3, 99), (4, 39), (4, 40), (0, 5), (-1, 5)]
    tid, time = np.array(asked).T
    named = side.comm_of(tid.astype(np.int32), time.astype(np.uint64)).values().tolist()
    assert named == [
        *("sh", "sh", "renamed", "sh", "child", ":3", ":4", "renamed", "swapper", ":-1")
    ]
    assert side.comm["exec"].tolist() == [False, True, False]


def test_guests_of_ids(tmp_path: Path) -> None:
    """ID_INDEX tells which guest's vCPU an event's samples are of."""
    path = tmp_path / "perf.data"
    entries = [r.IdIndexEntry(11, 0, 0, -1, VMM, 3), r.IdIndexEntry(12, 1, 1, -1)]
    many = [r.IdIndexEntry(1000 + i, 2) for i in range(3000)]  # more than one record holds
    with PerfDataWriter(path, EVENTS) as writer:
        writer.write(r.id_index([*many, *entries]))
        writer.write(*(written.sample(one) for one in SAMPLES))
        writer.flush()
    found = read(path)
    assert found.counts[RecordType.ID_INDEX] == 3
    mine = (found.samples.event == 0) & (found.samples.cpu == 0)
    assert mine.any()
    assert np.all(found.samples.machine_pid == np.where(mine, VMM, 0))
    assert np.all(found.samples.vcpu == np.where(mine, 3, -1))


def test_build_id_bit_without_a_build_id(tmp_path: Path) -> None:
    """The kernel sets the bit for all while one recorder asks for build ids: see the inode."""
    path = tmp_path / "perf.data"
    plain = r.mmap2(5, 5, 0x1000, 0x1000, 0, "/bin/a", major=8, minor=1, inode=77)
    kind, misc, size = struct.unpack_from("<IHH", plain)
    marked = struct.pack("<IHH", kind, misc | MISC_MMAP_BUILD_ID, size) + plain[8:]
    true = r.mmap2(5, 5, 0x3000, 0x1000, 0, "/bin/b", build_id=bytes(range(20)))
    with PerfDataWriter(path, EVENTS) as writer:
        writer.write(marked, true)
        writer.flush()
    assert read(path).sideband.mmap["build_id"].tolist() == ["", bytes(range(20)).hex()]


KILLED = """
import sys, written
from kvmperf_magic.perfdata.writer import PerfDataWriter, feature_records
writer = PerfDataWriter(sys.argv[1], written.EVENTS)
writer.write(feature_records(written.FEATURES))
for record in written.all_records():
    writer.write(record)
writer.flush()
print(flush=True)
while True:
    for one in written.SAMPLES:
        writer.write(written.sample(one))
    writer.flush()
"""


@pytest.mark.perf
@pytest.mark.parametrize("after", [0.0, 0.05, 0.2])
def test_killed(tmp_path: Path, perf: Perf, after: float) -> None:
    """kill -9: perf and we read up to the last flush, and agree."""
    path = tmp_path / "perf.data"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(after)
        child.send_signal(signal.SIGKILL)
    found = read(path)
    assert len(found.samples) >= len(SAMPLES)
    assert len(found.samples) % len(SAMPLES) == 0
    assert found.kvmperf == written.NOTE
    assert found.header.os_release == "6.18.0-test"
    assert [b.pid for b in found.build_ids] == [-1, VMM]
    stats = perf("report", "-i", path, "--stats")
    assert re.search(rf"SAMPLE events: +{len(found.samples)} ", stats)
    guest = perf("kvm", "--guest", "report", "-i", path, "--stdio", "-g", "none", "--sort", "dso")
    assert f"[guest.kernel.kallsyms.{VMM}]" in guest


@pytest.mark.perf
def test_killed_at_once(tmp_path: Path, perf: Perf) -> None:
    """A file that holds nothing yet is whole, and perf says that it holds no samples."""
    path = tmp_path / "perf.data"
    PerfDataWriter(path, EVENTS).close()
    assert len(read(path).samples) == 0
    assert "cpu-clock" in perf("evlist", "-i", path)
    stats = perf("report", "-i", path, "--stats")
    assert re.search(r"FINISHED_ROUND events: +1 ", stats)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """What a full disk does to a writer: a write is cut short, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_disk_full(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    one = b"".join(written.sample(s) for s in SAMPLES)
    with PerfDataWriter(path, EVENTS) as writer:
        writer.write(one)
        room = path.stat().st_size + len(one) + 100
        with no_file_longer_than(room):
            writer.write(one)
            with pytest.raises(FileError, match="cannot be written") as caught:
                writer.write(one, one)
        assert "free some space" in caught.value.hint
        writer.finish(written.FEATURES)
    found = read(path)
    assert len(found.samples) == 2 * len(SAMPLES)
    assert found.damage == []
    assert found.header.hostname == "höst"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        PerfDataWriter(tmp_path / "none" / "perf.data", EVENTS)


def test_starts_without_numpy() -> None:
    """The recording process imports these; numpy alone would take longer than all of it."""
    code = "import sys; import kvmperf_magic.perfdata.writer, kvmperf_magic.perfdata.features;"
    code += "sys.exit('numpy' in sys.modules)"
    path = ":".join(filter(None, sys.path))
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False)
    assert done.returncode == 0
