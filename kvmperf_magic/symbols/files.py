"""From a mapped file to the file that holds its symbols.

The order is perf's (tools/perf/util/symbol.c: binary_type_symtab): a debug file by
.gnu_debuglink, perf's build-id cache, the distributions' debug trees, the build-id tree,
debuginfod servers where they are to be asked, the binary itself. A file whose build-id is not the
recorded one is never used.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvmperf_magic.errors import FileError
from kvmperf_magic.symbols import buildid
from kvmperf_magic.symbols.debuginfod import Debuginfod, Kind
from kvmperf_magic.symbols.elf import ElfImage

_DEBUG = Path("/usr/lib/debug")
# what the kernel appends to the path of a file that is gone
DELETED = " (deleted)"


@dataclass(frozen=True)
class Found:
    """`runtime` is what was mapped, `symbols` where its names are; `note` why others were not."""

    runtime: ElfImage | None
    symbols: ElfImage | None
    note: str


def find(
    path: str,
    build_id: str,
    *,
    symfs: str | Path | None = None,
    pid: int = 0,
    container: bool = False,
    server: Debuginfod | None = None,
) -> Found:
    """The files for a mapped path; `server` is asked for what is not here.

    `pid` is a process that still runs with it, or 0; `container` says that it sees another
    file system than we do, so that our file of the same path is not its.
    """
    notes: list[str] = []
    runtime = None
    for candidate in _runtimes(path, build_id, symfs, pid, container):
        try:
            if not candidate.is_file():
                continue
            image = ElfImage(candidate)
        except FileError as error:
            notes.append(error.message)
            continue
        except OSError:
            continue
        if buildid.same(build_id, image.build_id):
            runtime = image
            break
        notes.append(f"{candidate}: has changed since: its build-id is another")
    if runtime is None and server is not None:
        runtime = _fetched(server, build_id, "executable", notes)
    if runtime is None:
        return Found(None, None, "; ".join(notes) or "no such file here")
    if not runtime.has_symtab:
        debug = _debug_file(Path(runtime.path), runtime, build_id, notes)
        wanted = runtime.build_id or build_id
        if debug is None and server is not None:
            debug = _fetched(server, wanted, "debuginfo", notes)
        if debug is not None:
            return Found(runtime, debug, "; ".join(notes))
        if not notes:
            notes.append("exported names only: no file with its symbols here")
    return Found(runtime, runtime, "; ".join(notes))


def debug_file(image: ElfImage, server: Debuginfod | None = None) -> ElfImage | None:
    """The file with the debug data of one that has none."""
    notes: list[str] = []
    found = _debug_file(Path(image.path), image, image.build_id, notes)
    if found is None and server is not None and image.build_id:
        found = _fetched(server, image.build_id, "debuginfo", notes)
    return found


def _fetched(server: Debuginfod, build_id: str, kind: Kind, notes: list[str]) -> ElfImage | None:
    path = server.find(build_id, kind, notes)
    if path is None:
        return None
    try:
        image = ElfImage(path)
    except FileError as error:
        notes.append(error.message)
        return None
    if image.build_id and buildid.same(build_id, image.build_id):
        return image
    notes.append(f"{path}: is for another build")
    return None


def _runtimes(
    path: str, build_id: str, symfs: str | Path | None, pid: int, container: bool
) -> Iterator[Path]:
    plain = path.removesuffix(DELETED)
    if symfs is not None:
        yield Path(symfs) / plain.lstrip("/")
        return
    if plain == path:
        if container:
            yield Path(f"/proc/{pid}/root") / path.lstrip("/")
        if not container or build_id:
            yield Path(path)
    elif build_id:
        # the path may hold another file by now: the build-id tells
        yield Path(plain)
    if pid and plain != path:
        yield from _mapped(path, pid)
    if build_id:
        yield cache_folder(build_id) / "elf"


def _mapped(path: str, pid: int) -> Iterator[Path]:
    """A deleted file that a process still maps."""
    try:
        with Path(f"/proc/{pid}/maps").open(errors="replace") as maps:
            for line in maps:
                if line.rstrip("\n").endswith(path):
                    yield Path(f"/proc/{pid}/map_files/{line.split(None, 1)[0]}")
                    return
    except OSError:
        return


def cache_folder(build_id: str) -> Path:
    """The folder of a build-id in perf's cache (tools/perf/util/build-id.c)."""
    name = buildid.normal(build_id)
    return cache_root() / ".build-id" / name[:2] / name[2:]


def cache_root() -> Path:
    """perf's cache."""
    return Path.home() / ".debug"


def _debug_file(path: Path, runtime: ElfImage, build_id: str, notes: list[str]) -> ElfImage | None:
    wanted = buildid.normal(runtime.build_id or build_id)
    crc = None
    candidates: list[Path] = []
    if runtime.debuglink is not None:
        name, crc = runtime.debuglink
        candidates += [
            path.parent / name,
            path.parent / ".debug" / name,
            _DEBUG / str(path.parent).lstrip("/") / name,
        ]
    if wanted:
        candidates += [cache_folder(wanted) / "elf", cache_folder(wanted) / "debug"]
    resolved = str(path).lstrip("/")
    candidates += [_DEBUG / (resolved + ".debug"), _DEBUG / resolved]
    if wanted:
        candidates.append(_DEBUG / ".build-id" / wanted[:2] / (wanted[2:] + ".debug"))
    for candidate in candidates:
        try:
            if not candidate.is_file() or candidate == path:
                continue
            image = ElfImage(candidate)
            if not image.has_symtab:
                continue
            if wanted and image.build_id:
                fits = buildid.same(wanted, image.build_id)
            else:
                fits = crc is not None and zlib.crc32(candidate.read_bytes()) == crc
        except (OSError, FileError):
            continue
        if fits:
            return image
        notes.append(f"{candidate}: is for another build")
    return None
