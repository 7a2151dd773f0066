"""Which process each CPU of a guest runs: looked up now and then, kept beside the samples.

The kernel keeps a pointer to the running task for every CPU: `current_task`, or from 6.2 to 6.13 in
`pcpu_hot`. Two looks that agree with each other say what ran between them, most likely.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.blob import text
from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.guests.linux import LinuxKernel
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.watch import GuestWatch, watch
from kvmperf_magic.table import Categorical

EVERY = 0.05  # seconds between looks
_EACH = 0.01  # at least, for each CPU: one of many CPUs is looked at less often
_NEAR = 3  # of these times a look is near enough to tell of a sample
_MOST_CPUS = 4096
_MOST_LOOKS = 10_000_000
_COMM = 16  # TASK_COMM_LEN
_SPAN = 1 << 14  # a task_struct is smaller


@dataclass(frozen=True)
class Task:
    """What a CPU runs: `pid` is the process's, 0 while the CPU is idle."""

    pid: int
    tid: int
    comm: str


class CurrentTasks:
    """The running tasks of one kernel; `available` is False where they cannot be found."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self._paging = kernel.paging
        btf = kernel.btf
        comm, tid, pid = (
            btf.member("task_struct", name) if btf else None for name in ("comm", "pid", "tgid")
        )
        place = kernel.address("current_task")
        hot, inside = (
            kernel.address("pcpu_hot"),
            btf.member("pcpu_hot", "current_task") if btf else None,
        )
        if place is None and hot is not None and inside is not None:
            place = hot + inside.offset
        offsets = kernel.address("__per_cpu_offset")
        self.available = bool(comm and tid and pid and place is not None and offsets)
        self._tasks: list[int] = []
        if not (comm and tid and pid and place is not None and offsets):
            return
        count = min(kernel.cpus, _MOST_CPUS)
        table = np.frombuffer(kernel.image(offsets, 8 * count), np.uint64)
        self._tasks = [(place + offset) % 2**64 for offset in table.tolist()]
        self._members = comm.offset, tid.offset, pid.offset
        self._first = min(self._members)
        self._size = min(
            _SPAN, max(comm.offset + _COMM, tid.offset + 4, pid.offset + 4) - self._first
        )

    def look(self) -> list[Task | None]:
        """What each CPU runs now; None where that could not be read."""
        found = [self._task(self._paging.number(place)) for place in self._tasks]
        if None in found:  # a kernel that is starting has not mapped all of its memory yet
            self._paging = self._paging.afresh()
        return found

    def _task(self, address: int) -> Task | None:
        data = self._paging.read(address + self._first, self._size) if address else b""
        if not data:
            return None
        comm, tid, pid = (at - self._first for at in self._members)
        return Task(
            int.from_bytes(data[pid : pid + 4], "little"),
            int.from_bytes(data[tid : tid + 4], "little"),
            data[comm : comm + _COMM].partition(b"\0")[0].decode("utf-8", "replace"),
        )


@dataclass(frozen=True)
class TaskLooks:
    """All looks at the CPUs of one VM: when (CLOCK_MONOTONIC_RAW, ns), at which CPU, what ran.

    `machine` is the VMM's pid, `every` the seconds between looks.
    """

    machine: int
    every: float
    time: NDArray[np.uint64]
    cpu: NDArray[np.int32]
    task: NDArray[np.int32]
    tasks: list[Task]

    def pack(self) -> bytes:
        told = {
            "machine": self.machine,
            "every": self.every,
            "looks": len(self.time),
            "tasks": [[task.pid, task.tid, task.comm] for task in self.tasks],
        }
        body = b"".join(
            (self.time.astype("<u8").tobytes(), self.cpu.astype("<i4").tobytes(),
             self.task.astype("<i4").tobytes())
        )  # fmt: skip
        return json.dumps(told, separators=(",", ":")).encode() + b"\n" + zlib.compress(body, 3)

    @classmethod
    def unpack(cls, data: bytes) -> TaskLooks:
        """ValueError for what `pack()` has not written."""
        line, _, body = data.partition(b"\n")
        try:
            told = json.loads(line)
            machine, count = int(told["machine"]), int(told["looks"])
            every = float(told["every"])
            tasks = [Task(_pid(pid), _pid(tid), text(comm)) for pid, tid, comm in told["tasks"]]
            if not (0 <= count <= _MOST_LOOKS and 0 <= machine < 1 << 31 and 0 < every < 1e6):
                raise ValueError("a number that cannot be")
            plain = zlib.decompressobj().decompress(body, count * 16 + 1)
            if len(plain) != count * 16:
                raise ValueError("cut")
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            OverflowError,
            zlib.error,
        ) as error:
            raise ValueError(f"looks at guest tasks: {error}") from None
        time = np.frombuffer(plain, "<u8", count)
        cpu = np.frombuffer(plain, "<i4", count, count * 8)
        task = np.frombuffer(plain, "<i4", count, count * 12)
        if count and not (task.min() >= 0 and task.max() < len(tasks)):
            raise ValueError("looks at guest tasks that there are not")
        if count and not (cpu.min() >= 0 and cpu.max() < _MOST_CPUS):
            raise ValueError("looks at CPUs that there cannot be")
        return cls(machine, every, time, cpu, task, tasks)


def _pid(value: Any) -> int:
    return int(value) & 0xFFFFFFFF


class TaskSampler:
    """A thread that looks at what the CPUs of these VMs run, until `stop()` gives all its looks.
    `know()` more VMs and `looks()` meanwhile are for who goes on and on, with `forget()`."""

    def __init__(self, machines: Sequence[Machine], every: float = EVERY) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._watched: dict[int, GuestWatch] = {}
        self.know(machines)
        self._current: dict[int, tuple[LinuxKernel, CurrentTasks]] = {}
        self._seen: dict[int, _Seen] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvmperf-tasks", daemon=True)
        self._thread.start()

    def know(self, machines: Iterable[Machine]) -> None:
        """Look at these VMs, too."""
        with self._lock:
            for machine in machines:
                self._watched.setdefault(machine.pid, watch(machine))

    def stop(self) -> list[TaskLooks]:
        """End it; what was seen, of each VM of which anything was."""
        self._end.set()
        self._thread.join()
        return self.looks()

    def looks(self, since: int = 0) -> list[TaskLooks]:
        """What was seen from `since` (ns, CLOCK_MONOTONIC_RAW) until now."""
        with self._lock:
            found = [one.looks(pid, since) for pid, one in self._seen.items()]
        return [one for one in found if len(one.time)]

    @property
    def reach(self) -> float:
        """How many seconds a look may be from what it tells of."""
        with self._lock:
            return _NEAR * max((one.every for one in self._seen.values()), default=0.0)

    def forget(self, before: int) -> None:
        """Let go of older looks."""
        with self._lock:
            for one in self._seen.values():
                one.forget(before)

    def _run(self) -> None:
        while not self._end.wait(self._every):
            for pid, watched in list(self._watched.items()):
                try:
                    self._look(pid, watched)
                except KvmperfError:  # it has ended
                    del self._watched[pid]

    def _look(self, pid: int, watched: GuestWatch) -> None:
        kernel = watched.kernel
        # not found yet, which others see to; or nothing to be looked at so often
        if kernel is None or not kernel.memory.vmm.cheap:
            return
        known = self._current.get(pid)
        if known is None or known[0] is not kernel:
            known = self._current[pid] = kernel, CurrentTasks(kernel)
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        with self._lock:
            seen = self._seen.setdefault(pid, _Seen(max(self._every, _EACH * kernel.cpus)))
        if now >= seen.due:
            seen.due = now + int(seen.every * 1e9)
            found = known[1].look()
            with self._lock:
                seen.add(now, found)


class _Seen:
    """The looks at one VM so far, in few bytes each; `due` is when the next one is."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.due = 0
        self.time, self.cpu, self.task = array("Q"), array("i"), array("i")
        self._tasks: dict[Task, int] = {}

    def add(self, now: int, found: Sequence[Task | None]) -> None:
        for cpu, task in enumerate(found):
            if task is not None and len(self.time) < _MOST_LOOKS:
                self.time.append(now)
                self.cpu.append(cpu)
                self.task.append(self._tasks.setdefault(task, len(self._tasks)))

    def looks(self, pid: int, since: int) -> TaskLooks:
        at = bisect_left(self.time, since)
        time, cpu, task = (np.array(column[at:]) for column in (self.time, self.cpu, self.task))
        return TaskLooks(pid, self.every, time, cpu, task, list(self._tasks))

    def forget(self, before: int) -> None:
        at = bisect_left(self.time, before)
        for column in (self.time, self.cpu, self.task):
            del column[:at]


