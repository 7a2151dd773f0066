"""What is sampled: CPUs and threads, worked out from the options."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kvmperf_magic.errors import TargetError
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.sysfs import online_cpus

WHOLE = -1  # the pid of perf_event_open that means every thread


@dataclass(frozen=True)
class Target:
    """Counters are opened for every one of `threads` on every one of `cpus`.

    `watched` are the processes and threads whose end is the end of the recording.
    """

    cpus: list[int]
    threads: list[int] = field(default_factory=lambda: [WHOLE])
    watched: list[int] = field(default_factory=list)

    @property
    def whole_cpus(self) -> bool:
        return self.threads == [WHOLE]

    def all_ended(self) -> bool:
        return bool(self.watched) and not any(_runs(tid) for tid in self.watched)


def targets_command(options: SamplerOptions) -> bool:
    """Whether it is the command itself that is sampled."""
    return bool(options.command) and not (
        options.system_wide or options.pids or options.tids or options.cpus
    )


def resolve(options: SamplerOptions, command_pid: int | None) -> Target:
    """The target of these options. Raises TargetError for a CPU, process or thread not there.

    Of several processes those that have ended are left out, as long as one is there.
    """
    online = online_cpus()
    cpus = online if options.cpus is None else sorted(set(options.cpus))
    offline = [str(c) for c in cpus if c not in online]
    if offline or not cpus:
        raise TargetError(
            f"CPU {', '.join(offline)} is not online" if offline else "no CPU is named",
            f"online are {', '.join(map(str, online))}",
        )
    if options.pids or options.tids:
        threads = [tid for pid in options.pids for tid in threads_of(pid)]
        threads += [tid for tid in options.tids if _runs(tid)]
        if not threads:
            named = ", ".join(map(str, [*options.pids, *options.tids]))
            raise TargetError(f"no process or thread {named}", "%kvm_list shows the VMs there are")
        watched = [*options.pids, *options.tids]
        return Target(cpus, sorted(set(threads)), watched)
    if targets_command(options):
        assert command_pid is not None
        return Target(cpus, [command_pid])
    return Target(cpus)


def threads_of(pid: int) -> list[int]:
    """The thread ids of a process; empty where it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return []


def _runs(tid: int) -> bool:
    """Whether the thread is there and no zombie (/proc/TID is served for threads too)."""
    try:
        stat = Path(f"/proc/{tid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
