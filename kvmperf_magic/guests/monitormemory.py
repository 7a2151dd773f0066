"""A VM's memory as QEMU's monitor gives it, where its process may not be looked into.

`pmemsave` writes a range of physical memory into a file while the guest runs on: here one of ours
without a name (memfd), whose descriptor QEMU is handed, so that nobody else ever sees it. QEMU
holds its own lock meanwhile, thus no more than a piece is asked for at once. Only RAM is read,
never the registers of a device, for reading those can change them. Memory that the guest has never
touched reads as zeros, and in QEMU's account may become a page each that is looked at.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import TargetError
from kvmperf_magic.guests.qmp import Qmp
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping, start_time

_PIECE = 4 << 20
_FILES = 8  # that are written one after the other before the first is read: QEMU's queue is as long
# of "info mtree -f": a range of a flat view, its kind and its memory region
_VIEW = re.compile(r'^\s*AS "memory"', re.MULTILINE)
_RANGE = re.compile(r"^\s*([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (\S+)\): ", re.MULTILINE)


class MonitorMemory:
    """One VM's. Addresses are physical ones. Raises what `Qmp` raises."""

    physical = True
    cheap = False

    def __init__(self, pid: int, path: Path, peer: int | None) -> None:
        """`path` is its monitor's socket, `peer` the process that listens there."""
        self.pid = pid
        self._path, self._peer = path, peer
        self._started = start_time(pid)
        self._lock = threading.Lock()
        self._monitor: Qmp | None = None
        self._files = [os.memfd_create("kvmperf", os.MFD_CLOEXEC) for _ in range(_FILES)]
        self._token = f"kvmperf-{secrets.token_hex(8)}"
        self._told: list[str] = []  # their names for QEMU
        self._sets: list[int] = []
        self._ram = self._pieces()

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.rest()
            for file in self._files:
                os.close(file)

    def alive(self) -> bool:
        """Whether the process still is the one it was."""
        return self._started != "" and start_time(self.pid) == self._started

    def mappings(self) -> list[Mapping]:
        """The guest's RAM by physical address."""
        return list(self._ram)

    def present(self, start: int, end: int) -> NDArray[np.bool_]:
        """Of the pages of a range: all may be there, for what is not is not told."""
        return np.ones(-(-end // PAGE) - start // PAGE, np.bool_)

    def stored(self, start: int, end: int) -> NDArray[np.bool_]:
        """The same."""
        return self.present(start, end)

    def exist(self, address: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """The same of pages here and there."""
        return np.ones(len(address), np.bool_)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, fewer where RAM ends."""
        ram = self._ram_at(address)
        if ram is None:
            return b""
        end = min(address + size, ram.end)
        pieces = [(at, min(_PIECE, end - at)) for at in range(address, end, _PIECE)]
        with self._lock:
            return b"".join(part for piece in pieces for part in self._saved([piece]))

    def gather(self, address: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
        """`size` bytes at each address (within a page), a row each; zeros where there are none."""
        rows = np.zeros((len(address), size), np.uint8)
        there = [i for i, at in enumerate(address.tolist()) if self._ram_at(at)]
        with self._lock:
            for first in range(0, len(there), _FILES):
                batch = there[first : first + _FILES]
                saved = self._saved([(int(address[i]), size) for i in batch])
                for i, data in zip(batch, saved, strict=True):
                    rows[i, : len(data)] = np.frombuffer(data, np.uint8)
        return rows

    def rest(self) -> None:
        """Let others have the monitor."""
        with self._lock:
            monitor, self._monitor = self._monitor, None
            if monitor is None:
                return
            with suppress(TargetError):  # it has ended, and the descriptors with it
                status = monitor.run("query-status")
                if isinstance(status, dict) and status.get("running"):
                    monitor.run_each("remove-fd", [{"fdset-id": one} for one in self._sets])
            monitor.close()

    def _saved(self, pieces: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of a few pieces, (address, size) each."""
        monitor = self._connected()
        monitor.run_each(
            "pmemsave",
            [
                {"val": at, "size": size, "filename": name}
                for (at, size), name in zip(pieces, self._told, strict=False)
            ],
        )
        return [
            os.pread(file, size, 0) for (_, size), file in zip(pieces, self._files, strict=False)
        ]

    def _ram_at(self, address: int) -> Mapping | None:
        return next((one for one in self._ram if one.start <= address < one.end), None)

    def _connected(self) -> Qmp:
        if self._monitor is None:
            if not self.alive():
                raise TargetError(f"process {self.pid} has ended")
            monitor = Qmp(self._path, self._peer)
            try:
                self._hand_over(monitor)
            except BaseException:
                monitor.close()
                raise
            self._monitor = monitor
        return self._monitor

    def _hand_over(self, monitor: Qmp) -> None:
        """QEMU gets our files, unless it still has them: paused, it keeps what it was handed."""
        try:
            kept = {
                str(fd["opaque"]): (int(fd["fd"]), int(one["fdset-id"]))
                for one in monitor.run("query-fdsets")
                for fd in one["fds"]
                if "opaque" in fd
            }
            told = []
            for i, file in enumerate(self._files):
                mine = f"{self._token}-{i}"
                if mine not in kept:
                    new = monitor.run("add-fd", {"opaque": mine}, [file])
                    kept[mine] = int(new["fd"]), int(new["fdset-id"])
                told.append(kept[mine])
        except (TypeError, KeyError, ValueError):
            raise TargetError(f"the monitor {self._path} tells of no descriptor") from None
        self._told = [f"/proc/self/fd/{number}" for number, _ in told]
        self._sets = [one for _, one in told]

    def _pieces(self) -> list[Mapping]:
        """RAM in the address space that CPUs see: no ROM, no device's memory."""
        with self._lock:
            monitor = self._connected()
            told = monitor.run("query-memdev")
            text = monitor.run("human-monitor-command", {"command-line": "info mtree -f"})
        backends = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        if any(one.get("reserve") is False for one in backends):
            # what is looked at comes into being, and there may be no memory left for it
            raise TargetError(
                f"the monitor {self._path}: memory is not reserved, so it is left alone"
            )
        views = str(text).split("FlatView #")
        view = next((one for one in views if _VIEW.search(one)), "")
        found: list[Mapping] = []
        for first, last, kind in _RANGE.findall(view):
            start, end = int(first, 16), int(last, 16) + 1
            if kind != "ram":
                continue
            if found and found[-1].end == start:
                start = found.pop().start
            found.append(Mapping(start, end, "rw-s", 0, "", "RAM"))
        if not found:
            raise TargetError(f"the monitor {self._path} tells of no RAM")
        return found