@dataclass(frozen=True)
class GuestTasks:
    """Of each sample: the process that its vCPU ran, and how sure that is (0 to 1).

    1: the looks before and after it saw the same task; 0.5: one of them did, the nearer one is
    taken; 0: nothing was seen near it, `comm` is "" and `pid` -1.
    """

    comm: Categorical
    pid: NDArray[np.int32]
    sure: NDArray[np.float64]

    @classmethod
    def unseen(cls, samples: int) -> Self:
        """Of so many samples, where nobody looked."""
        pid, sure = np.full(samples, -1, np.int32), np.zeros(samples)
        return cls(Categorical.constant("", samples), pid, sure)

    def take(self, rows: Any) -> Self:
        """Of the samples that a mask, slice or index array chooses."""
        return replace(self, comm=self.comm.take(rows), pid=self.pid[rows], sure=self.sure[rows])


def tasks_of(
    looks: Sequence[TaskLooks],
    time: NDArray[np.uint64],
    machine: NDArray[np.int32],
    vcpu: NDArray[np.int32],
) -> GuestTasks:
    """The tasks of samples: when, of which VM (its VMM's pid), on which vCPU they were."""
    n = len(time)
    names: dict[str, int] = {"": 0}
    comm, pid = np.zeros(n, np.int32), np.full(n, -1, np.int32)
    sure = np.zeros(n)
    for one in looks:
        reach = int(_NEAR * one.every * 1e9)
        codes = np.array([names.setdefault(task.comm, len(names)) for task in one.tasks], np.int32)
        pids = np.array([task.pid for task in one.tasks], np.int64).astype(np.int32)
        for cpu in np.intersect1d(one.cpu, vcpu[machine == one.machine]).tolist():
            rows = np.flatnonzero((machine == one.machine) & (vcpu == cpu))
            mine = one.cpu == cpu
            at, task = one.time[mine].astype(np.int64), one.task[mine]
            when = time[rows].astype(np.int64)
            after = np.searchsorted(at, when, side="left")
            before = np.maximum(after - 1, 0)
            after = np.minimum(after, len(at) - 1)
            to_before, to_after = np.abs(when - at[before]), np.abs(at[after] - when)
            nearer = np.where(to_before <= to_after, before, after)
            seen = np.minimum(to_before, to_after) <= reach
            both = (np.maximum(to_before, to_after) <= reach) & (task[before] == task[after])
            rows, chosen = rows[seen], task[nearer[seen]]
            comm[rows], pid[rows] = codes[chosen], pids[chosen]
            sure[rows] = np.where(both[seen] & (before != after)[seen], 1.0, 0.5)
    return GuestTasks(Categorical(comm, list(names)), pid, sure)
