"""The fixed beginning of a perf.data file, and what its features say about the recording.

tools/perf/util/header.h: struct perf_file_header (104 bytes) and perf_pipe_file_header (16).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, FILE_MAGIC, PIPE_HEADER_SIZE, Feature
from kvmperf_magic.perfdata.features import ClockData

_V1_MAGIC = b"PERFFILE"


@dataclass(frozen=True)
class Section:
    """A part of the file, in bytes."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class FileHeader:
    """struct perf_file_header. `features`: the bits of its mask, in order."""

    attr_size: int  # of an entry: the attr and a Section of its ids
    attrs: Section
    data: Section
    features: list[int]

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        (attr_size,) = struct.unpack_from("<Q", raw, 16)
        attrs, data, _ = (Section(*struct.unpack_from("<QQ", raw, at)) for at in (24, 40, 56))
        mask = int.from_bytes(raw[72:104], "little")
        return cls(attr_size, attrs, data, [bit for bit in range(256) if mask >> bit & 1])


def is_pipe(path: str | Path, head: bytes) -> bool:
    """Which of the two kinds of perf.data begins with `head`; FileError if it is neither."""
    if not head:
        raise FileError(path, "is empty", hint="record again; was the disk full?")
    if head[:8] == FILE_MAGIC[::-1]:
        raise FileError(
            path,
            "was recorded on a big-endian machine, which is not read yet",
            hint="read it with perf on such a machine",
        )
    if head[:8] == _V1_MAGIC:
        raise FileError(
            path,
            "is a perf.data of version 1 (perf before 3.2), which is not read yet",
            hint="record it again with a later perf",
        )
    if not FILE_MAGIC.startswith(head[:8]):
        raise FileError(
            path,
            f"is no perf.data: it begins with {head[:8]!r}, not {FILE_MAGIC!r}",
            hint="name a file that perf record or kvmperf has written",
        )
    size = int.from_bytes(head[8:16], "little") if len(head) >= PIPE_HEADER_SIZE else 0
    if size == PIPE_HEADER_SIZE:
        return True
    if size != FILE_HEADER_SIZE or len(head) < FILE_HEADER_SIZE:
        known = f"{FILE_HEADER_SIZE} or {PIPE_HEADER_SIZE} bytes are known"
        what = f"has a header of {size} bytes, {known}"
        if size in (0, FILE_HEADER_SIZE):
            what = f"is cut off in its header, after {len(head)} bytes"
        raise FileError(path, what, hint="copy the file again, whole")
    return False


@dataclass(frozen=True)
class Header:
    """Who recorded, where, with which command; None where the file does not tell."""

    pipe: bool  # a stream, not a file with sections
    hostname: str | None = None
    os_release: str | None = None
    perf_version: str | None = None
    arch: str | None = None
    nrcpus_available: int | None = None
    nrcpus_online: int | None = None
    cpudesc: str | None = None
    cpuid: str | None = None
    total_mem: int | None = None  # KiB
    cmdline: list[str] | None = None
    sample_time: tuple[int, int] | None = None  # ns: the first and the last sample
    clock_data: ClockData | None = None  # pairs the timestamps with the wall clock

    @classmethod
    def of(cls, features: Mapping[int, Any], pipe: bool) -> Self:
        """From the decoded features."""
        available, online = features.get(Feature.NRCPUS, (None, None))
        return cls(
            pipe=pipe,
            hostname=features.get(Feature.HOSTNAME),
            os_release=features.get(Feature.OSRELEASE),
            perf_version=features.get(Feature.VERSION),
            arch=features.get(Feature.ARCH),
            nrcpus_available=available,
            nrcpus_online=online,
            cpudesc=features.get(Feature.CPUDESC),
            cpuid=features.get(Feature.CPUID),
            total_mem=features.get(Feature.TOTAL_MEM),
            cmdline=features.get(Feature.CMDLINE),
            sample_time=features.get(Feature.SAMPLE_TIME),
            clock_data=features.get(Feature.CLOCK_DATA),
        )
