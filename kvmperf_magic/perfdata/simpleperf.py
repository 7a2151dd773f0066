"""The feature sections that Android's simpleperf adds from bit 128 on.

simpleperf/record_file.h and record_file.proto tell their layouts. ValueError for damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kvmperf_magic.perfdata.cursor import Cursor, text

FILE, META_INFO, DEBUG_UNWIND, DEBUG_UNWIND_FILE, FILE2 = range(128, 133)


@dataclass(frozen=True)
class NamedFile:
    """A DSO and the symbols that were met in it: (address, size, name)."""

    path: str
    type: int  # 0 kernel, 1 ELF file, 2 kernel module, 3 dex file, 4 symbol map, 5 unknown
    min_vaddr: int
    symbols: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class UnwindFile:
    """A file whose bytes stand in DEBUG_UNWIND_FILE: how many of them are its."""

    path: str
    size: int


def decode_meta_info(data: bytes) -> dict[str, str]:
    """META_INFO: key, value, key, value ..., each ending in a NUL."""
    cursor = Cursor(data)
    found = {}
    while cursor.left:
        key = cursor.terminated()
        found[key] = cursor.terminated()
    return found


def event_names(meta: dict[str, str]) -> dict[tuple[int, int], str]:
    """What simpleperf called its events, by (attr.type, attr.config)."""
    found = {}
    for line in meta.get("event_type_info", "").splitlines():
        name, _, numbers = line.partition(",")
        kind, _, config = numbers.partition(",")
        if name and kind.isdecimal() and config.isdecimal():
            found[int(kind), int(config)] = name
    return found


def decode_files(data: bytes) -> list[NamedFile]:
    """FILE: structs of their own, each behind its size."""
    found = []
    for part in _sized(data):
        cursor = Cursor(part)
        path, kind, vaddr = cursor.terminated(), cursor.u32(), cursor.u64()
        symbols = [(cursor.u64(), cursor.u32(), cursor.terminated()) for _ in range(cursor.u32())]
        found.append(NamedFile(path, kind, vaddr, symbols))
    return found


def decode_files2(data: bytes) -> list[NamedFile]:
    """FILE2: messages FileFeature, each behind its size."""
    return [_named_file(part) for part in _sized(data)]


def _named_file(data: bytes) -> NamedFile:
    path, kind, vaddr = "", 0, 0
    symbols = []
    for number, value in _message(data):
        if number == 1 and isinstance(value, bytes):
            path = text(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 3 and isinstance(value, int):
            vaddr = value
        elif number == 4 and isinstance(value, bytes):
            parts = dict(_message(value))
            name = parts.get(3, b"")
            numbers = (parts.get(1, 0), parts.get(2, 0))
            if isinstance(name, bytes) and isinstance(numbers[0], int):
                size = numbers[1] if isinstance(numbers[1], int) else 0
                symbols.append((numbers[0], size, text(name)))
    return NamedFile(path, kind, vaddr, symbols)


def decode_debug_unwind(data: bytes) -> list[UnwindFile]:
    """DEBUG_UNWIND: message DebugUnwindFeature, a list of {path, size}."""
    found = []
    for number, value in _message(data):
        if number == 1 and isinstance(value, bytes):
            parts = dict(_message(value))
            path, size = parts.get(1, b""), parts.get(2, 0)
            if isinstance(path, bytes) and isinstance(size, int):
                found.append(UnwindFile(text(path), size))
    return found


def _sized(data: bytes) -> Iterator[bytes]:
    cursor = Cursor(data)
    while cursor.left:
        yield cursor.take(cursor.u32())


def _message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message: numbers, or the bytes of what has any."""
    cursor = Cursor(data)
    while cursor.left:
        key = _varint(cursor)
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, _varint(cursor)
        elif wire == 1:
            yield number, cursor.u64()
        elif wire == 2:
            yield number, cursor.take(_varint(cursor))
        elif wire == 5:
            yield number, cursor.u32()
        else:
            raise ValueError(f"wire type {wire} of a protobuf field at {cursor.at}")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 70, 7):
        (byte,) = cursor.take(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError(f"a number of more than 64 bits at {cursor.at}")


DECODERS: dict[int, Any] = {
    FILE: decode_files,
    META_INFO: decode_meta_info,
    DEBUG_UNWIND: decode_debug_unwind,
    FILE2: decode_files2,
}
