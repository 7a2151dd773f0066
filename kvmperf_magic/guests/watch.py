"""One VM's kernel, looked up once and kept up to date: reboots and new modules are noticed.

A kernel is searched for once in the life of a VM. After that a look costs a few reads: is its page
of vmcoreinfo still the same, does its clock go on, is the last module still the last one?
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.guests.access import open_memory
from kvmperf_magic.guests.encryption import told_encrypted
from kvmperf_magic.guests.finding import Found, find_kernel
from kvmperf_magic.guests.linux import LinuxKernel
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.memory import Access
from kvmperf_magic.guests.process import Process
from kvmperf_magic.symbols.guestsymbols import GuestSymbols

# of CPU time after which a kernel that runs has ticked: the slowest tick is 100 a second
_BUSY_NS = 50_000_000
_BEHIND = 2.0  # seconds that a guest's clock, which is read in whole ones, may seem to be behind
_PATIENCE = 30.0  # seconds between searches of a VM that has no Linux, at most
_SHARE = 0.01  # of the time that may go by with searching the whole memory of such a VM
_REFUSED = 10.0  # seconds between tries to get at the memory of a VM
_AGAIN = 10.0  # seconds that a kernel which cannot be seen to run is believed to
_SHORT = 0.5  # seconds of a search that nobody need hear of
_ENDED = "it has ended"

_watched: dict[int, GuestWatch] = {}
_registry = threading.Lock()


@dataclass(frozen=True)
class _Seen:
    """A kernel's clock at one look: bytes that tick, its seconds since it was booted, what its CPUs
    had run (ns), and when that was."""

    ticking: bytes = b""
    uptime: int = 0
    ran: int = 0
    when: float = 0.0


class GuestWatch:
    """What is known of one VM's kernel. `symbols` is as of the last `refresh()`.

    `kernel` is None where none was found; `symbols.note` says why.
    """

    def __init__(self, machine: Machine) -> None:
        self.pid, self.name = machine.pid, machine.name
        self._tids = [vcpu.tid for vcpu in machine.vcpus if vcpu.tid]
        self._memory = machine.memory
        self._lock = threading.Lock()
        self._vmm: Access | None = None
        self._begun = self._due = self._again = self._thorough = time.monotonic()
        self._seen, self._newest = _Seen(), b""
        self._search: tuple[float, int, int] | None = None  # when it began, bytes done, in all
        self.kernel: LinuxKernel | None = None
        self.symbols = GuestSymbols(self.pid, self.name, note="not looked at yet")

    def refresh(self, progress: Callable[[int, int], None] | None = None) -> bool:
        """Look again; whether the symbols are others than before. Never raises."""
        with self._lock:
            before = self.symbols
            try:
                self._look(progress)
            except KvmperfError as error:
                self._nothing(str(error))
            finally:
                if self._vmm is not None:
                    self._vmm.rest()
            return self.symbols is not before

    @property
    def searched(self) -> tuple[int, int] | None:
        """How far a search is that takes long: bytes done and in all; None while there is none."""
        now = self._search
        if now is None or time.monotonic() - now[0] < _SHORT:
            return None
        return now[1], now[2]

    def alive(self) -> bool:
        """Whether the VMM is still the process that it was."""
        return self._vmm is None or self._vmm.alive()

    def _look(self, progress: Callable[[int, int], None] | None) -> None:
        if self._vmm is None:
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + _REFUSED
            self._vmm = open_memory(self.pid, Process(Path("/proc"), self.pid).command)
            self._begun = self._due = time.monotonic()
        if not self._vmm.alive():
            self._nothing(_ENDED)
            return
        kernel = self.kernel
        if kernel is not None and self._goes_on(kernel):
            newest = kernel.newest_module()
            if newest != self._newest:
                self._newest = newest
                self._take(kernel)
            return
        now = time.monotonic()
        if kernel is None and now < self._due:
            return
        encrypted = told_encrypted(Process(Path("/proc"), self.pid).command)
        if encrypted:
            self._nothing(
                f"its memory is encrypted ({encrypted}): nothing can be read from outside"
            )
            self._due = math.inf
            return
        found = self._find(progress)
        self._again = time.monotonic() + _AGAIN
        if found.kernel is None:
            self._nothing(found.why)
            # it may be starting: looked at again soon, then less and less often
            self._due = now + min(_PATIENCE, max(0.5, (now - self._begun) / 2))
        elif kernel is None or not found.kernel.boot.same(kernel.boot):
            self.kernel = found.kernel
            self._begun = self._due = now
            self._newest = found.kernel.newest_module()
            self._seen = _Seen()
            self._goes_on(found.kernel)
            self._take(found.kernel)

    def _find(self, progress: Callable[[int, int], None] | None) -> Found:
        assert self._vmm is not None
        begun = time.monotonic()
        thorough = begun >= self._thorough

        def told(done: int, total: int) -> None:
            self._search = begun, done, total
            if progress is not None:
                progress(done, total)

        try:
            return find_kernel(self._vmm, self._memory, told, thorough)
        finally:
            self._search = None
            if thorough:
                took = time.monotonic() - begun
                self._thorough = begun + max(_PATIENCE, took / _SHARE)

    def _goes_on(self, kernel: LinuxKernel) -> bool:
        """Whether this kernel still is the one that runs, as far as can be told at once."""
        assert self._vmm is not None
        boot = kernel.boot
        if self._vmm.read(boot.mark_at, len(boot.mark)) != boot.mark:
            return False
        _, uptime = kernel.clock()
        before = self._seen
        now = _Seen(kernel.ticking(), uptime, self._run_time(), time.monotonic())
        if not any(now.ticking):  # only functions are listed: from time to time it is searched anew
            return now.when < self._again
        moved, busy = now.ticking != before.ticking, now.ran - before.ran > _BUSY_NS
        if moved or busy:
            self._seen = now
        # a page of an earlier boot may stay as it was; its clock then stands while CPUs are busy,
        # since the last look or since some time after it
        passed = now.when - before.when
        behind = passed - (now.uptime - before.uptime) if uptime else 0.0
        return not busy or (moved and behind < _BEHIND)

    def _take(self, kernel: LinuxKernel) -> None:
        modules = kernel.modules()
        note = ""
        if modules is None:
            lacks = "no CONFIG_KALLSYMS_ALL" if kernel.address("modules") is None else "no BTF"
            note = f"its modules cannot be read: {lacks} in this kernel"
        self.symbols = GuestSymbols(
            self.pid,
            self.name,
            kernel.table(modules),
            f"guest memory{'' if kernel.memory.vmm.cheap else ', by its monitor'}: {kernel.how}",
            note,
            kernel.release,
            kernel.boot.build_id,
            self._booted_at(kernel),
        )

    def _booted_at(self, kernel: LinuxKernel) -> int:
        """When its clock began, rounded down: nothing of it can have run before."""
        _, uptime = kernel.clock()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        return max(0, now - (uptime + 1) * 1_000_000_000)

    def _nothing(self, why: str) -> None:
        self.kernel = None
        if (self.symbols.table, self.symbols.note) != (None, why):
            self.symbols = GuestSymbols(self.pid, self.name, note=why)

    def _run_time(self) -> int:
        """Nanoseconds that its vCPU threads have run on a CPU."""
        paths = [Path(f"/proc/{self.pid}/task/{tid}/schedstat") for tid in self._tids]
        total = 0
        for path in paths or Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except (OSError, IndexError, ValueError):
                continue
        return total


def searched(watched: Iterable[GuestWatch]) -> tuple[int, int] | None:
    """How far the searches of several VMs go together; None while none takes long."""
    parts = [part for one in watched if (part := one.searched)]
    return (sum(p[0] for p in parts), sum(p[1] for p in parts)) if parts else None


def watch(machine: Machine) -> GuestWatch:
    """The one watch of a VM in this process: what it has found is found for all."""
    with _registry:
        for pid, known in list(_watched.items()):
            if not known.alive():
                del _watched[pid]
        found = _watched.get(machine.pid)
        if found is None or found.name != machine.name:
            found = _watched[machine.pid] = GuestWatch(machine)
        return found
