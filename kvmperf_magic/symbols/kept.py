"""Symbols that a recording carries with it, so that it is named where no binary is.

Any number of tables, each by machine, kind, DSO and build-id. Only symbols that samples hit are
kept, with their places and, if they were asked for, their source lines; nothing of a file's content
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic import blob
from kvmperf_magic.symbols.elf import Segments
from kvmperf_magic.symbols.jitdump import Jit
from kvmperf_magic.symbols.keptlines import ADDRESSES, PLACES, KeptLines, sound
from kvmperf_magic.symbols.symboltable import MARKS, NO_SYMBOLS, SymbolTable
from kvmperf_magic.table import Categorical

KERNEL, USER, JITTED, PROGRAM = "kernel", "user", "jit", "program"
_KINDS = (KERNEL, USER, JITTED, PROGRAM)
_TABLE = {"start": "<u8", "end": "<u8", "type": "|u1", "module": "<i4", "length": "<u4"}
_SEGMENTS = {"offset": "<u8", "address": "<u8", "file": "<u8", "memory": "<u8", "runs": "|u1"}
_MAPS = {"map_start": "<u8", "map_end": "<u8"}
_LINES = {**ADDRESSES, **PLACES}


@dataclass(frozen=True)
class Kept:
    """The names of one DSO.

    Attributes:
        machine, boot: 0 for the host, else the pid of the VM's VMM; which of its boots, where the
            recording knows of several.
        kind: KERNEL, USER (a file that processes map), JITTED (one generation of a JIT compiler's
            code), or PROGRAM (what a guest runs).
        dso, build_id: as the recording's map records call it; "" for a kernel's image.
        table: its symbols; None where none were found.
        source, note: where they came from, and what was to be said of that.
        count: how many symbols the source had.
        segments: where the file's offsets lie in memory; None where addresses are what they are.
        processes: the pids it holds for, all where there are none.
        since: when it begins to hold (ns).
        maps: start, end and name of parts of a kernel that the recording does not tell of.
        warnings: what stood in the way of the machine's names, a line each.
        lines: where code comes from, by addresses as of `table`; None where nobody asked.
    """

    machine: int
    kind: str
    dso: str = ""
    build_id: str = ""
    table: SymbolTable | None = None
    source: str = ""
    note: str = ""
    count: int = 0
    segments: Segments | None = None
    processes: tuple[int, ...] = ()
    since: int = 0
    boot: int = 0
    maps: tuple[tuple[int, int, str], ...] = ()
    warnings: tuple[str, ...] = ()
    lines: KeptLines | None = None


@dataclass(frozen=True)
class Keeping:
    """All tables that a recording carries. `contained` are the processes that saw another file
    system than the recorder. `chains`, offsets and words of the callchains of all samples, are
    there where files were needed to work them out; `warnings` go with them."""

    tables: Sequence[Kept]
    contained: frozenset[int] = frozenset()
    chains: tuple[NDArray[np.int64], NDArray[np.uint64]] | None = None
    warnings: tuple[str, ...] = ()
    _found: dict[tuple[int, int, str, str, str, int], Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.tables:
            for pid in one.processes or (0,):
                self._found[one.machine, one.boot, one.kind, one.dso, one.build_id, pid] = one

    def kernel(self, machine: int, dso: str = "", boot: int = 0) -> Kept | None:
        """The names of a kernel's image, or of one of its modules."""
        return self._found.get((machine, boot, KERNEL, dso, "", 0))

    def program(self, machine: int, boot: int = 0) -> Kept | None:
        """The names of what runs in a guest."""
        return self._found.get((machine, boot, PROGRAM, "", "", 0))

    def user(self, dso: str, build_id: str, pid: int) -> Kept | None:
        """The names of a file that a process of the host maps."""
        own = self._found.get((0, 0, USER, dso, build_id, pid))
        return own or self._found.get((0, 0, USER, dso, build_id, 0))

    def jits(self) -> dict[int, Jit]:
        """The code of JIT compilers, by process."""
        found: dict[int, list[Kept]] = {}
        for one in self.tables:
            if one.kind == JITTED:
                for pid in one.processes:
                    found.setdefault(pid, []).append(one)
        return {pid: _jit(many) for pid, many in found.items()}


