"""VMs found: real ones under KVM and TCG, and other VMMs in a /proc made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kvmperf_magic.demo import MicroGuest
from kvmperf_magic.errors import TargetError
from kvmperf_magic.guests.commandline import describe, size
from kvmperf_magic.guests.discovery import find_vm, machines
from kvmperf_magic.guests.machine import Machine, Vcpu

MIB = 1 << 20


def vm_of(pid: int, proc: Path | str = "/proc") -> Machine:
    return next(m for m in machines(proc) if m.pid == pid)


@contextmanager
def qemu(*arguments: str, until: Callable[[Machine], bool]) -> Iterator[Machine]:
    """A stopped QEMU, once discovery shows what is waited for."""
    command = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            end = time.monotonic() + 10
            while time.monotonic() < end and child.poll() is None:
                found = [m for m in machines() if m.pid == child.pid]
                if found and until(found[0]):
                    yield found[0]
                    return
                time.sleep(0.05)
            raise AssertionError(f"{command}: not found, ended with {child.poll()}")
        finally:
            child.kill()


@pytest.mark.qemu
@pytest.mark.kvm
def test_qemu_under_kvm_with_thread_names() -> None:
    with qemu(
        *("-accel", "kvm", "-m", "64", "-smp", "2", "-name", "guest=web,debug-threads=on"),
        until=lambda m: len(m.vcpus) == 2 and all(v.tid for v in m.vcpus),
    ) as machine:
        assert (machine.name, machine.vmm, machine.accel) == ("web", "qemu", "kvm")
        assert (machine.kind, machine.memory, machine.notes) == ("guest", 64 * MIB, [])
        assert [(v.id, v.name) for v in machine.vcpus] == [(0, "CPU 0/KVM"), (1, "CPU 1/KVM")]
        for vcpu in machine.vcpus:
            comm = Path(f"/proc/{machine.pid}/task/{vcpu.tid}/comm").read_text()
            assert comm == f"{vcpu.name}\n"


@pytest.mark.qemu
@pytest.mark.kvm
def test_qemu_under_kvm_whose_threads_do_not_tell() -> None:
    with qemu(
        *("-enable-kvm", "-m", "size=65536k", "-smp", "2"), until=lambda m: len(m.vcpus) == 2
    ) as machine:
        assert machine.name == f"qemu-{machine.pid}"
        assert machine.memory == 64 * MIB
        assert [(v.id, v.tid) for v in machine.vcpus] == [(0, 0), (1, 0)]
        assert "2 vCPUs" in machine.notes[0]


@pytest.mark.qemu
def test_qemu_under_tcg_is_listed_and_marked() -> None:
    with qemu(
        *("-accel", "tcg", "-m", "64", "-smp", "2", "-name", "old,debug-threads=on"),
        until=lambda m: len([v for v in m.vcpus if v.tid]) == 2,
    ) as machine:
        assert (machine.name, machine.vmm, machine.accel) == ("old", "qemu", "tcg")
        assert [v.name for v in machine.vcpus] == ["CPU 0/TCG", "CPU 1/TCG"]
        assert "no guest samples" in machine.notes[0]


@pytest.mark.kvm
def test_the_micro_guest_by_name_and_by_pid() -> None:
    with MicroGuest(vcpus=2, name="micro one") as vm:
        machine = find_vm("micro one")
        assert machine == find_vm(vm.pid) == find_vm(str(vm.pid))
        assert (machine.pid, machine.accel, machine.memory) == (vm.pid, "kvm", 2 * MIB)
        assert [(v.id, v.name) for v in machine.vcpus] == [(0, "CPU 0/KVM"), (1, "CPU 1/KVM")]
        with MicroGuest(name="micro one") as other:
            with pytest.raises(TargetError) as raised:
                find_vm("micro one")
            assert f"pid {vm.pid}" in raised.value.hint
            assert f"pid {other.pid}" in raised.value.hint
        with pytest.raises(TargetError, match=r"no such vm here.*micro one"):
            find_vm("no such vm here")


@pytest.mark.kvm
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_users_vm_is_found_by_its_guest_time_and_said_so() -> None:
    # only a process that runs guest code has guest time: no descriptor may be read here
    look = """
