"""The feature sections of a perf.data header: who recorded, on what, with which command.

Each `encode_*` gives the bytes of one section, each `decode_*` reads them back (ValueError where
they are damaged); the same bytes stand in the HEADER_FEATURE records of a stream. Layouts are
those of tools/perf/util/header.c (write_*() and process_*()) and
tools/perf/Documentation/perf.data-file-format.txt. The standard library only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvmperf_magic.perfdata import details, records, simpleperf
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.cursor import Cursor, text

STRING_ALIGN = 64  # NAME_ALIGN of header.c


@dataclass(frozen=True)
class EventDesc:
    """One event of EVENT_DESC: `attr` is its perf_event_attr as bytes."""

    name: str
    attr: bytes
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class BuildId:
    """One entry of the build-id table. `pid` -1 is the host, else the guest's VMM."""

    pid: int
    misc: int
    build_id: str  # lower-case hex
    filename: str


@dataclass(frozen=True)
class CpuTopology:
    """Lists of CPUs ("0-3,8") that share a package, a core, a die; then ids CPU by CPU."""

    packages: list[str]
    cores: list[str]
    core_ids: list[int] = field(default_factory=list)
    package_ids: list[int] = field(default_factory=list)
    dies: list[str] = field(default_factory=list)
    die_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class NumaNode:
    """A node, its memory in KiB, its CPUs as a list."""

    node: int
    memory_total: int
    memory_free: int
    cpus: str


@dataclass(frozen=True)
class ClockData:
    """One instant on both clocks: the wall's and that of the recording's timestamps, in ns."""

    clockid: int
    wall_ns: int
    clock_ns: int


def encode_string(value: str) -> bytes:
    """HOSTNAME, OSRELEASE, VERSION, ARCH, CPUDESC, CPUID: do_write_string()."""
    raw = value.encode("utf-8", "surrogateescape") + b"\0"
    raw += bytes(-len(raw) % STRING_ALIGN)
    return struct.pack("<I", len(raw)) + raw


def decode_string(data: bytes) -> str:
    return Cursor(data).string()


def _encode_strings(values: Sequence[str]) -> bytes:
    return struct.pack("<I", len(values)) + b"".join(map(encode_string, values))


def encode_nrcpus(available: int, online: int) -> bytes:
    """NRCPUS."""
    return struct.pack("<II", available, online)


def decode_nrcpus(data: bytes) -> tuple[int, int]:
    """(available, online)"""
    cursor = Cursor(data)
    return cursor.u32(), cursor.u32()


def encode_total_mem(kib: int) -> bytes:
    """TOTAL_MEM, in KiB."""
    return struct.pack("<Q", kib)


def decode_total_mem(data: bytes) -> int:
    return Cursor(data).u64()


def encode_cmdline(arguments: Sequence[str]) -> bytes:
    """CMDLINE: the arguments, the program first."""
    return _encode_strings(arguments)


def decode_cmdline(data: bytes) -> list[str]:
    return Cursor(data).strings()


def encode_event_desc(events: Sequence[EventDesc]) -> bytes:
    """EVENT_DESC; all attrs must have one size."""
    size = len(events[0].attr) if events else 0
    parts = [struct.pack("<II", len(events), size)]
    for event in events:
        if len(event.attr) != size:
            raise ValueError(f"attrs of {size} and {len(event.attr)} bytes in one section")
        parts.append(event.attr + struct.pack("<I", len(event.ids)) + encode_string(event.name))
        parts.append(struct.pack(f"<{len(event.ids)}Q", *event.ids))
    return b"".join(parts)


def decode_event_desc(data: bytes) -> list[EventDesc]:
    cursor = Cursor(data)
    count, size = cursor.u32(), cursor.u32()
    events = []
    for _ in range(count):
        attr = cursor.take(size)
        ids = cursor.u32()
        name = cursor.string()
        events.append(EventDesc(name, attr, struct.unpack(f"<{ids}Q", cursor.take(8 * ids))))
    return events


def encode_cpu_topology(topology: CpuTopology) -> bytes:
    """CPU_TOPOLOGY: write_cpu_topology(); the die part only where there are dies."""
    parts = [_encode_strings(topology.packages), _encode_strings(topology.cores)]
    for core, package in zip(topology.core_ids, topology.package_ids, strict=True):
        parts.append(struct.pack("<II", core, package))
    if topology.dies:
        parts.append(_encode_strings(topology.dies))
        parts += [struct.pack("<I", die) for die in topology.die_ids]
    return b"".join(parts)


def decode_cpu_topology(data: bytes, available: int) -> CpuTopology:
    """`available`: the number of CPUs, from NRCPUS. Old files end before the ids or the dies."""
    cursor = Cursor(data)
    packages, cores = cursor.strings(), cursor.strings()
    if cursor.left < 8 * available:
        return CpuTopology(packages, cores)
    ids = struct.unpack(f"<{2 * available}I", cursor.take(8 * available))
    dies = cursor.strings() if cursor.left >= 4 else []
    die_ids = [cursor.u32() for _ in range(available)] if dies else []
    return CpuTopology(packages, cores, list(ids[::2]), list(ids[1::2]), dies, die_ids)


def encode_numa_topology(nodes: Sequence[NumaNode]) -> bytes:
    """NUMA_TOPOLOGY."""
    parts = [struct.pack("<I", len(nodes))]
    for n in nodes:
        parts.append(struct.pack("<IQQ", n.node, n.memory_total, n.memory_free))
        parts.append(encode_string(n.cpus))
    return b"".join(parts)