def _jit(generations: list[Kept]) -> Jit:
    ordered = sorted(generations, key=lambda one: one.since)
    starts = np.array([0, *(one.since for one in ordered[1:])], np.uint64)
    first = ordered[0]
    return Jit(first.dso, starts, lambda g: ordered[g].table or NO_SYMBOLS, first.note, first.count)


def encode(keeping: Keeping) -> bytes:
    """All of it as bytes."""
    names = {**_TABLE, **_SEGMENTS, **_MAPS, **_LINES}
    parts: dict[str, list[NDArray[Any]]] = {name: [np.zeros(0, k)] for name, k in names.items()}
    strings: list[bytes] = []
    told: list[dict[str, Any]] = []
    for one in keeping.tables:
        table, segments = one.table, one.segments
        if table is not None:
            strings += [
                table.strings[at : at + length]
                for at, length in zip(
                    table.name_at.tolist(), table.name_length.tolist(), strict=True
                )
            ]
            columns = (table.start, table.end, table.types, table.modules.codes, table.name_length)
            for name, column in zip(_TABLE, columns, strict=True):
                parts[name].append(np.asarray(column))
        if segments is not None:
            places = (segments.offset, segments.address, segments.file_size, segments.memory_size)
            for name, place in zip(_SEGMENTS, (*places, segments.executable), strict=True):
                parts[name].append(np.asarray(place))
        for name, at in zip(_MAPS, (0, 1), strict=True):
            parts[name].append(np.array([row[at] for row in one.maps], np.uint64))
        if one.lines is not None:
            for name, column in one.lines.columns.items():
                parts[name].append(column)
        told.append(
            {
                **{name: getattr(one, name) for name in _TOLD},
                "symbols": None if table is None else len(table),
                "modules": [] if table is None else table.modules.categories,
                "marks": {} if table is None else dict(table.marks),
                "segments": None if segments is None else len(segments.offset),
                "maps": [name for _, _, name in one.maps],
                "lines": None if one.lines is None else one.lines.told,
            }
        )
    whole = {
        name: np.concatenate([part.astype(names[name]) for part in many])
        for name, many in parts.items()
    }
    whole["strings"] = np.frombuffer(b"".join(strings), np.uint8)
    if keeping.chains is not None:
        whole["chain_offsets"], whole["chain_words"] = keeping.chains
    meta = {
        "tables": told,
        "warnings": list(keeping.warnings),
        "contained": sorted(keeping.contained),
    }
    return blob.pack(meta, whole)


_TOLD = (
    *("machine", "kind", "dso", "build_id", "source", "note", "count", "processes", "since"),
    *("boot", "warnings"),
)


def decode(data: bytes | memoryview) -> Keeping:
    """What `encode` was given. ValueError, with the reason, for what is not sound."""
    meta, columns = blob.unpack(data)
    try:
        reader = _Reader(columns)
        tables = [reader.kept(one) for one in meta["tables"]]
        reader.finish()
        warnings = _texts(meta["warnings"])
        contained = frozenset(_pid(one) for one in meta["contained"])
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its tables are not told as they should be: {error!r}") from None
    chains = None
    if "chain_offsets" in columns:
        offsets, words = columns["chain_offsets"], columns.get("chain_words", np.zeros(0))
        sound = len(offsets) and offsets.dtype == "<i8" and words.dtype == "<u8"
        if not sound or offsets[0] or offsets[-1] != len(words) or (np.diff(offsets) < 0).any():
            raise ValueError("its callchains do not fit their words")
        chains = offsets, words
    return Keeping(tables, contained, chains, warnings)


