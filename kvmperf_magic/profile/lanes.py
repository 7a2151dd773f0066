"""Samples cut into lanes: host threads and vCPUs, each of which does one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.groups import group_rows
from kvmperf_magic.profile.profile import GUEST_CODES, Profile, categorical


@dataclass(frozen=True)
class Lane:
    """The samples of one host thread, or of one vCPU of a guest, in the order of time."""

    rows: NDArray[np.int64]
    guest: bool
    machine: str
    comm: str
    pid: int
    tid: int
    vcpu: int

    @property
    def process(self) -> str:
        return f"{self.machine} (guest)" if self.guest else self.comm

    @property
    def thread(self) -> str:
        if not self.guest:
            return f"{self.comm} {self.tid}"
        return f"vCPU {self.vcpu}" if self.vcpu >= 0 else f"vCPU ? (thread {self.tid})"

    @property
    def name(self) -> str:
        if self.guest:
            return f"{self.machine} {self.thread} (guest)"
        return f"{self.comm} {self.pid}/{self.tid} (host)"


def lanes_of(profile: Profile) -> tuple[list[Lane], NDArray[np.int64]]:
    """The lanes of a profile, the heaviest first, and which of them each sample is in."""
    guest = np.isin(profile.mode, GUEST_CODES)
    known = guest & (profile.vcpu >= 0)
    machine = categorical(profile.machine.categories).codes  # one name, one number
    keys = [
        guest,
        np.where(guest, machine[profile.machine.codes] if len(machine) else 0, 0),
        np.where(known, profile.vcpu, -1),
        np.where(guest, 0, profile.pid),
        np.where(known, 0, profile.tid),
    ]
    groups = group_rows([key.astype(np.int64) for key in keys], len(profile))
    weight = np.bincount(groups.ids, profile.period.astype(np.float64), minlength=len(groups))
    rank = np.argsort(-weight, kind="stable")
    place = np.empty(len(rank), np.int64)
    place[rank] = np.arange(len(rank))
    lane = place[groups.ids]
    order = np.argsort(lane, kind="stable")
    bounds = np.cumsum(np.bincount(lane, minlength=len(groups)))[:-1]
    lanes = []
    for rows in np.split(order, bounds) if len(order) else []:
        last = int(rows[-1])  # a thread is called what it was called in the end
        lanes.append(
            Lane(
                rows=rows,
                guest=bool(guest[last]),
                machine=profile.machine.categories[profile.machine.codes[last]],
                comm=profile.comm.categories[profile.comm.codes[last]],
                pid=int(profile.pid[last]),
                tid=int(profile.tid[last]),
                vcpu=int(profile.vcpu[last]),
            )
        )
    return lanes, lane
