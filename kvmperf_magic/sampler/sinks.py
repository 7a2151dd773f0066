"""Where the records go: a file, or a pipe whose reader may be slow."""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.writer import Chunk, PerfDataWriter, PipeWriter, WrittenEvent

PATIENCE = 2.0  # seconds without a sign of life of the reader at the end
QUEUE_LIMIT = 64 << 20  # bytes kept for a reader that does not keep up


class Sink(Protocol):
    """What the recording loop writes to. `size` and `dropped` (no place found) are in bytes."""

    @property
    def size(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    def write(self, *chunks: Chunk) -> None: ...
    def flush(self) -> None: ...
    def finish(self, features: Mapping[Feature, bytes]) -> None: ...
    def close(self) -> None: ...


class FileSink:
    """A perf.data file. One that is there already is kept as `.old`, as perf does."""

    def __init__(self, path: str, events: Sequence[WrittenEvent]) -> None:
        keep_old(path)
        self._writer = PerfDataWriter(path, events)
        self.write = self._writer.write
        self.flush = self._writer.flush
        self.close = self._writer.close
        self.finish = self._writer.finish
        self.dropped = 0
        self.inode = os.fstat(self._writer.fd).st_ino  # whatever its name is later

    @property
    def size(self) -> int:
        return self._writer.data_size


class StreamSink:
    """The pipe format into a pipe. Never blocks: what the pipe does not take waits in memory."""

    def __init__(self, fd: int, events: Sequence[WrittenEvent], tracing: bytes = b"") -> None:
        self.fd = fd
        self.size = 0
        self.dropped = 0
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        os.set_blocking(fd, False)
        self._spool = os.memfd_create("kvmperf-stream")
        self._encoder = PipeWriter(self._spool, events, tracing)
        self._take_encoded()

    def write(self, *chunks: Chunk) -> None:
        """Whole records. Dropped, and counted, where more than QUEUE_LIMIT bytes wait already."""
        size = sum(len(c) for c in chunks)
        if self._queued + size > QUEUE_LIMIT:
            self.dropped += size
            return
        self._queue.append(memoryview(b"".join(chunks)))
        self._queued += size
        self.size += size
        self.flush()

    def flush(self) -> None:
        """Give the pipe what it takes. Raises BrokenPipeError when the reader has gone."""
        while self._queue:
            try:
                done = os.write(self.fd, self._queue[0])
            except BlockingIOError:
                return
            self._queued -= done
            if done < len(self._queue[0]):
                self._queue[0] = self._queue[0][done:]
            else:
                self._queue.popleft()

    @property
    def waiting(self) -> bool:
        """Whether something waits for room in the pipe."""
        return bool(self._queue)

    def finish(self, features: Mapping[Feature, bytes]) -> None:
        """May be called more than once: a stream tells its features at any time."""
        self._encoder.finish(features)
        self._take_encoded()

    def hand_over(self) -> None:
        """At the end: wait for the reader as long as it reads at all, then give up the rest."""
        while self._queue and select.select([], [self.fd], [], PATIENCE)[1]:
            self.flush()
        self.dropped += self._queued

    def _take_encoded(self) -> None:
        size = os.lseek(self._spool, 0, os.SEEK_CUR)
        encoded = os.pread(self._spool, size, 0)
        os.lseek(self._spool, 0, os.SEEK_SET)
        self.write(encoded)

    def close(self) -> None:
        os.close(self._spool)
        with contextlib.suppress(OSError):
            os.close(self.fd)


def keep_old(path: str) -> None:
    """Rename an existing regular file to `.old`. Raises FileError."""
    here = Path(path)
    try:
        if here.is_file() and here.stat().st_size:
            here.replace(f"{path}.old")
    except OSError as error:
        raise FileError(path, f"cannot be renamed to .old: {error.strerror}") from None
