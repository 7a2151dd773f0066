"""Where in a perf.data its attrs, features and records stand: a file, a stream or a directory."""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata import packed
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, PIPE_HEADER_SIZE
from kvmperf_magic.perfdata.attr import ATTR_SIZE_VER0
from kvmperf_magic.perfdata.directory import data_files, main_file
from kvmperf_magic.perfdata.header import FileHeader, Section, kind_of
from kvmperf_magic.perfdata.session import Session
from kvmperf_magic.perfdata.walk import Buffer, Walk, leading, walk


@dataclass(frozen=True)
class Damage:
    """Something that could not be read: where in the file, and what is missing for it."""

    offset: int
    message: str


_MADV_POPULATE_READ = 22  # linux/mman.h; Python has no name for it yet
_POPULATED = 1 << 30  # bytes mapped at once; of more, only the reading is begun


class Container:
    """The bytes of one recording. FileError for what is no perf.data."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._packed: packed.Packed | None = None
        self._buffer = _mapped(main_file(path))
        if packed.is_packed(self._buffer):
            self._packed = packed.unpack(path, self._buffer)
            self._buffer = self._packed.members[packed.DATA]
        head = bytes(self._buffer[:FILE_HEADER_SIZE])
        kind = kind_of(path, head)
        self.pipe, self.order = kind.pipe, kind.order
        self.start, self._end = PIPE_HEADER_SIZE, len(self._buffer)
        self._header: FileHeader | None = None
        if not self.pipe:
            self._header = header = FileHeader.decode(head, self.order)
            self.start = min(header.data.offset, len(self._buffer))
            if header.data.size:
                self._end = header.data.end

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    @property
    def name(self) -> str:
        """The recording's own name: that of its file, before it was packed."""
        return self._packed.name if self._packed else Path(self.path).name

    @property
    def symbols(self) -> Buffer | None:
        """What was packed with it to name its addresses."""
        return self._packed.members.get(packed.SYMBOLS) if self._packed else None

    @property
    def kernel_directory(self) -> Path | None:
        """The copy of /proc/kcore and /proc/kallsyms that `perf record --kcore` makes."""
        found = Path(self.path) / "kcore_dir"
        return found if found.is_dir() else None

    def members(self) -> dict[str, Buffer]:
        """The files that it is made of."""
        if self._packed:
            return {n: b for n, b in self._packed.members.items() if n != packed.SYMBOLS}
        threads = {path.name: _mapped(path) for path in data_files(self.path)}
        return {packed.DATA: self._buffer, **threads}

    def begin(self) -> tuple[Session, list[Damage]]:
        """A session that knows what stands outside of the records. FileError where a file has
        no attrs that can be read."""
        session, damage = Session(self.path, self.order), list[Damage]()
        if not self._header:
            return session, damage
        header, size = self._header, len(self._buffer)
        self._read_attrs(header, session, damage)
        if not header.data.size:
            what = "the recorder was stopped before it could finish the file"
            return session, [*damage, Damage(48, what)]
        if not header.features and size > self._end:
            what = f"{size - self._end} bytes were not flushed before the recorder stopped"
            damage.append(Damage(self._end, what))
        # names of events are in sections behind the data
        self._read_features(header, session, damage)
        return session, damage

    def leading(self) -> Walk:
        """The records before the first sample."""
        return leading(self._buffer, self.start, min(self._end, len(self._buffer)), self.order)

    def records(self) -> Iterator[tuple[Walk, list[Damage]]]:
        """All records, and where they are damaged: those of the file, then, in a directory,
        those of each file of a recorder's thread."""
        size, damage = len(self._buffer), list[Damage]()
        if self._end > size:
            what = f"the file is cut off: {self._end - size} bytes of data miss"
            damage.append(Damage(size, what))
        _populate(self._buffer)
        walked = walk(self._buffer, self.start, min(self._end, size), self.order)
        yield walked, damage + _problem(walked, "")
        for name, mapped in self._threads():
            try:
                walked = walk(mapped(), order=self.order)
            except FileError as error:
                yield walk(b"", order=self.order), [Damage(0, f"{name}: {error.message}")]
            else:
                yield walked, _problem(walked, f"{name}: ")

    def _threads(self) -> Iterator[tuple[str, Callable[[], Buffer]]]:
        """The files of a recorder's threads, by name."""
        if self._packed:
            others = self._packed.members.keys() - {packed.DATA, packed.SYMBOLS}
            for name in sorted(others, key=lambda one: (len(one), one)):
                yield name, partial(self._packed.members.__getitem__, name)
        for path in data_files(self.path):
            yield path.name, partial(_mapped, path)

    def _read_attrs(self, header: FileHeader, session: Session, damage: list[Damage]) -> None:
        """The attrs section: entries of {attr, Section of its ids}, as long as attr_size says."""
        stride = header.attr_size
        if stride < ATTR_SIZE_VER0 + 16:
            raise FileError(
                self.path,
                f"has attrs of {stride} bytes, the smallest is {ATTR_SIZE_VER0 + 16}",
                offset=16,
                hint="copy the file again, whole",
            )
        room = len(self._buffer)  # sections that overlap would make much of a small file
        for at in range(header.attrs.offset, header.attrs.end - stride + 1, stride):
            entry = bytes(self._buffer[at : at + stride])
            if len(entry) < stride:
                damage.append(Damage(at, "the file is cut off in its attrs"))
                return
            ids = self._section(entry, stride - 16)
            raw = bytes(self._buffer[ids.offset : ids.end]) if ids.size <= room else b""
            room -= len(raw)
            if len(raw) < ids.size:
                damage.append(Damage(ids.offset, f"ids of event {len(session.events)} miss"))
            session.add_event(entry[:-16], raw)

    def _read_features(self, header: FileHeader, session: Session, damage: list[Damage]) -> None:
        """The table of sections that stands right behind the data, one entry a bit of the mask."""
        room = len(self._buffer)
        for i, feature in enumerate(header.features):
            at = header.data.end + 16 * i
            entry = bytes(self._buffer[at : at + 16])
            if len(entry) < 16:
                damage.append(Damage(at, f"features from {feature} on miss: the file is cut off"))
                return
            section = self._section(entry, 0)
            data = (
                bytes(self._buffer[section.offset : section.end]) if section.size <= room else b""
            )
            room -= len(data)
            try:
                if len(data) < section.size:
                    raise ValueError(f"{section.size - len(data)} bytes of it miss")
                session.add_feature(feature, data)
            except (ValueError, struct.error) as error:
                damage.append(Damage(section.offset, f"feature {feature}: {error}"))

    def _section(self, raw: bytes, at: int) -> Section:
        offset, size = struct.unpack_from("<QQ" if self.order == "little" else ">QQ", raw, at)
        return Section(offset, size)


def _populate(buffer: Buffer) -> None:
    """All of it will be read: the kernel maps the pages faster at once than one by one."""
    if isinstance(buffer, mmap.mmap):
        with suppress(OSError):  # kernels before 5.14
            buffer.madvise(_MADV_POPULATE_READ if len(buffer) <= _POPULATED else mmap.MADV_WILLNEED)


def _problem(walked: Walk, where: str) -> list[Damage]:
    return [Damage(walked.end, where + walked.problem)] if walked.problem else []


def _mapped(path: Path) -> Buffer:
    try:
        # to open a pipe would wait for somebody who writes to it
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("it is a device, a pipe or a socket, and no file")
            if not found.st_size:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileError(
            path, f"cannot be read: {reason}", hint="is the name right, and may you read it?"
        ) from None
