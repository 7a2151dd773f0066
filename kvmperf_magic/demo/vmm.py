"""A small VMM: `python -m kvmperf_magic.demo.vmm --vcpus 4 --seconds 10 --name micro`.

One process, one thread a vCPU (named as QEMU names them: `CPU 0/KVM`), 2 MiB of guest memory, no
devices, no kernel in the guest: long mode with one 2 MiB page. Ring 0 where KVM runs that
natively; some flavours emulate ring 0 instruction by instruction, there ring 3.

Standard library only: the child starts fast and imports nothing that a profile would show.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import select
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from kvmperf_magic.demo import kvm
from kvmperf_magic.demo.image import CONTROL, MAX_CPUS, PROBE, guest_elf, require_x86, segments
from kvmperf_magic.demo.run import PHASES
from kvmperf_magic.errors import KvmperfError, NoKvmError

BASE, SIZE = 0x400000, 0x200000
PAGE_TABLES = 0x5F0000  # PML4, PDPT, PD: a page each
STACKS_END, STACK = 0x5F0000, 4096
KICK = signal.SIGUSR1
# 20,000 turns of a three-instruction loop take some 30 us natively and over 20 ms emulated
PROBE_LIMIT = 0.004
PR_SET_NAME = 15


class Vm:
    """A VM that runs guest.c on `vcpus` CPUs in `ring` (0 or 3). NoKvmError where it cannot."""

    def __init__(self, vcpus: int, ring: int) -> None:
        require_x86()
        self.vcpus: list[Vcpu] = []
        self._fds: list[int] = []
        try:
            self._create(vcpus, ring)
        except BaseException:
            self.close()
            raise

    def _create(self, vcpus: int, ring: int) -> None:
        device = kvm.open_kvm()
        self._fds.append(device)
        vm = kvm.check("create a VM", device, kvm.CREATE_VM)
        self._fds.append(vm)
        with contextlib.suppress(NoKvmError):  # Intel without unrestricted guest wants it
            kvm.check("set the TSS address", vm, kvm.SET_TSS_ADDR, 0x10000000)
        if vcpus > 1:
            kvm.check("create the interrupt controller", vm, kvm.CREATE_IRQCHIP)

        self._memory, address = kvm.guest_memory(SIZE)
        entry = self._load()
        region = kvm.MemoryRegion(slot=0, flags=0, guest=BASE, size=SIZE, user=address)
        kvm.check("give the VM its memory", vm, kvm.SET_USER_MEMORY_REGION, region)

        cpuid = kvm.Cpuid(nent=256)
        kvm.check("tell the supported CPUID", device, kvm.GET_SUPPORTED_CPUID, cpuid)
        run_size = kvm.check("tell the size of kvm_run", device, kvm.GET_VCPU_MMAP_SIZE)
        for index in range(vcpus):
            fd = kvm.check(f"create vCPU {index}", vm, kvm.CREATE_VCPU, index)
            self._fds.append(fd)
            kvm.check("set the CPUID", fd, kvm.SET_CPUID2, cpuid)
            self.vcpus.append(Vcpu(index, fd, run_size, entry, ring, irqchip=vcpus > 1))

    def _load(self) -> int:
        entry, loads = segments(Path(guest_elf()).read_bytes())
        for address, content, _ in loads:
            self._memory[address - BASE : address - BASE + len(content)] = content
        table = PAGE_TABLES - BASE
        struct.pack_into("<Q", self._memory, table, (PAGE_TABLES + 0x1000) | 7)
        struct.pack_into("<Q", self._memory, table + 0x1000, (PAGE_TABLES + 0x2000) | 7)
        # present, writable, user, accessed, dirty, 2 MiB
        struct.pack_into("<Q", self._memory, table + 0x2000 + 8 * (BASE >> 21), BASE | 0xE7)
        return entry

    def set_phase(self, phase: str) -> None:
        struct.pack_into("<I", self._memory, CONTROL - BASE, PHASES.index(phase))

    def cycles(self) -> int:
        """Turns of the workload that all vCPUs have made since the start."""
        at = CONTROL - BASE + 64
        counters = self._memory[at : at + 64 * len(self.vcpus)]
        return sum(struct.unpack(f"<{8 * len(self.vcpus)}Q", counters)[::8])

    def close(self) -> None:
        for vcpu in self.vcpus:
            vcpu.run.close()
        while self._fds:
            os.close(self._fds.pop())


class Vcpu:
    """One vCPU, its registers set; `loop()` runs it until it ends or is told to stop."""

    def __init__(
        self, index: int, fd: int, run_size: int, entry: int, ring: int, irqchip: bool
    ) -> None:
        self.index, self.fd = index, fd
        self.run = mmap.mmap(fd, run_size)
        self.stopping = False
        self.error = ""
        sregs = kvm.Sregs()
        kvm.check("read the vCPU's registers", fd, kvm.GET_SREGS, sregs)
        code, data = ((0x33, 0x2B), (0x10, 0x18))[ring == 0]
        for name in ("cs", "ds", "es", "fs", "gs", "ss"):
            setattr(sregs, name, kvm.Segment(
                base=0, limit=0xFFFFFFFF, selector=code if name == "cs" else data,
                type=11 if name == "cs" else 3, present=1, dpl=ring, db=name != "cs", s=1,
                l=name == "cs", g=1,
            ))  # fmt: skip
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = 0x80050033, PAGE_TABLES, 0x620, 0xD01
        kvm.check("set the vCPU to long mode", fd, kvm.SET_SREGS, sregs)
        self.set_index(index, entry)
        if irqchip:  # secondary CPUs wait for a start-up interrupt otherwise
            kvm.check("start the vCPU", fd, kvm.SET_MP_STATE, kvm.MpState(0))

    def set_index(self, index: int, entry: int) -> None:
        # as after a call: the stack is 8 off a 16-byte boundary; IOPL 3, so that `out` exits
        top = STACKS_END - self.index * STACK - 8
        registers = kvm.Regs(rdi=index, rsp=top, rip=entry, rflags=0x3202)
        kvm.check("set the vCPU's registers", self.fd, kvm.SET_REGS, registers)

    def loop(self) -> None:
        """Runs guest code in this thread; the interpreter lock is released meanwhile."""
        while not self.stopping:
            try:
                fcntl.ioctl(self.fd, kvm.RUN, 0)
            except InterruptedError:
                continue
            except OSError as error:
                self.error = f"KVM_RUN: {error.strerror}"
                return
            (reason,) = struct.unpack_from("<I", self.run, 8)
            if reason == kvm.EXIT_IO:
                return
            if reason != kvm.EXIT_INTR:
                what = kvm.EXIT_REASONS.get(reason, "unexpected")
                self.error = f"vCPU {self.index} ended with KVM exit {reason}: {what}"
                return

    def stop(self, thread: threading.Thread) -> None:
        """Takes it out of KVM_RUN; `immediate_exit` closes the race with a run about to start."""
        self.stopping = True
        self.run[1] = 1
        while thread.is_alive() and thread.ident is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(thread.ident, KICK)
            thread.join(0.2)


def native_ring() -> int:
    """0 where KVM runs ring 0 natively, else 3: a short loop in ring 0 is timed."""
    signal.signal(KICK, lambda *_: None)
    try:
        vm = Vm(1, ring=0)
    except NoKvmError:
        os.close(kvm.open_kvm())  # no KVM at all is an error of its own
        return 3
    vcpu = vm.vcpus[0]
    entry, _ = segments(Path(guest_elf()).read_bytes())
    best = float("inf")
    try:
        for _ in range(3):
            vcpu.set_index(PROBE, entry)
            started = time.perf_counter()
            vcpu.loop()
            best = min(best, time.perf_counter() - started)
            if vcpu.error or best < PROBE_LIMIT:
                break
    finally:
        vm.close()
    return 0 if best < PROBE_LIMIT and not vcpu.error else 3


def name_thread(name: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def serve(vm: Vm, ready: dict[str, Any], seconds: float | None, control: bool) -> str:
    """Runs all vCPUs until time is up, stdin ends or the parent is gone; an error or "".

    `ready` is said once every thread has its name.
    """
    parent = os.getppid()  # before it hears that we are ready, and may be gone
    signal.signal(KICK, lambda *_: None)
    woken, wake = os.pipe()
    named = threading.Barrier(len(vm.vcpus) + 1)

    def work(vcpu: Vcpu) -> None:
        name_thread(f"CPU {vcpu.index}/KVM")
        named.wait()
        vcpu.loop()
        os.write(wake, b".")

    threads = [threading.Thread(target=work, args=(v,), daemon=True) for v in vm.vcpus]
    for thread in threads:
        thread.start()
    named.wait()
    say(ready)
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    inputs = [woken, 0] if control else [woken]
    pending = b""
    try:
        while (left := end - time.monotonic()) > 0 and (not control or os.getppid() == parent):
            readable, _, _ = select.select(inputs, [], [], min(left, 0.5))
            if woken in readable:  # a vCPU ended by itself
                break
            if 0 in readable:
                chunk = os.read(0, 4096)
                if not chunk:
                    break
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    command(vm, line.decode(errors="replace").strip())
    except KeyboardInterrupt:
        pass
    for vcpu, thread in zip(vm.vcpus, threads, strict=True):
        vcpu.stop(thread)
    os.close(woken)
    os.close(wake)
    return next((vcpu.error for vcpu in vm.vcpus if vcpu.error), "")


def command(vm: Vm, line: str) -> None:
    if line.startswith("?"):
        say(vm.cycles())
    elif line in PHASES:
        vm.set_phase(line)


def say(message: Any) -> None:
    print(message if isinstance(message, (int, str)) else json.dumps(message), flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kvmperf_magic.demo.vmm", description="Runs the micro guest under KVM."
    )
    parser.add_argument("--vcpus", type=int, default=1, help=f"1 to {MAX_CPUS}")
    parser.add_argument("--seconds", type=float, help="end after so long (default: Ctrl-C)")
    parser.add_argument("--name", default="micro-guest", help="name of the VM")
    parser.add_argument("--phase", choices=PHASES, default=PHASES[0], help="what the guest does")
    parser.add_argument("--ring", choices=("auto", "0", "3"), default="auto")
    parser.add_argument(
        "--control", action="store_true", help="lines on stdin name a phase; its end ends the VM"
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.vcpus <= MAX_CPUS:
        parser.error(f"--vcpus {options.vcpus}: 1 to {MAX_CPUS}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name_thread(options.name)
    try:
        ring = native_ring() if options.ring == "auto" else int(options.ring)
        vm = Vm(options.vcpus, ring)
    except KvmperfError as error:
        if options.control:
            say({"error": error.message, "hint": error.hint, "kind": type(error).__name__})
        else:
            print(error, file=sys.stderr)
        return 1
    try:
        vm.set_phase(options.phase)
        ready = {"ready": options.name, "pid": os.getpid(), "vcpus": options.vcpus, "ring": ring}
        error_text = serve(vm, ready, options.seconds, options.control)
    finally:
        vm.close()
    if error_text:
        print(error_text, file=sys.stderr)
    return bool(error_text)


if __name__ == "__main__":
    sys.exit(main())
