"""jit-PID.dump: what code a JIT compiler made, where and when.

The format is tools/perf/Documentation/jitdump-specification.txt; a program that writes one maps
its first page executable, so that a recording tells where it is (tools/perf/util/jitdump.c:
jit_detect()). Code is freed and its place used again: a dump is cut into generations, in each of
which no address has two names. The code itself is stepped over.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.perfmap import owners, process_root
from kvmperf_magic.symbols.symboltable import NO_SYMBOLS, SymbolTable
from kvmperf_magic.table import Categorical, Table

_NAME = re.compile(r"(?:.*/)?jit-(\d+)\.dump$")
_MAGIC = 0x4A695444
_LOAD, _MOVE, _CLOSE = 0, 1, 3
_HEADER, _RECORD = struct.Struct("IIIIIIQQ"), struct.Struct("IIQ")
_LOADED, _MOVED = struct.Struct("IIQQQQ"), struct.Struct("IIQQQQQ")
_ARCH_TIMESTAMP = 1  # JITDUMP_FLAGS_ARCH_TIMESTAMP: times are the processor's, not the clock's
_LONGEST_NAME = 4096
_MOST_LOADS = 1 << 20
_GENERATIONS = 2048  # more would take longer than they are worth: the later code counts then


@dataclass(frozen=True)
class Code:
    """Code that was loaded: n rows in order of time; active in generations born <= g < dead."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    names: list[bytes]
    born: NDArray[np.int64]
    dead: NDArray[np.int64]


class Jit:
    """The code of one process: `starts` (uint64[g], the first 0) is when its generations begin."""

    def __init__(
        self,
        path: str,
        starts: NDArray[np.uint64],
        table: Callable[[int], SymbolTable],
        note: str = "",
        count: int = 0,
    ) -> None:
        self.path, self.starts, self.note, self.count = path, starts, note, count
        self.table = table

    def generation(self, time: NDArray[np.uint64]) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, time, side="right").astype(np.int64) - 1


def of_recording(maps: Table, *, alive: bool, timed: bool) -> dict[int, Jit]:
    """The dumps of the processes of a recording, of its MMAP records; see `read()`."""
    found = {}
    for pid, path in dumps_in(maps).items():
        running = alive and Path(f"/proc/{pid}").is_dir()
        found[pid] = read(path, pid, alive=running, timed=timed)
    return found


def dumps_in(maps: Table) -> dict[int, str]:
    """The dump of each process that mapped one, of a recording's MMAP records."""
    name = maps.column("filename")
    assert isinstance(name, Categorical)
    found: dict[int, str] = {}
    for row in np.flatnonzero(name.where(_NAME.match)).tolist():
        path = name.categories[name.codes[row]]
        match = _NAME.match(path)
        # a child has its parent's map, but the code of its own is not in there
        if match and int(match.group(1)) == int(maps["pid"][row]):
            found[int(match.group(1))] = path
    return found


def read(path: str, pid: int, *, alive: bool, timed: bool) -> Jit:
    """The dump of a process; one without code, and a note, where none may be believed.

    `timed`: the recording's times are those of the dump's clock, CLOCK_MONOTONIC.
    """
    note = "the dump is not here"
    for place in (process_root(pid) / path.lstrip("/") if alive else Path(path), Path(path)):
        try:
            # a pipe would let the open wait for a writer
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(file.fileno())
                # as of perf maps: anybody could have written it
                if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners(pid, alive=alive):
                    note = "the dump is no file of its process's user"
                    continue
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return parse(data, str(place), timed=timed)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            note = f"the dump cannot be read: {error}"
    return Jit(path, np.zeros(1, np.uint64), lambda _: NO_SYMBOLS, note)


def parse(data: bytes | mmap.mmap, path: str = "", *, timed: bool = True) -> Jit:
    """A dump's bytes, up to where it was written. ValueError for what is no dump."""
    if len(data) < _HEADER.size or data[:4] not in (b"DTiJ", b"JiTD"):
        raise ValueError(f"it begins with {bytes(data[:4])!r}")
    order = "<" if data[:4] == b"DTiJ" else ">"
    flags = struct.unpack_from(order + _HEADER.format, data)[7]
    notes = []
    if not timed:
        notes.append("recorded with another clock than CLOCK_MONOTONIC")
    if flags & _ARCH_TIMESTAMP:
        notes.append("its times are the processor's")
    loads = list(islice(_loads(data, order), _MOST_LOADS))
    loads.sort(key=lambda load: load[0])
    starts, code = _generations(loads, timed=not notes)
    if notes:
        notes.append("of code that had the same place only the last is known")
    return Jit(path, starts, _Tables(code), "; ".join(notes), len(loads))


