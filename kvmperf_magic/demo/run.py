"""The micro guest and its host baseline as context managers, each a process that ends with us."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvmperf_magic import errors
from kvmperf_magic.demo.image import MAX_CPUS, host_elf
from kvmperf_magic.errors import KvmperfError

# as enum phase of guest.c: the mixed load, all of it under the lock, no lock at all, only copies
PHASES = ("dbench", "lock", "search", "copy")

START_SECONDS = 20.0


class Workload:
    """A child process with the micro guest's code; `start()` and `stop()`, or `with`.

    The child has a session of its own, so Ctrl-C in a terminal leaves it to us, and it ends when
    its stdin closes or its parent is another: none is ever left behind.
    """

    def __init__(self, count: int, phase: str, cpus: Iterable[int] | None) -> None:
        if not 1 <= count <= MAX_CPUS:
            raise KvmperfError(f"{count} CPUs asked for", f"1 to {MAX_CPUS}")
        self.count = count
        self.cpus = None if cpus is None else sorted(cpus)
        self._phase = known_phase(phase)
        self._child: subprocess.Popen[bytes] | None = None
        self._answers = b""

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _begin(self) -> None:
        """What the started child still waits for, and its first answer."""
        raise NotImplementedError

    def start(self) -> Self:
        if self._child is not None:
            return self
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
        self._answers = b""
        self._complaints = os.memfd_create("micro-stderr")
        self._child = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._finalizer = weakref.finalize(self, _end, self._child, self._complaints)
        try:
            if self.cpus is not None:
                os.sched_setaffinity(self._child.pid, self.cpus)
            self._begin()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the child; twice is no error."""
        if self._child is not None:
            self._child = None
            self._finalizer()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<{type(self).__name__}: {self._about()}, {self._phase}, {state}>"

    def _about(self) -> str:
        return f"{self.count} thread{'s' * (self.count > 1)}"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._running().pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def phase(self) -> str:
        """What the code does now, one of PHASES; assigning switches it while it runs."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        self._phase = known_phase(phase)
        self._tell(phase)

    def cycles(self) -> int:
        """Turns of the workload made so far by all CPUs: its throughput is their difference."""
        self._tell("?cycles")
        return int(self._answer())

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise KvmperfError("it is not running", "start() it, or use it in a with block")
        return self._child

    def _tell(self, line: str) -> None:
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(line.encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _answer(self) -> str:
        """The next line of the child."""
        child = self._running()
        assert child.stdout is not None
        end = time.monotonic() + START_SECONDS
        while b"\n" not in self._answers:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise KvmperfError(f"process {child.pid} has not answered in {START_SECONDS:.0f} s")
            chunk = os.read(child.stdout.fileno(), 4096)
            if not chunk:
                raise self._death()
            self._answers += chunk
        line, self._answers = self._answers.split(b"\n", 1)
        return line.decode()

    def _death(self) -> KvmperfError:
        said = os.pread(self._complaints, 65536, 0).decode(errors="replace").strip()
        message = f"process {self._running().pid} of the demo has ended"
        return KvmperfError(f"{message}: {said}" if said else message, "start() it anew")


def _end(child: subprocess.Popen[bytes], complaints: int) -> None:
    """Without a reference to the Workload: what is dropped or left at exit ends too."""
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(3)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()
    os.close(complaints)


class MicroGuest(Workload):
    """The micro guest under KVM: `with MicroGuest(vcpus=4) as vm: vm.pid`.

    `cpus` confines the whole VM to these host CPUs (to overcommit a big machine). After the start
    `ring` says whether the guest runs in ring 0 (samples are guest-kernel) or 3 (guest-user).
    Raises NoKvmError where there is no usable /dev/kvm.
    """

    def __init__(
        self,
        vcpus: int = 1,
        *,
        name: str = "micro-guest",
        phase: str = PHASES[0],
        cpus: Iterable[int] | None = None,
    ) -> None:
        super().__init__(vcpus, phase, cpus)
        self.name = name
        self.ring = -1

    def _about(self) -> str:
        ring = f", ring {self.ring}" if self.ring >= 0 else ""
        return f"{self.name!r}, {self.count} vCPU{'s' * (self.count > 1)}{ring}"

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "kvmperf_magic.demo.vmm", "--control"),
            *("--vcpus", str(self.count), "--name", self.name, "--phase", self._phase),
        ]

    def _begin(self) -> None:
        answer: dict[str, Any] = json.loads(self._answer())
        if "error" in answer:
            kind = getattr(errors, answer["kind"], KvmperfError)
            error = kind(answer["error"], answer["hint"])
            raise error
        self.ring = answer["ring"]


class HostBaseline(Workload):
    """The same code as a Linux process of one thread a CPU: `with HostBaseline(threads=2) as p`.

    Default: one thread for each CPU this process may use.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        phase: str = PHASES[0],
        cpus: Iterable[int] | None = None,
    ) -> None:
        super().__init__(threads or min(len(os.sched_getaffinity(0)), MAX_CPUS), phase, cpus)

    def _command(self) -> list[str]:
        return [host_elf(), str(self.count)]

    def _begin(self) -> None:
        self._tell(self._phase)  # threads start with the first line, on the CPUs set until then
        self._answer()


def known_phase(phase: str) -> str:
    if phase not in PHASES:
        raise KvmperfError(f"no phase {phase!r}", f"phases: {', '.join(PHASES)}")
    return phase
