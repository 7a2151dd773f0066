"""Source lines and inlined functions of addresses, from DWARF, by symbolic (the extra [dwarf])."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import missing
from kvmperf_magic.symbols.demangle import demangle
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.relocate import START, relocated

NOWHERE = "??:0"  # as addr2line says where there is no line


@dataclass(frozen=True)
class Place:
    """Where code comes from: `line` is file:line; `inlined` the function that was inlined there,
    "" for the symbol itself."""

    inlined: str
    line: str


class HasLines(Protocol):
    """What knows the places of addresses."""

    def at(self, address: int) -> tuple[Place, ...]: ...


class Lines:
    """The line table of one ELF file. `note` says why it has none, "" where it has."""

    def __init__(self, image: ElfImage, *, readable: bool = True) -> None:
        self.note = ""
        self._readable = readable
        self._base = 0
        self._cache: Any = None
        self._known: dict[int, tuple[Place, ...]] = {}
        try:
            from symbolic.debuginfo import Archive
        except ImportError:
            raise missing("symbolic", "dwarf") from None
        if not has_lines(image):
            self.note = f"{image.path} has no lines"
            return
        try:
            if image.relocatable or image.in_memory:
                # from_bytes() copies nothing: the bytes have to stay as long as it is read
                raw = relocated(image) if image.relocatable else image.whole()
                archive = Archive.from_bytes(raw)
            else:
                archive = Archive.open(image.path)
            # its addresses count from where the first segment lies
            first = image.segments.address[:1].tolist()
            self._base = -START if image.relocatable else sum(first)
            (found,) = archive.iter_objects()
            self._cache = found.make_symcache()
        except Exception as error:  # whatever a library says of a damaged file
            self.note = f"{image.path}: its lines cannot be read: {' '.join(str(error).split())}"

    def at(self, address: int) -> tuple[Place, ...]:
        """The place of a link-time address, the outermost first: the symbol itself, then what was
        inlined into it; () where nothing is known."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = self._at(address - self._base)
        return found

    @property
    def known(self) -> Mapping[int, tuple[Place, ...]]:
        """The places of the addresses that were asked for."""
        return self._known

    def _at(self, address: int) -> tuple[Place, ...]:
        if self._cache is None or not 0 <= address < 2**32:
            return ()
        outermost = self._cache.lookup(address)[::-1]
        return tuple(
            Place(self._name(one.symbol) if i else "", _line(one.full_path, one.line))
            for i, one in enumerate(outermost)
        )

    def _name(self, name: str) -> str:
        return f"{demangle(name) if self._readable else name} (inlined)"


def has_lines(image: ElfImage) -> bool:
    return any(image.section(name) for name in (".debug_line", ".zdebug_line"))


def _line(path: str, line: int) -> str:
    """As perf shows it: without folders (util/srcline.c: srcline_from_fileline())."""
    return f"{path.rsplit('/', 1)[-1]}:{line}" if path and line else NOWHERE


class Located:
    """The places of n addresses, filled in by whoever knows about them."""

    def __init__(self, rows: int) -> None:
        self._places: list[tuple[Place, ...]] = [()] * rows
        self._rows = np.arange(rows)

    def at(self, rows: NDArray[np.int64]) -> Located:
        """Some of the rows, to be filled in by another."""
        part = Located(0)
        part._places, part._rows = self._places, self._rows[rows]
        return part

    def put(self, rows: NDArray[np.int64], lines: HasLines, address: NDArray[np.uint64]) -> None:
        for row, one in zip(self._rows[rows].tolist(), address.tolist(), strict=True):
            self._places[row] = lines.at(one)

    def frames(self, *, inline: bool) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Offsets (n + 1), and of each frame what was inlined there and its line; one frame an
        address, with the innermost line, unless `inline`."""
        nowhere = (Place("", NOWHERE),)
        whole = [found or nowhere for found in self._places]
        if not inline:
            whole = [(Place("", found[-1].line),) for found in whole]
        offsets = np.cumsum([0, *map(len, whole)])
        flat = [place for found in whole for place in found]
        return offsets, [place.inlined for place in flat], [place.line for place in flat]
