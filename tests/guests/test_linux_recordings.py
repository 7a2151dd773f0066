"""Recordings that carry their guests' symbols: named anywhere, when the guest has long ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from effort import within
from IPython.core.interactiveshell import InteractiveShell
from linuxguest import LinuxGuest
from numpy.typing import NDArray

import kvmperf_magic as kvm
from kvmperf_magic.demo import MicroGuest, guest_elf
from kvmperf_magic.guests.discovery import find_vm
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.tasks import TaskSampler
from kvmperf_magic.guests.watch import watch
from kvmperf_magic.inventory import MachineList
from kvmperf_magic.live import Top
from kvmperf_magic.perfdata.abi import MISC_GUEST_KERNEL, RecordType
from kvmperf_magic.perfdata.records import TASKS_MAGIC
from kvmperf_magic.perfdata.walk import walk
from kvmperf_magic.profile.tree import build_tree
from kvmperf_magic.recorder import Recorder
from kvmperf_magic.recording import Recording
from kvmperf_magic.symbols import kallsyms
from kvmperf_magic.symbols.symboltable import SymbolTable

pytestmark = [pytest.mark.kernels, pytest.mark.root]


def tickers_seen(tasks: TaskSampler, machines: list[Machine]) -> bool:
    """Whether the ticker of each of these guests was seen a few times: samples lie between."""
    ran = dict.fromkeys((machine.pid for machine in machines), 0)
    for one in tasks.looks():
        ticking = [i for i, task in enumerate(one.tasks) if task.comm == "ticker"]
        ran[one.machine] += int(np.isin(one.task, ticking).sum())
    return min(ran.values()) >= 8


@pytest.fixture(scope="module")
def recording(
    linux_guests: dict[str, LinuxGuest], tmp_path_factory: pytest.TempPathFactory
) -> Recording:
    """Of this process, while the guests run: samples to be made theirs. What their CPUs ran is
    looked at as it is under KVM."""
    path = tmp_path_factory.mktemp("recorded") / "perf.data"
    machines = [find_vm(guest.pid) for guest in linux_guests.values()]
    for machine in machines:
        watch(machine).refresh()
    # named, as nobody waits for all emulated guests there are
    pids = [os.getpid(), *(machine.pid for machine in machines)]
    options = {"guest": True, "host": True, "frequency": 2000, "pid": pids}
    with Recorder(path, lambda _: None, **options) as recorder:
        tasks = TaskSampler(machines, every=0.01)
        begin = time.monotonic()
        while time.monotonic() < begin + 0.5 or not tickers_seen(tasks, machines):
            assert time.monotonic() < begin + 30
            sum(range(1000))
        for looks in tasks.stop():
            recorder.process.attach(TASKS_MAGIC, looks.pack())
    return recorder.recording


def in_guest_kernel(
    path: Path, copy: Path, pid: int, addresses: NDArray[np.uint64], tids: Sequence[int] = ()
) -> int:
    """Makes samples ones of a guest's kernel at these addresses, one after the other, as KVM has
    them recorded, of these threads in turn. Gives how many there were."""
    data = bytearray(path.read_bytes())
    offset, size = (int.from_bytes(data[at : at + 8], "little") for at in (40, 48))
    walked = walk(bytes(data), offset, offset + size)
    rows = walked.of_type(RecordType.SAMPLE)[: len(addresses)]
    turns = cycle(tids or [pid])
    for position, address in zip(walked.position[rows].tolist(), addresses.tolist(), strict=False):
        at = offset + 8 * position
        data[at + 4] = data[at + 4] & ~7 | MISC_GUEST_KERNEL
        # IDENTIFIER, IP, pid, tid
        data[at + 16 : at + 24] = address.to_bytes(8, "little")
        data[at + 24 : at + 32] = pid.to_bytes(4, "little") + next(turns).to_bytes(4, "little")
    copy.write_bytes(data)
    return len(rows)


def functions(table: SymbolTable) -> NDArray[np.uint64]:
    """Addresses inside functions all over the kernel, and in every module; none in padding."""
    code = np.isin(table.types | 0x20, [ord("t")]) & (table.end - table.start > 8)
    code = np.flatnonzero(code & ~table.starts_with(b"__pfx_"))
    module = table.modules.codes[code] != 0
    rows = np.concatenate([code[module][::16], code[~module][:: len(code) // 150]])
    rows = np.random.default_rng(0).permutation(rows)
    return np.asarray(table.start[rows] + np.uint64(5))


def test_a_recording_names_its_guests_kernels(
    linux_guest: LinuxGuest, recording: Recording, tmp_path: Path
) -> None:
    told = kallsyms.parse(linux_guest.kallsyms())
    wanted = functions(told)
    path = tmp_path / "perf.data"
    count = in_guest_kernel(Path(recording.path), path, linux_guest.pid, wanted)
    assert count > 100
    rows = told.find(wanted[:count])
    names = [told.names[row] for row in rows.tolist()]
    modules = [
        f"[{m}]" if m else "[guest.kernel.kallsyms]" for m in told.modules.take(rows).values()
    ]
    assert "[sunrpc]" in modules

    opened = kvm.open(path)
    samples = opened.filter(modes="guest-kernel").samples
    got = zip(samples["ip"].tolist(), samples["symbol"], samples["dso"], strict=True)
    assert sorted(got) == sorted(zip(wanted[:count].tolist(), names, modules, strict=True))
    assert set(samples["machine"]) == {linux_guest.suite}
    source = next(
        row for row in opened.symbols.rows() if row["dso"] == f"{linux_guest.suite} kernel"
    )
    assert source["source"].startswith("guest memory: kallsyms tables")
    assert source["symbols"] == len(told)
    said = {row["dso"]: row for row in opened.symbols.rows()}
    for module in set(modules) - {"[guest.kernel.kallsyms]"}:
        row = said[f"{linux_guest.suite} {module}"]
        assert row["source"] == source["source"]
        assert row["symbols"] == told.modules.values().tolist().count(module[1:-1])

    without = kvm.open(path, guest_symbols="none")
    assert set(without.filter(modes="guest-kernel").samples["symbol"]) == {"[unknown]"}
    said = {row["dso"]: row["note"] for row in without.symbols.rows()}
    assert "no symbols for its kernel" in said[f"{linux_guest.suite} kernel"]


def test_reports_are_by_the_processes_of_a_guest(
    linux_guest: LinuxGuest,
    recording: Recording,
    tmp_path: Path,
    shell: InteractiveShell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what the guest says: a CPU's idle task runs there only, the ticker has its number."""
    path = tmp_path / "perf.data"
    addresses = np.tile(functions(kallsyms.parse(linux_guest.kallsyms())), 1000)
    threads = [vcpu.tid for vcpu in sorted(find_vm(linux_guest.pid).vcpus, key=lambda v: v.id)]
    in_guest_kernel(Path(recording.path), path, linux_guest.pid, addresses, threads)
    opened = kvm.open(path)
    guest = opened.filter(modes="guest-kernel")
    samples = guest.samples
    for vcpu in (0, 1):
        ran = samples["guest_comm"][samples["vcpu"] == vcpu]
        assert f"swapper/{vcpu}" in ran
        assert f"swapper/{1 - vcpu}" not in ran
    ticking = samples["guest_pid"] == linux_guest.ticker()
    assert ticking.any()
    assert set(samples["guest_comm"][ticking]) == {"ticker"}  # so is what it forks, for a moment
    assert set(guest.filter(guest_comm="^ticker$").samples["guest_comm"]) == {"ticker"}
    assert len(guest.filter(guest_pid=linux_guest.ticker())) == int(ticking.sum())

    options = f"--modes guest-kernel --guest-pid {linux_guest.ticker()} --guest-comm ^tick"
    shown = shell.run_line_magic(
        "kvm_report", f"{path} --no-cache {options} --sort guest_comm,mode"
    )
    assert shown.table["guest_comm"].tolist() == ["ticker"]
    assert shown.table["samples"].sum() == ticking.sum()

    report = guest.report(sort=("guest_comm", "guest_pid"))
    for row in report.table.rows():
        mine = (samples["guest_comm"] == row["guest_comm"]) & (
            samples["guest_pid"] == row["guest_pid"]
        )
        period = samples["period"][mine]
        assert row["self"] == period.sum()
        sure = period[samples["guest_sure"][mine] == 1].sum()
        assert row["guest_sure"] == pytest.approx(100 * sure / period.sum())
    assert "guest_sure" in repr(report.report)
    tree = build_tree(guest.profile)
    names = tree.name.values()
    way = [(names[node], names[parent]) for node, parent in enumerate(tree.parent.tolist())]
    seen = samples["guest_pid"] >= 0
    columns = (samples[name][seen] for name in ("guest_comm", "guest_sure", "vcpu"))
    ran = {
        (comm if sure == 1 else f"{comm} ?", f"vCPU {vcpu}")
        for comm, sure, vcpu in zip(*columns, strict=True)
    }
    assert {pair for pair in way if pair[1].startswith("vCPU") and pair[0][0] != "["} == ran

    saved = tmp_path / "there.kvmperf"
    opened.save(saved)
    monkeypatch.setattr("kvmperf_magic.source._WORTH_KEEPING", 0)
    here = repr(guest.report(sort="guest_comm,symbol").table)
    for another in (saved, path, path):  # the last from the cache of the one before
        there = kvm.open(another).filter(modes="guest-kernel").report(sort="guest_comm,symbol")
        assert repr(there.table) == here
        for thread in threading.enumerate():
            if thread.name.startswith("kvmperf-cache"):
                thread.join()
    assert (tmp_path / ".perf.data.kvmperf-names").exists()


