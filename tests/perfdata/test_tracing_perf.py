"""Tracepoints of this machine: every field of every sample as perf has it, both ways."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bigendian import BigEndian
from guest import running_guest
from tracepoint_rows import our_rows, perf_rows, perf_with_python

import kvmperf_magic as kvm
from kvmperf_magic.perfdata.abi import EventType
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.sampler.eventnames import tracefs
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

pytestmark = [pytest.mark.root, pytest.mark.perf]

EVENTS = (
    "sched:sched_switch",
    "sched:sched_wakeup",
    "sched:sched_process_exec",  # a string of any length
    "sched:sched_process_fork",
    "sched:sched_stat_runtime",
    "irq:softirq_entry",
    "irq:irq_handler_entry",
    "kmem:kmalloc",
    "kmem:kfree",
    "raw_syscalls:sys_enter",  # an array of six longs
    "raw_syscalls:sys_exit",
    "syscalls:sys_enter_openat",
    "workqueue:workqueue_queue_work",
    "signal:signal_generate",
    "timer:timer_start",
)
KVM = ("kvm:kvm_pio", "kvm:kvm_userspace_exit", "kvm:kvm_set_irq", "kvm:kvm_exit")
# what perf script prints beside the name of a number, and the column that is to be the same
NAMES = {
    "sched:sched_switch": ("prev_state_name", r"prev_state=(\S+)"),
    "irq:softirq_entry": ("vec_name", r"action=(\w+)"),
    "kmem:kmalloc": ("gfp_flags_name", r"gfp_flags=(\S+)"),
    "kvm:kvm_userspace_exit": ("reason_name", r"reason (\S+)"),
    "kvm:kvm_emulate_insn": ("flags_name", r"\((\w*)\)"),
}
COMMAND = [
    "sh",
    "-c",
    "i=0; while [ $i -lt 10 ]; do ls / >/dev/null; /bin/true & i=$((i+1)); done; sleep 0.05; wait",
]


def existing(events: tuple[str, ...]) -> list[str]:
    return [e for e in events if (tracefs() / "events" / e.replace(":", "/")).is_dir()]


def sampled(path: Path, events: list[str], *, stream: bool) -> None:
    """By our sampler, every occurrence, on all CPUs."""
    options = SamplerOptions(
        output=None if stream else str(path),
        events=events,
        command=COMMAND,
        system_wide=True,
        period=1,
        mmap_pages=512,
    )
    with SamplerProcess.start(options) as process:
        if process.stream is not None:
            with path.open("wb") as file:
                while piece := os.read(process.stream, 1 << 20):
                    file.write(piece)
        process.wait(30)


def agrees(perf: Callable[..., str], folder: Path, path: Path) -> Counter[str]:
    """Asserts that perf and we read the same; how often each event is there."""
    perf_with_python(perf)
    theirs, ours = perf_rows(perf, folder, path), our_rows(read(path))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one == other
    return Counter(row[2] for row in ours)


@pytest.mark.parametrize("by", ["perf", "perf, a stream", "us", "us, a stream"])
def test_every_field_of_every_sample(perf: Callable[..., str], tmp_path: Path, by: str) -> None:
    path = tmp_path / "perf.data"
    events = [word for event in existing(EVENTS) for word in ("-e", event)]
    command = ["perf", "record", "-q", "-a", "-m", "512", *events, "-o"]
    if by == "perf":
        subprocess.run([*command, path, *COMMAND], check=True, capture_output=True)
    elif by == "perf, a stream":
        with path.open("wb") as file:
            subprocess.run([*command, "-", *COMMAND], check=True, stdout=file)
    else:
        sampled(path, existing(EVENTS), stream="stream" in by)
    seen = agrees(perf, tmp_path, path)
    named = [event.name for event in read(path).events if event.attr.type == EventType.TRACEPOINT]
    assert named == existing(EVENTS)
    assert sum(seen.values()) > 1000
    busy = ("sched_switch", "sched_process_exec", "kmalloc", "sys_enter", "softirq_entry")
    assert all(any(name.endswith(f"__{one}") for name in seen) for one in busy)


@pytest.mark.parametrize("stream", [False, True])
def test_a_big_endian_copy_has_the_same_fields(tmp_path: Path, stream: bool) -> None:
    """Numbers of the records are turned round; what the tracepoint wrote stays as it was, and
    its formats say in which order that is."""
    path, copy = tmp_path / "perf.data", tmp_path / "big-endian"
    sampled(path, ["sched:sched_switch", "sched:sched_process_exec"], stream=stream)
    copy.write_bytes(BigEndian(path.read_bytes()).out)
    assert our_rows(read(copy)) == our_rows(read(path))
    assert len(read(copy).samples) > 100


@pytest.mark.kvm
@pytest.mark.parametrize("events", [KVM, ("kvm:kvm_emulate_insn",)], ids=["exits", "emulated"])
def test_of_a_guest(perf: Callable[..., str], tmp_path: Path, events: tuple[str, ...]) -> None:
    path = tmp_path / "perf.data"
    options = SamplerOptions(
        output=str(path), events=existing(events), period=1, guest=True, mmap_pages=512
    )
    with SamplerProcess.start(options) as process:
        with running_guest(2, "traced"):
            pass
        process.stop()
    seen = agrees(perf, tmp_path, path)
    assert seen, "the micro guest exits to its VMM at least once"
    for event in existing(events):
        if event in NAMES and seen[event.replace(":", "__")]:
            names_agree(perf, path, event)


def names_agree(perf: Callable[..., str], path: Path, event: str) -> None:
    column, pattern = NAMES[event]
    said = perf("script", "--ns", "-i", path, "-F", "cpu,time,event,trace")
    line = re.compile(rf"^\s*\[(\d+)\]\s+(\d+)\.(\d+):\s+{event}:.*?{pattern}")
    theirs = sorted(
        (int(m[2]) * 10**9 + int(m[3]), int(m[1]), m[4])
        for m in filter(None, map(line.search, said.splitlines()))
    )
    samples = kvm.open(path).filter(event=event).samples
    if event == "kvm:kvm_userspace_exit":
        # perf takes a negative errno for a large number, and does not print what the kernel does
        failed = samples["errno"] < 0
        assert set(samples[column][failed]) <= {"restart", "error"}
        samples = samples[~failed]
        places = set(zip(samples["time"].tolist(), samples["cpu"].tolist(), strict=True))
        theirs = [row for row in theirs if row[:2] in places]
    ours = zip(*(samples[name].tolist() for name in ("time", "cpu", column)), strict=True)
    assert theirs
    assert sorted(ours) == theirs


def test_names_of_numbers(perf: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    events = ["sched:sched_switch", "irq:softirq_entry", "kmem:kmalloc"]
    sampled(path, events, stream=False)
    for event in events:
        names_agree(perf, path, event)


def test_fields_are_columns_of_a_view(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    sampled(path, ["sched:sched_switch", "sched:sched_wakeup"], stream=True)
    recording = kvm.open(path)
    assert "next_comm" not in recording.samples, "several events have no fields in common"
    switches = recording.filter(event="sched:sched_switch")
    table = switches.samples
    # the sample is taken while the one that leaves is still the current thread; one that has
    # exited has no number any more, for which the kernel (perf_event_tid()) writes -1
    numbered = table["tid"] != -1
    assert np.count_nonzero(numbered) > len(table) / 2
    assert table["prev_pid"].tolist() == table["common_pid"].tolist()
    assert np.array_equal(table["prev_pid"][numbered], table["tid"][numbered])
    assert set(table["prev_comm"]) & {"sh", "ls"}
    one = switches.filter(comm="^ls$").samples
    assert len(one)
    assert set(one["prev_comm"]) == {"ls"}
    woken = recording.filter(event="sched:sched_wakeup").samples
    # the sample's pid is the waker, the field's the one that is woken
    assert "sched_wakeup.pid" in woken.columns
    assert set(woken["sched_wakeup.pid"].tolist()) - set(woken["pid"].tolist())


@pytest.mark.kvm
def test_a_snapshot_of_the_live_view_keeps_the_formats(
    perf: Callable[..., str], tmp_path: Path
) -> None:
    """Even when the piece that brought them has been forgotten."""
    with running_guest(1, "live"):
        top = kvm.top(host=True, guest=True, events=["sched:sched_switch"], period=1)
        try:
            subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"], check=True)
            with top._lock:
                while len(top._history._chunks) > 3:
                    top._history._forget()
            snapshot = top.snapshot(tmp_path / "perf.data.top")
        finally:
            top.stop()
    table = snapshot.filter(event="sched:sched_switch").samples
    assert len(table)
    said = perf("script", "-i", snapshot.path, "-F", "event,trace")
    assert said.count("next_comm=") == len(table)
