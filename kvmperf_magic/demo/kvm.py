"""The few ioctls of /dev/kvm that the micro guest needs (include/uapi/linux/kvm.h), x86-64 only."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os

from kvmperf_magic.errors import NoKvmError

CREATE_VM = 0xAE01
GET_API_VERSION = 0xAE00
GET_VCPU_MMAP_SIZE = 0xAE04
GET_SUPPORTED_CPUID = 0xC008AE05
CREATE_VCPU = 0xAE41
SET_USER_MEMORY_REGION = 0x4020AE46
SET_TSS_ADDR = 0xAE47
CREATE_IRQCHIP = 0xAE60
RUN = 0xAE80
SET_REGS = 0x4090AE82
GET_SREGS = 0x8138AE83
SET_SREGS = 0x4138AE84
SET_CPUID2 = 0x4008AE90
SET_MP_STATE = 0x4004AE99

EXIT_IO = 2
EXIT_INTR = 10
EXIT_REASONS = {8: "shutdown (triple fault)", 9: "failed entry", 17: "internal error"}

u8, u16, u32, u64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64


REGISTERS = (
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rsp",
    "rbp",
    *(f"r{i}" for i in range(8, 16)),
    "rip",
    "rflags",
)


class Segment(ctypes.Structure):
    _fields_ = (
        ("base", u64), ("limit", u32), ("selector", u16), ("type", u8), ("present", u8),
        ("dpl", u8), ("db", u8), ("s", u8), ("l", u8), ("g", u8), ("avl", u8), ("unusable", u8),
        ("padding", u8),
    )  # fmt: skip


class Table(ctypes.Structure):
    _fields_ = (("base", u64), ("limit", u16), ("padding", u16 * 3))


class Sregs(ctypes.Structure):
    _fields_ = (
        *((name, Segment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        ("gdt", Table), ("idt", Table),
        *((name, u64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", u64 * 4),
    )  # fmt: skip


class Regs(ctypes.Structure):
    _fields_ = tuple((name, u64) for name in REGISTERS)


class MemoryRegion(ctypes.Structure):
    _fields_ = (("slot", u32), ("flags", u32), ("guest", u64), ("size", u64), ("user", u64))


class MpState(ctypes.Structure):
    _fields_ = (("mp_state", u32),)


class Cpuid(ctypes.Structure):
    _fields_ = (("nent", u32), ("padding", u32), ("entries", u32 * (10 * 256)))


def open_kvm(path: str = "/dev/kvm") -> int:
    """A descriptor of /dev/kvm; NoKvmError names the command that mends what is missing."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoKvmError(
            f"there is no {path}",
            "modprobe kvm_intel || modprobe kvm_amd, and switch virtualization on in the firmware"
            " (in a VM: nested virtualization in the hypervisor below)",
        ) from None
    except PermissionError:
        raise NoKvmError(
            f"{path} may not be opened by this user",
            "sudo usermod -aG kvm $USER and log in again, or: sudo chmod 666 /dev/kvm",
        ) from None
    except OSError as error:
        raise NoKvmError(
            f"{path} cannot be opened: {error.strerror}", "modprobe kvm_intel || modprobe kvm_amd"
        ) from None
    try:
        version = fcntl.ioctl(fd, GET_API_VERSION)
    except OSError:
        version = -1
    if version != 12:
        os.close(fd)
        raise NoKvmError(f"{path} is not a KVM device of API version 12", "ls -l /dev/kvm")
    return fd


def check(action: str, fd: int, request: int, argument: ctypes.Structure | int = 0) -> int:
    """The ioctl; an error becomes a NoKvmError that says what it was for."""
    try:
        if isinstance(argument, int):
            return fcntl.ioctl(fd, request, argument)
        return fcntl.ioctl(fd, request, argument, True)  # type: ignore[no-any-return]
    except OSError as error:
        if error.errno == errno.EINTR:
            raise
        raise NoKvmError(
            f"KVM cannot {action}: {error.strerror}",
            "another hypervisor may own the CPU; see dmesg | grep -i kvm",
        ) from None


def guest_memory(size: int) -> tuple[mmap.mmap, int]:
    """Zeroed memory and its address; a named memory file, as large VMMs have it."""
    fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
    finally:
        os.close(fd)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))
