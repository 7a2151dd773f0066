"""Columns of samples that say which process a guest's CPU ran: see guests/tasks.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import is_guest
from kvmperf_magic.guests.tasks import GuestTasks, tasks_of
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.source import Source
from kvmperf_magic.table import Column

NAMES = ("guest_comm", "guest_pid", "guest_sure")


def guest_columns(
    source: Source, profile: Profile, mask: NDArray[np.bool_] | None
) -> dict[str, Callable[[], Column]]:
    """`guest_comm`, `guest_pid` and `guest_sure` (0 to 1) of the samples of a view, worked out
    when asked for; {} where the recorder saw no tasks."""

    @cache
    def found() -> GuestTasks:
        machine = source.decoded.machine_pid
        machine = machine if mask is None else machine[mask]
        machine = np.where(is_guest(profile.mode), machine, 0)
        return tasks_of(source.guest_tasks, profile.time, machine, profile.vcpu)

    def column(name: str) -> Column:
        tasks = found()
        columns: dict[str, Column] = dict(
            zip(NAMES, (tasks.comm, tasks.pid, tasks.sure), strict=True)
        )
        return columns[name]

    return {name: partial(column, name) for name in NAMES} if source.guest_tasks else {}
