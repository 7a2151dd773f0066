"""Kernel modules' own files: where the kernel puts their code, and the names in it.

A .ko is relocatable: its symbols count from their sections. The kernel lays the executable
sections out in the file's order, each on its alignment, from where the module's text begins;
those of .init come elsewhere (kernel/module/main.c: __layout_sections()).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from kvmperf_magic.errors import FileError
from kvmperf_magic.symbols import buildid
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.symboltable import SymbolTable
from kvmperf_magic.table import Categorical

_ALLOC, _EXECUTE = 2, 4  # SHF_
_MOST = 1 << 30  # bytes of a module, debug data and all
_SUFFIXES = ("", ".xz", ".gz", ".zst", ".bz2")


@dataclass(frozen=True)
class ModuleFile:
    """The file that was found, None for none, and why others were not taken."""

    image: ElfImage | None
    path: str
    note: str


def places(image: ElfImage) -> dict[int, int]:
    """Where each executable section of a .ko lies behind the beginning of the module's text."""
    found = {}
    at = 0
    for number, section in enumerate(image.sections):
        wanted = _ALLOC | _EXECUTE
        if section.flags & wanted != wanted or section.name.startswith(".init"):
            continue
        align = max(section.align, 1)
        at = -(-at // align) * align
        found[number] = at
        at += section.size
    return found


def symbols(image: ElfImage, name: str, base: int) -> SymbolTable:
    """The names in the code of a module whose text begins at `base`."""
    table = image.symbols(sections=places(image))
    moved = table.shifted(base)
    return replace(moved, modules=Categorical.constant(name, len(moved)), marks={})


def find(
    recorded: str, build_id: str, release: str | None, symfs: str | Path | None = None
) -> ModuleFile:
    """The file of a module, by the path or `[name]` it was recorded under.

    Debug files come first: they have what a stripped module lost.
    """
    notes = []
    for path in _candidates(recorded, release, Path(symfs or "/")):
        try:
            image = opened(path)
        except FileError as error:
            notes.append(error.message)
            continue
        if not image.relocatable:
            notes.append(f"{path} is no kernel module")
        elif not buildid.same(build_id, image.build_id):
            notes.append(f"{path} is of another build")
        elif not image.has_symtab:
            notes.append(f"{path} has no symbols")
        else:
            return ModuleFile(image, str(path), "; ".join(notes))
    return ModuleFile(None, "", "; ".join(notes) or "its .ko is not here")


def opened(path: Path) -> ElfImage:
    """A .ko, compressed or not. FileError where it cannot be read."""
    if path.suffix in {".ko", ".debug"}:
        return ElfImage(path)
    try:
        data = _unpacked(path.read_bytes(), path.suffix)
    except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise FileError(path, f"cannot be read: {error}") from None
    image = ElfImage(data)
    image.path = str(path)
    return image


def _unpacked(data: bytes, suffix: str) -> bytes:
    if suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise ValueError("it needs zstandard: kvmperf_magic[zstd]") from None
        try:
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
    if suffix == ".gz":
        found = zlib.decompressobj(31).decompress(data, _MOST)
    elif suffix == ".xz":
        found = lzma.LZMADecompressor(memlimit=1 << 28).decompress(data, _MOST)
    else:
        found = bz2.BZ2Decompressor().decompress(data, _MOST)
    if len(found) >= _MOST:
        raise ValueError(f"it unpacks to more than {_MOST >> 20} MiB")
    return found


def _candidates(recorded: str, release: str | None, root: Path) -> Iterator[Path]:
    debug = root / "usr/lib/debug"
    if recorded.startswith("/"):
        relative = recorded.lstrip("/")
        plain = relative[: relative.index(".ko") + 3] if ".ko" in relative else relative
        yield from _there([debug / f"{plain}.debug", debug / plain, root / relative, root / plain])
    elif release and "/" not in release and release not in {".", ".."}:
        name = recorded.strip("[]")
        for tree in (debug / "lib/modules" / release, root / "lib/modules" / release):
            yield from _index(tree).get(name, ())


def _there(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if path.is_file())


@lru_cache(maxsize=8)
def _index(tree: Path) -> dict[str, list[Path]]:
    """The module files below a folder, by name as the kernel spells it."""
    found: dict[str, list[Path]] = {}
    for suffix in (*_SUFFIXES, ".debug"):
        for path in sorted(tree.rglob(f"*.ko{suffix}")):
            name = path.name[: path.name.index(".ko")].replace("-", "_")
            found.setdefault(name, []).append(path)
    return found
