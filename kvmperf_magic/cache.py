"""Columns kept in a file, so that what was worked out once is only mapped the next time.

A cache stands beside the recording as `.NAME.kvmperf-PART`, or, where that folder cannot be
written, in the user's cache folder. It is believed only if its key (what it was made of) is the
same again and its content is whole; else it is as if it were not there. Layout: MAGIC, u64 length
of the header, header (JSON), its digest, then the arrays, each on 64 bytes.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"KVMPERF\x01"
_ALIGN = 64
_PIECE = 1 << 13  # u64 words that are summed as one
_SAMPLED, _SAMPLE = 64, 4096  # blocks of a recording that its digest looks at, and their bytes
_DIGEST = 16

Meta = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]


def identity(path: str | Path) -> list[int] | None:
    """What changes when a file does: size, time of the last change (ns), inode; None: no file."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def content_digest(path: str | Path) -> str:
    """A digest of blocks spread evenly over a file, its first and last among them.

    All of a large file would take longer to read than to decode; a change between the blocks is
    told by the file's identity, which the key holds too.
    """
    digest = blake2b(digest_size=_DIGEST)
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        last = max(size - _SAMPLE, 0)
        for at in sorted({last * i // (_SAMPLED - 1) for i in range(_SAMPLED)}):
            file.seek(at)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


class Cache:
    """The caches of one recording, one a `part`. Nothing here ever raises for what is on disk."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).absolute()

    def load(self, part: str, key: Meta) -> tuple[Meta, dict[str, NDArray[Any]]] | None:
        """What `save` was given under an equal key, the arrays read-only and mapped."""
        for place in self._places(part):
            with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                found = self._read(place, key)
                if found is not None:
                    return found
        return None

    def save(self, part: str, key: Meta, meta: Meta, arrays: Arrays) -> None:
        """Write it in one piece: another process sees the old one, or all of the new one."""
        for place in self._places(part):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                _write(place, key, meta, arrays)
            except OSError:
                continue
            return

    def _places(self, part: str) -> list[Path]:
        places = [self._path.with_name(f".{self._path.name}.kvmperf-{part}")]
        with suppress(RuntimeError):  # a user without a home
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            name = blake2b(os.fsencode(self._path), digest_size=_DIGEST).hexdigest()
            places.append(home / "kvmperf_magic" / f"{name}.{part}")
        return places

    def _read(self, place: Path, key: Meta) -> tuple[Meta, dict[str, NDArray[Any]]] | None:
        """What stands there; None unless it is whole, of this key, and to be trusted: a file of
        ours, or of whoever owns the recording. What others left there is not looked at, nor
        what a link leads to."""
        owners = {os.getuid(), self._path.stat().st_uid}
        # a pipe would let the open wait for a writer
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners:
                return None
            return _read(file, found.st_size, key)


def _sums(data: NDArray[np.uint8]) -> bytes:
    """A digest of sums over pieces: a sum is as fast as memory, a digest of all would not be."""
    words = data[: len(data) // 8 * 8].view(np.uint64)
    whole = len(words) // _PIECE * _PIECE
    digest = blake2b(digest_size=_DIGEST)
    digest.update(words[:whole].reshape(-1, _PIECE).sum(axis=1).tobytes())
    digest.update(words[whole:].tobytes())
    digest.update(data[len(words) * 8 :].tobytes())
    return digest.digest()


def _write(place: Path, key: Meta, meta: Meta, arrays: Arrays) -> None:
    listed, at = [], 0
    raw: list[NDArray[np.uint8]] = []
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array)
        listed.append([name, flat.dtype.str, len(flat), at])
        raw.append(flat.view(np.uint8))
        at += -(-flat.nbytes // _ALIGN) * _ALIGN
    header = {"key": key, "meta": meta, "arrays": listed, "size": at}
    header["sums"] = [_sums(data).hex() for data in raw]
    text = json.dumps(header).encode()
    text += b" " * (-(len(_MAGIC) + 8 + len(text) + _DIGEST) % _ALIGN)
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=place.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + len(text).to_bytes(8, "little") + text)
            file.write(blake2b(text, digest_size=_DIGEST).digest())
            for data in raw:
                file.write(data.data)
                file.write(bytes(-len(data) % _ALIGN))
        Path(temporary).replace(place)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _read(file: BinaryIO, size: int, key: Meta) -> tuple[Meta, dict[str, NDArray[Any]]] | None:
    magic, length = file.read(len(_MAGIC)), int.from_bytes(file.read(8), "little")
    if magic != _MAGIC or length > size:
        return None
    text = file.read(length)
    if file.read(_DIGEST) != blake2b(text, digest_size=_DIGEST).digest():
        return None
    header = json.loads(text)
    if header["key"] != json.loads(json.dumps(key)):
        return None
    start = file.tell()
    mapped = np.memmap(file, np.uint8, mode="r")[start:].view(np.ndarray)
    if len(mapped) != header["size"]:
        return None
    arrays = {}
    for (name, dtype, count, at), sums in zip(header["arrays"], header["sums"], strict=True):
        kind = np.dtype(dtype)
        data = mapped[at : at + count * kind.itemsize]
        if len(data) != count * kind.itemsize or _sums(data).hex() != sums:
            return None
        arrays[name] = data.view(kind)
    return header["meta"], arrays
