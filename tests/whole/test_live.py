"""The live view: beside other work, soon after a change, stopped at once, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from guest import running_guest

import kvmperf_magic as kvm
from kvmperf_magic import demo, livenames
from kvmperf_magic.errors import QueryError
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.tasks import Task, TaskLooks
from kvmperf_magic.live import Top

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.alone]

COPY, SEARCH = "copy_user_generic_string", "bitmap_search_next_usable_block"


def samplers(parent: int | None = None) -> set[int]:
    """The recording processes that this process (or another) has started and that still run."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ours = int(fields[1]) == (parent or os.getpid()) and fields[0] != "Z"
            if ours and b"kvmperf-sampler" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue
    return found


def pipes() -> int:
    """The pipes that this process has open."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(one.readlink()).startswith("pipe:")
    return found


def until(true: Callable[[], object], seconds: float) -> float:
    """How long it took until it was true; fails after `seconds`."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - start


def first(top: Top) -> str:
    return str(top.table["symbol"][0]) if len(top.table) else ""


def started(**wishes: object) -> Top:
    return kvm.top(guest=True, frequency=1000, guest_elf=demo.guest_elf(), **wishes)


def test_it_shows_a_change_of_the_guest_within_two_seconds_while_others_compute() -> None:
    with running_guest(2, "shifting", phase="search") as vm:
        top = started(vm="shifting")
        try:
            until(lambda: first(top) in {SEARCH, "ext3_test_allocatable"}, 20)
            vm.phase = "copy"
            changed = time.monotonic()
            while time.monotonic() < changed + 2:
                sum(range(20_000))  # holds the GIL, as another cell would
            assert COPY in top.table["symbol"]
            until(lambda: first(top) == COPY, 3)
            assert "PerfTop:" in top.headline
            said = {row["dso"]: row for row in top.symbols.rows()}
            assert said["shifting user"]["source"] == str(demo.guest_elf())
            assert said["shifting user"]["symbols"] > 10
            assert "1000Hz cpu-clock" in top.headline or "1000Hz cycles" in top.headline
        finally:
            top.stop()
    assert top.error is None


class Looking:
    """In the place of a TaskSampler: a CPU that runs one process, then another, as Linux's do."""

    reach = 0.3

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = {machine.pid for machine in machines}
        self.begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)

    def know(self, machines: list[Machine]) -> None:
        self.machines |= {machine.pid for machine in machines}

    def looks(self, since: int = 0) -> list[TaskLooks]:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        at = np.arange(max(self.begun, since), now, 10**8, dtype=np.uint64)
        task = (at > self.begun + 4 * 10**9).astype(np.int32)
        tasks = [Task(11, 11, "alpha"), Task(12, 12, "beta")]
        cpu = np.zeros(len(at), np.int32)
        return [TaskLooks(pid, 0.1, at, cpu, task, tasks) for pid in sorted(self.machines)]

    def forget(self, before: int) -> None:
        pass

    def stop(self) -> None:
        pass


def test_rows_by_what_guests_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livenames, "TaskSampler", Looking)
    with running_guest(1, "working", phase="search"):
        top = started(vm="working", keys="guest_comm,guest_pid,mode", delay=0.3)
        try:
            assert top.table.columns[:3] == ["overhead", "samples", "guest_sure"]

            def seen() -> dict[str, tuple[int, float]]:
                shown = (top.table[name] for name in ("guest_comm", "guest_pid", "guest_sure"))
                return {comm: (pid, sure) for comm, pid, sure in zip(*shown, strict=True)}

            until(lambda: seen().get("alpha", (0, 0.0))[1] > 50, 20)
            until(lambda: seen().get("beta", (0, 0.0))[1] > 50, 20)
            assert (seen()["alpha"][0], seen()["beta"][0]) == (11, 12)
            assert "guest_sure" in repr(top)
            saved = top.snapshot(tmp_path / "snapshot").filter(modes="guest").samples
        finally:
            top.stop()
    assert top.error is None
    assert {"alpha", "beta"} <= set(saved["guest_comm"])
    assert (saved["guest_sure"] == 1).mean() > 0.5


def test_stop_is_at_once_and_leaves_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_guest(1, "stopping"):
        before = pipes()
        top = started(vm="stopping")
        until(lambda: len(top.table), 20)
        top._ipython_display_()  # of no terminal: one view, and it goes on
        assert "PerfTop:" in capsys.readouterr().out
        assert top.running
        assert samplers() == {top.process.pid}
        start = time.monotonic()
        top.stop()
        assert time.monotonic() - start < 1
        assert not samplers()
        assert not top.running
        assert "stopped" in repr(top)
        top.stop()  # again is no error
        assert pipes() == before


