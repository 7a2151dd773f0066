"""The fixed beginning of a perf.data file, and what its features say about the recording.

tools/perf/util/header.h: struct perf_file_header (104 bytes) and perf_pipe_file_header (16).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata import simpleperf
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, FILE_MAGIC, PIPE_HEADER_SIZE, Feature
from kvmperf_magic.perfdata.details import BpfProgram, CacheLevel, Compression, MemoryTopology
from kvmperf_magic.perfdata.features import ClockData, CpuTopology, NumaNode
from kvmperf_magic.perfdata.walk import ByteOrder
from kvmperf_magic.table import Categorical, Table

_V1_MAGIC = b"PERFFILE"  # perf before 3.2
_OLD_HEADER_SIZE = 72  # without the mask of features


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
    def decode(cls, raw: bytes, order: ByteOrder) -> Self:
        """Of 104 bytes, or 72: before features were, the header ended there."""
        form = struct.Struct("<QQ" if order == "little" else ">QQ")
        size, attr_size = form.unpack_from(raw, 8)
        attrs, data = (Section(*form.unpack_from(raw, at)) for at in (24, 40))
        mask = raw[72:104] if size >= FILE_HEADER_SIZE else b""
        return cls(attr_size, attrs, data, _feature_bits(mask, order))


def _feature_bits(mask: bytes, order: ByteOrder) -> list[int]:
    """The mask is an array of `unsigned long`, which on a 32-bit machine has 4 bytes; which it
    was shows in a feature that every recording has: perf_file_header__read()."""
    bits: list[int] = []
    for width in (8, 4):
        longs = (int.from_bytes(mask[i : i + width], order) for i in range(0, len(mask), width))
        value = sum(long << 8 * width * i for i, long in enumerate(longs))
        found = [bit for bit in range(256) if value >> bit & 1]
        if not bits or Feature.HOSTNAME in found:
            bits = found
        if Feature.HOSTNAME in bits:
            break
    return bits


@dataclass(frozen=True)
class Kind:
    """What sort of perf.data it is."""

    pipe: bool  # a stream, not a file with sections
    order: ByteOrder


def kind_of(path: str | Path, head: bytes) -> Kind:
    """Which kind of perf.data begins with `head`; FileError if it is none."""
    if not head:
        raise FileError(path, "is empty", hint="record again; was the disk full?")
    magics = (FILE_MAGIC, FILE_MAGIC[::-1], _V1_MAGIC)
    if not any(magic.startswith(head[:8]) for magic in magics):
        raise FileError(
            path,
            f"is no perf.data: it begins with {head[:8]!r}, not {FILE_MAGIC!r}",
            hint="name a file that perf record or kvmperf has written",
        )
    order: ByteOrder = "big" if head[:8] == FILE_MAGIC[::-1] else "little"
    if head[:8] == _V1_MAGIC and int.from_bytes(head[8:16], "big") < 2**32:
        order = "big"  # that magic is a string; sizes are small numbers
    size = int.from_bytes(head[8:16], order) if len(head) >= PIPE_HEADER_SIZE else 0
    if size == PIPE_HEADER_SIZE:
        return Kind(True, order)
    if size not in (_OLD_HEADER_SIZE, FILE_HEADER_SIZE) or len(head) < size:
        known = f"{FILE_HEADER_SIZE} or {PIPE_HEADER_SIZE} bytes are known"
        what = f"has a header of {size} bytes, {known}"
        if size in (0, _OLD_HEADER_SIZE, FILE_HEADER_SIZE):
            what = f"is cut off in its header, after {len(head)} bytes"
        raise FileError(path, what, hint="copy the file again, whole")
    return Kind(False, order)


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
    cpu_topology: CpuTopology | None = None
    numa_topology: list[NumaNode] | None = None
    pmus: dict[int, str] | None = None  # names by attr.type
    pmu_caps: dict[str, dict[str, str]] | None = None  # by PMU
    caches: list[CacheLevel] | None = None
    mem_topology: MemoryTopology | None = None
    core_pmus: dict[str, str] | None = None  # the CPUs of each, where cores differ
    compression: Compression | None = None
    bpf_programs: list[BpfProgram] | None = None
    simpleperf: dict[str, str] | None = None  # what Android's recorder tells about itself

    @property
    def nrcpus(self) -> int | None:
        """CPUs that were online."""
        return self.nrcpus_online

    def table(self) -> Table:
        """What is told in a line: what, value."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = {
            name: " ".join(value) if name == "cmdline" else str(value)
            for name, value in told.items()
            if value is not None and (name == "cmdline" or isinstance(value, str | int | tuple))
        }
        names, values = list(shown), list(shown.values())
        codes = np.arange(len(names), dtype=np.int32)
        return Table({"what": Categorical(codes, names), "value": Categorical(codes, values)})

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @classmethod
    def of(cls, features: Mapping[int, Any], pipe: bool) -> Self:
        """From the decoded features."""
        available, online = features.get(Feature.NRCPUS, (None, None))
        meta = features.get(simpleperf.META_INFO)
        caps = features.get(Feature.PMU_CAPS, {})
        if Feature.CPU_PMU_CAPS in features:
            caps = {"cpu": features[Feature.CPU_PMU_CAPS], **caps}
        return cls(
            pipe=pipe,
            hostname=features.get(Feature.HOSTNAME),
            os_release=features.get(Feature.OSRELEASE, (meta or {}).get("kernel_version")),
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
            cpu_topology=features.get(Feature.CPU_TOPOLOGY),
            numa_topology=features.get(Feature.NUMA_TOPOLOGY),
            pmus=features.get(Feature.PMU_MAPPINGS),
            pmu_caps=caps or None,
            caches=features.get(Feature.CACHE),
            mem_topology=features.get(Feature.MEM_TOPOLOGY),
            core_pmus=features.get(Feature.HYBRID_TOPOLOGY),
            compression=features.get(Feature.COMPRESSED),
            bpf_programs=features.get(Feature.BPF_PROG_INFO),
            simpleperf=meta,
        )
