"""From (epoch, pid, mode, address) to symbol and DSO, for whole columns of unique addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import FileError
from kvmperf_magic.modes import GUEST_KERNEL, GUEST_USER, HOST_KERNEL, HOST_USER
from kvmperf_magic.symbols import buildid, files, perfmap, vdso
from kvmperf_magic.symbols.elf import ElfImage, Segments
from kvmperf_magic.symbols.guest import Guest, named_sources
from kvmperf_magic.symbols.guestsymbols import Boots, GuestSymbols
from kvmperf_magic.symbols.kernel import (
    HOST_IMAGE,
    KernelSymbols,
    dso_numbers,
    host_symbols,
    recorded_maps,
)
from kvmperf_magic.symbols.names import NamedTable, NameList
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.table import Categorical, Table

_CPUMODE_KERNEL, _CPUMODE_GUEST_KERNEL = 1, 4


@dataclass(frozen=True)
class Resolved:
    """One row for each address asked for; "[unknown]" where there is no name."""

    symbol: Categorical
    dso: Categorical


@dataclass(frozen=True)
class _Image:
    """A mapped file: its names, and where its file offsets lie (None: they are addresses)."""

    named: NamedTable | None
    segments: Segments | None
    source: str
    note: str = ""


class Symbolizer:
    """Names for the addresses of one recording; everything it reads is read once and kept.

    Args:
        spaces: the user address spaces.
        mmap: the MMAP records, kernels' and guests' among them.
        options: named sources.
        build_ids: build-ids by file name, as in the recording's table.
        same_boot: the recording was made on the kernel that runs now, so that /proc may be
            believed.
        os_release: the recorded kernel's release.
        vm_names: names of VMs by the pid of their VMM.
        guest_symbols: what was found of guests' kernels in their memory, the newest last.

    Raises:
        SymbolError, FileError: a named source is not there or cannot be used.
    """

    def __init__(
        self,
        spaces: AddressSpaces,
        mmap: Table,
        options: SymbolOptions,
        *,
        build_ids: Mapping[str, str],
        same_boot: bool,
        os_release: str | None,
        vm_names: Mapping[int, str],
        guest_symbols: Sequence[GuestSymbols] = (),
    ) -> None:
        options.check()
        self._options = options
        self._build_ids = build_ids
        self._same_boot = same_boot
        self._os_release = os_release
        self._names = NameList()
        self._images: dict[tuple[str, str, int], _Image] = {}
        self._guests: dict[tuple[int, int], Guest] = {}
        self._host_maps = recorded_maps(mmap, _CPUMODE_KERNEL, {-1})
        self._guest_sources = named_sources(options)
        self.update(spaces, mmap, vm_names, guest_symbols)
        if options.kallsyms is not None or options.vmlinux is not None:
            # what was named is tried at once, so that a mistake is not met in the middle
            self._host_named  # noqa: B018

    def update(
        self,
        spaces: AddressSpaces,
        mmap: Table,
        vm_names: Mapping[int, str],
        guest_symbols: Sequence[GuestSymbols] = (),
    ) -> None:
        """Go on with more records of the same recording (live): the names found so far stay."""
        by_pid: dict[int, list[GuestSymbols]] = {}
        for one in guest_symbols:
            by_pid.setdefault(one.pid, []).append(one)
        self.boots = {pid: Boots(found) for pid, found in by_pid.items()}
        for (pid, boot), guest in self._guests.items():
            guest.renew(self._found_of(pid, boot))
        self._spaces = spaces
        self._mmap = mmap
        self._vm_names = vm_names
        self._containers: dict[int, tuple[bool, int]] = {}
        filename, build_id = mmap.column("filename"), mmap.column("build_id")
        assert isinstance(filename, Categorical)
        assert isinstance(build_id, Categorical)
        self._filenames, self._map_build_ids = filename.categories, build_id.categories
        self._file_codes, self._build_codes = filename.codes, build_id.codes
        self._map_pids = mmap["pid"]
        self._private = np.array(
            [perfmap.is_anonymous(n) or n.endswith(files.DELETED) for n in self._filenames],
            np.bool_,
        )

    def resolve(
        self,
        epoch: NDArray[np.int32],
        pid: NDArray[np.int32],
        mode: NDArray[np.uint8],
        ip: NDArray[np.uint64],
    ) -> Resolved:
        """Symbol and DSO of each row; rows should be unique, the answer is as long as they are.

        `pid` is the VMM's for the guest modes, `epoch` there the number of the VM's boot.
        """
        symbol = np.zeros(len(ip), np.int32)
        dso = np.zeros(len(ip), np.int32)
        kernel = np.flatnonzero(mode == HOST_KERNEL)
        if len(kernel):
            symbol[kernel], dso[kernel] = self._host_kernel(ip[kernel])
        user = np.flatnonzero(mode == HOST_USER)
        if len(user):
            symbol[user], dso[user] = self._host_user(epoch[user], ip[user])
        guest = (mode == GUEST_KERNEL) | (mode == GUEST_USER)
        boots = pid.astype(np.int64) << 32 | epoch.view(np.uint32)
        for key in np.unique(boots[guest]).tolist():
            mine = guest & (boots == key)
            first = np.argmax(mine)
            one = self._guest(int(pid[first]), int(epoch[first]))
            rows = np.flatnonzero(mine & (mode == GUEST_KERNEL))
            if len(rows):
                symbol[rows], dso[rows] = one.resolve_kernel(ip[rows])
            rows = np.flatnonzero(mine & (mode == GUEST_USER))
            if len(rows):
                symbol[rows], dso[rows] = one.resolve_user(ip[rows])
        return Resolved(self._names.categorical(symbol), self._names.categorical(dso))

    @property
    def warnings(self) -> list[str]:
        """What stands in the way of names, one plain line each; grows as addresses are met."""
        lines: list[str] = []
        if "host" in self.__dict__ and self.host.table is None:
            lines.append(f"the host kernel stays unnamed: {self.host.note}")
        for guest in self._guests.values():
            lines += guest.warnings.values()
        return list(dict.fromkeys(lines))

    @property
    def sources(self) -> Table:
        """Where the names of each DSO met so far come from: dso, source, symbols, note."""
        rows: list[tuple[str, str, int, str]] = []
        if "host" in self.__dict__:
            rows.append((HOST_IMAGE, self.host.source, _size(self.host), self.host.note))
        for guest in self._guests.values():
            kernel = guest.kernel
            rows.append((f"{guest.name} kernel", kernel.source, _size(kernel), kernel.note))
            if guest.elf_source is not None:
                rows.append((f"{guest.name} user", guest.elf_source[0], guest.elf_source[1], ""))
        for (name, _, _), image in self._images.items():
            count = 0 if image.named is None else len(image.named.table)
            rows.append((name, image.source, count, image.note))
        columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
        return Table(
            {
                "dso": _strings(columns[0]),
                "source": _strings(columns[1]),
                "symbols": np.array(columns[2], np.int64),
                "note": _strings(columns[3]),
            }
        )

    @cached_property
    def host(self) -> KernelSymbols:
        """The host kernel's symbols, found when first needed."""
        return host_symbols(
            self._options,
            self._host_maps,
            build_id=self._build_ids.get(HOST_IMAGE, ""),
            same_boot=self._same_boot,
            os_release=self._os_release,
        )

    @cached_property
    def _host_named(self) -> NamedTable | None:
        table = self.host.table
        # Rust in the kernel has mangled names
        if table is None:
            return None
        return NamedTable(table, self._names, readable=self._options.demangle)

    def _host_kernel(
        self, address: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        named = self._host_named
        rows = np.full(len(address), -1, np.int64)
        symbol = np.zeros(len(address), np.int32)
        if named is not None:
            rows = named.table.find(address)
            symbol = named.numbers(rows)
        table = self.host.table
        return symbol, dso_numbers(self._names, table, self._host_maps, HOST_IMAGE, rows, address)

    def _found_of(self, pid: int, boot: int) -> list[GuestSymbols]:
        boots = self.boots.get(pid)
        return boots.parts[boot] if boots and 0 <= boot < len(boots.parts) else []

    def _guest(self, pid: int, boot: int) -> Guest:
        found = self._guests.get((pid, boot))
        if found is None:
            # perf records a guest's kernel under the VMM's pid, a nameless one's under 0 or -1
            maps = recorded_maps(self._mmap, _CPUMODE_GUEST_KERNEL, {pid})
            if not len(maps.start):
                maps = recorded_maps(self._mmap, _CPUMODE_GUEST_KERNEL, {0, -1})
            found = self._guests[pid, boot] = Guest(
                pid,
                self._vm_names.get(pid, ""),
                self._options,
                maps,
                self._names,
                self._guest_sources,
                lambda: self.host,
                self._found_of(pid, boot),
            )
        return found

    def _host_user(
        self, epoch: NDArray[np.int32], ip: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        n = len(ip)
        row, offset = self._spaces.find(epoch, ip)
        symbol = np.zeros(n, np.int32)
        dso = np.zeros(n, np.int32)
        mapped = np.flatnonzero(row >= 0)
        for members in self._by_file(row[mapped]):
            rows = mapped[members]
            record = row[rows[0]]
            name, pid = self._filenames[self._file_codes[record]], int(self._map_pids[record])
            if perfmap.is_anonymous(name):
                name = f"/tmp/perf-{pid}.map"
                image = self._perf_map(name, pid)
            else:
                image = self._file(name, self._map_build_ids[self._build_codes[record]], pid)
            dso[rows] = self._names.number(name)
            if image.named is None:
                continue
            if image.segments is not None:
                address = image.segments.addresses(offset[rows])
            else:
                address = ip[rows]
            symbol[rows] = image.named.numbers(image.named.table.find(address))
        return symbol, dso

    def _by_file(self, row: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Positions in `row`, map records, of those that say the same file."""
        records, which = np.unique(row, return_inverse=True)
        pids = self._map_pids[records].astype(np.int64)
        files = self._file_codes[records]
        # whose map it is matters only where the process sees files that we do not
        pids[~(self._private[files] | self._contained(pids))] = 0
        keys = np.stack([files, self._build_codes[records], pids])
        groups, of_record = np.unique(keys, axis=1, return_inverse=True)
        group = of_record.ravel()[which]
        order = np.argsort(group, kind="stable")
        stops = np.cumsum(np.bincount(group, minlength=groups.shape[1]))
        return np.split(order, stops[:-1]) if len(row) else []

    def _file(self, name: str, build_id: str, pid: int) -> _Image:
        build_id = build_id or self._build_ids.get(name, "")
        container, view = self._container(pid)
        # a file that is gone lives on only in the processes that map it
        gone = pid if name.endswith(files.DELETED) else 0
        key = name, build_id, view or gone
        found = self._images.get(key)
        if found is None:
            found = self._images[key] = self._read(name, build_id, pid, container)
        return found

    def _read(self, name: str, build_id: str, pid: int, container: bool) -> _Image:
        found = self._find(name, build_id, pid, container)
        if found.runtime is None or found.symbols is None:
            return _Image(None, None, "", found.note)
        return self._of_elf(found.runtime, found.symbols, found.note)

    def find(self, name: str, build_id: str, pid: int) -> files.Found:
        """The ELF files behind a user mapping of a process: those its names come from."""
        build_id = build_id or self._build_ids.get(name, "")
        return self._find(name, build_id, pid, self._container(pid)[0])

    def _find(self, name: str, build_id: str, pid: int, container: bool) -> files.Found:
        alive = pid if self._alive(pid) else 0
        if name in vdso.NAMES:
            image = self._vdso(name, build_id, alive)
            return files.Found(image, image, "" if image else "the vdso of another kernel")
        if not name.startswith("/"):
            return files.Found(None, None, "no file")
        if name.startswith("//"):
            return files.Found(None, None, "not a file")
        return files.find(name, build_id, symfs=self._options.symfs, pid=alive, container=container)

    def _of_elf(self, runtime: ElfImage, symbols: ElfImage, note: str = "") -> _Image:
        try:
            table = symbols.symbols(runtime)
        except Exception as error:  # tables that contradict themselves, in any way there is
            return _Image(None, None, symbols.path, f"damaged symbol table: {error}")
        named = NamedTable(table, self._names, readable=self._options.demangle)
        return _Image(named, runtime.segments, symbols.path, note)

    def _vdso(self, name: str, build_id: str, pid: int) -> ElfImage | None:
        image = None
        if self._same_boot:
            image = vdso.own() if name == "[vdso]" else None
            if image is None or not buildid.same(build_id, image.build_id):
                image = vdso.of_process(pid) if pid else None
        if build_id and (image is None or not buildid.same(build_id, image.build_id)):
            try:
                image = ElfImage(files.cache_folder(build_id) / "vdso")
            except FileError:
                image = None
        return image

    def _perf_map(self, name: str, pid: int) -> _Image:
        found = self._images.get((name, "", 0))
        path = perfmap.path_of(pid, alive=self._alive(pid))
        if path is None:
            found = found or _Image(None, None, "", "no perf map")
        else:
            # a JIT compiler adds to its map as it goes
            size = path.stat().st_size
            if found is None or found.note != f"{size} bytes":
                table = perfmap.parse(path.read_bytes())
                named = NamedTable(table, self._names, readable=self._options.demangle)
                found = _Image(named, None, str(path), f"{size} bytes")
        self._images[name, "", 0] = found
        return found

    def _alive(self, pid: int) -> bool:
        return self._same_boot and pid > 0 and Path(f"/proc/{pid}").is_dir()

    def _contained(self, pids: NDArray[np.int64]) -> NDArray[np.bool_]:
        unique, inverse = np.unique(pids, return_inverse=True)
        views = np.array([self._container(pid)[0] for pid in unique.tolist()], np.bool_)
        return views[inverse] if len(unique) else np.zeros(0, np.bool_)

    def _container(self, pid: int) -> tuple[bool, int]:
        """Whether a process sees another file system than we do, and a number for its view."""
        found = self._containers.get(pid)
        if found is None:
            found = False, 0
            with suppress(OSError):
                if self._alive(pid):
                    theirs = Path(f"/proc/{pid}/root").stat()
                    ours = Path("/").stat()
                    if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
                        found = True, Path(f"/proc/{pid}/ns/mnt").stat().st_ino
            self._containers[pid] = found
        return found


def _size(symbols: KernelSymbols) -> int:
    return 0 if symbols.table is None else len(symbols.table)


def _strings(values: tuple[str, ...]) -> Categorical:
    categories = list(dict.fromkeys(values))
    numbers = {name: i for i, name in enumerate(categories)}
    return Categorical(np.array([numbers[v] for v in values], np.int32), categories)
