"""Opens a perf.data, a file or a saved stream; its records are read in one pass when asked for."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, PIPE_HEADER_SIZE, Feature
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.features import BuildId
from kvmperf_magic.perfdata.header import FileHeader, Header, Section, is_pipe
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.session import Session
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.perfdata.walk import Buffer, Walk, leading, walk

__all__ = ["Auxtrace", "Damage", "Header", "PerfFile", "read"]


@dataclass(frozen=True)
class Damage:
    """Something that could not be read: where in the file, and what is missing for it."""

    offset: int
    message: str


@dataclass(frozen=True)
class Auxtrace:
    """What hardware traces a recording carries; they are stepped over."""

    count: int  # AUXTRACE records
    bytes: int  # of trace behind them


@dataclass(frozen=True)
class Contents:
    """All records of a recording, decoded."""

    samples: SampleColumns
    sideband: Sideband
    counts: dict[int, int]
    damage: list[Damage]
    auxtrace: Auxtrace


class PerfFile:
    """A perf.data as columns, read when they are first asked for.

    `header`, `events`, `features` and what else the recording says of itself are there at once,
    from its sections and the records before the first sample; once the samples were read, from
    all of it. `features` holds every feature section by its number: decoded where features.py
    knows it, else as bytes.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._session, self._damage = container.begin()
        self._session.describe(container.leading())

    @property
    def path(self) -> str:
        return self._container.path

    @property
    def header(self) -> Header:
        """Who recorded, where, with which command."""
        return Header.of(self._session.features, self._container.pipe)

    @property
    def events(self) -> list[Event]:
        return self._session.events

    @property
    def build_ids(self) -> list[BuildId]:
        return self._session.build_ids

    @property
    def features(self) -> dict[int, Any]:
        return self._session.features

    @property
    def kvmperf(self) -> dict[str, Any]:
        """What our own recorder noted ({} in perf's files)."""
        return self._session.kvmperf

    @property
    def tracing(self) -> bytes | None:
        """The formats of the tracepoints, as perf wrote them down (TRACING_DATA)."""
        return self.features.get(Feature.TRACING_DATA) or self._session.tracing or None

    @property
    def samples(self) -> SampleColumns:
        return self._contents.samples

    @property
    def sideband(self) -> Sideband:
        return self._contents.sideband

    @property
    def counts(self) -> dict[int, int]:
        """The number of records by type, of all types, known or not."""
        return self._contents.counts

    @property
    def damage(self) -> list[Damage]:
        return self._contents.damage

    @property
    def auxtrace(self) -> Auxtrace:
        return self._contents.auxtrace

    @cached_property
    def _contents(self) -> Contents:
        session, damage = self._container.begin()
        walked, cut = self._container.records()
        batch = session.take(walked)
        damage = [*damage, *cut]
        damage += [Damage(self._container.start, problem) for problem in session.problems]
        self._session = session
        count, size = walked.auxtrace
        return Contents(batch.samples, batch.sideband, batch.counts, damage, Auxtrace(count, size))


def read(path: str | os.PathLike[str]) -> PerfFile:
    """Open a perf.data that perf or our recorder wrote, in milliseconds whatever its size.

    FileError for what is no perf.data. A damaged or cut file is read up to the damage, which
    `PerfFile.damage` then tells.
    """
    path = os.fspath(path)
    buffer = _map(path)
    head = bytes(buffer[:FILE_HEADER_SIZE])
    header = None if is_pipe(path, head) else FileHeader.decode(head)
    return PerfFile(Container(path, buffer, header))


class Container:
    """The bytes of a file or stream: where its attrs, features and records are."""

    def __init__(self, path: str, buffer: Buffer, header: FileHeader | None) -> None:
        self.path, self._buffer, self._header = path, buffer, header
        self.pipe = header is None
        self.start, self._end = PIPE_HEADER_SIZE, len(buffer)
        if header:
            self.start = header.data.offset
            if header.data.size:
                self._end = header.data.end

    def begin(self) -> tuple[Session, list[Damage]]:
        """A session that knows what stands outside of the records. FileError where a file has
        no attrs that can be read."""
        session, damage = Session(self.path), list[Damage]()
        if not self._header:
            return session, damage
        header, size = self._header, len(self._buffer)
        _read_attrs(header, self._buffer, session, damage)
        if not header.data.size:
            what = "the recorder was stopped before it could finish the file"
            return session, [*damage, Damage(48, what)]
        if not header.features and size > self._end:
            what = f"{size - self._end} bytes were not flushed before the recorder stopped"
            damage.append(Damage(self._end, what))
        # names of events are in sections behind the data
        _read_features(header, self._buffer, session, damage)
        return session, damage

    def leading(self) -> Walk:
        """The records before the first sample."""
        return leading(self._buffer, self.start, min(self._end, len(self._buffer)))

    def records(self) -> tuple[Walk, list[Damage]]:
        """All records, and where they are damaged."""
        size, damage = len(self._buffer), list[Damage]()
        if self._end > size:
            what = f"the file is cut off: {self._end - size} bytes of data miss"
            damage.append(Damage(size, what))
        walked = walk(self._buffer, self.start, min(self._end, size))
        if walked.problem:
            damage.append(Damage(walked.end, walked.problem))
        return walked, damage


def _map(path: str) -> mmap.mmap | bytes:
    try:
        if Path(path).is_dir():
            raise FileError(
                path,
                "is a directory (perf record --threads), which is not read yet",
                hint="record without --threads",
            )
        with Path(path).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise FileError(
            path,
            f"cannot be read: {error.strerror}",
            hint="is the name right, and may you read it?",
        ) from None


def _read_attrs(header: FileHeader, buffer: Buffer, session: Session, damage: list[Damage]) -> None:
    """The attrs section: entries of {attr, Section of its ids}, as long as attr_size says."""
    stride = header.attr_size
    if stride < 64 + 16:
        raise FileError(
            session.path,
            f"has attrs of {stride} bytes, the smallest is 80",
            offset=16,
            hint="copy the file again, whole",
        )
    for at in range(header.attrs.offset, header.attrs.end - stride + 1, stride):
        entry = bytes(buffer[at : at + stride])
        if len(entry) < stride:
            damage.append(Damage(at, "the file is cut off in its attrs"))
            return
        ids = Section(*struct.unpack_from("<QQ", entry, stride - 16))
        raw = bytes(buffer[ids.offset : ids.end])
        if len(raw) < ids.size:
            damage.append(Damage(ids.offset, f"ids of event {len(session.events)} miss"))
        session.add_event(entry[:-16], raw)


def _read_features(
    header: FileHeader, buffer: Buffer, session: Session, damage: list[Damage]
) -> None:
    """The table of sections that stands right behind the data, one entry a bit of the mask."""
    for i, feature in enumerate(header.features):
        at = header.data.end + 16 * i
        entry = bytes(buffer[at : at + 16])
        if len(entry) < 16:
            damage.append(Damage(at, f"features from {feature} on miss: the file is cut off"))
            return
        section = Section(*struct.unpack("<QQ", entry))
        data = bytes(buffer[section.offset : section.end])
        try:
            if len(data) < section.size:
                raise ValueError(f"{section.size - len(data)} bytes of it miss")
            session.add_feature(feature, data)
        except (ValueError, struct.error) as error:
            damage.append(Damage(section.offset, f"feature {feature}: {error}"))
