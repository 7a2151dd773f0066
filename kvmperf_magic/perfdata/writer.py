"""Writes perf.data: as a file that stays readable whatever happens, or as a stream.

The layout of the file is that of tools/perf/util/header.c: perf_session__write_header(), of the
stream perf_header__write_pipe(). The standard library only: the recording process imports this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata import records
from kvmperf_magic.perfdata.abi import (
    ATTR_SIZE,
    FILE_HEADER_SIZE,
    FILE_MAGIC,
    PIPE_HEADER_SIZE,
    Feature,
    PerfEventAttr,
)
from kvmperf_magic.perfdata.features import EventDesc

DATA_SIZE_AT = 48  # struct perf_file_header: offset of data.size
IOV_MAX = 1024
# a stream has them as other records
_NOT_AS_FEATURE = (Feature.BUILD_ID, Feature.KVMPERF, Feature.TRACING_DATA)

Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True)
class WrittenEvent:
    """An event of the file: its name, its attr, and the kernel's ids of its counters."""

    name: str
    attr: PerfEventAttr
    ids: Sequence[int] = field(default=())

    @property
    def desc(self) -> EventDesc:
        """As EVENT_DESC tells it."""
        return EventDesc(self.name, bytes(self.attr), tuple(self.ids))


def feature_records(features: Mapping[Feature, bytes]) -> bytes:
    """These features as records, which a stream has in place of sections.

    A file may have them too: what is known when a recording begins is then there even if the
    recorder is killed, for us and for perf. One that is too long for a record is left out, as
    perf does.
    """
    chunks = [
        records.header_feature(feature, body)
        for feature, body in sorted(features.items())
        if feature not in _NOT_AS_FEATURE and 0 < len(body) <= records.MAX_RECORD - 16
    ]
    chunks.append(records.note(features.get(Feature.KVMPERF, b"")))
    # each entry of the build-id table is a record already
    return b"".join([*chunks, features.get(Feature.BUILD_ID, b"")])


def _write_all(fd: int, chunks: Sequence[Chunk]) -> None:
    """os.writev until all is written; OSError as it comes."""
    left = [view for chunk in chunks if (view := memoryview(chunk).cast("B")).nbytes]
    while left:
        done = os.writev(fd, left[:IOV_MAX])
        while left and done >= left[0].nbytes:
            done -= left.pop(0).nbytes
        if left and done:
            left[0] = left[0][done:]


class PerfDataWriter:
    """A perf.data file that perf opens, at any time up to the last `flush()`.

    The header, the attrs and one empty record are written at once when it is made, so that even
    the youngest file is whole. `path` is replaced if it exists. FileError where it cannot be
    written; what had been flushed stays readable, and `finish()` still works.
    """

    def __init__(self, path: str | os.PathLike[str], events: Sequence[WrittenEvent]) -> None:
        self.path = os.fspath(path)
        self._events = list(events)
        ids_size = 8 * sum(len(e.ids) for e in events)
        self._attrs = (FILE_HEADER_SIZE + ids_size, len(events) * (ATTR_SIZE + 16))
        self._data_offset = sum(self._attrs)
        self._data_size = 0
        self._features: Sequence[int] = ()
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self.fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise FileError(
                self.path, f"cannot be written: {error.strerror}", hint="name another output file"
            ) from None
        ids, attrs, at = [], [], FILE_HEADER_SIZE
        for event in events:
            size = 8 * len(event.ids)
            ids.append(struct.pack(f"<{len(event.ids)}Q", *event.ids))
            attrs.append(bytes(event.attr) + struct.pack("<QQ", at, size))
            at += size
        first = records.finished_round()
        self._data_size = len(first)
        self._put(self._header(), *ids, *attrs, first)

    @property
    def data_size(self) -> int:
        """Bytes of records that a reader finds now."""
        return self._data_size

    def write(self, *chunks: Chunk) -> None:
        """Append whole records; readers see them after the next `flush()`.

        Where the disk is full nothing of this call stays in the file, and FileError is raised.
        """
        self._put(*chunks)

    def flush(self) -> None:
        """Make all that was written readable: one 8-byte write into the header."""
        size = os.lseek(self.fd, 0, os.SEEK_CUR) - self._data_offset
        if size != self._data_size:
            os.pwrite(self.fd, struct.pack("<Q", size), DATA_SIZE_AT)
            self._data_size = size

    def finish(self, features: Mapping[Feature, bytes]) -> None:
        """Write the feature sections behind the data and tell them in the header; the last call.

        Empty sections are left out.
        """
        self.flush()
        present = sorted(f for f, body in features.items() if body)
        end = self._data_offset + self._data_size
        at = end + 16 * len(present)
        table = []
        for feature in present:
            table.append(struct.pack("<QQ", at, len(features[feature])))
            at += len(features[feature])
        self._put(*table, *(features[f] for f in present))
        # the header's mask goes last: until then a reader sees the data and no features
        self._features = present
        os.pwrite(self.fd, self._header(), 0)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put(self, *chunks: Chunk) -> None:
        start = os.lseek(self.fd, 0, os.SEEK_CUR)
        try:
            _write_all(self.fd, chunks)
        except OSError as error:
            os.lseek(self.fd, start, os.SEEK_SET)
            os.ftruncate(self.fd, start)
            raise FileError(
                self.path,
                f"cannot be written: {error.strerror}",
                offset=start,
                hint=f"free some space under {Path(self.path).absolute().parent}, "
                "or name another output file; what was recorded so far is kept",
            ) from error

    def _header(self) -> bytes:
        mask = sum(1 << feature for feature in self._features)
        return FILE_MAGIC + struct.pack(
            "<8Q32s",
            FILE_HEADER_SIZE,
            ATTR_SIZE + 16,
            *self._attrs,
            self._data_offset,
            self._data_size,
            0,
            0,
            mask.to_bytes(32, "little"),
        )


class PipeWriter:
    """The same records as a stream on `fd`, which stays the caller's to close.

    `tracing`: the formats of tracepoints among the events, as of the TRACING_DATA section; perf
    wants them before the first sample. A reader that goes away is BrokenPipeError.
    """

    def __init__(self, fd: int, events: Sequence[WrittenEvent], tracing: bytes = b"") -> None:
        self.fd = fd
        names = [records.event_update_name(e.ids[0], e.name) for e in events if e.ids]
        attrs = [records.header_attr(e.attr, e.ids) for e in events]
        header = FILE_MAGIC + struct.pack("<Q", PIPE_HEADER_SIZE)
        formats = [records.tracing_data(tracing)] if tracing else []
        _write_all(fd, [header, *attrs, *names, *formats])

    def write(self, *chunks: Chunk) -> None:
        """Append whole records."""
        _write_all(self.fd, chunks)

    def flush(self) -> None:
        """Nothing is held back in a stream; here so that both writers are used alike."""

    def finish(self, features: Mapping[Feature, bytes]) -> None:
        """Write the features as records. They may be written at any time, also more than once."""
        _write_all(self.fd, [feature_records(features)])
