"""The guest-context decoder against a plain loop, and on chains written by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.guests.context import (
    machine_pids,
    modes_of,
    split_chains,
    vcpu_of,
)
from kvmperf_magic.guests.machine import vcpu_number
from kvmperf_magic.modes import (
    GUEST_KERNEL,
    GUEST_USER,
    HOST_KERNEL,
    HOST_USER,
    HYPERVISOR,
    MODES,
    UNKNOWN,
)
from kvmperf_magic.perfdata import abi
from kvmperf_magic.table import Categorical

MARKS = {
    abi.CONTEXT_HV: HYPERVISOR,
    abi.CONTEXT_KERNEL: HOST_KERNEL,
    abi.CONTEXT_USER: HOST_USER,
    abi.CONTEXT_USER_DEFERRED: HOST_USER,
    abi.CONTEXT_GUEST_KERNEL: GUEST_KERNEL,
    abi.CONTEXT_GUEST_USER: GUEST_USER,
}
GUESTS = (GUEST_KERNEL, GUEST_USER)
KERNEL_IP = 0xFFFFFFFF81000000

words = st.one_of(
    st.sampled_from([*MARKS, abi.CONTEXT_GUEST, 2**64 - 7, abi.CONTEXT_MAX, abi.CONTEXT_MAX - 1]),
    st.integers(0, 2**64 - 1),
)
samples = st.lists(
    st.tuples(st.lists(words, max_size=8), st.integers(0, 2**64 - 1), st.sampled_from(range(6))),
    max_size=8,
)


def plain(chain: list[int], ip: int, own: int) -> list[tuple[int, int]]:
    """One sample's frames, word by word."""
    frames, mode, after_deferred = [], own, False
    for word in chain:
        if word >= 2**64 - 4095:
            mode = MARKS.get(word, UNKNOWN)
            if word == abi.CONTEXT_GUEST:
                mode = own if own in GUESTS else -1
        elif not after_deferred:
            by_address = GUEST_KERNEL if word >= 2**63 else GUEST_USER
            frames.append((word, by_address if mode == -1 else mode))
        after_deferred = word == abi.CONTEXT_USER_DEFERRED
    if own in GUESTS and not any(mode in GUESTS for _, mode in frames):
        frames = []
    return frames or [(ip, own)]


def split(rows: list[tuple[list[int], int, int]], lead: int = 0) -> list[list[tuple[int, int]]]:
    """split_chains as lists; `lead` words of other samples stand before the first."""
    chains = [chain for chain, _, _ in rows]
    offsets = np.cumsum([lead, *map(len, chains)], dtype=np.int64)
    flat = np.array([0] * lead + [word for chain in chains for word in chain], dtype=np.uint64)
    ip = np.array([ip for _, ip, _ in rows], dtype=np.uint64)
    mode = np.array([mode for _, _, mode in rows], dtype=np.uint8)
    frames = split_chains(offsets, flat, ip, mode)
    pairs = list(zip(frames.ip.tolist(), frames.mode.tolist(), strict=True))
    bounds = frames.offsets.tolist()
    assert (len(bounds), bounds[0], bounds[-1]) == (len(rows) + 1, 0, len(pairs))
    return [pairs[a:b] for a, b in pairwise(bounds)]


@given(samples, st.integers(0, 3))
def test_chains_split_as_a_plain_loop_splits_them(
    rows: list[tuple[list[int], int, int]], lead: int
) -> None:
    assert split(rows, lead) == [plain(*row) for row in rows]


