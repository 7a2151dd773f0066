"""What a guest's CPUs run, and which boot of it a sample is of: real guests, and plain loops."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linuxguest import LinuxGuest

import kvmperf_magic as kvm
from kvmperf_magic.demo import MicroGuest
from kvmperf_magic.guests.discovery import find_vm
from kvmperf_magic.guests.tasks import CurrentTasks, Task, TaskLooks, TaskSampler, tasks_of
from kvmperf_magic.guests.watch import watch
from kvmperf_magic.perfdata.abi import MISC_GUEST_KERNEL, MISC_GUEST_USER, RecordType
from kvmperf_magic.perfdata.records import GUEST_MAGIC, TASKS_MAGIC
from kvmperf_magic.perfdata.walk import walk
from kvmperf_magic.recorder import Recorder
from kvmperf_magic.symbols import kallsyms
from kvmperf_magic.symbols.guestsymbols import GuestSymbols

SECOND = 10**9
NAMES = ["alpha", "beta", "<script>", ""]
looks = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 3)), max_size=30
).map(sorted)
samples = st.lists(
    st.tuples(st.integers(0, 40), st.integers(7, 8), st.integers(-1, 2)), max_size=20
)


def made(rows: list[tuple[int, int, int]], machine: int = 7) -> TaskLooks:
    """Rows of time (in tenths of a second), CPU and task."""
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    tasks = [Task(100 + i, 200 + i, name) for i, name in enumerate(NAMES)]
    return TaskLooks(
        machine,
        0.1,
        columns[0].astype(np.uint64) * np.uint64(SECOND // 10),
        columns[1].astype(np.int32),
        columns[2].astype(np.int32),
        tasks,
    )


@given(looks, samples)
def test_each_sample_has_the_task_that_was_seen_nearest(
    rows: list[tuple[int, int, int]], drawn: list[tuple[int, int, int]]
) -> None:
    columns = np.array(drawn, np.int64).reshape(-1, 3).T
    got = tasks_of(
        [made(rows)],
        columns[0].astype(np.uint64) * np.uint64(SECOND // 10),
        columns[1].astype(np.int32),
        columns[2].astype(np.int32),
    )
    comms, pids = got.comm.values().tolist(), got.pid.tolist()
    for row, (at, machine, vcpu) in enumerate(drawn):
        mine = [(when, task) for when, cpu, task in rows if cpu == vcpu and machine == 7]
        distances = sorted(abs(when - at) for when, _ in mine)
        if not distances or distances[0] > 3:
            assert (comms[row], pids[row], got.sure[row]) == ("", -1, 0)
            continue
        nearest = {task for when, task in mine if abs(when - at) == distances[0]}
        assert (comms[row], pids[row]) in {(NAMES[task], 100 + task) for task in nearest}
        assert got.sure[row] in (0.5, 1.0)
        if got.sure[row] == 1:
            before = {task for when, task in mine if at - 3 <= when <= at}
            after = {task for when, task in mine if at <= when <= at + 3}
            assert before & after


@given(looks)
def test_looks_are_packed_and_unpacked(rows: list[tuple[int, int, int]]) -> None:
    before = made(rows)
    after = TaskLooks.unpack(before.pack())
    assert (after.machine, after.every) == (before.machine, before.every)
    assert after.tasks == before.tasks
    for column in ("time", "cpu", "task"):
        assert getattr(after, column).tolist() == getattr(before, column).tolist()


@given(st.binary(max_size=80), st.integers(0, 200))
def test_damaged_looks_are_told(noise: bytes, at: int) -> None:
    good = made([(1, 0, 0), (2, 1, 3)]).pack()
    try:
        found = TaskLooks.unpack(good[:at] + noise + good[at + len(noise) :])
    except ValueError:
        return
    assert found.task.max(initial=-1) < len(found.tasks)


@pytest.mark.kernels
@pytest.mark.root
def test_what_a_guest_runs_is_seen(linux_guest: LinuxGuest) -> None:
    """Its idle tasks mostly, and now and then the process that we know it has."""
    machine = find_vm(linux_guest.pid)
    watched = watch(machine)
    watched.refresh()
    assert watched.kernel is not None
    current = CurrentTasks(watched.kernel)
    assert current.available
    number = linux_guest.ticker()
    wanted = {Task(0, 0, "swapper/0"), Task(0, 0, "swapper/1"), Task(number, number, "ticker")}
    seen: set[Task | None] = set()
    end = time.monotonic() + 20
    while not wanted <= seen:
        assert time.monotonic() < end, seen
        found = current.look()
        assert len(found) == 2
        seen.update(found)


@pytest.mark.kernels
@pytest.mark.root
def test_looks_are_taken_in_the_background(linux_guests: dict[str, LinuxGuest]) -> None:
    machines = [find_vm(guest.pid) for guest in linux_guests.values()]
    for machine in machines:
        watch(machine).refresh()
    sampler = TaskSampler(machines, every=0.01)
    time.sleep(0.5)
    seen = {one.machine: one for one in sampler.stop()}
    assert set(seen) == {guest.pid for guest in linux_guests.values()}
    for one in seen.values():
        assert set(one.cpu.tolist()) == {0, 1}
        assert len(one.time) >= 10
        assert (np.diff(one.time.astype(np.int64)) >= 0).all()


@pytest.mark.kvm
@pytest.mark.root
def test_samples_know_their_task_and_their_boot(tmp_path: Path) -> None:
    """Of a real guest, with notes as a Linux one would have given them."""
    path = tmp_path / "perf.data"
    old, new = (
        kallsyms.parse(
            f"{0x400000:016x} T {name}\n{0x480000:016x} T _text\n{0x480001 + i:016x} T x\n"
        )
        for i, name in enumerate(("old_function", "new_function"))
    )
    with MicroGuest(vcpus=1, name="two-boots", phase="search") as vm:
        time.sleep(0.2)
        with Recorder(path, lambda _: None, vm=vm.pid, frequency=1000) as recorder:
            begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            time.sleep(0.8)
            end = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            middle = (begin + end) // 2
            at = np.arange(begin, end, SECOND // 20, dtype=np.uint64)
            task = (at >= middle).astype(np.int32)
            tasks = [Task(11, 11, "alpha"), Task(12, 12, "beta")]
            seen = TaskLooks(vm.pid, 0.05, at, np.zeros(len(at), np.int32), task, tasks)
            recorder.process.attach(TASKS_MAGIC, seen.pack())
            for i, table in enumerate((old, new)):
                boot = GuestSymbols(
                    vm.pid, "two-boots", table, "memory", "", f"6.{i}", "", middle * i
                )
                recorder.process.attach(GUEST_MAGIC, boot.pack())
        pid = vm.pid
    as_kernel(path)
    recording = kvm.open(path)
    guest = recording.filter(modes="guest-kernel").samples
    assert len(guest) > 200
    assert set(guest["pid"].tolist()) == {pid}
    when = guest["time"].astype(np.int64)
    assert (np.diff(when) >= 0).all()
    # one boot, then the other; nothing was seen at the ends, between them first one task
    names, comms = guest["symbol"].tolist(), guest["guest_comm"].tolist()
    turn = names.index("new_function")
    assert names == ["old_function"] * turn + ["new_function"] * (len(names) - turn)
    first, change = comms.index("alpha"), comms.index("beta")
    last = len(comms) - comms[::-1].index("beta")
    seen_as = ["alpha"] * (change - first) + ["beta"] * (last - change)
    assert comms == [""] * first + seen_as + [""] * (len(comms) - last)
    assert min(change - first, last - change) > 100
    assert abs(change - turn) < 60  # samples: of the time between two looks
    pids = np.array([{"": -1, "alpha": 11, "beta": 12}[comm] for comm in comms])
    assert (guest["guest_pid"] == pids).all()
    inner = (when > when[first] + SECOND // 4) & (when < when[last - 1] - SECOND // 4)
    inner &= np.abs(when - when[change]) > SECOND // 10
    assert inner.any()
    assert (guest["guest_sure"][inner] == 1).all()
    assert (guest["guest_sure"][pids == -1] == 0).all()
    host = recording.samples
    assert set(host["guest_comm"][host["mode"] != "guest-kernel"]) <= {""}


def as_kernel(path: Path) -> None:
    """Makes samples of the guest's user code ones of its kernel."""
    data = bytearray(path.read_bytes())
    offset, size = (int.from_bytes(data[at : at + 8], "little") for at in (40, 48))
    walked = walk(bytes(data), offset, offset + size)
    rows = walked.of_type(RecordType.SAMPLE)
    rows = rows[(walked.misc[rows] & 7) == MISC_GUEST_USER]
    for position in walked.position[rows].tolist():
        at = offset + 8 * position + 4
        data[at] = data[at] & ~7 | MISC_GUEST_KERNEL
    path.write_bytes(data)
