"""Whose code was it: the five modes of samples and frames, their machine and their vCPU.

include/uapi/linux/perf_event.h: PERF_RECORD_MISC_CPUMODE_* and enum perf_callchain_context; the
guest contexts are the proposal of linux-kernel, "KVM PMU virtualization", 2010-03-02.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.machine import vcpu_number
from kvmperf_magic.modes import (
    GUEST_KERNEL,
    GUEST_USER,
    HOST_KERNEL,
    HOST_USER,
    HYPERVISOR,
    UNKNOWN,
)
from kvmperf_magic.perfdata import abi
from kvmperf_magic.table import Categorical

_CPUMODES = np.full(8, UNKNOWN, dtype=np.uint8)
_CPUMODES[abi.MISC_KERNEL] = HOST_KERNEL
_CPUMODES[abi.MISC_USER] = HOST_USER
_CPUMODES[abi.MISC_HYPERVISOR] = HYPERVISOR
_CPUMODES[abi.MISC_GUEST_KERNEL] = GUEST_KERNEL
_CPUMODES[abi.MISC_GUEST_USER] = GUEST_USER

# the mode a marker sets, by its distance below 2**64; _GUEST: in the guest, ring not said
_GUEST = 255
_MARKS = np.full(4096, UNKNOWN, dtype=np.uint8)
for _word, _mode in (
    (abi.CONTEXT_HV, HYPERVISOR),
    (abi.CONTEXT_KERNEL, HOST_KERNEL),
    (abi.CONTEXT_USER, HOST_USER),
    (abi.CONTEXT_USER_DEFERRED, HOST_USER),
    (abi.CONTEXT_GUEST, _GUEST),
    (abi.CONTEXT_GUEST_KERNEL, GUEST_KERNEL),
    (abi.CONTEXT_GUEST_USER, GUEST_USER),
):
    _MARKS[2**64 - _word] = _mode


@dataclass(frozen=True)
class Frames:
    """Callchains without markers: of row i, `ip[offsets[i]:offsets[i+1]]`, leaf first."""

    offsets: NDArray[np.int64]
    ip: NDArray[np.uint64]
    mode: NDArray[np.uint8]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


def modes_of(misc: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The mode codes of samples. The record's cpumode decides, whatever the attr excluded."""
    return np.asarray(_CPUMODES[misc & abi.MISC_CPUMODE_MASK])


def is_guest(mode: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((mode == GUEST_KERNEL) | (mode == GUEST_USER))


def split_chains(
    offsets: NDArray[np.int64],
    words: NDArray[np.uint64],
    ip: NDArray[np.uint64],
    mode: NDArray[np.uint8],
) -> Frames:
    """Raw callchain words to frames with a mode each; every row has at least one frame.

    `offsets` (n + 1) bound each row's `words`, `ip` and `mode` (n) are the samples' own. A marker
    sets the mode of the addresses after it, before the first one the sample's mode holds; a
    word that follows USER_DEFERRED is a cookie, no address. A guest sample whose chain has no
    guest frame (today's x86 and arm64 kernels walk no guest stack) is its own address alone, and
    so is a row that is left empty.
    """
    rows = len(offsets) - 1
    counts = np.diff(offsets)
    words = words[offsets[0] : offsets[-1]] if rows else words[:0]
    row = np.repeat(np.arange(rows), counts)
    starts = (offsets[:-1] - offsets[:1])[row]
    place = np.arange(len(words))

    marker = words >= np.uint64(abi.CONTEXT_MAX)
    last = np.maximum.accumulate(np.where(marker, place, -1))
    marked = last >= starts
    below = np.zeros(len(words), dtype=np.uint64) - words[np.where(marked, last, 0)]
    frame_mode = np.where(marked, _MARKS[np.where(marked, below, 0).astype(np.intp)], mode[row])

    own_guest = is_guest(mode)
    unsaid = frame_mode == _GUEST
    by_address = np.where(words >> np.uint64(63), GUEST_KERNEL, GUEST_USER)
    frame_mode = np.where(
        unsaid, np.where(own_guest[row], mode[row], by_address), frame_mode
    ).astype(np.uint8)

    deferred = words == np.uint64(abi.CONTEXT_USER_DEFERRED)
    cookie = np.zeros(len(words), dtype=np.bool_)
    cookie[1:] = deferred[:-1] & (row[1:] == row[:-1])
    kept = ~marker & ~cookie
    has_guest = np.bincount(row[kept & is_guest(frame_mode)], minlength=rows) > 0
    kept &= (~own_guest | has_guest)[row]

    found = np.bincount(row[kept], minlength=rows)
    out = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.maximum(found, 1), out=out[1:])
    empty = found == 0
    from_chain = np.ones(out[-1], dtype=np.bool_)
    from_chain[out[:-1][empty]] = False
    ips = np.empty(out[-1], dtype=np.uint64)
    modes = np.empty(out[-1], dtype=np.uint8)
    ips[from_chain], modes[from_chain] = words[kept], frame_mode[kept]
    ips[~from_chain], modes[~from_chain] = ip[empty], mode[empty]
    return Frames(out, ips, modes)


def machine_pids(
    mode: NDArray[np.uint8], pid: NDArray[np.int32], machine_pid: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The VMM's pid of each guest sample, 0 for the host: one machine a VMM.

    `machine_pid` (0 where not known) comes from PERF_RECORD_ID_INDEX; else the sample's own pid
    is the VMM's, as the vCPU thread is one of its threads.
    """
    vmm = np.where(machine_pid != 0, machine_pid, pid)
    return np.where(is_guest(mode), vmm, 0).astype(np.int32)


def vcpu_of(
    mode: NDArray[np.uint8],
    machine_pid: NDArray[np.int32],
    tid: NDArray[np.int32],
    vcpu: NDArray[np.int32],
    tids: Mapping[int, int],
    comm: Categorical,
) -> NDArray[np.int32]:
    """The number of the vCPU each sample belongs to, -1 where it is none.

    First what the file says (`vcpu`, from ID_INDEX, -1 where not known), then the discovered
    threads (`tids`: thread to vCPU). Of other threads, those that ran guest code are vCPUs: by
    their name where it holds a number, else in the order of their tids. The time a vCPU thread
    spends in the host is its vCPU's too.
    """
    threads, first, of = np.unique(tid, return_index=True, return_inverse=True)
    guest = is_guest(mode)
    runs_guest = np.bincount(of[guest], minlength=len(threads)) > 0
    by_name = np.array([_number(name) for name in comm.categories], dtype=np.int32)
    named = np.full(len(threads), -1, dtype=np.int32)
    if len(by_name):
        np.maximum.at(named, of, by_name[comm.codes])
    known = np.array([tids.get(t, -1) for t in threads.tolist()], dtype=np.int32)
    known = np.where(known < 0, np.where(runs_guest, named, -1), known)

    owner = machine_pid[first]
    owner[of[guest]] = machine_pid[guest]
    for vm in np.unique(owner[runs_guest & (known < 0)]).tolist():
        taken = set(known[(owner == vm) & (known >= 0)].tolist())
        unnamed = np.flatnonzero(runs_guest & (known < 0) & (owner == vm))
        free = (i for i in range(len(taken) + len(unnamed)) if i not in taken)
        known[unnamed] = [next(free) for _ in unnamed]
    return np.where(vcpu >= 0, vcpu, known[of]).astype(np.int32)


def _number(name: str) -> int:
    number = vcpu_number(name)
    return -1 if number is None else number
