"""The VMs on this host: every process that holds a KVM descriptor, whatever the VMM.

A process with `anon_inode:kvm-vm` has a VM, and `anon_inode:kvm-vcpu:N` for each vCPU
(virt/kvm/kvm_main.c: create_vcpu_fd()). QEMU guests under TCG are found by their program.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kvmperf_magic.errors import TargetError
from kvmperf_magic.guests.commandline import Description, describe, known_vmm, size
from kvmperf_magic.guests.machine import Machine, Vcpu, vcpu_number
from kvmperf_magic.guests.process import Descriptors, Process, Thread, processes

_CAP_SYS_PTRACE, _CAP_SYS_ADMIN, _CAP_SYSLOG, _CAP_PERFMON = 19, 21, 34, 38


def machines(proc: str | Path = "/proc") -> list[Machine]:
    """The host first, then the VMs by pid of their VMM.

    What cannot be looked into is said in the `notes` of the host or of the VM it concerns.
    """
    proc = Path(proc)
    found: list[Machine] = []
    parents: dict[int, int] = {}
    unreadable = 0
    for process in processes(proc):
        try:
            descriptors = process.descriptors()
        except PermissionError:
            descriptors = None
            unreadable += bool(process.command)  # kernel threads have none
        machine = _machine(process, descriptors)
        if machine is not None:
            found.append(machine)
            parents[machine.pid] = process.parent()
    # a VMM's helper processes inherit the VM's descriptor, not the vCPUs'
    vms = {machine.pid for machine in found if machine.vcpus}
    found = [m for m in found if m.vcpus or parents[m.pid] not in vms]
    return [_host(proc, unreadable), *found]


def is_here(machine: Machine, proc: str | Path = "/proc") -> bool:
    """Whether a guest still runs: a recording's may have ended, and its pid be another's."""
    process = Process(Path(proc), machine.pid)
    try:
        descriptors = process.descriptors()
    except PermissionError:
        descriptors = None
    now = _machine(process, descriptors)
    return now is not None and now.name == machine.name


def find_vm(wanted: str | int, found: Sequence[Machine] | None = None) -> Machine:
    """The VM of this name or VMM pid, among `found` or all there are.

    Raises TargetError, which names the VMs there are, for none and for several of one name.
    """
    vms = [m for m in (machines() if found is None else found) if m.kind == "guest"]
    text = str(wanted)
    matching = [m for m in vms if m.name == text] or [m for m in vms if str(m.pid) == text]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(f"{m.name} (pid {m.pid})" for m in matching or vms)
    if matching:
        raise TargetError(f"{len(matching)} VMs are named {text!r}", f"say which by pid: {names}")
    raise TargetError(f"no VM {text!r}", f"VMs here: {names}" if names else "no VM runs here")


def _machine(process: Process, descriptors: Descriptors | None) -> Machine | None:
    """The VM of this process, if it has one; `descriptors` None: not readable."""
    if descriptors is not None and not (descriptors.vm or descriptors.vcpus):
        command = process.command
        if not command or describe(command, "").vmm != "qemu":
            return None
        return _tcg(process, describe(command, process.comm))
    command, comm = process.command, process.comm
    if descriptors is None and not (known_vmm(command, comm) or process.guest_ticks()):
        return None
    described = describe(command, comm)
    if descriptors is None and described.accel == "tcg":
        return _tcg(process, described)
    vcpus, notes = _vcpus(process.threads(), descriptors, described.vcpus)
    if descriptors is None:
        notes.insert(0, "its descriptors cannot be read: run as root, or as its user")
    memory = described.memory or process.largest_memory()
    name = described.name or f"{described.vmm}-{process.pid}"
    return Machine(process.pid, name, "guest", described.vmm, "kvm", memory, vcpus, notes)


def _tcg(process: Process, described: Description) -> Machine | None:
    if described.accel == "kvm":  # it is about to open KVM, or failed to
        return None
    numbers = ((vcpu_number(thread.name), thread) for thread in process.threads())
    vcpus = [Vcpu(n, thread.tid, thread.name) for n, thread in numbers if n is not None]
    if not vcpus:
        vcpus = [Vcpu(n, 0) for n in range(described.vcpus)]
    note = "emulated (TCG), not under KVM: no guest samples; its code is host-user of the VMM"
    name = described.name or f"{described.vmm}-{process.pid}"
    memory = described.memory or process.largest_memory()
    return Machine(
        process.pid,
        name,
        "guest",
        described.vmm,
        "tcg",
        memory,
        sorted(vcpus, key=lambda v: v.id),
        [note],
    )


def _vcpus(
    threads: Sequence[Thread], descriptors: Descriptors | None, count: int
) -> tuple[list[Vcpu], list[str]]:
    """Each vCPU with its thread: by the thread's name, by the KVM_RUN it waits in, else by the
    guest time it has spent, in order of tids; and what to say where that does not tell.
    """
    numbers = dict(descriptors.vcpus) if descriptors else {}
    if -1 in numbers.values():  # kernels before 4.19 do not number the descriptors
        numbers = dict(zip(sorted(numbers), range(len(numbers)), strict=True))
    known = set(numbers.values()) if descriptors else set(range(count))
    owner: dict[int, Thread] = {}
    for thread in threads:
        number = vcpu_number(thread.name)
        if number is not None and (number in known or not known):
            owner.setdefault(number, thread)
    if not owner:
        for thread in threads:
            if thread.run_fd in numbers:
                owner.setdefault(numbers[thread.run_fd], thread)
    told = {thread.tid for thread in owner.values()}
    ran = [t for t in threads if t.guest_ticks and t.tid not in told]
    if known:
        left = sorted(known - owner.keys())
    else:
        left = [n for n in range(len(owner) + len(ran)) if n not in owner]
    owner.update(zip(left, ran, strict=False))
    vcpus = [Vcpu(number, thread.tid, thread.name) for number, thread in sorted(owner.items())]
    missing = sorted(known - owner.keys())
    vcpus += [Vcpu(number, 0) for number in missing]
    notes = []
    if not vcpus:
        notes.append("no vCPU yet")
    elif missing:
        notes.append(
            f"the threads of {len(missing)} vCPUs are not known: they have no telling name and "
            "have run no guest code (QEMU: -name NAME,debug-threads=on)"
        )
    return sorted(vcpus, key=lambda v: v.id), notes


def what_can_be_sampled(machine: Machine, proc: str | Path = "/proc") -> str:
    """Of a machine, by whoever runs this: in a few words, "nothing" where it is none of theirs."""
    restricted = _restricted_by(Path(proc))
    if machine.kind == "guest" and machine.accel != "kvm":
        sides = "as host code"
    else:
        sides = "kernel and user code"
    if restricted is None:
        return sides
    if machine.kind == "host":
        return f"{sides} of your own processes" if restricted < 2 else "your own user code"
    try:
        mine = (Path(proc) / str(machine.pid)).stat().st_uid == os.geteuid()
    except OSError:
        mine = False
    if not mine:
        return "nothing"
    return sides if restricted < 2 or sides == "as host code" else "user code"


def _restricted_by(proc: Path) -> int | None:
    """perf_event_paranoid where it restricts us, None where it does not."""
    paranoid = _number(proc / "sys/kernel/perf_event_paranoid")
    if paranoid is None or paranoid < 0 or _capabilities(proc) & {_CAP_PERFMON, _CAP_SYS_ADMIN}:
        return None
    return paranoid


def _host(proc: Path, unreadable: int) -> Machine:
    notes = []
    capabilities = _capabilities(proc)
    paranoid = _restricted_by(proc)
    if paranoid is not None:
        notes.append(
            f"kernel.perf_event_paranoid is {paranoid}: only processes of your own can be sampled"
            + (", in user mode" if paranoid > 1 else "")
            + " (sudo sysctl kernel.perf_event_paranoid=-1, or run as root)"
        )
    restrict = _number(proc / "sys/kernel/kptr_restrict")
    if restrict is not None and (
        restrict > 1 or (restrict == 1 and _CAP_SYSLOG not in capabilities)
    ):
        notes.append(
            f"kernel.kptr_restrict is {restrict}: host kernel functions cannot be named"
            " (sudo sysctl kernel.kptr_restrict=0)"
        )
    if any("hidepid=" in line for line in _lines(proc / "self/mounts") if " proc " in line):
        notes.append("/proc is mounted with hidepid: processes of other users may not be shown")
    if unreadable:
        notes.append(
            f"processes that cannot be looked into, so that a VM may be missing here: {unreadable}"
            + ("" if _CAP_SYS_PTRACE in capabilities else " (run as root)")
        )
    memory = None
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemTotal:"):
            memory = size(line.partition(":")[2], "k")
    return Machine(0, "host", "host", memory=memory, notes=notes)


def _capabilities(proc: Path) -> set[int]:
    for line in _lines(proc / "self/status"):
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return {bit for bit in range(64) if bits >> bit & 1}
    return set()


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
