"""Stock Linux guests, read from outside: what they say of themselves is the oracle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from effort import within
from linuxguest import LinuxGuest, lines

from kvmperf_magic.demo import MicroGuest
from kvmperf_magic.guests import finding
from kvmperf_magic.guests.discovery import find_vm
from kvmperf_magic.guests.finding import Found, find_kernel
from kvmperf_magic.guests.linux import LinuxKernel
from kvmperf_magic.guests.modules import joined
from kvmperf_magic.guests.vmmmemory import VmmMemory
from kvmperf_magic.guests.watch import GuestWatch
from kvmperf_magic.symbols import kallsyms

# root, though they need it not: such tests run one after the other, and share these guests
pytestmark = [pytest.mark.kernels, pytest.mark.root]

GIB = 1 << 30


def look(guest: LinuxGuest) -> LinuxKernel:
    found = find_kernel(VmmMemory(guest.pid), guest.memory)
    assert found.kernel is not None, found.why
    return found.kernel


def memory_of(pid: int) -> dict[str, str]:
    """What the VMM has in memory, by the kernel's own count."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return dict(re.findall(r"^(Rss|Anonymous|Swap):\s+(\d+) kB", told, re.MULTILINE))


def test_every_symbol_is_what_the_guest_prints(linux_guest: LinuxGuest) -> None:
    """All of them, modules' too, with address and type, in the guest's own order."""
    started = time.process_time()  # of all its threads: others may keep the machine busy
    kernel = look(linux_guest)
    modules = kernel.modules()
    table = kernel.table(modules)
    took = time.process_time() - started
    assert modules is not None
    assert lines(joined(kernel.symbols, modules)) == linux_guest.kallsyms().decode().splitlines()
    told = kallsyms.parse(linux_guest.kallsyms())
    assert table.names == told.names
    for column in ("start", "end", "types"):
        assert (getattr(table, column) == getattr(told, column)).all()
    assert table.modules.values().tolist() == told.modules.values().tolist()
    assert table.marks == told.marks
    assert took < 2


def test_modules_are_those_that_the_guest_lists(linux_guest: LinuxGuest) -> None:
    modules = look(linux_guest).modules()
    assert modules is not None
    told = {
        name: (int(address, 16), int(size))
        for name, size, address in re.findall(
            r"^\s*(\w+) (\d+) \d+ .* Live (0x[0-9a-f]+)", linux_guest.modules(), re.MULTILINE
        )
    }
    assert len(told) >= 2
    assert {m.name: (m.ranges[0][0], sum(size for _, size in m.ranges)) for m in modules} == told


def test_version_command_line_cpus_and_clock(linux_guest: LinuxGuest) -> None:
    kernel = look(linux_guest)
    assert kernel.release == linux_guest.release
    assert kernel.banner.startswith(f"Linux version {linux_guest.release} ")
    assert kernel.command_line.endswith("told=outside")
    assert kernel.cpus == 2
    end = time.monotonic() + 30
    # an idle guest looks at its clock now and then, one that rested and is emulated later
    while abs(kernel.clock()[0] - time.time()) > 5:
        assert time.monotonic() < end
        time.sleep(0.1)
    uptime = kernel.clock()[1]
    up = time.time() - Path(f"/proc/{linux_guest.pid}").stat().st_mtime
    assert linux_guest.uptime() - 5 <= uptime <= up + 1


