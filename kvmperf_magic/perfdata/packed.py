"""A recording and its symbols in one compressed file: NAME.kvmperf.

Layout: MAGIC, u64 length of the directory, its BLAKE2 digest (16 bytes), directory (JSON), then
blocks, one behind the other. The directory tells the recording's name and of each member (`data`,
`data.N` of a recorder's threads, `symbols`) its size and its blocks: bytes here, bytes unpacked,
CRC-32 of those here. A block is deflated, or as it is where that makes it no smaller.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from kvmperf_magic.errors import FileError
from kvmperf_magic.parallel import blocks
from kvmperf_magic.perfdata.walk import Buffer

MAGIC = b"KVMPERF\x02"
SUFFIX = ".kvmperf"
DATA, SYMBOLS = "data", "symbols"
_NAME = re.compile(rf"{DATA}(\.\d+)?|{SYMBOLS}")
_DIGEST = 16
_HEAD = len(MAGIC) + 8 + _DIGEST
_BLOCK = 1 << 21
_LEVEL = 6
# what unpacks to more than so many bytes, and so many times the file's own, is a bomb: recordings
# shrink to a tenth, and those that would shrink more than that are not deflated at all
_FREE, _TIMES = 64 << 20, 64
_MOST_DIRECTORY = 64 << 20
_AGAIN = "ask for the file again, or save it again"


@dataclass(frozen=True)
class Packed:
    """What a file holds: the recording's own name, and its members."""

    name: str
    members: dict[str, Buffer]


def is_packed(buffer: Buffer) -> bool:
    return bytes(buffer[: len(MAGIC)]) == MAGIC


def pack(name: str, members: Mapping[str, Buffer]) -> Iterable[bytes]:
    """The bytes of a file with these members, in pieces."""
    whole = {member: memoryview(data) for member, data in members.items()}
    made: dict[str, Sequence[bytes | memoryview]]
    made = {member: _deflated(view) for member, view in whole.items()}
    total = sum(len(view) for view in whole.values())
    small = sum(len(piece) for pieces in made.values() for piece in pieces)
    if _is_bomb(total, small):
        made = {member: _pieces(view) for member, view in whole.items()}
    listed = [
        {
            "name": member,
            "size": len(view),
            "blocks": [
                [len(piece), len(raw), zlib.crc32(piece)]
                for piece, raw in zip(made[member], _pieces(view), strict=True)
            ],
        }
        for member, view in whole.items()
    ]
    text = json.dumps({"format": 1, "name": name, "members": listed}).encode()
    yield MAGIC + len(text).to_bytes(8, "little")
    yield blake2b(text, digest_size=_DIGEST).digest()
    yield text
    for pieces in made.values():
        yield from map(bytes, pieces)


def _pieces(view: memoryview) -> Sequence[memoryview]:
    return [view[at : at + _BLOCK] for at in range(0, len(view), _BLOCK)]


def _deflated(view: memoryview) -> list[bytes | memoryview]:
    raw = _pieces(view)

    def work(which: slice) -> bytes | memoryview:
        piece = raw[which.start]
        small = zlib.compress(piece, _LEVEL)
        return small if len(small) < len(piece) else piece

    return blocks(work, len(raw), size=1)


def unpack(path: str | os.PathLike[str], buffer: Buffer) -> Packed:
    """The members of a file. FileError where it is cut off, damaged, or not to be trusted."""
    name, members = _directory(path, buffer)
    view = memoryview(buffer)
    found: dict[str, Buffer] = {}
    for member in members:
        # pages that nothing is written to take no memory
        room: Buffer = mmap.mmap(-1, member.size) if member.size else b""
        member.unpack(path, view, room)
        found[member.name] = room
    return Packed(name, found)


