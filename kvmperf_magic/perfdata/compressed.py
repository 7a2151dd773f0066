"""Records that were compressed while recording (`perf record -z`).

COMPRESSED {header; bytes} and COMPRESSED2 {header; u64 data_size; bytes, padded} hold pieces of
one zstd stream; what it holds are records again, cut anywhere. tools/perf/util/tool.c:
perf_session__process_compressed_event() decodes the same. Needs the extra [zstd].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import RecordType
from kvmperf_magic.perfdata.walk import ByteOrder, Walk, header_fields, walk

TYPES = (int(RecordType.COMPRESSED), int(RecordType.COMPRESSED2))
# zstd makes 128 KiB of every 4 bytes at most: a slice of the input bounds what a step can make
_SLICE = 1024
# what a stream may grow to: in all, and one record as a multiple of the recorder's buffer
_BASE, _RATIO, _BUFFERS = 64 << 20, 1024, 4


class _DamagedError(Exception):
    """What is wrong with compressed data; what came before it is kept."""


@dataclass
class Decompressor:
    """One zstd stream, and the record that its last piece left unfinished.

    `damage` has (offset, message) of what could not be read. `buffer` is the size of the
    recorder's ring buffer in bytes, where the recording tells it: no piece holds more.
    """

    path: str | Path
    order: ByteOrder = "little"
    buffer: int | None = None
    damage: list[tuple[int, str]] = field(default_factory=list)
    _stream: Any = None
    _left: bytes = b""
    _read: int = 0
    _made: int = 0
    _broken: bool = False

    def expand(self, walked: Walk) -> Walk:
        """The same records, those that were compressed behind the one that they came in.

        FileError where zstandard is not installed.
        """
        rows = walked.of_type(*TYPES)
        if not len(rows):
            return walked
        _, _, sizes = header_fields(walked.words[walked.position[rows]], self.order)
        data, ends = bytearray(self._left), list[int]()
        for row, size in zip(rows.tolist(), sizes.tolist(), strict=True):
            if not self._broken:
                try:
                    self._decompress(_payload(walked, row, size, self.order), data)
                except _DamagedError as error:
                    self._stop(walked, row, str(error))
            ends.append(len(data))
        inner = walk(data, order=self.order)
        self._left = bytes(data[inner.end :])
        if inner.problem and not inner.incomplete and not self._broken:
            at = int(np.searchsorted(ends, inner.end, "right"))
            row = int(rows[min(at, len(rows) - 1)])
            self._stop(walked, row, f"decompressed: {inner.problem}")
        _, _, sizes = header_fields(inner.words[inner.position], self.order)
        came_in = rows[np.searchsorted(ends, np.cumsum(sizes), "left")]
        return _merged(walked, rows, inner, came_in)

    def finish(self, offset: int) -> None:
        """The recording ends here: note what is left unfinished."""
        if self._left and not self._broken:
            self.damage.append((offset, "the compressed data ends within a record"))

    def _stop(self, walked: Walk, row: int, message: str) -> None:
        self._broken = True
        self._stream = None
        self.damage.append((walked.offset_of(row), message))

    def _decompress(self, payload: memoryview, into: bytearray) -> None:
        before = self._made
        self._read += len(payload)
        while len(payload):
            part, payload = payload[:_SLICE], payload[_SLICE:]
            if self._stream is None:
                self._stream = _zstandard(self.path).ZstdDecompressor().decompressobj()
            try:
                made = self._stream.decompress(part)
            except _zstandard(self.path).ZstdError as error:
                raise _DamagedError(f"the compressed data is damaged: {error}") from None
            self._made += len(made)
            into += made
            if self._stream.eof:  # a frame ended; another one may begin
                left, self._stream = self._stream.unused_data, None
                payload = memoryview(left + bytes(payload)) if left else payload
            self._check(self._made - before)

    def _check(self, made: int) -> None:
        """_DamagedError for more than a recorder can have compressed."""
        if self.buffer and made > _BUFFERS * self.buffer:
            raise _DamagedError(
                f"a compressed record holds over {made} bytes, the recorder's buffer {self.buffer}"
            )
        if self._made > _BASE + _RATIO * self._read:
            raise _DamagedError(f"{self._read} compressed bytes hold over {self._made}")


def _zstandard(path: str | Path) -> Any:
    try:
        import zstandard
    except ImportError:
        raise FileError(
            path,
            "holds compressed records (perf record -z), and zstandard is not installed",
            hint="pip install 'kvmperf_magic[zstd]'",
        ) from None
    return zstandard


def _payload(walked: Walk, row: int, size: int, order: ByteOrder) -> memoryview:
    start, words = int(walked.position[row]), int(walked.size[row])
    raw = walked.words[start : start + words].data.cast("B")
    if walked.type[row] == RecordType.COMPRESSED:
        return raw[8:size]
    told = int.from_bytes(raw[8:16], order)
    if 16 + told > size:
        raise _DamagedError(f"a compressed record of {size} bytes says that it holds {told}")
    return raw[16 : 16 + told]


def _merged(outer: Walk, rows: NDArray[np.intp], inner: Walk, came_in: NDArray[np.intp]) -> Walk:
    """Both, in the order of the file. Of the compressed records only the headers stay."""
    size = outer.size.copy()
    size[rows] = 1
    words, position = gathered(outer.words, outer.position, size)
    order = np.argsort(np.concatenate([np.arange(len(size)), came_in]), kind="stable")
    return replace(
        outer,
        words=np.concatenate([words, inner.words]),
        position=np.concatenate([position, inner.position + len(words)])[order],
        size=np.concatenate([size, inner.size])[order],
        type=np.concatenate([outer.type, inner.type])[order],
        misc=np.concatenate([outer.misc, inner.misc])[order],
        offset=None,
    )


def gathered(
    words: NDArray[np.uint64], position: NDArray[np.int64], size: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """These runs of words copied together, and where each stands then."""
    start = np.cumsum(size) - size
    source = np.repeat(position - start, size) + np.arange(int(size.sum()))
    return words[source], start


def joined(walks: Sequence[Walk]) -> Walk:
    """Several (at least one) as one, the first one's records first."""
    if len(walks) == 1:
        return walks[0]
    shift = np.cumsum([0, *(len(one.words) for one in walks)])
    return replace(
        walks[0],
        words=np.concatenate([one.words for one in walks]),
        position=np.concatenate([w.position + s for w, s in zip(walks, shift[:-1], strict=True)]),
        size=np.concatenate([one.size for one in walks]),
        type=np.concatenate([one.type for one in walks]),
        misc=np.concatenate([one.misc for one in walks]),
        offset=None,
        auxtrace=(sum(one.auxtrace[0] for one in walks), sum(one.auxtrace[1] for one in walks)),
    )