def test_memory_is_laid_out_as_the_machine_has_it(linux_guests: dict[str, LinuxGuest]) -> None:
    above = {}
    for suite, guest in linux_guests.items():
        blocks = look(guest).memory.blocks
        assert sum(block.size for block in blocks) == guest.memory
        above[suite] = [(b.physical, b.size) for b in blocks if b.physical >= 4 * GIB]
    assert above == {
        "bullseye": [],
        "bookworm": [(4 * GIB, GIB)],  # pc: a hole from 3 GiB on
        "trixie": [(4 * GIB, 2 * GIB)],  # q35: from 2 GiB on
    }


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if none began where kernels are linked to begin."""
    monkeypatch.setattr(finding, "banners", lambda *_: iter(()))


@pytest.mark.usefixtures("no_images")
def test_vmcoreinfo_leads_to_the_same(linux_guests: dict[str, LinuxGuest]) -> None:
    """All memory is searched for it; 5.10 does not tell where its tables are."""
    how = {}
    for suite, guest in linux_guests.items():
        kernel = look(guest)
        how[suite] = kernel.how
        assert lines(kernel.symbols) == [
            line for line in guest.kallsyms().decode().splitlines() if "\t" not in line
        ]
    assert how == {
        "bullseye": "kallsyms tables, by their shape",
        "bookworm": "kallsyms tables, by vmcoreinfo",
        "trixie": "kallsyms tables, by vmcoreinfo",
    }


def test_a_guest_is_not_touched(linux_guests: dict[str, LinuxGuest]) -> None:
    """Nothing is faulted in, nothing is written, nobody is traced, and nothing stands still."""
    guest = linux_guests["bookworm"]
    status = Path(f"/proc/{guest.pid}/status")
    tracers: set[str] = set()
    done = threading.Event()

    def observe() -> None:
        while not done.is_set():
            tracers.update(re.findall(r"^(?:TracerPid|State):\s+(\w+)", status.read_text(), re.M))

    guest.qmp("stop")  # so that the guest itself changes nothing
    try:
        vmm = VmmMemory(guest.pid)
        blocks = look(guest).memory.blocks
        before = memory_of(guest.pid), [pages(vmm, block.host, block.size) for block in blocks]
        observer = threading.Thread(target=observe)
        observer.start()
        kernel = look(guest)
        assert kernel.table(kernel.modules())
        done.set()
        observer.join()
        after = memory_of(guest.pid), [pages(vmm, block.host, block.size) for block in blocks]
    finally:
        guest.qmp("cont")
    assert before == after
    assert tracers <= {"0", "S", "R"}


def pages(vmm: VmmMemory, host: int, size: int) -> tuple[int, int]:
    """How many pages there are, and a hash of what is in some of them."""
    there = np.flatnonzero(vmm.present(host, host + size)).astype(np.uint64)
    some = there[:: max(1, len(there) // 2000)] * np.uint64(4096) + np.uint64(host)
    return len(there), hash(vmm.gather(some, 4096).tobytes())


def test_a_guest_runs_on_while_it_is_read(linux_guests: dict[str, LinuxGuest]) -> None:
    guest = linux_guests["trixie"]
    watched = GuestWatch(find_vm(guest.pid))
    assert watched.refresh()
    kernel = watched.kernel
    assert kernel is not None
    before = kernel.ticking()
    end = time.monotonic() + 10
    while kernel.ticking() == before:
        kernel.modules()
        assert time.monotonic() < end


def test_a_machine_gives_its_symbols(linux_guests: dict[str, LinuxGuest]) -> None:
    guest = linux_guests["bullseye"]
    machine = find_vm(guest.pid)
    table = machine.symbols()
    assert machine.symbols_source == "guest memory: kallsyms tables, by their shape"
    told = kallsyms.parse(guest.kallsyms())
    assert (table["address"] == told.start).all()
    assert table["name"].tolist() == told.names
    assert set(table["module"]) == {"", "dummy", "fuse", "sunrpc"}
    with within(0.5):
        assert len(machine.symbols()) == len(told)  # known by now


def test_nobody_reads_the_memory_of_others(linux_guests: dict[str, LinuxGuest]) -> None:
    pid = linux_guests["trixie"].pid
    script = f"""
import os
from kvmperf_magic.errors import NotPermittedError
from kvmperf_magic.guests.vmmmemory import VmmMemory
os.setgid(65534), os.setuid(65534)
try:
    VmmMemory({pid}).mappings()
except NotPermittedError as error:
    print(error)
"""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert f"the memory of process {pid} cannot be read" in said
    assert "CAP_SYS_PTRACE" in said


def test_a_reboot_is_noticed_at_the_next_look(linux_guests: dict[str, LinuxGuest]) -> None:
    """KASLR puts the kernel elsewhere; what the old one left in memory is not taken for it."""
    guest = linux_guests["bullseye"]
    watched = GuestWatch(find_vm(guest.pid))
    assert watched.refresh()
    assert not watched.refresh()
    assert watched.symbols.table is not None
    old = watched.symbols.table.marks["_text"]
    guest.qmp("system_reset")
    guest.wait("text: ", 2)
    while guest.text() == old:  # one boot in a few hundred is at the same place again
        guest.qmp("system_reset")
        guest.wait("text: ", guest.console().count("text: ") + 1)
    assert watched.refresh()
    assert watched.symbols.table.marks["_text"] == guest.text()
    # modules that are loaded later are found as well
    guest.wait("guest is ready", 2)
    watched.refresh()
    assert set(watched.symbols.table.modules.categories) == {"", "dummy", "fuse", "sunrpc"}
    assert not watched.refresh()


def test_no_system_no_kernel(empty_guest: LinuxGuest) -> None:
    found = find_kernel(VmmMemory(empty_guest.pid), empty_guest.memory)
    assert found == Found(None, found.why)
    assert "no Linux kernel in its memory" in found.why


def test_an_ended_guest_says_so(empty_guest: LinuxGuest) -> None:
    machine = find_vm(empty_guest.pid)
    assert "no Linux kernel" in machine.symbols_source
    watched = GuestWatch(machine)
    watched.refresh()
    empty_guest.stop()
    assert machine.symbols_source == "none: it does not run here"
    assert len(machine.symbols()) == 0
    assert watched.refresh()
    assert watched.symbols.table is None
    assert "has ended" in watched.symbols.note


@pytest.mark.kvm
def test_the_micro_guest_is_no_linux() -> None:
    with MicroGuest(vcpus=1, name="tiny") as vm:
        machine = find_vm(vm.pid)
        assert len(machine.symbols()) == 0
        assert "no Linux kernel in its memory: it runs something else" in machine.symbols_source
