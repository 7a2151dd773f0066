"""jit-PID.dump: what code a JIT compiler made, where and when.

The format is tools/perf/Documentation/jitdump-specification.txt; a program that writes one maps
its first page executable, so that a recording tells where it is (tools/perf/util/jitdump.c:
jit_detect()). Code is freed and its place used again: a dump is cut into generations, in each of
which no address has two names. The code itself is stepped over.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.perfmap import believed, owners, process_root
from kvmperf_magic.symbols.symboltable import NO_SYMBOLS, SymbolTable
from kvmperf_magic.table import Categorical, Table

_NAME = re.compile(r"(?:.*/)?jit-(\d+)\.dump$")
_MAGIC = 0x4A695444
_LOAD, _MOVE, _CLOSE = 0, 1, 3
_HEADER, _RECORD = struct.Struct("IIIIIIQQ"), struct.Struct("IIQ")
_LOADED, _MOVED = struct.Struct("IIQQQQ"), struct.Struct("IIQQQQQ")
_ARCH_TIMESTAMP = 1  # JITDUMP_FLAGS_ARCH_TIMESTAMP: times are the processor's, not the clock's
_LONGEST_NAME = 4096
_PIECE = 1 << 16
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
    """The code of the processes of a recording, by its MMAP records; see `Dump`."""
    dumps = Dumps(timed=timed)
    dumps.follow(maps)
    return dumps.jits(alive=alive)


class Dumps:
    """The dumps of processes that may still write them. `timed`: see `Dump`."""

    def __init__(self, *, timed: bool) -> None:
        self._timed = timed
        self._dumps: dict[int, Dump] = {}

    def follow(self, maps: Table) -> None:
        """Those that these MMAP records tell of, too."""
        for pid, path in dumps_in(maps).items():
            if pid not in self._dumps or self._dumps[pid].path != path:
                self._dumps[pid] = Dump(path, pid, timed=self._timed)

    def jits(self, *, alive: bool) -> dict[int, Jit]:
        """What is in each now, by process; `alive`: those of this name may be asked."""
        return {
            pid: dump.read(alive=alive and Path(f"/proc/{pid}").is_dir())
            for pid, dump in self._dumps.items()
        }


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


class Dump:
    """The dump of a process, which may go on writing it.

    `timed`: the recording's times are those of the dump's clock, CLOCK_MONOTONIC.
    """

    def __init__(self, path: str, pid: int, *, timed: bool) -> None:
        self.path = path
        self._pid, self._timed = pid, timed
        self._file: tuple[int, int] | None = None
        self._size = 0
        self._reading: _Reading | None = None
        self._jit = self._nothing("the dump is not here")

    def read(self, *, alive: bool) -> Jit:
        """What is in it now, the same as before if nothing has come; code of nothing, and a note,
        where it may not be believed. What was read of a dump that is gone stays."""
        path, pid = self.path, self._pid
        for place in (process_root(pid) / path.lstrip("/") if alive else Path(path), Path(path)):
            try:
                # as of perf maps: anybody could have written it
                opened = believed(place, owners(pid, alive=alive), sys.maxsize)
                if opened is None:
                    self._forget("the dump is no file of its process's user")
                    continue
                with opened as file:
                    return self._go_on(file.fileno(), str(place))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                self._forget(f"the dump cannot be read: {error}")
        return self._jit

    def _go_on(self, descriptor: int, place: str) -> Jit:
        found = os.fstat(descriptor)
        file, size = (found.st_dev, found.st_ino), found.st_size
        if (file, size) == (self._file, self._size):
            return self._jit
        read = _Pieces(descriptor)
        if self._reading is None or file != self._file or size < self._reading.at:
            self._reading = _Reading(read)
        self._reading.go_on(read, size)
        self._file, self._size = file, size
        self._jit = self._reading.jit(place, timed=self._timed)
        return self._jit

    def _forget(self, note: str) -> None:
        self._file = self._reading = None
        self._jit = self._nothing(note)

    def _nothing(self, note: str) -> Jit:
        return Jit(self.path, np.zeros(1, np.uint64), lambda _: NO_SYMBOLS, note)


def parse(data: bytes, path: str = "", *, timed: bool = True) -> Jit:
    """A dump's bytes, up to where it was written. ValueError for what is no dump."""

    def read(at: int, size: int) -> bytes:
        return data[at : at + size]

    reading = _Reading(read)
    reading.go_on(read, len(data))
    return reading.jit(path, timed=timed)


_Read = Callable[[int, int], bytes]  # (offset, size) -> bytes, fewer where there are no more


class _Pieces:
    """A file read piece by piece. Not mapped: a page that its owner has cut off meanwhile would
    be a SIGBUS."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._start, self._piece = 0, b""

    def __call__(self, at: int, size: int) -> bytes:
        skip = at - self._start
        if not 0 <= skip <= skip + size <= len(self._piece):
            self._start, skip = at, 0
            self._piece = os.pread(self._descriptor, max(size, _PIECE), at)
        return self._piece[skip : skip + size]


_Load = tuple[int, int, int, bytes]


class _Reading:
    """What was read of a dump, record by record, up to `at`."""

    def __init__(self, read: _Read) -> None:
        """ValueError for what is no dump."""
        head = read(0, _HEADER.size)
        if len(head) < _HEADER.size or head[:4] not in (b"DTiJ", b"JiTD"):
            raise ValueError(f"it begins with {head[:4]!r}")
        self._order = "<" if head[:4] == b"DTiJ" else ">"
        _, _, first, *_, self._flags = struct.unpack(self._order + _HEADER.format, head)
        self.at = max(first, len(head))
        self._names: dict[int, bytes] = {}
        self._loads: list[_Load] = []

    def jit(self, path: str, *, timed: bool) -> Jit:
        """The code that was told of."""
        notes = []
        if not timed:
            notes.append("recorded with another clock than CLOCK_MONOTONIC")
        if self._flags & _ARCH_TIMESTAMP:
            notes.append("its times are the processor's")
        loads = sorted(self._loads, key=lambda load: load[0])
        starts, code = _generations(loads, timed=not notes)
        if notes:
            notes.append("of code that had the same place only the last is known")
        return Jit(path, starts, _Tables(code), "; ".join(notes), len(loads))

    def go_on(self, read: _Read, end: int) -> None:
        """Read on, up to a record that `end` cuts off: its writer may be in the middle of it."""
        record, loaded, moved = (
            struct.Struct(self._order + one.format) for one in (_RECORD, _LOADED, _MOVED)
        )
        while len(self._loads) < _MOST_LOADS:
            whole = read(self.at, record.size + loaded.size + _LONGEST_NAME)
            if len(whole) < record.size:
                return
            kind, size, time = record.unpack_from(whole)
            if size < record.size or self.at + size > end or kind == _CLOSE:
                return
            self.at += size
            body = whole[record.size : size]
            if kind == _LOAD and len(body) > loaded.size:
                _, _, _, start, length, index = loaded.unpack_from(body)
                self._names[index] = name = body[loaded.size :].split(b"\0", 1)[0]
            elif kind == _MOVE and len(body) >= moved.size:
                _, _, _, _, start, length, index = moved.unpack_from(body)
                name = self._names.get(index, b"")
            else:
                continue
            if name and 0 < length < 2**47 and start + length < 2**64:
                self._loads.append((time, start, start + length, name))


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
