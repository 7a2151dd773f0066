"""The host kernel's names: of its image, its modules' files, and BPF programs, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols import modules
from kvmperf_magic.symbols.debuginfod import Debuginfod
from kvmperf_magic.symbols.kept import KERNEL, Keeping, Kept
from kvmperf_magic.symbols.keptlines import KeptLines
from kvmperf_magic.symbols.kernel import (
    HOST_IMAGE,
    KernelMaps,
    KernelSymbols,
    dso_numbers,
    host_symbols,
    is_of_now,
    loaded_modules,
    vmlinux,
)
from kvmperf_magic.symbols.lines import Lines, Located
from kvmperf_magic.symbols.names import NamedTable, NameList
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.symboltable import NO_SYMBOLS, SymbolTable
from kvmperf_magic.table import Categorical, Table

BPF = "[bpf]"
_KSYMBOL_BPF = 1  # PERF_RECORD_KSYMBOL_TYPE_BPF


class HostKernel:
    """Names for addresses of the kernel that was recorded; see `Symbolizer` for the arguments.

    `kernel_directory` is the folder of a copy of /proc/kcore that lies in the recording.
    """

    def __init__(
        self,
        names: NameList,
        options: SymbolOptions,
        maps: KernelMaps,
        ksymbols: Table | None,
        build_ids: Mapping[str, str],
        keeping: Keeping | None,
        server: Debuginfod | None,
        *,
        same_boot: bool,
        os_release: str | None,
        kernel_directory: str | None,
    ) -> None:
        self._names = names
        self._options = options
        self._maps = maps
        self._ksymbols = ksymbols
        self._build_ids = build_ids
        self._keeping = keeping
        self._server = server
        self._same_boot = same_boot
        self._os_release = os_release
        self._directory = kernel_directory
        self._lines: dict[str, tuple[Lines, int] | None] = {}
        self._parts: dict[str, tuple[NamedTable | None, KernelSymbols]] = {}
        self._loaded = b""

    def update(self, ksymbols: Table | None) -> None:
        """Go on with more KSYMBOL records of the same recording."""
        if ksymbols is not None and len(ksymbols) != len(self._ksymbols or ()):
            self._parts.pop(BPF, None)
        self._ksymbols = ksymbols

    def refresh(self) -> None:
        """Read the running kernel's list again if modules came or went since it was read."""
        if "symbols" not in self.__dict__ or not is_of_now(self.symbols):
            return
        if loaded_modules() != self._loaded:
            for name in ("symbols", "_image"):
                self.__dict__.pop(name, None)
            self._parts = {BPF: self._parts[BPF]} if BPF in self._parts else {}

    @cached_property
    def symbols(self) -> KernelSymbols:
        """The image's symbols, and those of modules that came with them."""
        kept = self._kept("")
        named = self._options.kallsyms is not None or self._options.vmlinux is not None
        self._loaded = loaded_modules()
        if kept is not None and not named:
            return kept
        found = host_symbols(
            self._options,
            self._maps,
            build_id=self._build_ids.get(HOST_IMAGE, ""),
            same_boot=self._same_boot,
            os_release=self._os_release,
            directory=self._directory,
            server=self._server,
        )
        return kept if kept is not None and found.table is None else found

    @cached_property
    def _image(self) -> NamedTable | None:
        return self._named(self.symbols.table)

    def _named(self, table: SymbolTable | None) -> NamedTable | None:
        # Rust in the kernel has mangled names
        if table is None:
            return None
        return NamedTable(table, self._names, readable=self._options.demangle)

    def resolve(self, address: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The numbers of symbol and DSO of each address."""
        named = self._image
        rows = np.full(len(address), -1, np.int64)
        symbol = np.zeros(len(address), np.int32)
        if named is not None:
            rows = named.table.find(address)
            symbol = named.numbers(rows)
        table = self.symbols.table
        dso = dso_numbers(self._names, table, self._maps, HOST_IMAGE, rows, address)
        where = self._maps.find(address)
        for one in np.unique(where[(rows < 0) & (where >= 0)]).tolist():
            if self._maps.names[one] != HOST_IMAGE:
                mine = np.flatnonzero((rows < 0) & (where == one))
                part, _ = self._module(one)
                rows[mine] = _name(part, address, mine, symbol)
        # the kernel's list has the programs of now, which may lie where others lay
        asked = np.flatnonzero((rows < 0) | self._of_programs(rows))
        if len(asked):
            part, _ = self._bpf
            found = _name(part, address, asked, symbol)
            dso[asked[found >= 0]] = self._names.number(BPF)
        return symbol, dso

    def _of_programs(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these symbols of the image's table are those of BPF programs."""
        table = self.symbols.table
        if table is None or not len(table):
            return np.zeros(len(rows), np.bool_)
        there = np.array([f"[{module}]" == BPF for module in table.modules.categories], np.bool_)
        return there[table.modules.codes[rows]] & (rows >= 0)

    def locate(self, address: NDArray[np.uint64], located: Located) -> None:
        """The source lines of each address, by the image's vmlinux and the modules' .ko."""
        where = self._maps.find(address)
        for one in np.unique(where[where >= 0]).tolist():
            rows = np.flatnonzero(where == one)
            if self._keeping is not None:
                kept = self._keeping.kernel(0, _kept_name(self._maps.names[one]))
                if kept is not None and kept.lines is not None:
                    located.put(rows, kept.lines, address[rows])
                continue
            found = self._lines_of(one)
            if found is not None:
                lines, delta = found
                located.put(rows, lines, address[rows] - np.uint64(delta % 2**64))

    def _lines_of(self, which: int) -> tuple[Lines, int] | None:
        """The lines of a map, and how far it lies from where its file has it."""
        name = self._maps.names[which]
        if name not in self._lines:
            self._lines[name] = self._image_lines() if name == HOST_IMAGE else self._ko(which)
        return self._lines[name]

    def _image_lines(self) -> tuple[Lines, int] | None:
        image = vmlinux(
            self._options,
            build_id=self._build_ids.get(HOST_IMAGE, ""),
            os_release=self._os_release,
            server=self._server,
        )
        if image is None:
            return None
        slide = self._maps.slide_of(image.symbols())
        return Lines(image, readable=self._options.demangle), slide or 0

    def _ko(self, which: int) -> tuple[Lines, int] | None:
        file = self._module_file(which)
        if file.image is None:
            return None
        lines = Lines(file.image, readable=self._options.demangle)
        return lines, int(self._maps.start[which])

    def _module(self, which: int) -> tuple[NamedTable | None, KernelSymbols]:
        """The names of a module that the image's symbols do not know, from its own file."""
        name = self._maps.names[which]
        made = self._parts.get(name)
        if made is None:
            found = self._kept(name) or self._read_module(which)
            made = self._parts[name] = self._named(found.table), found
        return made

    def _kept(self, name: str) -> KernelSymbols | None:
        """What the recording carries of the image ("") or a module, None where it carries none."""
        if self._keeping is None:
            return None
        kept = self._keeping.kernel(0, name)
        if kept is None:
            return KernelSymbols(None, "", "was not met when the recording was saved")
        return KernelSymbols(kept.table, kept.source, kept.note, kept.count)

    def _read_module(self, which: int) -> KernelSymbols:
        file = self._module_file(which)
        if file.image is None:
            return KernelSymbols(None, "", file.note)
        plain, base = self._maps.names[which].strip("[]"), int(self._maps.start[which])
        try:
            table = modules.symbols(file.image, plain, base)
        except (ValueError, IndexError) as error:
            return KernelSymbols(None, file.path, f"damaged symbol table: {error}")
        return KernelSymbols(table, file.path, file.note)

    def _module_file(self, which: int) -> modules.ModuleFile:
        name, recorded = self._maps.names[which], self._maps.files[which] or self._maps.names[which]
        build_id = self._build_ids.get(recorded, self._build_ids.get(name, ""))
        return modules.find(recorded, build_id, self._os_release, self._options.symfs)

    @property
    def _bpf(self) -> tuple[NamedTable | None, KernelSymbols]:
        """Programs that the kernel told of while it was recorded."""
        made = self._parts.get(BPF)
        if made is None:
            found = self._kept(BPF) or _programs(self._ksymbols)
            made = self._parts[BPF] = self._named(found.table), found
        return made

    @property
    def warnings(self) -> list[str]:
        if "symbols" in self.__dict__ and self.symbols.table is None:
            return [f"the host kernel stays unnamed: {self.symbols.note}"]
        return []

    def sources(self) -> Iterator[tuple[str, str, int, str]]:
        """(DSO, source, symbols, note) of the image and of what else was needed."""
        if "symbols" in self.__dict__:
            yield HOST_IMAGE, self.symbols.source, self.symbols.size, self.symbols.note
        for name, (_, found) in self._parts.items():
            if found.source or found.note:
                yield name, found.source, found.size, found.note

    def kept(self) -> Iterator[Kept]:
        """What was asked for, as a recording can carry it."""
        if "symbols" in self.__dict__:
            parts = [("", self._image, self.symbols)]
            parts += [(name, part, found) for name, (part, found) in self._parts.items()]
            lines = {name: kept for name, kept in self._asked() if kept is not None}
            for dso, part, found in parts:
                table = None if part is None else part.asked_for()
                told = (table, found.source, found.note, found.size)
                yield Kept(0, KERNEL, dso, "", *told, lines=lines.pop(dso, None))
            # modules whose names came with the image's
            for dso, kept in lines.items():
                yield Kept(0, KERNEL, dso, lines=kept)

    def _asked(self) -> Iterator[tuple[str, KeptLines | None]]:
        """The lines that were asked for of the image ("") and of modules, where they lie."""
        if self._keeping is not None:
            for one in self._keeping.tables:
                if (one.machine, one.kind) == (0, KERNEL):
                    yield one.dso, one.lines
        for name, found in self._lines.items():
            if found is not None:
                lines, delta = found
                yield _kept_name(name), KeptLines.of(lines.known, delta)


def _kept_name(name: str) -> str:
    """What a map is called among the tables that a recording carries."""
    return "" if name == HOST_IMAGE else name


def _name(
    part: NamedTable | None,
    address: NDArray[np.uint64],
    rows: NDArray[np.int64],
    symbol: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Name these rows by a table; which of its symbols they are, -1 for none."""
    if part is None:
        return np.full(len(rows), -1, np.int64)
    found = part.table.find(address[rows])
    symbol[rows[found >= 0]] = part.numbers(found[found >= 0])
    return found


def _programs(ksymbols: Table | None) -> KernelSymbols:
    """The table of KSYMBOL records; of code that had the same place the last counts."""
    if ksymbols is None or not len(ksymbols):
        return KernelSymbols(None, "", "")
    name = ksymbols.column("name")
    assert isinstance(name, Categorical)
    length = ksymbols["len"].astype(np.uint64)
    kept = ~ksymbols["unregister"] & (ksymbols["type"] == _KSYMBOL_BPF)
    rows = np.flatnonzero(kept & (length > 0) & (length <= ~ksymbols["addr"]))
    start, last = np.unique(ksymbols["addr"][rows][::-1], return_index=True)
    rows = rows[::-1][last]
    if not len(rows):
        return KernelSymbols(None, "", "")
    names = [name.categories[code].encode("utf-8", "replace") for code in name.codes[rows].tolist()]
    size = np.array([len(one) for one in names], np.int64)
    table = SymbolTable(
        start.astype(np.uint64),
        start + length[rows],
        b"".join(names),
        np.cumsum(size) - size,
        size,
        np.full(len(rows), ord("t"), np.uint8),
        Categorical.constant(BPF.strip("[]"), len(rows)),
        NO_SYMBOLS.marks,
    )
    return KernelSymbols(table, "KSYMBOL records of the recording")
