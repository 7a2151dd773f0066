"""The micro guest: what is shipped, how it lives and ends, and what perf sees of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from kvmperf_magic.demo import PHASES, HostBaseline, MicroGuest, guest_elf, host_elf
from kvmperf_magic.demo.build import build
from kvmperf_magic.demo.image import GUEST, HOST
from kvmperf_magic.demo.kvm import open_kvm
from kvmperf_magic.demo.run import Workload
from kvmperf_magic.errors import FileError, KvmperfError, NoKvmError

# the functions of dbench on ext3 that make up the workload
SEED = {
    *("ext3_test_allocatable", "bitmap_search_next_usable_block", "__ticket_spin_lock"),
    *("copy_user_generic_string", "do_get_write_access", "journal_dirty_metadata"),
    *("ext3_free_blocks_sb", "ext3_new_blocks", "journal_get_undo_access"),
    *("ext3_try_to_allocate", "__find_get_block", "find_revoke_record"),
}
BITMAP = ("ext3_test_allocatable", "bitmap_search_next_usable_block", "ext3_try_to_allocate")
LOCK = "__ticket_spin_lock"


def functions(path: str | Path) -> dict[str, tuple[int, int]]:
    """Address and size by name."""
    with Path(path).open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {
            s.name: (s["st_value"], s["st_size"])
            for s in table.iter_symbols()
            if s["st_info"]["type"] == "STT_FUNC"
        }


def section(path: str | Path, name: str) -> bytes:
    with Path(path).open("rb") as file:
        found = ELFFile(file).get_section_by_name(name)
        return bytes(found.data()) if found else b""


def wait_until(reached: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def advances(workload: Workload) -> bool:
    before = workload.cycles()
    return wait_until(lambda: workload.cycles() > before)


def turns(workload: Workload, seconds: float = 0.2) -> float:
    """Turns of the workload a second; an undisturbed CPU makes some 800,000."""
    before, start = workload.cycles(), time.monotonic()
    time.sleep(seconds)
    return (workload.cycles() - before) / (time.monotonic() - start)


def ended(pid: int) -> bool:
    """Whether this process is no more; one that nobody has waited for yet has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_guest_and_host_have_the_same_functions() -> None:
    guest, host = functions(guest_elf()), functions(host_elf())
    assert set(guest) >= SEED
    # the workload is the same code: as long, function by function
    workload = set(guest) - {"_start"}
    assert {n: guest[n][1] for n in workload} == {n: host[n][1] for n in workload}
    assert Path(guest_elf()).stat().st_size < 8192
    assert Path(host_elf()).stat().st_size < 8192


@pytest.mark.compiler
def test_what_is_shipped_is_what_the_source_builds(tmp_path: Path) -> None:
    for name, rebuilt in build(tmp_path).items():
        shipped = Path(guest_elf()).with_name(name)
        assert set(functions(rebuilt)) == set(functions(shipped))
        if section(rebuilt, ".comment") == section(shipped, ".comment"):  # the same compiler
            assert section(rebuilt, ".text") == section(shipped, ".text")
    assert {GUEST, HOST} == {path.name for path in tmp_path.iterdir()}


def test_build_says_when_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(KvmperfError, match="no C compiler"):
        build(tmp_path)


