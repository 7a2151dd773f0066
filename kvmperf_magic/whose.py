"""Whose samples are they: thread, name, address space, machine and vCPU.

Samples of one thread between two changes of anything are alike: they are brought down to
**kinds**, and everything is worked out for these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import is_guest, machine_pids, modes_of, vcpu_of
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.modes import HOST_USER
from kvmperf_magic.numbering import mix, number
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.symbols.guestsymbols import Boots
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.table import Categorical


@dataclass(frozen=True)
class Whose:
    """`kind` (int64[n]) is what sample i is of; all else has a row a kind.

    epoch: the user address space, for guests which boot of the VM it is; machine_pid: the VMM's
    pid, 0 for the host; vcpu: -1 for none.
    `space` is a hash of what an address means something in: a user epoch, the host kernel, or
    one ring of a VM; `owner` a hash of whose stack it is.
    """

    kind: NDArray[np.int64]
    mode: NDArray[np.uint8]
    pid: NDArray[np.int32]
    epoch: NDArray[np.int32]
    machine_pid: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    comm: Categorical
    machine: Categorical
    space: NDArray[np.uint64]
    owner: NDArray[np.uint64]


def whose(
    samples: SampleColumns,
    sideband: Sideband,
    machines: Sequence[Machine],
    spaces: AddressSpaces,
    boots: Mapping[int, Boots],
) -> Whose:
    """Group the samples by all that tells whose they are, and find out."""
    changes = np.concatenate(
        [
            sideband.comm["time"],
            sideband.fork["time"],
            spaces.times,
            *(of.begins[1:] for of in boots.values()),
        ]
    )
    kind, first = number(_key(samples, _ranks(samples.time, changes)))

    pid, tid, time = samples.pid[first], samples.tid[first], samples.time[first]
    mode = modes_of(samples.misc[first])
    machine_pid = machine_pids(mode, pid, samples.machine_pid[first])
    comm = sideband.comm_of(tid, time)
    epoch = spaces.epoch_of(pid, time)
    tids = {v.tid: v.id for machine in machines for v in machine.vcpus if v.tid > 0}
    vcpu = vcpu_of(mode, machine_pid, tid, samples.vcpu[first], tids, comm)
    guest = is_guest(mode)
    epoch[guest] = 0
    for vm, of in boots.items():
        mine = guest & (machine_pid == vm)
        epoch[mine] = of.which(time[mine])
    in_guest = machine_pid.astype(np.int64) | epoch.astype(np.int64) << 32
    place = np.where(mode == HOST_USER, epoch, np.where(guest, in_guest, -1))
    owner = np.where(guest, in_guest, epoch)
    return Whose(
        kind,
        mode,
        pid,
        epoch,
        machine_pid,
        vcpu,
        comm,
        machine_names(machine_pid, machines, sideband),
        mix((place.astype(np.uint64) << np.uint64(8)) | mode),
        mix((owner.astype(np.uint64) << np.uint64(8)) | mode),
    )


def _ranks(time: NDArray[np.uint64], changes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many of the changes came before or with each of these ascending times."""
    steps = np.bincount(np.searchsorted(time, changes), minlength=len(time))[: len(time)]
    return np.cumsum(steps).astype(np.uint64)


def _key(samples: SampleColumns, rank: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of all that is the same for the samples of one kind."""
    key = samples.pid.astype(np.uint64) << np.uint64(32)
    key ^= samples.tid.view(np.uint32)
    key = mix(key)
    key ^= rank << np.uint64(3)
    key ^= samples.misc & np.uint16(7)
    if samples.vcpu.max(initial=-1) >= 0 or samples.machine_pid.any():
        told = samples.machine_pid.astype(np.uint64) << np.uint64(32)
        key = mix(key) ^ (told ^ samples.vcpu.view(np.uint32))
    return mix(key)


def machine_names(
    machine_pid: NDArray[np.int32], machines: Sequence[Machine], sideband: Sideband
) -> Categorical:
    """The machine of each row: `host`, or the VM's name; one name never stands for two VMs."""
    pids, codes = np.unique(machine_pid, return_inverse=True)
    known = {machine.pid: machine.name for machine in machines if machine.kind == "guest"}
    end = np.full(len(pids), np.iinfo(np.uint64).max, dtype=np.uint64)
    comms = sideband.comm_of(pids, end).values()
    names = [
        "host" if pid == 0 else known.get(pid, comm) for pid, comm in zip(pids, comms, strict=True)
    ]
    names = [
        name if pid == 0 or names.count(name) == 1 else f"{name}:{pid}"
        for pid, name in zip(pids, names, strict=True)
    ]
    return Categorical(codes.astype(np.int32), names)