def test_pause_freezes_the_view_and_sort_orders_it() -> None:
    with running_guest(1, "paused"):
        top = started(vm="paused", delay=0.2)
        try:
            until(lambda: len(top.table) > 3, 20)
            top.pause()
            frozen = top.table
            time.sleep(0.7)
            assert top.table is frozen
            assert "paused" in repr(top)
            top.sort = "symbol"
            names = top.table["symbol"].tolist()
            assert names == sorted(names)
            top.resume()
            until(lambda: top.table is not frozen, 2)
            top.sort = "-symbol"
            with pytest.raises(QueryError, match="sort key"):
                top.sort = "nonsense"
        finally:
            top.stop()


def test_a_snapshot_is_a_recording_that_can_be_diffed(
    tmp_path: Path, perf: Callable[..., str]
) -> None:
    with running_guest(1, "snap", phase="search") as vm:
        top = started(vm="snap", history=3.0)
        try:
            time.sleep(2)
            one = top.snapshot(tmp_path / "one")
            vm.phase = "copy"
            time.sleep(4)  # past the history: what names the samples must outlive them
            two = top.snapshot(tmp_path / "two")
        finally:
            top.stop()
    first_row = next(kvm.diff(one, two).table.rows())
    assert first_row["symbol"] == COPY
    assert first_row["significant"]
    assert two.duration < 4
    assert set(two.filter(modes="guest").samples["machine"]) == {"snap"}
    assert "of event 'cpu-clock'" in perf("report", "--stdio", "-i", two.path)
    again = two.path
    assert Path(again).exists()


def test_rows_are_by_what_is_asked_for_and_hidden_modes_are_not_counted() -> None:
    with running_guest(1, "keyed", phase="search"):
        top = started(vm="keyed", delay=0.2, keys="comm,mode", host=True, hide_kernel=True)
        try:
            until(lambda: len(top.table), 20)
            assert top.table.columns == ["overhead", "samples", "comm", "mode"]
            assert set(top.table["mode"]) <= {"host-user", "guest-user"}
            assert top.table["comm"][0] == "CPU 0/KVM"
            assert top.table["overhead"].sum() == pytest.approx(100)
            assert top.machines == ["all", "host", "keyed"]
            assert "guest us" in top.headline
        finally:
            top.stop()


def test_two_vms_of_one_name_are_told_apart_until_one_is_gone() -> None:
    with running_guest(1, "twin") as one:
        top = kvm.top(frequency=1000, delay=0.2, guest_elf=demo.guest_elf(), modes="guest")
        try:
            until(lambda: "twin" in top.machines, 8)
            with running_guest(1, "twin") as other:
                names = [f"twin:{vm.pid}" for vm in (one, other)]
                until(lambda: set(names) <= set(top.machines), 8)
                top.machine = names[1]
                until(lambda: set(top.table["machine"]) == {names[1]}, 20)
                top.machine = one.pid
                assert top.machine == names[0]
                until(lambda: set(top.table["machine"]) == {names[0]}, 20)
                top.machine = other.pid
            until(lambda: names[1] not in top.machines, 8)
            assert top.machine == "all"
            assert "host" not in top.machines  # only guests are shown
        finally:
            top.stop()


def test_all_that_is_shown_can_be_set() -> None:
    with running_guest(1, "set", phase="search"):
        top = started(vm="set", delay=0.2, decay=False)
        try:
            until(lambda: len(top.table) > 2, 20)
            top.filter = "^ext3_test"
            assert set(top.table["symbol"]) == {"ext3_test_allocatable"}
            assert 0 < top.matched < 100
            assert "/^ext3_test/ matches" in repr(top)
            with pytest.raises(QueryError, match="regular expression"):
                top.filter = "("
            top.filter = ""
            top.count_filter = 10**6
            assert len(top.table) == 0
            top.count_filter = None
            assert not top.decay
            top.pause()
            top.zero()
            assert len(top.table) == 0
            top.resume()
            until(lambda: len(top.table), 20)
        finally:
            top.stop()


_KERNEL = """
import time, kvmperf_magic as kvm
top = kvm.top(frequency=1000)
while not len(top.table):
    time.sleep(0.05)
print("running", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_kernel_leaves_no_process(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KERNEL],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as kernel:
        assert kernel.stdout is not None
        assert kernel.stdout.readline() == b"running\n"
        (recorder,) = samplers(kernel.pid)
        kernel.send_signal(how)
        kernel.wait(5)
    until(lambda: not Path(f"/proc/{recorder}").exists(), 20)


def test_a_killed_recorder_is_said_and_the_view_stays() -> None:
    with running_guest(1, "orphan"):
        top = started(vm="orphan")
        until(lambda: len(top.table), 20)
        os.kill(top.process.pid, signal.SIGKILL)
        until(lambda: not top.running, 20)
    assert "killed" in str(top.error)
    assert "killed" in repr(top)
    assert len(top.table)