_Load = tuple[int, int, int, bytes]


def _loads(data: bytes | mmap.mmap, order: str) -> Iterable[_Load]:
    """(time, start, end, name) of each load and move; a record that is cut off ends it."""
    record, loaded, moved = (struct.Struct(order + s.format) for s in (_RECORD, _LOADED, _MOVED))
    at = struct.unpack_from(order + "I", data, 8)[0]
    at = max(at, _HEADER.size)
    names: dict[int, bytes] = {}
    while at + record.size <= len(data):
        kind, size, time = record.unpack_from(data, at)
        body, stop = at + record.size, at + size
        if size < record.size or stop > len(data) or kind == _CLOSE:
            return
        at = stop
        if kind == _LOAD and body + loaded.size < stop:
            _, _, _, start, length, index = loaded.unpack_from(data, body)
            text = bytes(data[body + loaded.size : min(stop, body + loaded.size + _LONGEST_NAME)])
            names[index] = name = text.split(b"\0", 1)[0]
        elif kind == _MOVE and body + moved.size <= stop:
            _, _, _, _, start, length, index = moved.unpack_from(data, body)
            name = names.get(index, b"")
        else:
            continue
        if name and 0 < length < 2**47 and start + length < 2**64:
            yield time, start, start + length, name


def _generations(loads: Sequence[_Load], *, timed: bool) -> tuple[NDArray[np.uint64], Code]:
    columns = list(zip(*loads, strict=True)) if loads else [()] * 4
    begin, end = np.array(columns[1], np.uint64), np.array(columns[2], np.uint64)
    starts = [0]
    when = np.array(columns[0], np.uint64)
    born = np.zeros(len(loads), np.int64)
    dead = np.full(len(loads), 2**62)
    # the code that is there now, by address
    begins: list[int] = []
    ends: list[int] = []
    which: list[int] = []
    for i in np.flatnonzero(_shared(begin, end)).tolist():
        time, first, last, _ = loads[i]
        low, high = bisect_right(ends, first), bisect_left(begins, last)
        if timed and low < high and starts[-1] < time and len(starts) < _GENERATIONS:
            starts.append(time)
        dead[which[low:high]] = len(starts) - 1
        begins[low:high], ends[low:high], which[low:high] = [first], [last], [i]
    edges = np.array(starts, np.uint64)
    born = np.searchsorted(edges, when, side="right") - 1 if timed else born
    return edges, Code(begin, end, list(columns[3]), np.maximum(born, 0), dead)


def _shared(begin: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of these ranges have room in common with another, or are linked by one that has."""
    order = np.argsort(begin, kind="stable")
    reach = np.maximum.accumulate(end[order])
    apart = np.append(True, begin[order][1:] >= reach[:-1])[: len(order)]
    group = np.cumsum(apart) - 1
    found = np.zeros(len(order), np.bool_)
    found[order] = np.bincount(group)[group] > 1 if len(order) else False
    return found


class _Tables:
    """The symbols of each generation, made when asked for."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._made: dict[int, SymbolTable] = {}

    def __call__(self, generation: int) -> SymbolTable:
        made = self._made.get(generation)
        if made is None:
            code = self._code
            rows = np.flatnonzero((code.born <= generation) & (generation < code.dead))
            rows = rows[np.argsort(code.start[rows], kind="stable")]
            made = self._made[generation] = SymbolTable(
                code.start[rows],
                code.end[rows],
                self._strings,
                self._name_at[rows],
                self._length[rows],
                np.full(len(rows), ord("T"), np.uint8),
                Categorical.constant("", len(rows)),
                {},
            )
        return made

    @cached_property
    def _strings(self) -> bytes:
        return b"".join(self._code.names)

    @cached_property
    def _length(self) -> NDArray[np.int64]:
        return np.array([len(name) for name in self._code.names], np.int64)

    @cached_property
    def _name_at(self) -> NDArray[np.int64]:
        return np.cumsum(self._length) - self._length