def decode_numa_topology(data: bytes) -> list[NumaNode]:
    cursor = Cursor(data)
    count = cursor.u32()
    return [
        NumaNode(cursor.u32(), cursor.u64(), cursor.u64(), cursor.string()) for _ in range(count)
    ]


def encode_pmu_mappings(pmus: Mapping[int, str]) -> bytes:
    """PMU_MAPPINGS: attr.type -> the name in /sys/bus/event_source/devices."""
    parts = [struct.pack("<I", len(pmus))]
    parts += [struct.pack("<I", kind) + encode_string(name) for kind, name in pmus.items()]
    return b"".join(parts)


def decode_pmu_mappings(data: bytes) -> dict[int, str]:
    cursor = Cursor(data)
    return {cursor.u32(): cursor.string() for _ in range(cursor.u32())}


def encode_group_desc(groups: Sequence[tuple[str, int, int]]) -> bytes:
    """GROUP_DESC: (name, index of the leading event, number of members)."""
    parts = [struct.pack("<I", len(groups))]
    parts += [encode_string(name) + struct.pack("<II", lead, n) for name, lead, n in groups]
    return b"".join(parts)


def decode_group_desc(data: bytes) -> list[tuple[str, int, int]]:
    cursor = Cursor(data)
    return [(cursor.string(), cursor.u32(), cursor.u32()) for _ in range(cursor.u32())]


def encode_sample_time(first: int, last: int) -> bytes:
    """SAMPLE_TIME: the first and the last sample, ns."""
    return struct.pack("<QQ", first, last)


def decode_sample_time(data: bytes) -> tuple[int, int]:
    cursor = Cursor(data)
    return cursor.u64(), cursor.u64()


def encode_clockid(resolution_ns: int) -> bytes:
    """CLOCKID: the resolution of the clock that attr.clockid names, ns."""
    return struct.pack("<Q", resolution_ns)


def decode_clockid(data: bytes) -> int:
    return Cursor(data).u64()


def encode_clock_data(clocks: ClockData) -> bytes:
    """CLOCK_DATA, version 1."""
    return struct.pack("<IIQQ", 1, clocks.clockid, clocks.wall_ns, clocks.clock_ns)


def decode_clock_data(data: bytes) -> ClockData:
    cursor = Cursor(data)
    if (version := cursor.u32()) != 1:
        raise ValueError(f"version {version} of CLOCK_DATA, 1 is known")
    return ClockData(cursor.u32(), cursor.u64(), cursor.u64())


def encode_build_ids(entries: Iterable[BuildId]) -> bytes:
    """BUILD_ID: write_buildid(), one after the other. An empty table is empty bytes."""
    return b"".join(
        records.build_id(bytes.fromhex(e.build_id), e.filename, pid=e.pid, misc=e.misc)
        for e in entries
    )


def decode_build_ids(data: bytes) -> list[BuildId]:
    """The build-id table, as perf_header__read_build_ids() reads it.

    Without PERF_RECORD_MISC_BUILD_ID_SIZE (before perf 5.11) all 20 bytes count.
    """
    entries = []
    at = 0
    while at + 36 <= len(data):
        misc, size, pid, raw, length = struct.unpack_from("<4xHHi20sB", data, at)
        if size < 36 or at + size > len(data):
            raise ValueError(f"an entry of {size} bytes at {at} of {len(data)}")
        if not misc & records.MISC_BUILD_ID_SIZE or length > records.BUILD_ID_BYTES:
            length = records.BUILD_ID_BYTES
        name = text(data[at + 36 : at + size])
        flags = misc & ~records.MISC_BUILD_ID_SIZE
        entries.append(BuildId(pid, flags, raw[:length].hex(), name))
        at += size
    return entries


def encode_kvmperf(value: Mapping[str, Any]) -> bytes:
    """KVMPERF, our own: a JSON object."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode_kvmperf(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.rstrip(b"\0"))
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


_DECODERS: dict[int, Callable[[bytes], Any]] = {
    Feature.BUILD_ID: decode_build_ids,
    Feature.HOSTNAME: decode_string,
    Feature.OSRELEASE: decode_string,
    Feature.VERSION: decode_string,
    Feature.ARCH: decode_string,
    Feature.NRCPUS: decode_nrcpus,
    Feature.CPUDESC: decode_string,
    Feature.CPUID: decode_string,
    Feature.TOTAL_MEM: decode_total_mem,
    Feature.CMDLINE: decode_cmdline,
    Feature.EVENT_DESC: decode_event_desc,
    Feature.NUMA_TOPOLOGY: decode_numa_topology,
    Feature.PMU_MAPPINGS: decode_pmu_mappings,
    Feature.GROUP_DESC: decode_group_desc,
    Feature.SAMPLE_TIME: decode_sample_time,
    Feature.CLOCKID: decode_clockid,
    Feature.CLOCK_DATA: decode_clock_data,
    Feature.KVMPERF: decode_kvmperf,
    **details.DECODERS,
    **simpleperf.DECODERS,
}


def decode(feature: int, data: bytes, known: Mapping[int, Any]) -> Any:
    """The value of a section, or its bytes where this feature is not decoded.

    `known` holds the features decoded before it (CPU_TOPOLOGY needs NRCPUS).
    """
    if feature == Feature.CPU_TOPOLOGY:
        return decode_cpu_topology(data, known.get(Feature.NRCPUS, (0, 0))[0])
    decoder = _DECODERS.get(feature)
    return decoder(data) if decoder else data
