"""Real guests under KVM, recorded, decoded, named and compared."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from guest import running_guest

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.errors import QueryError
from kvmperf_magic.guests.discovery import find_vm
from kvmperf_magic.modes import GUEST_MODES, MODES
from kvmperf_magic.perfdata.abi import MISC_GUEST_KERNEL, MISC_GUEST_USER, RecordType
from kvmperf_magic.perfdata.walk import walk
from kvmperf_magic.recorder import Recorder
from kvmperf_magic.recording import Recording

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.alone]

LOCK = "__ticket_spin_lock"


def record(path: Path, seconds: float = 2.0, **wishes: object) -> Recording:
    return kvm.record(
        duration=seconds,
        output=path,
        progress=False,
        frequency=1000,
        guest_elf=demo.guest_elf(),
        **wishes,
    )


def in_guest(recording: Recording) -> np.ndarray:
    return np.isin(recording.samples["mode"], GUEST_MODES)


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_every_vcpu_is_seen_and_its_functions_named(tmp_path: Path, vcpus: int) -> None:
    with running_guest(vcpus, f"g{vcpus}") as vm:
        recording = record(tmp_path / "guest", vm=f"g{vcpus}")
        pid = vm.pid
        threads = {v.tid: v.id for v in find_vm(pid).vcpus}
    guest = recording.samples[in_guest(recording)]
    assert len(guest) > 100
    assert set(guest["machine"]) == {f"g{vcpus}"}
    assert set(guest["pid"].tolist()) == {pid}
    assert set(guest["vcpu"].tolist()) == set(range(vcpus))
    assert [threads[tid] for tid in guest["tid"].tolist()] == guest["vcpu"].tolist()
    unnamed = guest["period"][guest["symbol"] == "[unknown]"].sum()
    assert unnamed < 0.05 * guest["period"].sum()
    assert set(guest["dso"]) == {demo.guest_elf()}


def test_an_overcommitted_guest_spins_and_the_diff_says_so(tmp_path: Path) -> None:
    with demo.HostBaseline(threads=1) as program:
        host = record(tmp_path / "host", host=True, pid=program.pid, seconds=2)
    with running_guest(4, "crowded"):
        guest = record(tmp_path / "guest", vm="crowded", seconds=2)
        again = record(tmp_path / "again", vm="crowded", seconds=2)
    table = kvm.diff(host, guest).table
    first = next(table.rows())
    assert first["symbol"] == LOCK
    assert first["other"] > 50
    assert first["ci_low"] > 0
    assert first["significant"]
    assert not kvm.diff(guest, again).table["significant"].any()


def test_the_swing_of_a_lock_is_seen_over_time(tmp_path: Path) -> None:
    with (
        running_guest(1, "calm", phase="search") as vm,
        Recorder(
            tmp_path / "guest", vm="calm", frequency=1000, guest_elf=demo.guest_elf()
        ) as recorder,
    ):
        recorder.wait(1.0, progress=False)
        vm.phase = "copy"
        recorder.wait(1.0, progress=False)
    view = recorder.recording.filter(modes="guest")
    line = view.timeline("copy_user_generic_string", buckets=10)
    samples = view.samples
    copies = samples["symbol"] == "copy_user_generic_string"
    for bucket in line.table.rows():  # each of them counted anew from the samples
        inside = (samples["time"] >= bucket["start"]) & (samples["time"] < bucket["end"])
        all_of_it = samples["period"][inside].sum()
        assert bucket["bucket_samples"] == inside.sum() > 0
        expected = 100 * samples["period"][inside & copies].sum() / all_of_it
        assert bucket["share"] == pytest.approx(expected)
        assert bucket["low"] <= expected <= bucket["high"]
    share = line.table["share"]
    assert share[:3].max() < 1  # the guest only searched, then mostly copied
    assert share[-3:].min() > 50
    assert line.min == share.min()
    assert line.max == share.max()
    assert line.mean == pytest.approx(
        100 * samples["period"][copies].sum() / samples["period"].sum()
    )


def test_both_sides_stand_in_one_flame_graph(tmp_path: Path) -> None:
    with running_guest(2, "both"):
        recording = record(tmp_path / "both", host=True, guest=True, callchain=True)
    assert {"host-kernel", "guest-user"} & set(recording.samples["mode"]) >= {"host-kernel"}
    folded = recording.to_folded().splitlines()
    guest = [line for line in folded if line.startswith("both;vCPU ")]
    assert any(re.match(r"both;vCPU [01];\[guest (user|kernel)\];\w+ \d+$", one) for one in guest)
    assert any(not line.startswith("both;") and line.count(";") > 3 for line in folded)
    total = sum(int(line.rsplit(" ", 1)[1]) for line in folded)
    assert total == int(recording.samples["period"].sum())


@pytest.mark.perf
def test_perf_names_our_guest_recording_alike(perf: Callable[..., str], tmp_path: Path) -> None:
    """perf resolves guest kernels only, so the guest's samples are said to be the kernel's."""
    with running_guest(2, "oracle"):
        recording = record(tmp_path / "guest", vm="oracle")
    kernel = tmp_path / "as-kernel"
    shutil.copyfile(recording.path, kernel)
    as_guest_kernel(kernel)
    said = perf(
        *("kvm", "--guest", f"--guestvmlinux={demo.guest_elf()}", "report", "-i", kernel),
        *("--stdio", "-s", "sym", "-F", "overhead,sample,sym", "-g", "none"),
    )
    theirs = {
        found[2]: int(found[1])
        for found in re.finditer(r"^ +[\d.]+% +(\d+) +\[g\] (\S+)", said, re.MULTILINE)
    }
    ours = kvm.open(kernel, guest_elf=demo.guest_elf()).report("symbol", modes="guest").table
    assert dict(zip(ours["symbol"].tolist(), ours["samples"].tolist(), strict=True)) == theirs


def as_guest_kernel(path: Path) -> None:
    """Rewrites the cpumode of guest-user samples in place: guest kernel instead."""
    data = bytearray(path.read_bytes())
    offset, size = (int.from_bytes(data[at : at + 8], "little") for at in (40, 48))
    walked = walk(bytes(data), offset, offset + size)
    rows = walked.of_type(RecordType.SAMPLE)
    rows = rows[(walked.misc[rows] & 7) == MISC_GUEST_USER]
    assert len(rows)
    for position in walked.position[rows].tolist():
        at = offset + 8 * position + 4
        data[at] = data[at] & ~7 | MISC_GUEST_KERNEL
    path.write_bytes(data)


def test_modes_and_machines_filter_without_reading_again(tmp_path: Path) -> None:
    with running_guest(2, "filter") as vm:
        pid = vm.pid
        recording = record(tmp_path / "both", host=True, guest=True)
    Path(recording.path).unlink()  # nothing is read again
    guest = recording.filter(vm="filter")
    assert set(guest.samples["mode"]) <= set(GUEST_MODES)
    assert len(guest) == len(recording.filter(vm=pid)) > 0
    assert set(guest.samples["machine"]) == {"filter"}
    one = guest.filter(vcpu=1)
    assert set(one.samples["vcpu"].tolist()) == {1}
    modes = {mode: len(recording.filter(modes=mode)) for mode in MODES}
    assert sum(modes.values()) == len(recording)
    half = recording.filter(time=(None, 1.0))
    rest = recording.filter(time=(1.0, None))
    assert len(half) + len(rest) == len(recording)
    assert int(half.samples["time"].max()) < int(rest.samples["time"].min())
    with pytest.raises(QueryError, match=r"VMs there: .*filter"):
        recording.filter(vm="nobody")
