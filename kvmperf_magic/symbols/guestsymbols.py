"""A guest kernel's symbols as a value: found while the guest ran, kept with the recording."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.blob import text
from kvmperf_magic.symbols.symboltable import SymbolTable, fill_ends, find_marks
from kvmperf_magic.table import Categorical

_FORMAT = 1
_LEVEL = 3  # of zlib: a higher one takes twice as long for a tenth less
_MOST_SYMBOLS = 8_000_000
_MOST_BYTES = 1 << 29
_TIMES = 64  # what unpacks to more than so many times its size is a bomb: these shrink to a fifth
_MOST_MODULES = 1 << 16
_FIELDS = {"pid": int, "name": str, "source": str, "note": str, "release": str} | {
    "build_id": str,
    "since": int,
}


@dataclass(frozen=True)
class GuestSymbols:
    """What was found of one boot of the kernel of the VM whose VMM is `pid`.

    `table` is None where nothing was found: `note` then says why. `source` says how it was found,
    `release` and `build_id` which kernel it is, `since` when it was booted (CLOCK_MONOTONIC_RAW,
    ns: what perf's own clock follows), to a second or so.
    """

    pid: int
    name: str
    table: SymbolTable | None = None
    source: str = ""
    note: str = ""
    release: str = ""
    build_id: str = ""
    since: int = 0

    def pack(self) -> bytes:
        """A line of JSON, then the columns, compressed."""
        told = {"format": _FORMAT, **{name: getattr(self, name) for name in _FIELDS}}
        body = b""
        if self.table is not None:
            table = self.table
            other = np.flatnonzero(
                fill_ends(table.start, table.start, table.modules.codes) != table.end
            )
            told |= {
                "symbols": len(table),
                "modules": table.modules.categories,
                # ends that do not follow from the next symbol's start
                "ends": [other.tolist(), table.end[other].tolist()],
            }
            body = _columns(table)
            told["bytes"] = len(body)
            body = zlib.compress(body, _LEVEL)
        return json.dumps(told, separators=(",", ":")).encode() + b"\n" + body

    @classmethod
    def unpack(cls, data: bytes) -> GuestSymbols:
        """The inverse. ValueError for what `pack()` has not written."""
        line, _, body = data.partition(b"\n")
        try:
            told = json.loads(line)
        except RecursionError:
            raise ValueError("JSON that is nested too deep") from None
        if not isinstance(told, dict) or told.get("format") != _FORMAT:
            raise ValueError("guest symbols of another format")
        for name, kind in _FIELDS.items():
            if type(told.get(name)) is not kind:
                raise ValueError(f"guest symbols without {name}")
        if not (0 <= told["pid"] < 1 << 31 and 0 <= told["since"] < 1 << 63):
            raise ValueError("guest symbols of no process")
        table = _table(told, body) if "symbols" in told else None
        texts = {name: text(told[name]) for name, kind in _FIELDS.items() if kind is str}
        return cls(told["pid"], since=told["since"], table=table, **texts)


class Boots:
    """The symbols of one VM, boot by boot: what was found again with more modules is of the same.

    `begins` is when each of them began, 0 for the first.
    """

    def __init__(self, found: Sequence[GuestSymbols]) -> None:
        self.parts: list[list[GuestSymbols]] = []
        begins: list[int] = []
        for one in found:
            last = self.parts[-1][-1] if self.parts else None
            if last is None or not _same_boot(last, one):
                self.parts.append([])
                begins.append(one.since if last else 0)
            self.parts[-1].append(one)
        self.begins = np.maximum.accumulate(np.array(begins or [0], np.uint64))

    def which(self, time: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The number of the boot that each of these times is in."""
        return (np.searchsorted(self.begins, time, side="right") - 1).astype(np.int32)


def _same_boot(one: GuestSymbols, other: GuestSymbols) -> bool:
    if one.table is None or other.table is None:
        return True
    mine, theirs = (found.table.marks.get("_text") for found in (one, other) if found.table)
    return (one.build_id, one.release, mine) == (other.build_id, other.release, theirs)


def _columns(table: SymbolTable) -> bytes:
    """Steps between addresses byte by byte, module numbers, types, and names with a NUL each."""
    steps = np.diff(table.start, prepend=np.uint64(0))
    length = table.name_length + 1
    stop = np.cumsum(length)
    # every name and the byte behind it, which becomes its NUL
    text = np.frombuffer(table.strings + b"\0", np.uint8)
    total = int(stop[-1]) if len(stop) else 0
    names = text[np.repeat(table.name_at - (stop - length), length) + np.arange(total)]
    names[stop - 1] = 0
    return b"".join(
        (
            steps.astype("<u8").view(np.uint8).reshape(-1, 8).T.tobytes(),
            table.modules.codes.astype("<u2").tobytes(),
            table.types.tobytes(),
            names.tobytes(),
        )
    )


def _table(told: dict[str, Any], body: bytes) -> SymbolTable:
    count, size, modules = told["symbols"], told.get("bytes"), told.get("modules")
    if not (
        type(count) is int
        and type(size) is int
        and isinstance(modules, list)
        and 0 <= count <= _MOST_SYMBOLS
        and count * 11 <= size <= min(_MOST_BYTES, _TIMES * len(body))
        and len(modules) <= _MOST_MODULES
        and all(isinstance(name, str) for name in modules)
    ):
        raise ValueError("guest symbols whose sizes cannot be")
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(body, size + 1)
    except zlib.error as error:
        raise ValueError(f"guest symbols: {error}") from None
    if len(data) != size:
        raise ValueError("guest symbols that are cut")
    steps = np.frombuffer(data, np.uint8, count * 8).reshape(8, count).T.copy()
    start: NDArray[np.uint64] = np.cumsum(steps.view("<u8").ravel(), dtype=np.uint64)
    codes = np.frombuffer(data, "<u2", count, count * 8).astype(np.int32)
    types = np.frombuffer(data, np.uint8, count, count * 10)
    strings = data[count * 11 :]
    name_end = np.flatnonzero(np.frombuffer(strings, np.uint8) == 0).astype(np.int64)
    if len(name_end) != count or (count and int(codes.max()) >= len(modules)):
        raise ValueError("guest symbols that contradict themselves")
    if (start[1:] < start[:-1]).any():
        raise ValueError("guest symbols out of order")
    name_at = np.concatenate([[0], name_end[:-1] + 1]).astype(np.int64)[:count]
    length = name_end - name_at
    marks = find_marks(start, strings, name_at, length)
    end = fill_ends(start, start, codes).copy()
    try:
        which, there = told["ends"]
        end[np.array(which, np.int64)] = np.array(there, np.uint64)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise ValueError("guest symbols whose ends cannot be") from None
    if (end < start).any():
        raise ValueError("guest symbols that end before they begin")
    column = Categorical(codes, [text(name) for name in modules])
    return SymbolTable(start, end, strings, name_at, length, types, column, marks)
