"""The headers of an ELF file: of itself, its segments and its sections (include/uapi/linux/elf.h).

pyelftools gives the names of machines and section types; reading the tables through it takes
milliseconds a file, and a recording maps hundreds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from elftools.elf.enums import ENUM_E_MACHINE, ENUM_SH_TYPE_BASE
from numpy.typing import NDArray

_ET_REL = 1
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_NULL = 0
_SHN_XINDEX = 0xFFFF
_PN_XNUM = 0xFFFF
_MOST = 1 << 20  # sections or segments of a sound file
_MACHINES = {number: name for name, number in ENUM_E_MACHINE.items() if isinstance(number, int)}
_TYPES = {number: name for name, number in ENUM_SH_TYPE_BASE.items() if isinstance(number, int)}

_SECTION = "name type flags addr offset size link info align entry"
_SEGMENT_64 = "type flags offset vaddr paddr filesz memsz align"
_SEGMENT_32 = "type offset vaddr paddr filesz memsz flags align"
_NARROW_64 = {"name", "type", "link", "info"}  # u32 in sections of 64-bit files, the rest u64


@dataclass(frozen=True)
class Section:
    name: str
    type: str
    flags: int
    address: int
    offset: int
    size: int
    link: int
    align: int
    info: int


@dataclass(frozen=True)
class Headers:
    """`load` and `notes` are the PT_LOAD and PT_NOTE program headers as records with the fields
    type flags offset vaddr paddr filesz memsz align."""

    is_64: bool
    little: bool
    machine: str
    relocatable: bool
    sections: list[Section]
    load: NDArray[Any]
    notes: NDArray[Any]
    size: int


def read_headers(file: BinaryIO) -> Headers:
    """ValueError or struct.error for what is no sound ELF file."""
    head = file.read(64)
    if head[:4] != b"\x7fELF" or len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise ValueError("it does not begin as an ELF file does")
    is_64, order = head[4] == 2, "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    place = order + ("QQ" if is_64 else "II")
    segments_at, sections_at = struct.unpack_from(place, head, 32 if is_64 else 28)
    counts = struct.unpack_from(order + "HHHHH", head, 54 if is_64 else 42)
    segment_size, segment_count, section_size, section_count, names_in = counts
    size = file.seek(0, 2)

    sections = np.zeros(0, _section_type(order, is_64))
    if sections_at:
        # what does not fit in 16 bits stands in the first section header
        first = _table(file, size, sections_at, section_size, 1, sections.dtype)[0]
        section_count = section_count or int(first["size"])
        names_in = int(first["link"]) if names_in == _SHN_XINDEX else names_in
        segment_count = int(first["info"]) if segment_count == _PN_XNUM else segment_count
        sections = _table(file, size, sections_at, section_size, section_count, sections.dtype)
    segments = np.zeros(0, _segment_type(order, is_64))
    if segments_at and segment_count:
        segments = _table(file, size, segments_at, segment_size, segment_count, segments.dtype)
    return Headers(
        is_64,
        order == "<",
        _MACHINES.get(machine, str(machine)),
        kind == _ET_REL,
        _sections(file, sections, names_in),
        segments[segments["type"] == _PT_LOAD],
        segments[segments["type"] == _PT_NOTE],
        size,
    )


def _section_type(order: str, is_64: bool) -> np.dtype[Any]:
    wide = [
        (name, order + ("u4" if not is_64 or name in _NARROW_64 else "u8"))
        for name in _SECTION.split()
    ]
    return np.dtype(wide)


def _segment_type(order: str, is_64: bool) -> np.dtype[Any]:
    if not is_64:
        return np.dtype([(name, order + "u4") for name in _SEGMENT_32.split()])
    return np.dtype(
        [
            (name, order + ("u4" if name in ("type", "flags") else "u8"))
            for name in _SEGMENT_64.split()
        ]
    )


def _table(
    file: BinaryIO, size: int, at: int, stride: int, count: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """`count` entries of a header table, `stride` bytes each, in a file of `size` bytes."""
    if stride < dtype.itemsize or count > _MOST or at + stride * count > size:
        raise ValueError(f"its {count} headers of {stride} bytes at {at} do not fit")
    file.seek(at)
    raw = np.frombuffer(file.read(stride * count), np.uint8).reshape(count, stride)
    return np.ascontiguousarray(raw[:, : dtype.itemsize]).view(dtype).ravel()


def _sections(file: BinaryIO, headers: NDArray[Any], names_in: int) -> list[Section]:
    if not len(headers):
        return []
    if names_in >= len(headers):
        raise ValueError(f"section {names_in} for the names, of {len(headers)}")
    file.seek(int(headers[names_in]["offset"]))
    names = file.read(int(headers[names_in]["size"]))
    found = []
    wanted = ("name", "type", "flags", "addr", "offset", "size", "link", "align", "info")
    for name, kind, *numbers in zip(*(headers[field].tolist() for field in wanted), strict=True):
        text = names[name : names.find(b"\0", name)] if kind != _SHT_NULL else b""
        found.append(
            Section(text.decode("utf-8", "replace"), _TYPES.get(kind, str(kind)), *numbers)
        )
    return found