def test_symbols_that_cannot_hold_the_addresses_are_refused(
    linux_guests: dict[str, LinuxGuest], recording: Recording, tmp_path: Path
) -> None:
    """Addresses of one kernel in the recording of another: no name is better than a wrong one."""
    other = kallsyms.parse(linux_guests["trixie"].kallsyms())
    path = tmp_path / "perf.data"
    in_guest_kernel(Path(recording.path), path, linux_guests["bookworm"].pid, functions(other))
    opened = kvm.open(path)
    samples = opened.filter(modes="guest-kernel").samples
    assert set(samples["symbol"]) == {"[unknown]"}
    assert any("is not the kernel of bookworm as it was sampled" in w for w in opened.warnings)
    said = {row["dso"]: row for row in opened.symbols.rows()}["bookworm kernel"]
    assert (said["source"], said["symbols"]) == ("", 0)
    assert "is not the kernel of bookworm as it was sampled" in said["note"]


@pytest.mark.perf
def test_perf_steps_over_the_symbols(recording: Recording, perf: Callable[..., str]) -> None:
    assert len(Path(recording.path).read_bytes()) > 1 << 20
    said = perf("script", "-i", recording.path, "-F", "comm,ip")
    host = recording.filter(modes="host").samples
    assert len(said.splitlines()) == len(host)


