"""Opens a perf.data, a file or a saved stream, and reads all of it in one pass."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, PIPE_HEADER_SIZE
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.features import BuildId
from kvmperf_magic.perfdata.header import FileHeader, Header, Section, is_pipe
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.session import Session
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.perfdata.walk import walk

__all__ = ["Damage", "Header", "PerfFile", "read"]


@dataclass(frozen=True)
class Damage:
    """Something that could not be read: where in the file, and what is missing for it."""

    offset: int
    message: str


@dataclass(frozen=True)
class PerfFile:
    """A perf.data as columns. `counts` is the number of records by type.

    `features` holds every feature section by its number: decoded where features.py knows it,
    else as bytes. `kvmperf` is what our own recorder noted ({} in perf's files).
    """

    path: str
    header: Header
    events: list[Event]
    samples: SampleColumns
    sideband: Sideband
    counts: dict[int, int]
    damage: list[Damage]
    build_ids: list[BuildId]
    features: dict[int, Any]
    kvmperf: dict[str, Any]


def read(path: str | os.PathLike[str]) -> PerfFile:
    """Read a perf.data that perf or our recorder wrote.

    FileError for what is no perf.data, or is of a kind that is not read yet. A damaged or cut
    file is read up to the damage, which `PerfFile.damage` then tells.
    """
    path = os.fspath(path)
    buffer = _map(path)
    pipe = is_pipe(path, bytes(buffer[:FILE_HEADER_SIZE]))
    return _read_pipe(path, buffer) if pipe else _read_file(path, buffer)


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


def _read_file(path: str, buffer: mmap.mmap | bytes) -> PerfFile:
    header = FileHeader.decode(buffer[:FILE_HEADER_SIZE])
    session = Session(path)
    damage: list[Damage] = []
    _read_attrs(header, buffer, session, damage)
    end = header.data.end
    finished = header.data.size > 0
    if not finished:
        end = len(buffer)
        damage.append(Damage(48, "the recorder was stopped before it could finish the file"))
    elif not header.features and len(buffer) > end:
        damage.append(
            Damage(end, f"{len(buffer) - end} bytes were not flushed before the recorder stopped")
        )
    # sections that stand behind the data: names of events among them, so before the samples
    if finished:
        _read_features(header, buffer, session, damage)
    return _decoded(path, buffer, header.data.offset, end, session, damage, pipe=False)


def _read_pipe(path: str, buffer: mmap.mmap | bytes) -> PerfFile:
    return _decoded(path, buffer, PIPE_HEADER_SIZE, len(buffer), Session(path), [], pipe=True)


def _decoded(
    path: str,
    buffer: mmap.mmap | bytes,
    start: int,
    end: int,
    session: Session,
    damage: list[Damage],
    *,
    pipe: bool,
) -> PerfFile:
    """The records of buffer[start:end], and with them the rest."""
    if end > len(buffer):
        damage.append(
            Damage(len(buffer), f"the file is cut off: {end - len(buffer)} bytes of data miss")
        )
    walked = walk(buffer, start, min(end, len(buffer)))
    if walked.problem:
        damage.append(Damage(walked.end, walked.problem))
    batch = session.take(walked)
    damage += [Damage(start, problem) for problem in session.problems]
    return PerfFile(
        path=path,
        header=Header.of(session.features, pipe),
        events=session.events,
        samples=batch.samples,
        sideband=batch.sideband,
        counts=batch.counts,
        damage=damage,
        build_ids=session.build_ids,
        features=session.features,
        kvmperf=session.kvmperf,
    )


def _read_attrs(
    header: FileHeader, buffer: mmap.mmap | bytes, session: Session, damage: list[Damage]
) -> None:
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
        entry = buffer[at : at + stride]
        if len(entry) < stride:
            damage.append(Damage(at, "the file is cut off in its attrs"))
            return
        ids = Section(*struct.unpack_from("<QQ", entry, stride - 16))
        raw = buffer[ids.offset : ids.end]
        if len(raw) < ids.size:
            damage.append(Damage(ids.offset, f"ids of event {len(session.events)} miss"))
        session.add_event(entry[:-16], raw)


def _read_features(
    header: FileHeader, buffer: mmap.mmap | bytes, session: Session, damage: list[Damage]
) -> None:
    """The table of sections that stands right behind the data, one entry a bit of the mask."""
    for i, feature in enumerate(header.features):
        at = header.data.end + 16 * i
        entry = buffer[at : at + 16]
        if len(entry) < 16:
            damage.append(Damage(at, f"features from {feature} on miss: the file is cut off"))
            return
        section = Section(*struct.unpack("<QQ", entry))
        data = buffer[section.offset : section.end]
        try:
            if len(data) < section.size:
                raise ValueError(f"{section.size - len(data)} bytes of it miss")
            session.add_feature(feature, data)
        except (ValueError, struct.error) as error:
            damage.append(Damage(section.offset, f"feature {feature}: {error}"))