def test_no_kvm_says_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(NoKvmError, match="there is no") as missing:
        open_kvm(str(tmp_path / "kvm"))
    assert "modprobe" in missing.value.hint
    with pytest.raises(NoKvmError, match="not a KVM device"):
        open_kvm("/dev/null")


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_no_permission_says_what_mends_it() -> None:
    if os.stat("/dev/kvm").st_mode & 0o006:  # noqa: PTH116
        pytest.skip("everybody may use this /dev/kvm")
    code = (
        "import os; from kvmperf_magic.demo.kvm import open_kvm\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); open_kvm()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "NoKvmError" in done.stderr
    assert "usermod -aG kvm" in done.stderr


def test_the_vmm_imports_no_library() -> None:
    code = (
        "import sys, kvmperf_magic.demo.vmm\n"
        "print([m for m in ('numpy', 'plotly', 'IPython', 'elftools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.kvm
@pytest.mark.alone
def test_the_command_line_runs_for_a_time_and_ends() -> None:
    command = [sys.executable, "-m", "kvmperf_magic.demo.vmm", "--vcpus", "2", "--seconds", "0.2"]
    done = subprocess.run(
        [*command, "--name", "micro"], capture_output=True, text=True, check=True, timeout=30
    )
    said = json.loads(done.stdout)
    assert (said["ready"], said["vcpus"]) == ("micro", 2)
    assert said["ring"] in (0, 3)
    assert done.stderr == ""


WORKLOADS = [
    pytest.param(lambda: MicroGuest(vcpus=2), marks=pytest.mark.kvm, id="guest"),
    pytest.param(lambda: HostBaseline(threads=2), id="host"),
]


@pytest.mark.parametrize("make", WORKLOADS)
def test_a_workload_works_switches_and_ends(make: Callable[[], Workload]) -> None:
    workload = make()
    assert not workload.running
    with workload as running:
        pid = running.pid
        assert running.running
        for phase in PHASES:
            running.phase = phase
            assert advances(running)
        with pytest.raises(KvmperfError, match="no phase"):
            running.phase = "idle"
        assert running.phase == PHASES[-1]
    assert ended(pid)
    workload.stop()
    with pytest.raises(KvmperfError, match="not running"):
        _ = workload.pid
    with workload:  # it can be started again
        assert wait_until(lambda: workload.cycles() > 0)


@pytest.mark.parametrize("make", WORKLOADS)
def test_a_workload_that_is_dropped_ends(make: Callable[[], Workload]) -> None:
    workload = make().start()
    pid = workload.pid
    del workload
    assert ended(pid)


@pytest.mark.parametrize("make", WORKLOADS)
def test_a_workload_that_was_killed_is_an_error_in_words(make: Callable[[], Workload]) -> None:
    with make() as workload:
        os.kill(workload.pid, signal.SIGKILL)
        assert wait_until(lambda: not workload.running)
        with pytest.raises(KvmperfError, match="has ended"):
            workload.cycles()


@pytest.mark.parametrize(
    "what",
    [pytest.param("MicroGuest(vcpus=2)", marks=pytest.mark.kvm), "HostBaseline(threads=2)"],
)
def test_a_workload_dies_with_its_parent(what: str) -> None:
    # the parent's own child keeps the pipe open, as multiprocessing would: the end of stdin
    # alone must not be what the workload waits for
    code = (
        "import os, sys, time; from kvmperf_magic.demo import *\n"
        f"w = {what}; w.start()\n"
        "keeper = os.fork() or (time.sleep(60), os._exit(0))\n"
        "print(w.pid, keeper, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, keeper = map(int, parent.stdout.readline().split())
        try:
            parent.kill()
            parent.wait()
            assert wait_until(lambda: ended(pid))
        finally:
            for left in (pid, keeper):
                if not ended(left):
                    os.kill(left, signal.SIGKILL)


def test_counts_that_cannot_be_are_refused() -> None:
    for count in (0, 65):
        with pytest.raises(KvmperfError, match="1 to 64"):
            MicroGuest(vcpus=count)


def test_another_file_is_no_guest() -> None:
    from kvmperf_magic.demo.image import segments

    with pytest.raises(FileError, match="not a 64-bit"):
        segments(b"#!/bin/sh\n")


SAMPLE = re.compile(r"PERF_RECORD_SAMPLE\(IP, (0x[0-9a-f]+)\): (\d+)/(\d+): (0x[0-9a-f]+) ")


def shares(
    workload: Workload, elf: str, folder: Path, perf: Callable[..., str], seconds: float = 0.7
) -> tuple[Counter[str], set[int], set[int]]:
    """Percent of the samples by function, the cpumodes and the threads, as perf records them."""
    data = folder / "perf.data"
    command = ["record", "-q", "-N", "-a", "-F", "1000", "-e", "cpu-clock:GH", "-o", data]
    perf(*command, "sleep", str(seconds))
    code = {2} if isinstance(workload, HostBaseline) else {4, 5}
    known = functions(elf)
    counts: Counter[str] = Counter()
    modes, tids = set(), set()
    for misc, pid, tid, address in SAMPLE.findall(perf("report", "-D", "-i", data)):
        mode, ip = int(misc, 16) & 7, int(address, 16)
        if int(pid) != workload.pid or mode not in code:
            continue
        modes.add(mode)
        tids.add(int(tid))
        counts[next((n for n, (a, s) in known.items() if a <= ip < a + s), hex(ip))] += 1
    total = sum(counts.values())
    assert total > 50, "hardly a sample: is the machine very busy?"
    return Counter({n: 100 * c / total for n, c in counts.items()}), modes, tids


def two_cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:2]


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.perf
@pytest.mark.root
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_perf_sees_the_guest(vcpus: int, tmp_path: Path, perf: Callable[..., str]) -> None:
    with MicroGuest(vcpus=vcpus, cpus=two_cpus()) as vm:
        time.sleep(0.3)
        if vcpus == 4:  # sooner or later a vCPU that holds the lock has to wait for a CPU
            assert wait_until(lambda: turns(vm) < 20_000, 20)
        share, modes, tids = shares(vm, guest_elf(), tmp_path, perf)
        assert modes == {4 if vm.ring == 0 else 5}
        threads = {int(p.name) for p in Path(f"/proc/{vm.pid}/task").iterdir()}
        assert tids <= threads
        assert len(tids) == vcpus
    assert set(share) <= set(functions(guest_elf()))
    if vcpus == 1:
        assert sum(share[name] for name in BITMAP) > 60
        assert share[LOCK] < 5
    if vcpus == 4:  # on two CPUs: who holds the lock, or is next in line, often does not run
        assert share[LOCK] > 50
        assert share.most_common(1)[0][0] == LOCK


@pytest.mark.perf
@pytest.mark.root
def test_perf_sees_the_baseline(tmp_path: Path, perf: Callable[..., str]) -> None:
    with HostBaseline(threads=1) as process:
        share, _, tids = shares(process, host_elf(), tmp_path, perf)
        assert len(tids) == 1
    assert sum(share[name] for name in BITMAP) > 60
    assert share[LOCK] < 5
    assert sum(share[name] for name in SEED) > 95


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.perf
@pytest.mark.root
def test_a_change_of_phase_is_seen_at_once(tmp_path: Path, perf: Callable[..., str]) -> None:
    expected = {"search": BITMAP, "copy": ("copy_user_generic_string",), "lock": (LOCK,)}
    with MicroGuest(vcpus=4, cpus=two_cpus()) as vm:
        for phase, names in expected.items():
            vm.phase = phase
            time.sleep(0.3)
            share, _, _ = shares(vm, guest_elf(), tmp_path, perf, 0.3)
            assert sum(share[name] for name in names) > 70, phase
