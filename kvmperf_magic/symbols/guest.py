"""One guest: its kernel's symbols and its user code's, from that VM's own sources only.

`perf kvm --guestmount` lays guests out as DIR/PID/proc/kallsyms and DIR/PID/proc/modules, PID
being the VMM's (tools/perf/util/machine.c: machines__create_guest_kernel_maps()).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.symbols import kallsyms
from kvmperf_magic.symbols.elf import ElfImage, Segments
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.symbols.kept import KERNEL, PROGRAM, Keeping, Kept
from kvmperf_magic.symbols.keptlines import KeptLines
from kvmperf_magic.symbols.kernel import (
    GUEST_IMAGE,
    KernelMaps,
    KernelSymbols,
    dso_numbers,
    kernel_maps,
)
from kvmperf_magic.symbols.lines import Lines, Located
from kvmperf_magic.symbols.names import UNKNOWN, NamedTable, NameList
from kvmperf_magic.symbols.options import PathLike, SymbolOptions
from kvmperf_magic.symbols.slide import Fit
from kvmperf_magic.symbols.symboltable import SymbolTable

# distinct addresses after which a slide is no longer doubted
_ENOUGH = 1024


Source: TypeAlias = tuple[KernelSymbols, Fit]


def named_sources(options: SymbolOptions) -> list[Source]:
    """The kernels the user named for all guests.

    Raises:
        SymbolError, FileError: one of them cannot be used.
    """
    found = []
    if options.guest_kallsyms is not None:
        path = Path(options.guest_kallsyms)
        found.append(_source(kallsyms.parse(path), path))
    if options.guest_vmlinux is not None:
        path = Path(options.guest_vmlinux)
        found.append(_source(ElfImage(path).symbols(), path))
    return found


def _source(table: SymbolTable, path: Path) -> Source:
    return KernelSymbols(table, str(path)), Fit(table)


class Guest:
    """Names for the guest code of one VM.

    A kernel source is used only where it can hold the addresses that were sampled, moved by the
    KASLR slide where that can be worked out; otherwise `warnings` says why not.
    """

    def __init__(
        self,
        pid: int,
        name: str,
        options: SymbolOptions,
        maps: KernelMaps,
        names: NameList,
        sources: list[Source],
        host: Callable[[], KernelSymbols],
        found: Sequence[GuestSymbols] = (),
        keeping: Keeping | None = None,
        boot: int = 0,
    ) -> None:
        self.pid = pid
        self._boot = boot
        self.name = name or f"VM {pid}"
        self.warnings: dict[str, str] = {}
        self._options = options
        self._names = names
        self._sources = sources
        self._host = host
        self._found = found
        self._seen = np.zeros(0, np.uint64)
        self._judged = -1
        self._maps = maps
        self._kernel: NamedTable | None = None
        self.kernel = self._nothing
        self._lines: Lines | None = None
        self._refused: list[str] = []  # why what came before `kernel` was not taken
        self._modules: list[str] = []  # in whose code samples were
        self._user = False  # whether any were in user code
        self._keeping = keeping
        # what is named for this guest comes before what was kept of it
        named = sources or options.guest_symbols == "host" or self._mounted("kallsyms")
        self._kept = keeping.kernel(pid, boot=boot) if keeping and not named else None
        self._kept_program = keeping.program(pid, boot) if keeping and not self._elf_path else None
        if self._kept is not None:
            self._take(self._kept)
        modules = self._modules_file()
        if modules is not None:
            try:
                self._maps = maps.with_modules(kallsyms.parse_modules(modules))
            except KvmperfError as error:
                self.warnings["modules"] = str(error)

    def _take(self, kept: Kept) -> None:
        """Be as this guest was when the recording was saved: nothing is judged again."""
        self._maps = kernel_maps((start, end, name, "") for start, end, name in kept.maps)
        self.kernel = KernelSymbols(kept.table, kept.source, kept.note, kept.count)
        if kept.table is not None:
            self._kernel = NamedTable(kept.table, self._names, readable=False)
        if not self._elf_path:
            self.warnings = {line: line for line in kept.warnings}

    def kept(self) -> Iterator[Kept]:
        """What was asked for, as a recording can carry it."""
        kernel, user = self._kernel_source, self._user_source
        yield Kept(
            *(self.pid, KERNEL, "", ""),
            None if self._kernel is None else self._kernel.asked_for(),
            *(kernel.source, kernel.note, kernel.size),
            boot=self._boot,
            maps=tuple((start, end, name) for start, end, name, _ in self._maps.rows),
            warnings=tuple(self.warnings.values()),
        )
        for name in self._modules:
            module = self._module_source(name)
            told = (module.source, module.note, module.size)
            yield Kept(self.pid, KERNEL, name, "", None, *told, boot=self._boot)
        if self._elf is not None or self._user:
            lines = self._kept_program.lines if self._kept_program else None
            if self._lines is not None:
                lines = KeptLines.of(self._lines.known)
            segments, table = None, None
            if self._elf is not None:
                segments, table = self._elf[0], self._elf[1].asked_for()
            told = (user.source, user.note, user.size)
            yield Kept(
                *(self.pid, PROGRAM, "", "", table),
                *told,
                segments=segments,
                boot=self._boot,
                lines=lines,
            )

    def sources(self) -> Iterator[tuple[str, str, int, str]]:
        """(DSO, source, symbols, note) of its kernel, and of its modules and its user code as far
        as samples were in them; a note says why what came before it was refused."""
        rows = [("kernel", self._kernel_source)]
        rows += [(name, self._module_source(name)) for name in self._modules]
        if self._elf is not None or self._user:
            rows.append(("user", self._user_source))
        for name, found in rows:
            yield f"{self.name} {name}", found.source, found.size, found.note

    @property
    def _kernel_source(self) -> KernelSymbols:
        kernel = self.kernel
        said = [
            self.warnings[key] for key in ("kallsyms", "modules", "host") if key in self.warnings
        ]
        notes = [kernel.note, *self._refused, *map(self._own, said)]
        if kernel.table is None and not any(notes):
            notes = [self._own(self.warnings.get("kernel", ""))]
        return KernelSymbols(None, kernel.source, "; ".join(filter(None, notes)), kernel.size)

    def _module_source(self, name: str) -> KernelSymbols:
        carried = self._keeping if self._kept else None
        kept = carried.kernel(self.pid, name, self._boot) if carried else None
        if kept is not None:
            return KernelSymbols(None, kept.source, kept.note, kept.count)
        table = self.kernel.table
        count = 0
        if table is not None and name[1:-1] in table.modules.categories:
            code = table.modules.categories.index(name[1:-1])
            count = int(np.count_nonzero(table.modules.codes == code))
        if count:
            return KernelSymbols(None, self.kernel.source, self.kernel.note, count)
        return KernelSymbols(None, "", "not among the symbols of its kernel")

    @property
    def _user_source(self) -> KernelSymbols:
        kept = self._kept_program
        if kept is not None:
            return KernelSymbols(None, kept.source, kept.note, kept.count)
        path, count = self._elf[2:] if self._elf is not None else ("", 0)
        return KernelSymbols(None, path, self._own(self.warnings.get("elf", "")), count)

    def _own(self, warning: str) -> str:
        """A warning as a note in a row that names this guest."""
        return warning.removeprefix(f"{self.name}: ")

    @property
    def _nothing(self) -> KernelSymbols:
        """No symbols, and what its memory told instead."""
        return KernelSymbols(None, "", self._found[-1].note if self._found else "")

    def renew(self, found: Sequence[GuestSymbols]) -> None:
        """Other symbols were found in its memory: it was booted anew, or has loaded a module."""
        if list(map(id, found)) == list(map(id, self._found)):
            return
        self._found = found
        self.__dict__.pop("_candidates", None)
        self._seen, self._judged = np.zeros(0, np.uint64), -1
        self.kernel, self._kernel = self._nothing, None
        self._refused = []

    def _modules_file(self) -> Path | None:
        mounted = self._mounted("modules")
        if mounted is not None:
            return mounted
        named = self._options.guest_modules
        return None if named is None else Path(named)

    def _mounted(self, name: str) -> Path | None:
        if self._options.guest_mount is None:
            return None
        path = Path(self._options.guest_mount) / str(self.pid) / "proc" / name
        return path if path.is_file() else None

    @cached_property
    def _candidates(self) -> list[Source]:
        """What may be this guest's kernel, the most particular first."""
        found: list[Source] = []
        mounted = self._mounted("kallsyms")
        if mounted is not None:
            try:
                found.append(_source(kallsyms.parse(mounted), mounted))
            except KvmperfError as error:
                self.warnings["kallsyms"] = f"{self.name}: {error}"
        found += self._sources
        if self._options.guest_symbols != "none":
            # the newest first: it has the modules that came meanwhile
            for one in reversed(self._found):
                if one.table is not None:
                    found.append((KernelSymbols(one.table, one.source, one.note), Fit(one.table)))
        if self._options.guest_symbols == "host":
            host = self._host()
            if host.table is None:
                self.warnings["host"] = f"{self.name}: no symbols of the host: {host.note}"
            else:
                source = KernelSymbols(host.table, f"the host's: {host.source}", host.note)
                found.append((source, Fit(host.table)))
        return found

    @property
    def _elf_path(self) -> PathLike | None:
        named = self._options.guest_elfs()
        return named.get(self.name, named.get(str(self.pid), named.get("")))

    @cached_property
    def _elf(self) -> tuple[Segments, NamedTable, str, int] | None:
        """The user's ELF file for this VM, by its name, its pid, or for all: where it lies, its
        names, its path and how many symbols it has."""
        kept = self._kept_program
        if kept is not None and kept.table is not None and kept.segments is not None:
            readable = self._options.demangle
            named_table = NamedTable(kept.table, self._names, readable=readable)
            return kept.segments, named_table, kept.source, kept.count
        path = self._elf_path
        if path is None:
            return None
        try:
            image = ElfImage(path)
        except KvmperfError as error:
            self.warnings["elf"] = f"{self.name}: {error}"
            return None
        table = image.symbols()
        named_table = NamedTable(table, self._names, readable=self._options.demangle)
        return image.segments, named_table, str(path), len(table)

    def resolve_user(
        self, address: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The numbers of symbol and DSO for addresses of guest user code."""
        self._user = True
        symbol, dso, inside = self._by_elf(address)
        outside = len(address) - int(inside.sum())
        if self._kept is not None and not self._elf_path:
            return symbol, dso
        if self._elf is None:
            self.warnings.setdefault(
                "elf",
                f"{self.name}: no symbols for its user code: name its ELF file with guest_elf",
            )
        elif outside * 2 > len(address):
            self.warnings["elf"] = (
                f"{self.name}: {self._elf[2]} cannot hold {outside} of {len(address)} "
                "sampled user addresses: they stay unnamed"
            )
        return symbol, dso

    def _by_elf(
        self, address: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
        symbol = np.zeros(len(address), np.int32)
        dso = np.zeros(len(address), np.int32)
        inside = np.zeros(len(address), np.bool_)
        if self._elf is not None:
            segments, named, path, _ = self._elf
            inside = segments.runs(address)
            dso[inside] = self._names.number(path)
            symbol[inside] = named.numbers(named.table.find(address[inside]))
        return symbol, dso, inside

    def locate(self, address: NDArray[np.uint64], located: Located) -> None:
        """The source lines of what runs the guest's own program."""
        kept = self._kept_program
        if kept is not None:
            if kept.lines is not None:
                located.put(np.arange(len(address)), kept.lines, address)
        elif self._elf is not None:
            segments, _, path, _ = self._elf
            rows = np.flatnonzero(segments.runs(address))
            if self._lines is None:
                self._lines = Lines(ElfImage(path), readable=self._options.demangle)
            located.put(rows, self._lines, address[rows])

    def resolve_kernel(
        self, address: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The numbers of symbol and DSO for addresses of guest kernel code."""
        self._judge(address)
        rows = np.full(len(address), -1, np.int64)
        table = None
        symbol = np.zeros(len(address), np.int32)
        if self._kernel is not None:
            table = self._kernel.table
            rows = table.find(address)
            symbol = self._kernel.numbers(rows)
        dso = dso_numbers(self._names, table, self._maps, GUEST_IMAGE, rows, address)
        met = dict.fromkeys((*self._modules, *self._names.categorical(dso).categories))
        self._modules = [name for name in met if name not in {GUEST_IMAGE, UNKNOWN}]
        # a guest that is one ELF file runs it in kernel mode too
        lost = np.flatnonzero(rows < 0)
        elf_symbol, elf_dso, inside = self._by_elf(address[lost])
        symbol[lost[inside]], dso[lost[inside]] = elf_symbol[inside], elf_dso[inside]
        if self._kept is None and not self._candidates and not inside.all():
            why = f" ({self._nothing.note})" if self._nothing.note else ""
            self.warnings.setdefault(
                "kernel",
                f"{self.name}: no symbols for its kernel{why}: give guest_kallsyms, guest_vmlinux "
                "or guest_mount, or guest_symbols='host' where it runs the host's kernel",
            )
        return symbol, dso

    def _judge(self, address: NDArray[np.uint64]) -> None:
        """Choose the first source that can hold every address seen so far."""
        if self._kept is not None:
            return
        if len(self._seen) < _ENOUGH:
            self._seen = np.union1d(self._seen, address)
        if len(self._seen) == self._judged or not self._candidates:
            return
        self._judged = len(self._seen)
        refused: list[str] = []
        for source, fit in self._candidates:
            assert source.table is not None
            verdict = fit.judge(self._seen, self._maps.slide_of(source.table))
            if verdict.delta is not None:
                self.warnings.pop("kernel", None)
                self._refused = refused
                chosen = source.moved(verdict.delta)
                assert chosen.table is not None
                if (chosen.source, chosen.note) != (self.kernel.source, self.kernel.note):
                    self.kernel = chosen
                    self._kernel = NamedTable(chosen.table, self._names, readable=False)
                return
            refused.append(
                f"{source.source} is not the kernel of {self.name} as it was sampled: {verdict.why}"
            )
        self.warnings["kernel"] = "; ".join(refused) + "; its kernel stays unnamed"
        self.kernel = KernelSymbols(None, "", "; ".join(refused))
        self._kernel, self._refused = None, []
