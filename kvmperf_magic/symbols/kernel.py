"""The host kernel: where its symbols come from, and the maps a recording gives of kernels.

The recorded map `[kernel.kallsyms]_text` carries the address of `_text` in its pgoff
(tools/perf/util/synthetic-events.c: __perf_event__synthesize_kernel_mmap()): against a symbol
source's own `_text` it gives the slide between both boots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.symbols import buildid, kallsyms
from kvmperf_magic.symbols.debuginfod import Debuginfod
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.files import cache_folder, cache_root
from kvmperf_magic.symbols.names import NameList
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.symboltable import SymbolTable
from kvmperf_magic.table import Table

HOST_IMAGE = "[kernel.kallsyms]"
GUEST_IMAGE = "[guest.kernel.kallsyms]"
_IMAGE_MAP = re.compile(r"\[(guest\.)?kernel\.kallsyms(\.\d+)?\](_s?text)?$")
_MODULE_FILE = re.compile(r"(?:.*/)?([^/]+?)\.ko(?:\.gz|\.xz|\.zst|\.bz2)?$")
_CPUMODE = 7
RUNNING = Path("/proc/kallsyms")
_MODULES = Path("/proc/modules")
_CODE = (ord("t"), ord("w"))
_COMPARED = 1000  # functions of the running kernel that a vmlinux is held against


@dataclass(frozen=True)
class KernelMaps:
    """The maps of one kernel: where the image and each module lie, as they were recorded.

    `files` are the names of the maps as they were recorded. `mark` and `mark_address` are the
    symbol the image's map names and where it was, "" and 0 where the recording does not know.
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    names: list[str]
    files: list[str]
    mark: str = ""
    mark_address: int = 0

    def find(self, address: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which map holds each address, -1 where none does."""
        if not len(self.start):
            return np.full(len(address), -1, np.int64)
        row = np.searchsorted(self.start, address, side="right").astype(np.int64) - 1
        row[(row >= 0) & (address >= self.end[row])] = -1
        return row

    def slide_of(self, table: SymbolTable) -> int | None:
        """How far the recorded image lies from a table's, None where that is not known."""
        known = table.marks.get(self.mark)
        return None if known is None or not self.mark_address else self.mark_address - known

    def with_modules(self, modules: Mapping[str, tuple[int, int]]) -> KernelMaps:
        """These maps and those of a /proc/modules file."""
        rows = [
            *self.rows,
            *((at, at + size, f"[{name}]", "") for name, (at, size) in modules.items()),
        ]
        return kernel_maps(rows, self.mark, self.mark_address)

    @property
    def rows(self) -> list[tuple[int, int, str, str]]:
        """Start, end, name and file of each map."""
        return list(
            zip(self.start.tolist(), self.end.tolist(), self.names, self.files, strict=True)
        )


def recorded_maps(mmap: Table, cpumode: int, pids: set[int]) -> KernelMaps:
    """The kernel maps of one machine: records of this cpumode under one of these pids."""
    mine = (mmap["misc"].astype(np.int64) & _CPUMODE) == cpumode
    mine &= np.isin(mmap["pid"].astype(np.int64), list(pids))
    rows: list[tuple[int, int, str, str]] = []
    mark, mark_address = "", 0
    for record in mmap[np.flatnonzero(mine)].rows():
        start, filename = int(record["addr"]), str(record["filename"])
        end = min(start + int(record["len"]), 2**64 - 1)
        image = _IMAGE_MAP.match(filename)
        if image:
            mark, mark_address = image.group(3) or "", int(record["pgoff"])
            name = GUEST_IMAGE if image.group(1) else HOST_IMAGE
            rows.append((start, end, name, filename))
        else:
            rows.append((start, end, module_name(filename), filename))
    return kernel_maps(rows, mark, mark_address)


def kernel_maps(
    rows: Iterable[tuple[int, int, str, str]], mark: str = "", mark_address: int = 0
) -> KernelMaps:
    """Maps of these (start, end, name, file)."""
    ordered = sorted(set(rows))
    return KernelMaps(
        np.array([row[0] for row in ordered], np.uint64),
        np.array([row[1] for row in ordered], np.uint64),
        [row[2] for row in ordered],
        [row[3] for row in ordered],
        mark,
        mark_address,
    )


def module_name(filename: str) -> str:
    """`[ext4]` for a kernel module's file (tools/perf/util/dso.c: __kmod_path__parse())."""
    module = _MODULE_FILE.match(filename)
    return f"[{module.group(1).replace('-', '_')}]" if module else filename


@dataclass(frozen=True)
class KernelSymbols:
    """A symbol table of a kernel, where it is from, and what there is to say about it; `count` is
    how many symbols the source had where the table has only some of them."""

    table: SymbolTable | None
    source: str
    note: str = ""
    count: int | None = None

    @property
    def size(self) -> int:
        if self.count is not None:
            return self.count
        return 0 if self.table is None else len(self.table)

    def moved(self, delta: int) -> KernelSymbols:
        """For an image `delta` bytes further up: modules do not move with it and are left out."""
        if not delta or self.table is None:
            return self
        image = np.array([not m for m in self.table.modules.categories] or [True])
        kept = self.table.take(np.flatnonzero(image[self.table.modules.codes]))
        note = f"moved by {'-' if delta < 0 else ''}{abs(delta):#x} (KASLR)"
        if len(kept) < len(self.table):
            note += ", without its modules"
        return KernelSymbols(kept.shifted(delta), self.source, note)


def dso_numbers(
    names: NameList,
    table: SymbolTable | None,
    maps: KernelMaps,
    image: str,
    rows: NDArray[np.int64],
    address: NDArray[np.uint64],
) -> NDArray[np.int32]:
    """The DSO of each address: by its symbol's module, else by the recorded maps."""
    mapped = np.array([*(names.number(name) for name in maps.names), 0], np.int32)
    result = mapped[maps.find(address)]
    named = np.flatnonzero(rows >= 0)
    if table is not None and len(named):
        modules = [f"[{module}]" if module else image for module in table.modules.categories]
        numbers = np.array([names.number(module) for module in modules], np.int32)
        result[named] = numbers[table.modules.codes[rows[named]]]
    return result


def host_symbols(
    options: SymbolOptions,
    maps: KernelMaps,
    *,
    build_id: str,
    same_boot: bool,
    os_release: str | None,
    directory: str | None = None,
    server: Debuginfod | None = None,
) -> KernelSymbols:
    """The host kernel's symbols from the first source that can be believed.

    In this order: a named kallsyms, a named vmlinux, the copy of /proc/kcore in the recording's
    own `directory`, /proc/kallsyms where this is the boot or the build that was recorded, perf's
    build-id cache (its copies of kallsyms, vmlinux and kcore), vmlinux files by build-id,
    debuginfod.

    Raises:
        SymbolError: a named source cannot be used.
        FileError: a named vmlinux is no ELF file.
    """
    if options.kallsyms is not None:
        table = kallsyms.parse(Path(options.kallsyms))
        return _placed(table, str(options.kallsyms), maps)
    refused: list[str] = []
    if options.vmlinux is not None:
        image = ElfImage(options.vmlinux)
        if not buildid.same(build_id, image.build_id):
            refused.append(f"{options.vmlinux} is another build than the recorded kernel")
        else:
            table = image.symbols()
            why = "" if build_id and image.build_id else _contradicted(table, build_id, same_boot)
            if not why:
                return _placed(table, str(options.vmlinux), maps)
            refused.append(f"{options.vmlinux} {why}")
    candidates = _unnamed(build_id, same_boot, os_release, directory, server, refused)
    for path in candidates:
        try:
            if path.name == "kallsyms":
                table = kallsyms.parse(path)
            else:
                image = ElfImage(path)
                if not build_id or not image.build_id:
                    refused.append(f"{path}: whether it is the recorded kernel cannot be told")
                    continue
                if not buildid.same(build_id, image.build_id):
                    refused.append(f"{path}: is of another build")
                    continue
                table = image.symbols()
        except KvmperfError as error:
            refused.append(str(error))
            continue
        found = _placed(table, str(path), maps)
        return KernelSymbols(
            found.table, found.source, "; ".join(n for n in (found.note, *refused) if n)
        )
    return KernelSymbols(None, "", "; ".join(refused) or "no symbols of the recorded kernel here")


def vmlinux(
    options: SymbolOptions, *, build_id: str, os_release: str | None, server: Debuginfod | None
) -> ElfImage | None:
    """The host kernel's ELF file: the one that was named, or one of its build."""
    if options.vmlinux is not None:
        image = ElfImage(options.vmlinux)
        return image if buildid.same(build_id, image.build_id) else None
    for path in _unnamed(build_id, False, os_release, None, server, []):
        if path.name != "kallsyms" and build_id:
            with suppress(KvmperfError):
                image = ElfImage(path)
                if image.build_id and buildid.same(build_id, image.build_id):
                    return image
    return None


def _placed(table: SymbolTable, source: str, maps: KernelMaps) -> KernelSymbols:
    return KernelSymbols(table, source).moved(maps.slide_of(table) or 0)


def is_of_now(symbols: KernelSymbols) -> bool:
    """Whether these were read from the running kernel, which goes on."""
    return symbols.source == str(RUNNING)


def loaded_modules() -> bytes:
    """Which modules the running kernel has, where, and whether they are ready."""
    with suppress(OSError):
        rows = (line.split() for line in _MODULES.read_bytes().splitlines())
        # the column between is how often each is used
        return b"\n".join(b" ".join((*row[:2], *row[4:])) for row in rows)
    return b""


def _runs_here(build_id: str, same_boot: bool) -> bool:
    """Whether the kernel that was recorded is the one that runs now, or its twin."""
    running = buildid.of_running_kernel()
    same_build = bool(build_id and running) and buildid.same(build_id, running)
    return same_build or (same_boot and buildid.same(build_id, running))


def _contradicted(table: SymbolTable, build_id: str, same_boot: bool) -> str:
    """What speaks against a vmlinux that no build-id speaks for: the running kernel's own list."""
    if not _runs_here(build_id, same_boot) or "_text" not in table.marks:
        return ""
    try:
        running = kallsyms.parse(RUNNING)
    except KvmperfError:
        return ""
    lies = running.marks.get("_text", 0) - table.marks["_text"]
    image = np.array([not module for module in running.modules.categories] or [True])
    code = running.take(image[running.modules.codes] & np.isin(running.types | 0x20, _CODE))
    theirs = dict(zip(table.names, table.start.tolist(), strict=True))
    rows = np.arange(0, len(code), max(len(code) // _COMPARED, 1))
    places = [(int(code.start[row]), theirs.get(code.name(row))) for row in rows.tolist()]
    known = [(ours, place + lies) for ours, place in places if place is not None]
    agree = sum(ours == place for ours, place in known)
    if len(known) >= len(places) // 2 and agree * 10 >= len(known) * 9:
        return ""
    return (
        f"is not the kernel that was recorded: {agree} of {len(places)} functions of "
        "/proc/kallsyms are where it has them"
    )


def _unnamed(
    build_id: str,
    same_boot: bool,
    os_release: str | None,
    directory: str | None,
    server: Debuginfod | None,
    refused: list[str],
) -> Iterator[Path]:
    if directory is not None:
        yield Path(directory) / "kallsyms"
    if _runs_here(build_id, same_boot):
        yield RUNNING
    elif build_id:
        refused.append("/proc/kallsyms is of another kernel")
    if build_id:
        folder = cache_folder(build_id)
        copies = sorted((cache_root() / "[kernel.kcore]" / buildid.normal(build_id)).glob("*"))
        for path in (folder / "kallsyms", folder / "vmlinux", *(c / "kallsyms" for c in copies)):
            if path.is_file():
                yield path
    if os_release:
        release = Path(os_release).name
        for path in (
            Path(f"/usr/lib/debug/boot/vmlinux-{release}"),
            Path(f"/usr/lib/debug/lib/modules/{release}/vmlinux"),
            Path(f"/lib/modules/{release}/build/vmlinux"),
            Path(f"/boot/vmlinux-{release}"),
        ):
            if path.is_file():
                yield path
    if server is not None and build_id:
        fetched = server.find(build_id, "debuginfo", refused)
        if fetched is not None:
            yield fetched
