"""Reads a stream (`perf record -o -`, our sampler) as it comes, piece by piece."""

from __future__ import annotations

from typing import Any

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, PIPE_HEADER_SIZE
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.header import Header, kind_of
from kvmperf_magic.perfdata.session import Batch, Session
from kvmperf_magic.perfdata.walk import walk

__all__ = ["Batch", "StreamReader"]


class StreamReader:
    """Takes bytes cut anywhere, gives the whole records among them.

    A Batch is ordered by time in itself; one batch may begin before the last one ended, because
    every CPU has a buffer of its own.
    """

    def __init__(self, name: str = "stream") -> None:
        self._session = Session(name)
        self._left = b""
        self._begun = False
        self._damage: FileError | None = None
        self._offset = 0  # of what is left, in the stream

    def feed(self, data: bytes) -> Batch:
        """The records that are whole now.

        FileError for what is no stream, and, when all before it was handed out, for damage.
        """
        if self._damage:
            raise self._damage
        self._left += data
        if not self._begun and len(self._left) >= PIPE_HEADER_SIZE:
            kind = kind_of(self._session.path, self._left[:FILE_HEADER_SIZE])
            if not kind.pipe:
                raise FileError(
                    self._session.path, "is a perf.data file, not a stream", hint="use read()"
                )
            self._begun = True
            self._session = Session(self._session.path, kind.order)
            self._consume(PIPE_HEADER_SIZE)
        walked = walk(self._left if self._begun else b"", order=self._session.order)
        if walked.problem and not walked.incomplete:
            self._damage = FileError(
                self._session.path,
                walked.problem,
                offset=self._offset + walked.end,
                hint="record again; what was read before is whole",
            )
        batch = self._session.take(walked)
        self._consume(walked.end)
        return batch

    @property
    def events(self) -> list[Event]:
        return self._session.events

    @property
    def header(self) -> Header:
        """What the features told so far."""
        return Header.of(self._session.features, pipe=True)

    @property
    def kvmperf(self) -> dict[str, Any]:
        """What our own recorder noted."""
        return self._session.kvmperf

    @property
    def pending(self) -> int:
        """Bytes that were fed and belong to a record that is not whole yet."""
        return len(self._left)

    @property
    def problems(self) -> list[str]:
        """One line for everything that had to be left out."""
        damaged = [message for _, message in self._session.zstd.damage]
        return [*self._session.problems, *damaged]

    def _consume(self, size: int) -> None:
        self._left = self._left[size:]
        self._offset += size
