"""What /proc tells of one process that may be a VMM (Documentation/filesystems/proc.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_VCPU_FD = re.compile(r"anon_inode:\[?kvm-vcpu(?::(\d+))?\]?")
_VM_FD = re.compile(r"anon_inode:\[?kvm-vm\]?")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.. \S+ (\S+ \d+)\s*(.*)")

_PF_USER_WORKER = 0x4000  # include/linux/sched.h: a kernel thread made from a user thread
_IOCTLS = ("16", "29")  # the system call's number: x86-64; arm64 and riscv
_KVM_RUN = 0xAE80


@dataclass(frozen=True)
class Thread:
    """One thread: its name, how many clock ticks it ran guest code, the KVM_RUN it is in."""

    tid: int
    name: str
    guest_ticks: int
    run_fd: int | None


@dataclass(frozen=True)
class Descriptors:
    """The KVM descriptors of a process: vCPU numbers by descriptor, -1 where not said."""

    vm: bool
    vcpus: dict[int, int]


class Process:
    """One directory of /proc. Every answer copes with a process that vanishes meanwhile."""

    def __init__(self, proc: Path, pid: int) -> None:
        self.path = proc / str(pid)
        self.pid = pid

    @property
    def comm(self) -> str:
        return _read(self.path / "comm").rstrip("\n")

    @property
    def command(self) -> list[str]:
        return [part for part in _read(self.path / "cmdline").split("\0") if part]

    def descriptors(self) -> Descriptors:
        """Raises PermissionError where they may not be read."""
        vm, vcpus = False, {}
        try:
            for fd in (self.path / "fd").iterdir():
                try:
                    target = str(fd.readlink())
                except FileNotFoundError:
                    continue  # closed meanwhile
                if found := _VCPU_FD.fullmatch(target):
                    vcpus[int(fd.name)] = int(found[1] or -1)
                vm = vm or bool(_VM_FD.fullmatch(target))
        except (FileNotFoundError, ProcessLookupError):
            pass
        return Descriptors(vm, vcpus)

    def parent(self) -> int:
        fields = _stat(self.path)
        return int(fields[1]) if len(fields) > 1 else 0

    def guest_ticks(self) -> int:
        """Clock ticks all its threads, ended ones too, spent in guest code."""
        return _guest_ticks(_stat(self.path))

    def threads(self) -> list[Thread]:
        """Its threads by tid, without the kernel's own workers among them.

        Such a worker (kvm-nx-lpage-recovery, vhost) shows the system call of the thread that made
        it, which can be KVM_RUN.
        """
        found = []
        try:
            tids = sorted(int(entry.name) for entry in (self.path / "task").iterdir())
        except OSError:
            return []
        for tid in tids:
            path = self.path / "task" / str(tid)
            stat = _stat(path)
            if len(stat) > 6 and int(stat[6]) & _PF_USER_WORKER:
                continue
            name = _read(path / "comm").rstrip("\n")
            found.append(Thread(tid, name, _guest_ticks(stat), _run_descriptor(path)))
        return found

    def largest_memory(self) -> int | None:
        """Bytes of what is most likely the guest's memory; None where maps may not be read.

        VMMs that make a memory file for it map that file in pieces; else it is the largest
        writable mapping that is no stack and no heap.
        """
        stack = _read(self.path / "limits").partition("Max stack size")[2].split()[:1]
        files: dict[str, int] = {}
        plain = 0
        for line in _read(self.path / "maps").splitlines():
            found = _MAPPING.fullmatch(line)
            if not found:
                continue
            size = int(found[2], 16) - int(found[1], 16)
            if found[4].startswith(("/memfd:", "/dev/shm/", "/dev/hugepages/")):
                files[found[3]] = files.get(found[3], 0) + size
            elif found[4] not in ("[heap]", "[stack]") and [str(size)] != stack:
                plain = max(plain, size)
        return max(files.values(), default=plain) or None


def processes(proc: Path) -> list[Process]:
    """All processes there are; kernel threads too, they have no command."""
    return [
        Process(proc, pid)
        for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _stat(path: Path) -> list[str]:
    """The fields of `stat` from the third on (proc(5) counts from 1)."""
    return _read(path / "stat").rpartition(")")[2].split()


def _guest_ticks(stat: list[str]) -> int:
    return int(stat[40]) if len(stat) > 40 else 0


def _run_descriptor(path: Path) -> int | None:
    """The descriptor of the KVM_RUN this thread waits in; running threads show none."""
    call = _read(path / "syscall").split()
    if len(call) > 2 and call[0] in _IOCTLS and int(call[2], 16) == _KVM_RUN:
        return int(call[1], 16)
    return None