def test_a_damaged_recording_loses_no_more_than_its_symbols(
    linux_guests: dict[str, LinuxGuest], recording: Recording, tmp_path: Path
) -> None:
    data = bytearray(Path(recording.path).read_bytes())
    at = data.find(b"KVMGUEST")
    damaged = 0
    while at >= 0:
        if int.from_bytes(data[at - 2 : at], "little") > 3000:  # the record's size
            data[at + 2000 : at + 2100] = bytes(100)
            damaged += 1
        at = data.find(b"KVMGUEST", at + 1)
    assert damaged
    path = tmp_path / "damaged"
    path.write_bytes(data)
    opened = kvm.open(path)
    assert len(opened) == len(recording)


@pytest.mark.kvm
def test_the_micro_guest_is_named_by_its_elf_and_said_to_be_no_linux(tmp_path: Path) -> None:
    with MicroGuest(vcpus=2, name="tiny", phase="search") as vm:
        time.sleep(0.2)
        with Recorder(tmp_path / "g", lambda _: None, vm="tiny", frequency=1000) as recorder:
            time.sleep(1.0)
        plain = recorder.recording
        named = kvm.open(plain.path, guest_elf=guest_elf())
        assert vm.pid in {guest.pid for guest in MachineList.found().machines}
    samples = named.filter(modes="guest").samples
    unnamed = samples["period"][samples["symbol"] == "[unknown]"].sum()
    assert unnamed <= 0.01 * samples["period"].sum()
    assert set(plain.filter(modes="guest").samples["symbol"]) == {"[unknown]"}
    assert plain.warnings
    said = {
        row["dso"]: row for one in (plain, named) for row in one.symbols.rows() if row["source"]
    }
    assert said["tiny user"]["source"] == str(guest_elf())
    (why,) = (row["note"] for row in plain.symbols.rows() if row["dso"] == "tiny user")
    assert "no symbols for its user code" in why


def test_a_live_view_keeps_the_symbols_of_its_guests(
    linux_guests: dict[str, LinuxGuest], tmp_path: Path
) -> None:
    guest = linux_guests["trixie"]
    top: Top = kvm.top(guest=True, host=True, frequency=500, say=lambda _: None)
    try:
        end = time.monotonic() + 30
        while len(top.table) == 0 or guest.pid not in {one.pid for one in top.guest_symbols}:
            assert time.monotonic() < end
            sum(range(20_000))
        saved = top.snapshot(tmp_path / "snapshot")
    finally:
        top.stop()
    assert top.error is None
    told = kallsyms.parse(guest.kallsyms())
    by_pid = {one.pid: one for one in saved.guest_symbols}
    found = by_pid[guest.pid].table
    assert found is not None
    assert found.names == told.names
    assert (found.start == told.start).all()


def test_a_list_of_all_in_a_moment(linux_guests: dict[str, LinuxGuest]) -> None:
    with within(1.5):
        listed = MachineList.found()
    rows = {row["pid"]: row for row in listed.table.rows()}
    for guest in linux_guests.values():
        row = rows[guest.pid]
        assert row["kernel"] == guest.release
        assert (row["cpus"], row["vcpus"]) == (2, 2)
        assert row["memory MiB"] == guest.memory >> 20
        assert row["symbols"] == len(kallsyms.parse(guest.kallsyms()))
        assert "guest memory" in row["symbols from"]
        assert row["command line"].endswith("told=outside")
        assert 0 <= row["load %"] <= 100
        assert guest.release in repr(listed)