@dataclass(frozen=True)
class _Block:
    at: int
    small: int
    size: int
    crc: int
    to: int  # where in the member


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    blocks: list[_Block]

    def unpack(self, path: str | os.PathLike[str], view: memoryview, room: Any) -> None:
        def work(which: slice) -> None:
            block = self.blocks[which.start]
            small = view[block.at : block.at + block.small]
            if zlib.crc32(small) != block.crc:
                raise _damaged(path, block.at, f"a block of {self.name!r} is not what was saved")
            try:
                raw = bytes(small) if block.small == block.size else _inflated(small, block.size)
            except zlib.error as error:
                raise _damaged(path, block.at, f"a block of {self.name!r}: {error}") from None
            if len(raw) != block.size:
                what = f"a block of {self.name!r} unpacks to {len(raw)} bytes, not {block.size}"
                raise _damaged(path, block.at, what)
            room[block.to : block.to + block.size] = raw

        blocks(work, len(self.blocks), size=1)


def _inflated(small: memoryview, size: int) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(small, size)
    # the end of the stream may take no more than a call that gives nothing
    raw += inflater.decompress(inflater.unconsumed_tail, 1)
    if not inflater.eof or inflater.unused_data:
        raise zlib.error("it does not end where it should")
    return raw


def _is_bomb(total: int, small: int) -> bool:
    return total > _FREE and total > _TIMES * small


def _damaged(path: str | os.PathLike[str], offset: int, what: str) -> FileError:
    return FileError(os.fspath(path), what, offset=offset, hint=_AGAIN)


def _directory(path: str | os.PathLike[str], buffer: Buffer) -> tuple[str, list[_Member]]:
    if len(buffer) < _HEAD:
        raise _damaged(path, len(buffer), f"the file is cut off: its head has {_HEAD} bytes")
    size = int.from_bytes(buffer[len(MAGIC) : len(MAGIC) + 8], "little")
    end = _HEAD + size
    if size > _MOST_DIRECTORY or end > len(buffer):
        what = f"a directory of {size} bytes is expected in {len(buffer) - _HEAD}"
        raise _damaged(path, len(MAGIC), what)
    text = bytes(buffer[_HEAD:end])
    if blake2b(text, digest_size=_DIGEST).digest() != bytes(buffer[len(MAGIC) + 8 : _HEAD]):
        raise _damaged(path, _HEAD, "its directory is not what was saved")
    try:
        told = json.loads(text)
        version, name, listed = told["format"], told["name"], told["members"]
        if version == 1:
            return str(name), _members(path, listed, end, len(buffer))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise _damaged(path, _HEAD, "its directory is not as it should be") from None
    raise FileError(
        os.fspath(path),
        f"is of format {version!r}, format 1 is known",
        offset=_HEAD,
        hint="a newer kvmperf_magic may read it",
    )


def _members(
    path: str | os.PathLike[str], listed: list[dict[str, Any]], at: int, end: int
) -> list[_Member]:
    found: list[_Member] = []
    start = at
    for one in listed:
        member, to = _Member(str(one["name"]), int(one["size"]), []), 0
        if not _NAME.fullmatch(member.name):
            raise _damaged(path, _HEAD, f"no member is called {member.name!r}")
        for small, size, crc in one["blocks"]:
            if {*map(type, (small, size, crc))} != {int} or not 0 < small <= size <= _BLOCK:
                raise _damaged(path, at, f"a block of {small!r} bytes that are to be {size!r}")
            if at + small > end:
                what = f"the file is cut off: {at + small - end} bytes of {member.name!r} miss"
                raise _damaged(path, end, what)
            member.blocks.append(_Block(at, small, size, crc, to))
            at, to = at + small, to + size
        if to != member.size or member.name in {other.name for other in found}:
            raise _damaged(path, _HEAD, f"member {member.name!r}: {to} of {member.size} bytes")
        found.append(member)
    if at != end:
        raise _damaged(path, at, f"{end - at} bytes follow where the file should end")
    total = sum(member.size for member in found)
    if _is_bomb(total, end - start):
        what = f"{end - start} bytes would unpack to {total}"
        raise FileError(
            os.fspath(path), what, offset=_HEAD, hint="no recording is like that: do not trust it"
        )
    if DATA not in {member.name for member in found}:
        raise _damaged(path, _HEAD, "it holds no recording")
    return found
