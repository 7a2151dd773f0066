"""The shipped binaries, and how the guest's memory is filled from its ELF file."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

from kvmperf_magic.errors import FileError, KvmperfError

BINARIES = Path(__file__).parent
GUEST = "micro-guest.elf"
HOST = "micro-host"

MAX_CPUS = 64
CONTROL = 0x5FC000  # struct control of guest.c: phase u32, stop u32, at +64 a u64 a CPU, 64 apart
PROBE = 0xFFFF


def guest_elf() -> str:
    """The path of the guest's ELF file: what names its functions (`--guest-elf`)."""
    return str(BINARIES / GUEST)


def host_elf() -> str:
    """The path of the same code as a Linux program, ready to run.

    Raises KvmperfError on another architecture than x86-64, and where it cannot be executed.
    """
    require_x86()
    path = BINARIES / HOST
    if not os.access(path, os.X_OK):
        raise KvmperfError(f"{path} cannot be executed", f"chmod +x {path}")
    return str(path)


def require_x86() -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        raise KvmperfError(
            f"the micro guest is x86-64 code, this machine is {platform.machine()}",
            "the bundled recordings can be read everywhere",
        )


def segments(elf: bytes, name: str = GUEST) -> tuple[int, Iterator[tuple[int, bytes, int]]]:
    """Entry address, and for each PT_LOAD its address, its bytes and its length in memory.

    Reads only what build.py makes (System V gABI, ELF-64 little endian, ET_EXEC).
    """
    if elf[:6] != b"\x7fELF\x02\x01":
        raise FileError(name, "not a 64-bit little-endian ELF file", offset=0)
    entry, table = struct.unpack_from("<QQ", elf, 24)
    size, count = struct.unpack_from("<HH", elf, 54)

    def loads() -> Iterator[tuple[int, bytes, int]]:
        for i in range(count):
            kind, _, offset, address, _, filled, length, _ = struct.unpack_from(
                "<IIQQQQQQ", elf, table + i * size
            )
            if kind == 1:
                yield address, elf[offset : offset + filled], length

    return entry, loads()
