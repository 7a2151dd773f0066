"""Columns and what is said of them as one run of bytes that can be stored anywhere.

Layout: MAGIC, u64 length of the header, header (JSON: meta, and name, type and length of each
column), then the columns, little endian, each on 8 bytes. Whoever reads it may not have written
it: nothing is allocated before its size was checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"KVMBLOB\x01"
_TYPES = ("|u1", "<u2", "<i4", "<u4", "<i8", "<u8")
_ALIGN = 8


class BlobError(ValueError):
    """What is wrong with a blob, and at which of its bytes."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(f"{message}, at {offset} of its bytes")


def text(value: Any) -> str:
    """A string out of JSON as one that can be encoded; TypeError for what is none."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text is")
    return value.encode("utf-8", "replace").decode()


def pack(meta: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> bytes:
    """The blob of these; `meta` is anything that JSON can say."""
    listed: list[tuple[str, str, int]] = []
    parts: list[bytes] = []
    for name, column in columns.items():
        kind = column.dtype.newbyteorder("<").str
        assert kind in _TYPES, kind
        raw = np.ascontiguousarray(column, kind).tobytes()
        listed.append((name, kind, len(column)))
        parts += [raw, bytes(-len(raw) % _ALIGN)]
    header = json.dumps({"meta": meta, "columns": listed}).encode()
    header += b" " * (-len(header) % _ALIGN)
    return b"".join([_MAGIC, len(header).to_bytes(8, "little"), header, *parts])


def unpack(data: bytes | memoryview) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `pack` was given; the columns are views of `data`. BlobError if it is not sound."""
    if bytes(data[:8]) != _MAGIC:
        raise BlobError(0, f"it begins with {bytes(data[:8])!r}, not {_MAGIC!r}")
    size = int.from_bytes(data[8:16], "little")
    at = 16 + size
    if at > len(data):
        raise BlobError(8, f"a header of {size} bytes does not fit")
    try:
        header = json.loads(bytes(data[16:at]))
        meta, listed = header["meta"], [(str(n), str(k), int(c)) for n, k, c in header["columns"]]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise BlobError(16, "its header is not what one looks like") from None
    if not isinstance(meta, dict):
        raise BlobError(16, "its header is not what one looks like")
    columns = {}
    for name, kind, count in listed:
        if kind not in _TYPES or count < 0:
            raise BlobError(16, f"a column of {count} times {kind!r}")
        bytes_of = np.dtype(kind).itemsize * count
        if at + bytes_of > len(data):
            raise BlobError(at, f"column {name!r} of {bytes_of} bytes does not fit")
        columns[name] = np.frombuffer(data, kind, count, at)
        at += bytes_of + -bytes_of % _ALIGN
    return meta, columns