import json, os
from kvmperf_magic.guests.discovery import machines
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps([m.to_json() for m in machines()]))
"""
    with MicroGuest(vcpus=2) as vm:
        time.sleep(0.3)
        done = subprocess.run(
            [sys.executable, "-c", look], capture_output=True, text=True, check=True
        )
        found = [Machine.from_json(m) for m in json.loads(done.stdout)]
        machine = next(m for m in found if m.pid == vm.pid)
        assert [v.id for v in machine.vcpus] == [0, 1]
        assert machine.vcpus == vm_of(vm.pid).vcpus
    assert "run as root" in machine.notes[0]
    assert any("run as root" in note for note in found[0].notes)


@dataclass
class FakeProcess:
    """A directory of /proc, as the kernel shows a process to its owner."""

    pid: int
    command: Sequence[str]
    threads: dict[int, str]
    fds: dict[int, str] = field(default_factory=dict)
    calls: dict[int, str] = field(default_factory=dict)
    guest_ticks: dict[int, int] = field(default_factory=dict)
    flags: dict[int, int] = field(default_factory=dict)
    maps: str = ""
    parent: int = 1

    def write(self, proc: Path) -> None:
        path = proc / str(self.pid)
        (path / "fd").mkdir(parents=True)
        (path / "cmdline").write_text("".join(part + "\0" for part in self.command))
        (path / "comm").write_text(next(iter(self.threads.values())) + "\n")
        (path / "maps").write_text(self.maps)
        (path / "limits").write_text("Max stack size   8388608   unlimited   bytes\n")
        for fd, target in self.fds.items():
            (path / "fd" / str(fd)).symlink_to(target)
        total = sum(self.guest_ticks.values())
        (path / "stat").write_text(self.stat(self.pid, "x) R (y", 0, total))
        for tid, name in self.threads.items():
            task = path / "task" / str(tid)
            task.mkdir(parents=True)
            (task / "comm").write_text(name + "\n")
            flags, ticks = self.flags.get(tid, 0), self.guest_ticks.get(tid, 0)
            (task / "stat").write_text(self.stat(tid, name, flags, ticks))
            (task / "syscall").write_text(self.calls.get(tid, "running") + "\n")

    def stat(self, tid: int, name: str, flags: int, ticks: int) -> str:
        fields = ["0"] * 52
        fields[0], fields[1], fields[2], fields[3] = str(tid), f"({name})", "S", str(self.parent)
        fields[8], fields[42] = str(flags), str(ticks)
        return " ".join(fields) + "\n"


def kvm_fds(vcpus: int) -> dict[int, str]:
    numbered = {20 + n: f"anon_inode:kvm-vcpu:{n}" for n in range(vcpus)}
    return {10: "/dev/kvm", 11: "anon_inode:kvm-vm", **numbered}


MEMFD = (
    "7f0000000000-7f0010000000 rw-s 00000000 00:01 55 /memfd:guest (deleted)\n"
    "7f0020000000-7f0030000000 rw-s 10000000 00:01 55 /memfd:guest (deleted)\n"
    "7f0040000000-7f0090000000 r-xp 00000000 00:01 56 /usr/lib/big.so\n"
)
ANONYMOUS = (
    "550000000000-550040000000 rw-p 00000000 00:00 0 [heap]\n"
    "7f0000000000-7f0008000000 rw-p 00000000 00:00 0 \n"
    "7f0010000000-7f0010800000 rw-p 00000000 00:00 0 \n"
)


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        pytest.param(
            FakeProcess(
                100,
                ["/firecracker", "--id=web-7", "--api-sock", "/run/fc.sock"],
                {100: "firecracker", 101: "fc_api", 102: "fc_vcpu 0", 103: "fc_vcpu 1"},
                kvm_fds(2),
                maps=ANONYMOUS,
            ),
            Machine(
                *(100, "web-7", "guest", "firecracker", "kvm", 128 * MIB),
                [Vcpu(0, 102, "fc_vcpu 0"), Vcpu(1, 103, "fc_vcpu 1")],
            ),
            id="firecracker",
        ),
        pytest.param(
            FakeProcess(
                200,
                [
                    *("cloud-hypervisor", "--api-socket", "path=/run/ch/db.sock"),
                    *("--cpus", "boot=1,max=4", "--memory", "size=1G,shared=on"),
                ],
                {200: "cloud-hyperviso", 201: "vmm", 202: "vcpu0"},
                kvm_fds(1),
            ),
            Machine(
                200, "db", "guest", "cloud-hypervisor", "kvm", 1024 * MIB, [Vcpu(0, 202, "vcpu0")]
            ),
            id="cloud-hypervisor",
        ),
        pytest.param(
            FakeProcess(
                300,
                ["/usr/bin/crosvm", "run", "--name", "arc", "kernel"],
                {300: "crosvm", 301: "crosvm_vcpu0"},
                kvm_fds(1),
                maps=MEMFD,
            ),
            Machine(
                300, "arc", "guest", "crosvm", "kvm", 512 * MIB, [Vcpu(0, 301, "crosvm_vcpu0")]
            ),
            id="crosvm",
        ),
        pytest.param(
            FakeProcess(
                400,
                ["lkvm", "run", "--name", "tiny", "-m", "128"],
                {400: "lkvm", 401: "kvm-vcpu-0"},
                kvm_fds(1),
            ),
            Machine(
                400, "tiny", "guest", "kvmtool", "kvm", 128 * MIB, [Vcpu(0, 401, "kvm-vcpu-0")]
            ),
            id="kvmtool",
        ),
        pytest.param(
            # no telling names: one waits in KVM_RUN of descriptor 21 (vCPU 1), one runs. The
            # kernel's own worker shows the KVM_RUN it was made in.
            FakeProcess(
                500,
                ["./myvmm"],
                {500: "myvmm", 501: "worker", 502: "worker", 503: "kvm-nx-lpage-re"},
                kvm_fds(2),
                calls={501: "16 0x15 0xae80 0x0 0 0 0 0 0", 503: "16 0x14 0xae80 0x0 0 0 0 0 0"},
                guest_ticks={502: 7},
                flags={503: 0x404040},
                maps=ANONYMOUS,
            ),
            Machine(
                *(500, "myvmm", "guest", "myvmm", "kvm", 128 * MIB),
                [Vcpu(0, 502, "worker"), Vcpu(1, 501, "worker")],
            ),
            id="hand-written",
        ),
        pytest.param(
            # old kernels do not number vCPU descriptors
            FakeProcess(
                600,
                ["/usr/bin/python3", "-X", "dev", "vmm.py", "-m", "1", "--name", "mine"],
                {600: "python3", 601: "python3", 602: "python3"},
                {5: "anon_inode:kvm-vm", 7: "anon_inode:kvm-vcpu", 6: "anon_inode:kvm-vcpu"},
                calls={602: "29 0x6 0xae80 0x0 0 0 0 0 0"},
                guest_ticks={601: 3, 602: 9},
            ),
            Machine(
                *(600, "mine", "guest", "vmm.py", "kvm", None),
                [Vcpu(0, 602, "python3"), Vcpu(1, 601, "python3")],
            ),
            id="old kernel",
        ),
    ],
)
def test_vmms_in_a_made_proc(tmp_path: Path, process: FakeProcess, expected: Machine) -> None:
    process.write(tmp_path)
    # a helper of the VMM with the VM's descriptor only, and a process that has nothing of KVM
    FakeProcess(
        9000, ["helper"], {9000: "helper"}, {3: "anon_inode:kvm-vm"}, parent=process.pid
    ).write(tmp_path)
    FakeProcess(9001, ["sleep", "1"], {9001: "vcpu0"}, {3: "/dev/null"}).write(tmp_path)
    host, *vms = machines(tmp_path)
    assert (host.pid, host.name, host.kind) == (0, "host", "host")
    assert vms == [expected]
    assert Machine.from_json(expected.to_json()) == expected


def test_what_hinders_sampling_is_said_of_the_host(tmp_path: Path) -> None:
    kernel = tmp_path / "sys/kernel"
    kernel.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\nMemFree: 7 kB\n")
    (kernel / "perf_event_paranoid").write_text("2\n")
    (kernel / "kptr_restrict").write_text("1\n")
    status = tmp_path / "self/status"
    status.write_text("Name:\tx\nCapEff:\t0000000000000000\n")
    (tmp_path / "self/mounts").write_text("proc /proc proc rw,nosuid,hidepid=invisible 0 0\n")
    (host,) = machines(tmp_path)
    assert host.memory == 2 * MIB
    paranoid, restrict, hidden = host.notes
    assert "hidepid" in hidden
    assert "perf_event_paranoid is 2" in paranoid
    assert "kptr_restrict is 1" in restrict
    status.write_text("CapEff:\t000001ffffffffff\n")
    (tmp_path / "self/mounts").write_text("proc /proc proc rw,nosuid 0 0\n")
    assert machines(tmp_path)[0].notes == []


@pytest.mark.parametrize(
    ("command", "name", "accel", "memory"),
    [
        # libvirt's spelling, with a comma in the name
        (
            "qemu-system-x86_64 -name guest=a,,b,debug-threads=on -machine pc,accel=kvm -m 4096",
            *("a,b", "kvm", 4096 * MIB),
        ),
        ("qemu-system-aarch64 --name c --machine virt -M accel=tcg:kvm -m 2G,slots=2", "c", "tcg",
         2048 * MIB),
        ("qemu-system-x86_64 -accel kvm,kernel-irqchip=on -m size=1048576k", "", "kvm", 1024 * MIB),
        ("/usr/libexec/qemu-kvm -nodefaults", "", "kvm", None),
        ("qemu-system-x86_64 disk.img", "", "tcg", None),
    ],
)  # fmt: skip
def test_qemu_command_lines(command: str, name: str, accel: str, memory: int | None) -> None:
    found = describe(command.split(), "qemu-system-x86")
    assert (found.vmm, found.name, found.accel, found.memory) == ("qemu", name, accel, memory)


def test_sizes() -> None:
    assert [size(text, "m") for text in ("1", "1k", "2G", "1GiB", "x", "")] == [
        *(MIB, 1024, 2 << 30, 1 << 30, None, None),
    ]
