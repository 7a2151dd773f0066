"""The memory of a VMM's process, read and never written: its mappings, its pages, their bytes.

Only pages that exist are looked at (/proc/PID/pagemap says which), so that reading a guest's
memory does not make its VMM grow; nothing is stopped, and all it needs is the right to ptrace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import NotPermittedError, TargetError

PAGE = 4096

# Documentation/filesystems/proc.rst: range, permissions, offset, device, inode, path
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+ \d+)\s*(.*)")
_PRESENT, _SWAPPED = np.uint64(1 << 63), np.uint64(1 << 62)  # Documentation/.../pagemap.rst
_IOV_MAX = 1024


@dataclass(frozen=True)
class Mapping:
    """One range of a process's addresses; `file` is "" for anonymous memory."""

    start: int
    end: int
    permissions: str
    offset: int
    file: str
    path: str

    @property
    def size(self) -> int:
        return self.end - self.start


class VmmMemory:
    """One process. Raises NotPermittedError where it may not be looked into, TargetError where
    it has ended."""

    physical = False
    cheap = True

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._started = start_time(self.pid)
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._refused(error) from None

    def __del__(self) -> None:
        if hasattr(self, "_pagemap"):
            os.close(self._pagemap)

    def alive(self) -> bool:
        """Whether the process still is the one it was: numbers are given away again."""
        return self._started != "" and start_time(self.pid) == self._started

    def mappings(self) -> list[Mapping]:
        """All mappings by address; pieces of one range that only flags tell apart are one."""
        try:
            lines = Path(f"/proc/{self.pid}/maps").read_text(errors="replace").splitlines()
        except OSError as error:
            raise self._refused(error) from None
        found: list[Mapping] = []
        for line in lines:
            told = _LINE.fullmatch(line)
            if told is None:
                continue
            file = "" if told[5].endswith(" 0") else told[5]
            one = Mapping(
                int(told[1], 16), int(told[2], 16), told[3], int(told[4], 16), file, told[6]
            )
            last = found[-1] if found else None
            if last and last.file and _continues(last, one):
                one = Mapping(last.start, one.end, one.permissions, last.offset, file, one.path)
                found.pop()
            found.append(one)
        return found

    def present(self, start: int, end: int) -> NDArray[np.bool_]:
        """Of the pages of a range: whether each is in memory."""
        return np.asarray(self._entries(start, end) & _PRESENT != 0)

    def stored(self, start: int, end: int) -> NDArray[np.bool_]:
        """The same, and pages that were swapped out count as well."""
        return np.asarray(self._entries(start, end) & (_PRESENT | _SWAPPED) != 0)

    def exist(self, address: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Of pages here and there: whether each is in memory or swapped out."""
        entries = b"".join(
            os.pread(self._pagemap, 8, at // PAGE * 8).ljust(8, b"\0") for at in address.tolist()
        )
        return np.asarray(np.frombuffer(entries, np.uint64) & (_PRESENT | _SWAPPED) != 0)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, fewer where the mapping ends or its pages cannot be read."""
        buffer = np.empty(size, np.uint8)
        done = 0
        while done < size:
            piece = np.array([[address + done, size - done]], np.uint64)
            got = self._readv(buffer[done:], piece)
            if got <= 0:
                break
            done += got
        return buffer[:done].tobytes()

    def gather(self, address: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
        """`size` bytes at each address (within a page), a row each; zeros where there are none."""
        rows = np.zeros((len(address), size), np.uint8)
        pieces = np.empty((len(address), 2), np.uint64)
        pieces[:, 0], pieces[:, 1] = address, size
        at = 0
        while at < len(address):
            batch = slice(at, at + _IOV_MAX)
            got = self._readv(rows[batch], pieces[batch])
            whole = max(got, 0) // size
            # what stopped it is the piece behind the last whole one: it stays zeros
            at += whole if whole == len(pieces[batch]) else whole + 1
        return rows

    def rest(self) -> None:
        """Nothing is held meanwhile."""

    def _readv(self, buffer: NDArray[np.uint8], pieces: NDArray[np.uint64]) -> int:
        """process_vm_readv() into the whole of `buffer`: bytes read, -1 where none could be."""
        own = np.array([[buffer.ctypes.data, buffer.nbytes]], np.uint64)
        got = int(
            _libc().process_vm_readv(
                self.pid, own.ctypes.data, 1, pieces.ctypes.data, len(pieces), 0
            )
        )
        if got < 0:
            number = ctypes.get_errno()
            if number != errno.EFAULT:
                raise self._refused(OSError(number, os.strerror(number)))
        return got

    def _entries(self, start: int, end: int) -> NDArray[np.uint64]:
        first, last = start // PAGE, -(-end // PAGE)
        try:
            data = os.pread(self._pagemap, (last - first) * 8, first * 8)
        except OSError as error:
            raise self._refused(error) from None
        found = np.zeros(last - first, np.uint64)
        found[: len(data) // 8] = np.frombuffer(data, np.uint64, len(data) // 8)
        return found

    def _refused(self, error: OSError) -> NotPermittedError | TargetError:
        if error.errno in (errno.ESRCH, errno.ENOENT):
            return TargetError(f"process {self.pid} has ended")
        return NotPermittedError(
            f"the memory of process {self.pid} cannot be read: {error.strerror}",
            "run as root, or give the right to ptrace it (CAP_SYS_PTRACE)",
        )


def start_time(pid: int) -> str:
    """When a process started, as proc(5) has it in field 22 of stat; "" where it is not there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _continues(last: Mapping, one: Mapping) -> bool:
    return (
        last.end == one.start
        and (last.permissions, last.file) == (one.permissions, one.file)
        and last.offset + last.size == one.offset
    )


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, number = ctypes.c_void_p, ctypes.c_ulong
    libc.process_vm_readv.argtypes = [ctypes.c_int, pointer, number, pointer, number, number]
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    return libc
