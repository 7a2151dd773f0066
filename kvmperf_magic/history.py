"""What a stream brought: new samples for a live view, the last minutes' records for a snapshot.

Samples are kept as long as asked for; what names them (maps, comms, forks) is kept for good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvmperf_magic.errors import FileError
from kvmperf_magic.guests.tasks import TaskLooks
from kvmperf_magic.perfdata.abi import FILE_MAGIC, PIPE_HEADER_SIZE, RecordType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.records import GUEST_MAGIC, TASKS_MAGIC, note, tracing_data
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.perfdata.stream import StreamReader
from kvmperf_magic.perfdata.walk import walk
from kvmperf_magic.symbols.guestsymbols import GuestSymbols

_PASSING = (RecordType.SAMPLE, RecordType.FINISHED_ROUND)  # records that are not kept for good


@dataclass(frozen=True)
class _Chunk:
    """The whole records of one read."""

    arrived: float  # seconds of the monotonic clock
    raw: bytes


class History:
    """What a stream brought, for `seconds` and at most `limit` bytes."""

    def __init__(self, seconds: float, limit: int = 256 << 20) -> None:
        self.seconds, self._limit = seconds, limit
        self._reader = StreamReader("the recording process")
        self._partial = b""
        self._begun = False
        self._unseen: list[SampleColumns] = []  # not told by fresh() yet
        self._chunks: deque[_Chunk] = deque()
        self._bytes = 0
        self._kept = bytearray()  # records of chunks that have gone
        self._sidebands: list[Sideband] = []
        self.sideband_size = 0  # grows with the sideband: tells whether names are to be renewed

    @property
    def events(self) -> list[Event]:
        return self._reader.events

    @property
    def sideband(self) -> Sideband:
        """All of it so far, as one."""
        if len(self._sidebands) > 1:
            self._sidebands = [Sideband.joined(self._sidebands)]
        return self._sidebands[0]

    def feed(self, data: bytes, now: float) -> None:
        """Take what was read at `now`. FileError where it is no stream of records."""
        first, self._begun = not self._begun, True
        batch = self._reader.feed(data)
        self._partial += data
        whole = len(self._partial) - self._reader.pending
        raw = self._partial[PIPE_HEADER_SIZE if first else 0 : whole]
        self._partial = self._partial[whole:]
        self._chunks.append(_Chunk(now, raw))
        if len(batch.samples):
            self._unseen.append(batch.samples)
        self._bytes += len(raw)
        news = sum(n for kind, n in batch.counts.items() if kind not in _PASSING)
        if news or not self._sidebands:
            self._sidebands.append(batch.sideband)
            self.sideband_size += news
        while self._bytes > self._limit or self._chunks[0].arrived < now - self.seconds:
            self._forget()

    def fresh(self) -> SampleColumns | None:
        """The samples that came since this was asked the last time; None where there are none."""
        unseen, self._unseen = self._unseen, []
        return SampleColumns.joined(unseen) if unseen else None

    def save(
        self, path: Path, guests: Sequence[GuestSymbols] = (), looks: Sequence[TaskLooks] = ()
    ) -> None:
        """Write what is kept as a perf.data (a saved stream, which perf reads too), with what is
        known of its guests' kernels, and what was seen running there (by perf's clock)."""
        header = FILE_MAGIC + PIPE_HEADER_SIZE.to_bytes(8, "little")
        try:
            with path.open("wb") as file:
                file.write(header)
                file.write(self._kept)
                for chunk in self._chunks:
                    file.write(chunk.raw)
                for guest in guests:
                    file.write(note(guest.pack(), GUEST_MAGIC))
                for one in looks:
                    file.write(note(one.pack(), TASKS_MAGIC))
        except OSError as error:
            raise FileError(path, f"cannot be written: {error.strerror}") from None

    def _forget(self) -> None:
        """Let the oldest chunk go, all but its sideband."""
        chunk = self._chunks.popleft()
        self._bytes -= len(chunk.raw)
        walked = walk(chunk.raw)
        words = walked.words
        for row in np.flatnonzero(~np.isin(walked.type, _PASSING)).tolist():
            if walked.type[row] == RecordType.HEADER_TRACING_DATA:
                # what belongs to it stands behind it, in no word
                self._kept += tracing_data(walked.tracing)
                continue
            start = int(walked.position[row])
            self._kept += words[start : start + int(walked.size[row])].tobytes()
