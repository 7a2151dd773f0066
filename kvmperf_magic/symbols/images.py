"""What host processes map: from a file, a perf map or a jitdump to the names in it.

For each mapping there is one source, the first that can be believed: what the recording itself
carries, unless symbols were named, then the file (see files.py), the vdso, the code of a JIT
compiler (its dump before its perf map).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import FileError
from kvmperf_magic.symbols import buildid, files, perfmap, vdso
from kvmperf_magic.symbols.debuginfod import Debuginfod
from kvmperf_magic.symbols.elf import ElfImage, Segments
from kvmperf_magic.symbols.jitdump import Jit
from kvmperf_magic.symbols.kept import JITTED, USER, Keeping, Kept
from kvmperf_magic.symbols.keptlines import KeptLines
from kvmperf_magic.symbols.lines import Lines, Located, has_lines
from kvmperf_magic.symbols.names import NamedTable, NameList
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.table import Categorical, Table


@dataclass(frozen=True)
class Image:
    """A mapped file: its names, and where its file offsets lie (None: they are addresses).

    `count` is how many symbols the source has; `elf` the file that names and lines are in, `lines`
    those that the recording carries.
    """

    named: NamedTable | None
    segments: Segments | None
    source: str
    note: str = ""
    count: int = 0
    elf: ElfImage | None = None
    lines: KeptLines | None = None


class Images:
    """The names of user code of one recording's host; what is read is read once and kept."""

    def __init__(
        self,
        names: NameList,
        options: SymbolOptions,
        build_ids: Mapping[str, str],
        jits: Mapping[int, Jit],
        keeping: Keeping | None,
        server: Debuginfod | None,
        *,
        same_boot: bool,
    ) -> None:
        self._names = names
        self._options = options
        self._build_ids = build_ids
        self._jits = jits
        self._keeping = keeping
        # symbols that were named come before those that were kept
        self._named = options.symfs is not None or bool(options.debuginfod)
        self._server = server
        self._same_boot = same_boot
        self._images: dict[tuple[str, str, int], Image] = {}
        self._users: dict[tuple[str, str, int], set[int]] = {}
        self._lines: dict[str, Lines] = {}
        self._generations: dict[tuple[int, int], NamedTable] = {}

    def follow(self, jits: Mapping[int, Jit]) -> None:
        """JIT compilers have gone on."""
        self._generations = {
            key: named
            for key, named in self._generations.items()
            if jits.get(key[0]) is self._jits.get(key[0])
        }
        self._jits = jits

    def update(self, spaces: AddressSpaces, mmap: Table) -> None:
        """Go on with more records of the same recording."""
        self._spaces = spaces
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
        self, epoch: NDArray[np.int32], ip: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The numbers of symbol and DSO of each address."""
        symbol = np.zeros(len(ip), np.int32)
        dso = np.zeros(len(ip), np.int32)
        for rows, name, pid, image, address in self.places(epoch, ip):
            dso[rows] = self._names.number(name)
            if image.named is not None:
                symbol[rows] = image.named.numbers(image.named.table.find(address))
            if pid in self._jits:
                self._jitted(pid, rows, epoch, ip, symbol, dso)
        return symbol, dso

    def places(
        self, epoch: NDArray[np.int32], ip: NDArray[np.uint64]
    ) -> Iterator[tuple[NDArray[np.int64], str, int, Image, NDArray[np.uint64]]]:
        """(rows, DSO, pid of anonymous code else 0, image, addresses in it) of each file."""
        row, offset = self._spaces.find(epoch, ip)
        mapped = np.flatnonzero(row >= 0)
        for members in self._by_file(row[mapped]):
            rows = mapped[members]
            record = row[rows[0]]
            name, pid = self._filenames[self._file_codes[record]], int(self._map_pids[record])
            anonymous = perfmap.is_anonymous(name)
            if anonymous:
                name = f"/tmp/perf-{pid}.map"
                image = self._perf_map(name, pid)
            else:
                image = self._file(name, self._map_build_ids[self._build_codes[record]], pid)
            address = ip[rows]
            if image.segments is not None:
                address = image.segments.addresses(offset[rows])
            yield rows, name, pid if anonymous else 0, image, address

    def locate(self, epoch: NDArray[np.int32], ip: NDArray[np.uint64], located: Located) -> None:
        """The source lines of each address."""
        for rows, _, _, image, address in self.places(epoch, ip):
            if image.lines is not None:
                located.put(rows, image.lines, address)
            elif image.elf is not None:
                located.put(rows, self._lines_of(image.elf), address)

    def _asked(self, image: Image) -> KeptLines | None:
        """The lines of an image that were asked for, None where nobody asked."""
        found = self._lines.get(image.elf.path) if image.elf else None
        return image.lines if found is None else KeptLines.of(found.known)

    def _lines_of(self, elf: ElfImage) -> Lines:
        found = self._lines.get(elf.path)
        if found is None:
            if not has_lines(elf) and not elf.in_memory:
                elf = files.debug_file(elf, self._server) or elf
            found = self._lines[elf.path] = Lines(elf, readable=self._options.demangle)
        return found

    def _jitted(
        self,
        pid: int,
        rows: NDArray[np.int64],
        epoch: NDArray[np.int32],
        ip: NDArray[np.uint64],
        symbol: NDArray[np.int32],
        dso: NDArray[np.int32],
    ) -> None:
        """What a process's dump says of these rows of its anonymous code."""
        jit = self._jits[pid]
        generation = jit.generation(self._spaces.since(epoch[rows]))
        for one in np.unique(generation).tolist():
            mine = rows[generation == one]
            named = self._generation(pid, one)
            found = named.table.find(ip[mine])
            mine, found = mine[found >= 0], found[found >= 0]
            symbol[mine] = named.numbers(found)
            dso[mine] = self._names.number(jit.path)

    def _generation(self, pid: int, generation: int) -> NamedTable:
        found = self._generations.get((pid, generation))
        if found is None:
            table = self._jits[pid].table(generation)
            found = NamedTable(table, self._names, readable=self._options.demangle)
            self._generations[pid, generation] = found
        return found

    def sources(self) -> Iterator[tuple[str, str, int, str]]:
        """(DSO, source, symbols, note) of each file met so far."""
        for (name, _, _), image in self._images.items():
            yield name, image.source, image.count, image.note
        for pid in dict.fromkeys(pid for pid, _ in self._generations):
            jit = self._jits[pid]
            yield jit.path, jit.path, jit.count, jit.note

    def kept(self) -> Iterator[Kept]:
        """All that was met, as a recording can carry it."""
        for key, image in self._images.items():
            name, build_id, _ = key
            table = None if image.named is None else image.named.asked_for()
            yield Kept(
                *(0, USER, name, build_id, table, image.source, image.note, image.count),
                segments=image.segments,
                processes=tuple(sorted(self._users.get(key, ()))),
                lines=self._asked(image),
            )
        for pid in dict.fromkeys(pid for pid, _ in self._generations):
            jit = self._jits[pid]
            for generation, since in enumerate(jit.starts.tolist()):
                made = self._generations.get((pid, generation))
                table = None if made is None else made.asked_for()
                told = (jit.path, "", table, jit.path, jit.note, jit.count)
                yield Kept(0, JITTED, *told, processes=(pid,), since=since)

    @property
    def contained(self) -> frozenset[int]:
        """The processes that see another file system than we do, as far as they were looked at."""
        known = self._keeping.contained if self._keeping else frozenset()
        return known | {pid for pid, (there, _) in self._containers.items() if there}

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

    def _file(self, name: str, build_id: str, pid: int) -> Image:
        build_id = build_id or self._build_ids.get(name, "")
        kept = self._keeping.user(name, build_id, pid) if self._keeping else None
        if kept is not None and not self._named:
            return self._of_kept(kept, pid)
        container, view = self._container(pid)
        # a file that is gone lives on only in the processes that map it
        gone = pid if name.endswith(files.DELETED) else 0
        key = name, build_id, view or gone
        if view or gone:
            self._users.setdefault(key, set()).add(pid)
        found = self._images.get(key)
        if found is None:
            found = self._read(name, build_id, pid, container)
            if found.named is None and kept is not None:
                return self._of_kept(kept, pid)
            self._images[key] = found
        return found

    def _of_kept(self, kept: Kept, pid: int) -> Image:
        key = kept.dso, kept.build_id, min(kept.processes, default=0)
        if kept.processes:
            self._users.setdefault(key, set()).add(pid)
        found = self._images.get(key)
        if found is None:
            named = None
            if kept.table is not None:
                named = NamedTable(kept.table, self._names, readable=self._options.demangle)
            told = (kept.source, kept.note, kept.count)
            found = Image(named, kept.segments, *told, lines=kept.lines)
            self._images[key] = found
        return found

    def _read(self, name: str, build_id: str, pid: int, container: bool) -> Image:
        found = self._find(name, build_id, pid, container)
        if found.runtime is None or found.symbols is None:
            return Image(None, None, "", found.note)
        return self._of_elf(found.runtime, found.symbols, found.note)

    def find(self, name: str, build_id: str, pid: int) -> files.Found:
        """The ELF files behind a mapping of a process: those its names come from."""
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
        return files.find(
            name,
            build_id,
            symfs=self._options.symfs,
            pid=alive,
            container=container,
            server=self._server,
        )

    def _of_elf(self, runtime: ElfImage, symbols: ElfImage, note: str = "") -> Image:
        try:
            table = symbols.symbols(runtime)
        except Exception as error:  # tables that contradict themselves, in any way there is
            return Image(None, None, symbols.path, f"damaged symbol table: {error}")
        named = NamedTable(table, self._names, readable=self._options.demangle)
        return Image(named, runtime.segments, symbols.path, note, len(table), symbols)

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

    def _perf_map(self, name: str, pid: int) -> Image:
        if self._keeping is not None:
            kept = self._keeping.user(name, "", pid)
            if kept is not None:
                return self._of_kept(kept, pid)
        key = name, "", pid
        self._users.setdefault(key, set()).add(pid)
        found = self._images.get(key)
        opened = perfmap.opened(pid, alive=self._alive(pid))
        if opened is None:
            found = found or Image(None, None, "", "no perf map")
        else:
            path, file = opened
            with file:
                # a JIT compiler adds to its map as it goes
                size = os.fstat(file.fileno()).st_size
                if found is None or found.note != f"{size} bytes":
                    table = perfmap.parse(file.read(size))
                    named = NamedTable(table, self._names, readable=self._options.demangle)
                    found = Image(named, None, str(path), f"{size} bytes", len(table))
        self._images[key] = found
        return found

    def _alive(self, pid: int) -> bool:
        return self._same_boot and pid > 0 and Path(f"/proc/{pid}").is_dir()

    def _contained(self, pids: NDArray[np.int64]) -> NDArray[np.bool_]:
        unique, inverse = np.unique(pids, return_inverse=True)
        known = self._keeping.contained if self._keeping else frozenset()
        views = np.array(
            [pid in known or self._container(pid)[0] for pid in unique.tolist()], np.bool_
        )
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