class _Reader:
    """Takes table after table from the columns that hold all of them."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        # recordings that were saved before lines were kept have none
        columns = {**{name: np.zeros(0, kind) for name, kind in _LINES.items()}, **columns}
        for name, kind in {**_TABLE, **_SEGMENTS, **_MAPS, **_LINES, "strings": "|u1"}.items():
            if name not in columns or columns[name].dtype != np.dtype(kind):
                raise ValueError(f"it has no column {name!r} of {kind}")
        self._columns = columns
        self._strings = columns["strings"].tobytes()
        self._at = dict.fromkeys(columns, 0)
        self._name_at = 0

    def _take(self, names: Iterable[str], count: int) -> list[NDArray[Any]]:
        found = []
        for name in names:
            at = self._at[name]
            if not 0 <= count <= len(self._columns[name]) - at:
                raise ValueError(f"{count} rows wanted of column {name!r} at {at}")
            found.append(self._columns[name][at : at + count])
            self._at[name] = at + count
        return found

    def kept(self, told: Mapping[str, Any]) -> Kept:
        if told["kind"] not in _KINDS:
            raise ValueError(f"a table of kind {told['kind']!r}")
        table = segments = None
        if told["symbols"] is not None:
            table = self._table(told)
        if told["segments"] is not None:
            offset, address, size, memory, runs = self._take(_SEGMENTS, int(told["segments"]))
            segments = Segments(offset, address, size, memory, runs.astype(np.bool_))
        names = _texts(told["maps"])
        start, end = self._take(_MAPS, len(names))
        return Kept(
            machine=_pid(told["machine"]),
            kind=told["kind"],
            dso=blob.text(told["dso"]),
            build_id=blob.text(told["build_id"]),
            table=table,
            source=blob.text(told["source"]),
            note=blob.text(told["note"]),
            count=_number(told["count"]),
            segments=segments,
            processes=tuple(_pid(one) for one in told["processes"]),
            since=_number(told["since"]),
            boot=min(max(int(told["boot"]), -1), 2**31 - 1),
            maps=tuple(zip(start.tolist(), end.tolist(), names, strict=True)),
            warnings=_texts(told["warnings"]),
            lines=None if told.get("lines") is None else self._lines(told["lines"]),
        )

    def _lines(self, told: Mapping[str, Any]) -> KeptLines:
        address, counts = self._take(ADDRESSES, int(told["addresses"]))
        codes = self._take(PLACES, int(counts.sum(dtype=np.int64)))
        return sound(address, counts, codes, (_texts(told["inlined"]), _texts(told["at"])))

    def _table(self, told: Mapping[str, Any]) -> SymbolTable:
        start, end, types, module, length = self._take(_TABLE, int(told["symbols"]))
        modules = list(_texts(told["modules"]))
        if (start[1:] < start[:-1]).any() or (end < start).any():
            raise ValueError(f"the symbols of {told['dso']!r} are not in order")
        if len(module) and not 0 <= int(module.min()) <= int(module.max()) < len(modules):
            raise ValueError(f"a module of {told['dso']!r} that it does not have")
        stops = self._name_at + np.cumsum(length.astype(np.int64))
        if len(stops) and int(stops[-1]) > len(self._strings):
            raise ValueError(f"the names of {told['dso']!r} go beyond all names")
        name_at = stops - length
        self._name_at = int(stops[-1]) if len(stops) else self._name_at
        marks = {mark: int(told["marks"][mark]) % 2**64 for mark in MARKS if mark in told["marks"]}
        return SymbolTable(
            start.astype(np.uint64),
            end.astype(np.uint64),
            self._strings,
            name_at,
            length.astype(np.int64),
            types,
            Categorical(module.astype(np.int32), modules),
            marks,
        )

    def finish(self) -> None:
        """All of it has to be some table's."""
        for name, at in self._at.items():
            known = any(name in columns for columns in (_TABLE, _SEGMENTS, _MAPS, _LINES))
            if known and at != len(self._columns[name]):
                raise ValueError(f"rows of column {name!r} from {at} on are no table's")


def _pid(value: Any) -> int:
    return int(value) & 0x7FFFFFFF


def _number(value: Any) -> int:
    return min(max(int(value), 0), 2**63 - 1)


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(blob.text(one) for one in values)
