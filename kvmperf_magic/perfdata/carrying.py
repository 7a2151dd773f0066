"""A perf.data with one more feature section, which perf steps over: our symbols.

The table of sections stands right behind the records, an entry for each bit of the header's mask
(tools/perf/util/header.c: perf_header__adds_write()): a longer table moves what is behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, FILE_MAGIC
from kvmperf_magic.perfdata.header import FileHeader
from kvmperf_magic.perfdata.walk import Buffer

_MASK_AT = 72
_ENTRY = 16


def with_feature(path: str, buffer: Buffer, feature: int, body: bytes) -> Iterable[bytes]:
    """The file in `buffer`, finished and little endian, with this section, in pieces.

    Raises:
        FileError: it is of another kind; `path` is named then.
    """
    head = bytes(buffer[:FILE_HEADER_SIZE])
    whole = len(head) == FILE_HEADER_SIZE and head[:8] == FILE_MAGIC
    if not whole or int.from_bytes(head[8:16], "little") != FILE_HEADER_SIZE:
        raise _refused(path, "is no perf.data file in this machine's byte order")
    header = FileHeader.decode(head, "little")
    table = header.data.end
    behind = table + _ENTRY * len(header.features)
    if not header.data.size or behind > len(buffer):
        raise _refused(path, "was not finished by its recorder")
    sections = {
        number: struct.unpack_from("<QQ", buffer, table + _ENTRY * i)
        for i, number in enumerate(header.features)
    }
    if header.attrs.offset >= behind:
        raise _refused(path, "has its events behind its records")
    if any(offset + size > len(buffer) for offset, size in sections.values()):
        raise _refused(path, "has sections that reach beyond its end")
    grown = 0 if feature in sections else _ENTRY
    moved = {
        number: (offset + grown if offset >= behind else offset, size)
        for number, (offset, size) in sections.items()
    }
    moved[feature] = len(buffer) + grown, len(body)
    mask = sum(1 << number for number in moved)
    yield head[:_MASK_AT] + mask.to_bytes(32, "little")
    yield bytes(buffer[FILE_HEADER_SIZE:table])
    yield b"".join(struct.pack("<QQ", *moved[number]) for number in sorted(moved))
    yield bytes(buffer[behind:])
    yield body


def _refused(path: str, why: str) -> FileError:
    return FileError(
        path,
        f"{why}: no section can be added to it",
        hint="save it under a name that ends in .kvmperf",
    )
