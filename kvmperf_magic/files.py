"""Where what was made for a file goes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TypeVar

from kvmperf_magic.errors import FileError

_Content = TypeVar("_Content", str, bytes)

_GZIP_MAGIC = b"\x1f\x8b"


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