@pytest.mark.parametrize(
    ("chain", "mode", "frames"),
    [
        # what a 6.x kernel writes for a host sample
        (
            [abi.CONTEXT_KERNEL, KERNEL_IP, KERNEL_IP + 8, abi.CONTEXT_USER, 0x401000],
            HOST_KERNEL,
            [(KERNEL_IP, HOST_KERNEL), (KERNEL_IP + 8, HOST_KERNEL), (0x401000, HOST_USER)],
        ),
        # for a guest sample: nothing, or the host's markers with or without the VMM's stack
        ([], GUEST_USER, [(7, GUEST_USER)]),
        ([abi.CONTEXT_USER], GUEST_KERNEL, [(7, GUEST_KERNEL)]),
        ([abi.CONTEXT_USER, 0x401000], GUEST_KERNEL, [(7, GUEST_KERNEL)]),
        # real guest stacks, as the markers allow them
        (
            [abi.CONTEXT_GUEST_KERNEL, KERNEL_IP, abi.CONTEXT_GUEST_USER, 0x401000],
            GUEST_KERNEL,
            [(KERNEL_IP, GUEST_KERNEL), (0x401000, GUEST_USER)],
        ),
        (
            [abi.CONTEXT_GUEST, KERNEL_IP, 0x401000],
            HOST_KERNEL,
            [(KERNEL_IP, GUEST_KERNEL), (0x401000, GUEST_USER)],
        ),
        # a user stack that follows later has a cookie in its place
        (
            [abi.CONTEXT_KERNEL, KERNEL_IP, abi.CONTEXT_USER_DEFERRED, 0xC00C1E],
            HOST_KERNEL,
            [(KERNEL_IP, HOST_KERNEL)],
        ),
    ],
)
def test_chains_of_real_kernels(chain: list[int], mode: int, frames: list[tuple[int, int]]) -> None:
    assert split([(chain, 7, mode)]) == [frames]


def test_the_mode_is_the_records_cpumode_whatever_else_misc_says() -> None:
    misc = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0x4005, 0x4001], dtype=np.uint16)
    assert [MODES[m] for m in modes_of(misc)] == [
        *("unknown", "host-kernel", "host-user", "hypervisor", "guest-kernel", "guest-user"),
        *("unknown", "unknown", "guest-user", "host-kernel"),
    ]


def test_machines_are_vmm_pids() -> None:
    mode = np.array([HOST_USER, GUEST_USER, GUEST_KERNEL, HOST_KERNEL], dtype=np.uint8)
    pid = np.array([10, 20, 0, 20], dtype=np.int32)
    from_index = np.array([0, 0, 30, 30], dtype=np.int32)
    assert machine_pids(mode, pid, from_index).tolist() == [0, 20, 30, 0]


def vcpus(rows: list[tuple[int, int, int, str, int]], tids: dict[int, int]) -> list[int]:
    """Rows of mode, machine pid, tid, comm and the vCPU of ID_INDEX."""
    names = [comm for *_, comm, _ in rows]
    categories = sorted(set(names))
    codes = np.array([categories.index(name) for name in names], dtype=np.int32)
    mode = np.array([row[0] for row in rows], dtype=np.uint8)
    machine, tid, known = (np.array([row[i] for row in rows], dtype=np.int32) for i in (1, 2, 4))
    found: list[int] = vcpu_of(
        mode, machine, tid, known, tids, Categorical(codes, categories)
    ).tolist()
    return found


def test_vcpus_by_discovered_thread_by_name_and_by_order() -> None:
    rows = [
        # discovered: thread 11 is vCPU 5, whatever its name, in the guest and in the host
        (GUEST_USER, 10, 11, "CPU 0/KVM", -1),
        (HOST_KERNEL, 0, 11, "CPU 0/KVM", -1),
        # by name, the older of the two threads last
        (GUEST_KERNEL, 20, 22, "fc_vcpu 0", -1),
        (GUEST_KERNEL, 20, 21, "fc_vcpu 1", -1),
        # by order, around a number that is taken
        (GUEST_USER, 30, 33, "vmm", -1),
        (GUEST_USER, 30, 31, "vmm", -1),
        (GUEST_USER, 30, 32, "vcpu0", -1),
        # no vCPU: never runs guest code
        (HOST_USER, 0, 40, "vcpu3", -1),
        # the file's own word comes first
        (GUEST_USER, 10, 11, "CPU 0/KVM", 2),
    ]
    assert vcpus(rows, {11: 5}) == [5, 5, 0, 1, 2, 1, 0, -1, 2]
    assert vcpus([], {}) == []


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("CPU 0/KVM", 0),
        ("CPU 12/KVM", 12),
        ("fc_vcpu 3", 3),
        ("vcpu10", 10),
        ("crosvm_vcpu1", 1),
        ("kvm-vcpu-2", 2),
        ("qemu-system-x86", None),
        ("vcpu", None),
        ("xvcpu1", None),
    ],
)
def test_numbers_in_thread_names(name: str, number: int | None) -> None:
    assert vcpu_number(name) == number
