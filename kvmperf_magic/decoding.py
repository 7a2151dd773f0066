"""Sample columns and sideband -> a Profile: whose sample, which address space, which names.

Work is done on what is unique: samples are reduced to distinct (space, ip, callchain) rows by a
64-bit hash, only those are split at their context markers, and only distinct (space, mode, ip)
triples are given to the symbolizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import machine_pids, modes_of, split_chains, vcpu_of
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.modes import GUEST_KERNEL, GUEST_USER, HOST_USER
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.profile.profile import FrameTable, Profile, Stacks
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Resolved, Symbolizer
from kvmperf_magic.table import Categorical

_Any = TypeVar("_Any", bound=np.generic)
_BLOCK = 32768  # rows hashed at a time: bigger temporaries cost page faults
_CLOCKS = ("cpu-clock", "task-clock")  # software events whose periods are nanoseconds


@dataclass(frozen=True)
class Decoded:
    """A profile, and what it was made from that answers do not need."""

    profile: Profile
    machine_pid: NDArray[np.int32]  # per sample: 0 for the host, else the VMM's pid
    frame_ip: NDArray[np.uint64]  # per frame of profile.stacks: its address
    frame_mode: NDArray[np.uint8]  # per frame of profile.stacks: its mode


def decode(
    samples: SampleColumns,
    sideband: Sideband,
    events: Sequence[Event],
    machines: Sequence[Machine],
    spaces: AddressSpaces,
    symbolizer: Symbolizer,
) -> Decoded:
    """Name every sample of `samples`; nothing is filtered."""
    mode = modes_of(samples.misc)
    machine_pid = machine_pids(mode, samples.pid, samples.machine_pid)
    comm = sideband.comm_of(samples.tid, samples.time)
    tids = {v.tid: v.id for machine in machines for v in machine.vcpus if v.tid > 0}
    vcpu = vcpu_of(mode, machine_pid, samples.tid, samples.vcpu, tids, comm)

    # the space an address means something in: a user epoch, the host kernel (-1), or a VM
    epoch = spaces.epoch_of(samples.pid, samples.time)
    guest = (mode == GUEST_KERNEL) | (mode == GUEST_USER)
    key = _chain_hash(samples.chains)
    key = _mix(key ^ _mix(samples.ip) ^ (mode.astype(np.uint64) << np.uint64(56)))
    key = _mix(key ^ np.where(guest, machine_pid, epoch).astype(np.uint64))
    _, first, stack = np.unique(key, return_index=True, return_inverse=True)

    offsets, words = samples.chains.take(first).compact()
    frames = split_chains(offsets, words, samples.ip[first], mode[first])
    counts = np.diff(frames.offsets)
    row = np.repeat(first, counts)

    # the samples' own addresses are named along with the frames: they are not always among them
    ip = np.concatenate([frames.ip, samples.ip[first]])
    where = np.concatenate([frames.mode, mode[first]])
    owner = np.concatenate([row, first])
    names, which = _resolve(
        ip, where, epoch[owner], samples.pid[owner], machine_pid[owner], symbolizer
    )
    table, frame = _frame_table(names, where, which)

    stacks = Stacks(frames.offsets, _reversed_rows(frame[: len(frames.ip)], frames.offsets))
    leaf = frame[len(frames.ip) :][stack]
    profile = Profile(
        time=samples.time,
        period=samples.period,
        mode=mode,
        ip=samples.ip,
        pid=samples.pid,
        tid=samples.tid,
        cpu=samples.cpu,
        vcpu=vcpu,
        event=Categorical(samples.event, [event.name for event in events]),
        comm=comm,
        symbol=table.symbol.take(leaf),
        dso=table.dso.take(leaf),
        machine=_machine_names(machine_pid, machines, sideband),
        stack=stack.astype(np.int32),
        stacks=stacks,
        frames=table,
        unit=unit_of([events[i] for i in np.unique(samples.event).tolist()]),
    )
    return Decoded(
        profile,
        machine_pid,
        _reversed_rows(frames.ip, frames.offsets),
        _reversed_rows(frames.mode, frames.offsets),
    )


def unit_of(events: Sequence[Event]) -> str:
    """What a period of these events counts, in words for a picture."""
    names = list(dict.fromkeys(event.name.split(":")[0] for event in events)) or ["samples"]
    if len(names) > 1:
        return "periods of each event"
    return f"{names[0]} ns" if names[0] in _CLOCKS else names[0]


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _chain_hash(chains: Chains) -> NDArray[np.uint64]:
    """One hash a chain; the order of its words counts."""
    hashed = np.zeros(len(chains), dtype=np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, len(chains), _BLOCK):
        offsets, block = chains.take(slice(start, start + _BLOCK)).compact()
        place = np.arange(len(block)) - np.repeat(offsets[:-1], np.diff(offsets))
        sums = np.zeros(len(block) + 1, dtype=np.uint64)
        np.cumsum(_mix(block + place.astype(np.uint64) * golden), out=sums[1:])
        hashed[start : start + _BLOCK] = sums[offsets[1:]] - sums[offsets[:-1]]
    return hashed


def _reversed_rows(values: NDArray[_Any], offsets: NDArray[np.int64]) -> NDArray[_Any]:
    """Each row back to front: leaf first becomes root first."""
    counts = np.diff(offsets)
    index = np.repeat(offsets[:-1] + offsets[1:] - 1, counts) - np.arange(offsets[-1])
    return np.asarray(values[index])


def _resolve(
    ip: NDArray[np.uint64],
    mode: NDArray[np.uint8],
    epoch: NDArray[np.int32],
    pid: NDArray[np.int32],
    machine_pid: NDArray[np.int32],
    symbolizer: Symbolizer,
) -> tuple[Resolved, NDArray[np.intp]]:
    """Names of the distinct (space, mode, ip), and for each row which of them it is."""
    guest = (mode == GUEST_KERNEL) | (mode == GUEST_USER)
    space = np.where(mode == HOST_USER, epoch, np.where(guest, machine_pid, -1))
    key = _mix(ip ^ _mix((space.astype(np.uint64) << np.uint64(8)) | mode))
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    owner = np.where(guest, machine_pid, pid)[first].astype(np.int32)
    return symbolizer.resolve(epoch[first], owner, mode[first], ip[first]), which


def _frame_table(
    names: Resolved, mode: NDArray[np.uint8], which: NDArray[np.intp]
) -> tuple[FrameTable, NDArray[np.int32]]:
    """Distinct (symbol, dso, mode) as a table, and for each row its place in it."""
    first = np.zeros(len(names.symbol), dtype=np.intp)
    first[which] = np.arange(len(which))
    modes = mode[first]
    key = names.symbol.codes.astype(np.int64) * (len(names.dso.categories) + 1) + names.dso.codes
    key = key * 8 + modes
    _, representative, frame = np.unique(key, return_index=True, return_inverse=True)
    table = FrameTable(
        names.symbol.take(representative), names.dso.take(representative), modes[representative]
    )
    return table, frame[which].astype(np.int32)


def _machine_names(
    machine_pid: NDArray[np.int32], machines: Sequence[Machine], sideband: Sideband
) -> Categorical:
    """Each sample's machine: `host`, or the VM's name; one name never stands for two VMs."""
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
