"""/tmp/perf-PID.map: what a JIT compiler says about the code it made.

The format is tools/perf/Documentation/jit-interface.txt: `START SIZE name`, hexadecimal; perf
reads it for code in anonymous memory (tools/perf/util/symbol.c: dso__load_perf_map()).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kvmperf_magic.symbols.symboltable import SymbolTable
from kvmperf_magic.table import Categorical

_MOST_BYTES = 1 << 30


def is_anonymous(filename: str) -> bool:
    """Whether a map of this name holds no file: code there comes from a JIT compiler.

    tools/perf/util/map.c: is_anon_memory().
    """
    return filename in {"//anon", "/dev/zero (deleted)", "/anon_hugepage (deleted)"} or (
        filename.startswith(("/dev/zero", "/anon_hugepage", "[anon:"))
    )


def parse(text: bytes) -> SymbolTable:
    """The symbols of a perf map; where two entries share an address the later one counts.

    Lines that are not of the form are passed over: the writer may be in the middle of one.
    """
    starts: list[int] = []
    ends: list[int] = []
    at: list[int] = []
    lengths: list[int] = []
    offset = 0
    for line in text.split(b"\n"):
        words = line.split(None, 2)
        if len(words) == 3:
            with suppress(ValueError):
                start, size = int(words[0], 16), int(words[1], 16)
                if 0 <= start < start + size < 2**64:
                    starts.append(start)
                    ends.append(start + size)
                    lengths.append(len(words[2].rstrip(b"\r")))
                    at.append(offset + len(line) - len(words[2]))
        offset += len(line) + 1
    column = np.array(starts, np.uint64)
    # the last of each address: unique() of the reversed column finds the first
    address, rows = np.unique(column[::-1], return_index=True)
    rows = len(starts) - 1 - rows
    return SymbolTable(
        address,
        np.array(ends, np.uint64)[rows],
        text,
        np.array(at, np.int64)[rows],
        np.array(lengths, np.int64)[rows],
        np.full(len(rows), ord("T"), np.uint8),
        Categorical.constant("", len(rows)),
        {},
    )


def opened(pid: int, *, alive: bool) -> tuple[Path, BinaryIO] | None:
    """The perf map of a process: in /tmp, or in its own container's where it still runs.

    Anybody can write to /tmp: one that belongs to somebody else than root, the reader or the
    process is none (perf's dso__load() takes the first two).
    """
    trusted = owners(pid, alive=alive)
    candidates = [Path(f"/tmp/perf-{pid}.map")]
    if alive:
        inner = _inner_pid(pid)
        candidates.insert(0, process_root(pid) / f"tmp/perf-{inner}.map")
    for path in candidates:
        with suppress(OSError):
            file = believed(path, trusted)
            if file is not None:
                return path, file
    return None


def believed(path: Path, trusted: Collection[int], most: int = _MOST_BYTES) -> BinaryIO | None:
    """A file of one of these users, opened; None where it is no file, or another's, or has more
    than `most` bytes. Raises OSError.

    Another may be put in its place at any time, or a link, or a pipe that waits for a writer: what
    counts is what was opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(handle, "rb")
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_uid in trusted and found.st_size <= most:
        return file
    file.close()
    return None


def owners(pid: int, *, alive: bool) -> set[int]:
    """The users whose word on a process's code counts: root, the reader, the process's own."""
    found = {0, os.geteuid()}
    if alive:
        with suppress(OSError):
            found.add(Path(f"/proc/{pid}").stat().st_uid)
    return found


def process_root(pid: int) -> Path:
    """The root folder as a running process sees it."""
    return Path(f"/proc/{pid}/root")


def _inner_pid(pid: int) -> int:
    """The pid as the process itself sees it, inside its pid namespace."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid
