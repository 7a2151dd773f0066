"""Guest context of real recordings: perf's own count of modes, and the micro guest's vCPUs."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kvmperf_magic.demo import MicroGuest
from kvmperf_magic.guests.context import machine_pids, modes_of, split_chains, vcpu_of
from kvmperf_magic.guests.discovery import find_vm, machines
from kvmperf_magic.modes import GUEST_KERNEL, GUEST_USER, MODES
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess
from kvmperf_magic.table import Categorical

DUMPED = re.compile(r"PERF_RECORD_SAMPLE\(IP, (0x[0-9a-f]+)\): ")


def mode_counts(file: PerfFile) -> Counter[str]:
    return Counter(MODES[m] for m in modes_of(file.samples.misc).tolist())


def perf_counts(perf: Callable[..., str], path: Path) -> Counter[str]:
    """`perf report -D` shows every sample, guest samples too."""
    names = ("unknown", *MODES[:5])
    found = DUMPED.findall(perf("report", "-D", "-i", path))
    return Counter(names[int(misc, 16) & 7] for misc in found)


@pytest.mark.kvm
@pytest.mark.perf
@pytest.mark.root
def test_vcpus_of_a_recorded_guest(tmp_path: Path, perf: Callable[..., str]) -> None:
    path = tmp_path / "perf.data.kvm"
    with MicroGuest(vcpus=3, name="recorded") as vm:
        time.sleep(0.2)
        machine = find_vm(vm.pid)
        options = SamplerOptions(
            events=["cpu-clock"],
            frequency=2000,
            callchain=True,
            host=True,
            guest=True,
            output=str(path),
            duration=0.7,
            machines=[m.to_json() for m in machines()],
        )
        with SamplerProcess.start(options) as sampler:
            assert sampler.wait(30)
        pid, ring = vm.pid, vm.ring
    file = read(path)
    assert mode_counts(file) == perf_counts(perf, path)

    samples = file.samples
    mode = modes_of(samples.misc)
    machine_pid = machine_pids(mode, samples.pid, samples.machine_pid)
    ours = machine_pid == pid
    assert np.count_nonzero(ours) > 50
    assert set(mode[ours].tolist()) == {GUEST_KERNEL if ring == 0 else GUEST_USER}

    threads = {vcpu.tid: vcpu.id for vcpu in machine.vcpus}
    comm = file.sideband.comm_of(samples.tid, samples.time)
    expected = [threads[tid] for tid in samples.tid[ours].tolist()]
    assert set(expected) == {0, 1, 2}
    for tids, names in ((threads, True), ({}, True), ({}, False)):
        # by the discovered threads, by the threads' names, by the order of tids: all the same
        known = comm if names else Categorical.constant("thread", len(samples))
        vcpu = vcpu_of(mode, machine_pid, samples.tid, samples.vcpu, tids, known)
        assert vcpu[ours].tolist() == expected

    # one frame deep, the guest's own address
    frames = split_chains(*samples.chains.compact(), samples.ip, mode)
    rows = np.flatnonzero(ours)
    assert (np.diff(frames.offsets)[rows] == 1).all()
    assert (frames.ip[frames.offsets[rows]] == samples.ip[rows]).all()
    assert (frames.mode[frames.offsets[rows]] == mode[rows]).all()
