"""A perf.data that is a directory: `data` has header and sideband, `data.N` what one thread of the
recorder wrote (perf record --threads), records only. tools/perf/util/data.c: perf_data__open_dir().
"""

from __future__ import annotations

from pathlib import Path

from kvmperf_magic.errors import FileError


def main_file(path: str) -> Path:
    """The file with the header: `path` itself if it is no directory. FileError where it misses."""
    found = Path(path)
    if not found.is_dir():
        return found
    if not (found / "data").is_file():
        raise FileError(
            path,
            "is a directory and no recording: it has no file `data`",
            hint="name a file or directory that perf record has written",
        )
    return found / "data"


def data_files(path: str) -> list[Path]:
    """The files of the recorder's threads, in their order; none of a single file."""
    if not Path(path).is_dir():
        return []
    found = [one for one in Path(path).glob("data.*") if one.suffix[1:].isdecimal()]
    return sorted(found, key=lambda one: int(one.suffix[1:]))
