"""Where what was made for a file goes."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from kvmperf_magic.errors import FileError

_Content = TypeVar("_Content", str, bytes)

_GZIP_MAGIC = b"\x1f\x8b"


def write_pieces(path: str | Path, pieces: Iterable[bytes]) -> None:
    """Writes a file that is there whole or not at all: one of that name stays until then.

    Raises FileError where it cannot be written.
    """
    target = Path(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException as error:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
        if isinstance(error, OSError):
            raise FileError(path, f"cannot be written: {error.strerror}") from None
        raise


def _umask() -> int:
    """What the user takes away from new files; it can only be asked for by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def written(content: _Content, path: str | Path | None) -> _Content:
    """Writes `content`, text as UTF-8, to `path` if one is given; compressed where that ends in
    `.gz`. Gives the content back. Raises FileError where it cannot be written."""
    if path is not None:
        # what UTF-8 cannot say was never valid text: bytes of a name that was none
        data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
        if str(path).endswith(".gz") and not data.startswith(_GZIP_MAGIC):
            data = gzip.compress(data, 6, mtime=0)
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            raise FileError(path, f"cannot be written: {error.strerror}") from None
    return content
