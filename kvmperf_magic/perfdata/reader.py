"""Opens a perf.data, a file or a saved stream; its records are read in one pass when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.carrying import with_feature
from kvmperf_magic.perfdata.compressed import joined
from kvmperf_magic.perfdata.container import Container, Damage
from kvmperf_magic.perfdata.features import BuildId
from kvmperf_magic.perfdata.header import Header
from kvmperf_magic.perfdata.packed import DATA, SYMBOLS, pack
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.perfdata.walk import Buffer

__all__ = ["Auxtrace", "Damage", "Header", "PerfFile", "read"]


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
        self._session.describe(self._session.native(container.leading()))

    @property
    def path(self) -> str:
        return self._container.path

    @property
    def name(self) -> str:
        """The recording's name, for titles."""
        return self._container.name

    @property
    def symbols(self) -> Buffer | None:
        """The names that the recording carries, see symbols/kept.py."""
        return self._container.symbols or self.features.get(Feature.KVMPERF_SYMBOLS)

    @property
    def kernel_directory(self) -> str | None:
        """Where the recording holds a copy of what the kernel showed of itself."""
        found = self._container.kernel_directory
        return None if found is None else str(found)

    @property
    def is_packed(self) -> bool:
        return self._container.is_packed

    def packed(self, name: str, symbols: bytes) -> Iterable[bytes]:
        """This recording with these names as one compressed file, in pieces."""
        return pack(name, {**self._container.members(), SYMBOLS: symbols})

    def carrying(self, symbols: bytes) -> Iterable[bytes]:
        """This recording with these names as one perf.data, in pieces.

        Raises:
            FileError: it is of a kind that has no place for them.
        """
        members = self._container.members()
        if len(members) > 1:
            raise FileError(
                self.path,
                "is a directory of several files",
                hint="save it under a name that ends in .kvmperf",
            )
        return with_feature(self.path, members[DATA], Feature.KVMPERF_SYMBOLS, symbols)

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

    def guest_notes(self, magic: bytes) -> list[bytes]:
        """What our own recorder packed of its guests, of one kind: anywhere among the records."""
        _ = self._contents
        return [packed for kind, packed in self._session.guest_notes if kind == magic]

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

    @cached_property
    def damage(self) -> list[Damage]:
        """All that could not be read; to know, callchains are found too."""
        cut = self.samples.chains.cut
        told = f"{cut} samples have a callchain longer than themselves"
        return self._contents.damage + ([Damage(self._container.start, told)] if cut else [])

    @property
    def auxtrace(self) -> Auxtrace:
        return self._contents.auxtrace

    @cached_property
    def _contents(self) -> Contents:
        session, damage = self._container.begin()
        walks = []
        for walked, cut in self._container.records():
            damage += cut
            walks.append(session.unpack(walked))
            damage += [Damage(*one) for one in session.finish(walked.end)]
        whole = joined(walks)
        batch = session.decode(whole)
        damage += [Damage(self._container.start, problem) for problem in session.problems]
        self._session = session
        trace = Auxtrace(*whole.auxtrace)
        return Contents(batch.samples, batch.sideband, batch.counts, damage, trace)


def read(path: str | os.PathLike[str]) -> PerfFile:
    """Open a perf.data that perf, simpleperf or our recorder wrote, in milliseconds whatever its
    size: a file, a stream that was saved, or a directory.

    FileError for what is no perf.data. A damaged or cut file is read up to the damage, which
    `PerfFile.damage` then tells.
    """
    return PerfFile(Container(os.fspath(path)))
