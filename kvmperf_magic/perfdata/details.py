"""The feature sections that few ask for: caches, memory, PMUs, BPF programs, compression.

Layouts are those of tools/perf/util/header.c, the write_*() and process_*() named below. Each
decoder takes the bytes of a section in little endian; ValueError where they are damaged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.cursor import Cursor, text


@dataclass(frozen=True)
class AuxtraceEntry:
    """An AUXTRACE record: where it begins in the file, and its size with its payload."""

    offset: int
    size: int


@dataclass(frozen=True)
class CacheLevel:
    """A cache and the CPUs that share it. `size` as the kernel spells it: "32K"."""

    level: int
    line_size: int
    sets: int
    ways: int
    type: str
    size: str
    cpus: str


@dataclass(frozen=True)
class MemoryNode:
    """The memory blocks of a node, by number."""

    node: int
    blocks: list[int]


@dataclass(frozen=True)
class MemoryTopology:
    block_size: int  # bytes
    nodes: list[MemoryNode]


@dataclass(frozen=True)
class BpfProgram:
    """`info`: struct bpf_prog_info, `data` what its pointers point to (see `arrays`)."""

    id: int
    type: int
    tag: str
    name: str
    load_time: int  # ns since boot
    arrays: int
    info: bytes
    data: bytes


@dataclass(frozen=True)
class Compression:
    """How records were compressed: `type` 1 is zstd, `ratio` in whole times."""

    version: int
    type: int
    level: int
    ratio: int
    mmap_len: int  # bytes: no chunk is larger when decompressed


@dataclass(frozen=True)
class SchedDomain:
    """A scheduling domain of a CPU; no name before version 17 of /proc/schedstat."""

    domain: int
    name: str
    cpumask: str
    cpus: str


@dataclass(frozen=True)
class CpuDomains:
    schedstat_version: int
    max_domains: int
    domains: dict[int, list[SchedDomain]]  # by CPU


def decode_nothing(data: bytes) -> bool:
    """BRANCH_STACK, STAT: the bit of the mask says all."""
    return True


def decode_auxtrace(data: bytes) -> list[AuxtraceEntry]:
    """AUXTRACE: struct auxtrace_index_entry, auxtrace_index__process()."""
    whole = len(data) // 16 * 16
    return [AuxtraceEntry(*entry) for entry in struct.iter_unpack("<QQ", data[:whole])]


def decode_cache(data: bytes) -> list[CacheLevel]:
    """CACHE: process_cache(). Version 1 is the only one."""
    cursor = Cursor(data)
    if (version := cursor.u32()) != 1:
        raise ValueError(f"version {version} of CACHE, 1 is known")
    levels = []
    for _ in range(cursor.u32()):
        level, line_size, sets, ways = struct.unpack("<4I", cursor.take(16))
        kind, size, cpus = cursor.string(), cursor.string(), cursor.string()
        levels.append(CacheLevel(level, line_size, sets, ways, kind, size, cpus))
    return levels


def decode_mem_topology(data: bytes) -> MemoryTopology:
    """MEM_TOPOLOGY: process_mem_topology(). Version 1 is the only one."""
    cursor = Cursor(data)
    if (version := cursor.u64()) != 1:
        raise ValueError(f"version {version} of MEM_TOPOLOGY, 1 is known")
    block_size, count = cursor.u64(), cursor.u64()
    nodes = []
    for _ in range(count):
        node, _ = cursor.u64(), cursor.u64()
        bits = cursor.u64()
        mask = cursor.take(-(-bits // 64) * 8)
        blocks = [8 * i + bit for i, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1]
        nodes.append(MemoryNode(node, blocks))
    return MemoryTopology(block_size, nodes)


def decode_u64(data: bytes) -> int:
    """DIR_FORMAT: the version of the directory's layout."""
    return Cursor(data).u64()


def decode_u32(data: bytes) -> int:
    """CLN_SIZE: bytes of a cache line."""
    return Cursor(data).u32()


def decode_e_machine(data: bytes) -> tuple[int, int]:
    """E_MACHINE: the ELF header's e_machine and e_flags of what was recorded."""
    cursor = Cursor(data)
    return cursor.u32(), cursor.u32()


def decode_bpf_prog_info(data: bytes) -> list[BpfProgram]:
    """BPF_PROG_INFO: struct perf_bpil, process_bpf_prog_info()."""
    cursor = Cursor(data)
    programs = []
    for _ in range(cursor.u32()):
        info_size, data_size, arrays = cursor.u32(), cursor.u32(), cursor.u64()
        info, pointed = cursor.take(info_size), cursor.take(data_size)
        # struct bpf_prog_info, include/uapi/linux/bpf.h; older ones are shorter
        kind, id, tag, load_time, name = struct.unpack_from(
            "<II8s24xQ16x16s", info.ljust(80, b"\0")
        )
        programs.append(
            BpfProgram(id, kind, tag.hex(), text(name), load_time, arrays, info, pointed)
        )
    return programs


def decode_bpf_btf(data: bytes) -> dict[int, bytes]:
    """BPF_BTF: type information by id, process_bpf_btf()."""
    cursor = Cursor(data)
    found = {}
    for _ in range(cursor.u32()):
        id, size = cursor.u32(), cursor.u32()
        found[id] = cursor.take(size)
    return found


def decode_compressed(data: bytes) -> Compression:
    """COMPRESSED: process_compressed()."""
    return Compression(*struct.unpack("<5I", Cursor(data).take(20)))


def decode_caps(data: bytes) -> dict[str, str]:
    """CPU_PMU_CAPS: process_cpu_pmu_caps()."""
    return _caps(Cursor(data))


def decode_pmu_caps(data: bytes) -> dict[str, dict[str, str]]:
    """PMU_CAPS, by PMU: process_pmu_caps()."""
    cursor = Cursor(data)
    found = {}
    for _ in range(cursor.u32()):
        caps = _caps(cursor)
        found[cursor.string()] = caps
    return found


def _caps(cursor: Cursor) -> dict[str, str]:
    return {cursor.string(): cursor.string() for _ in range(cursor.u32())}


def decode_hybrid_topology(data: bytes) -> dict[str, str]:
    """HYBRID_TOPOLOGY: the CPUs of each core PMU, process_hybrid_topology()."""
    return _caps(Cursor(data))


def decode_cpu_domain_info(data: bytes) -> CpuDomains:
    """CPU_DOMAIN_INFO: write_cpu_domain_info(). It does not count its CPUs: up to its end."""
    cursor = Cursor(data)
    version, most = cursor.u32(), cursor.u32()
    domains: dict[int, list[SchedDomain]] = {}
    while cursor.left >= 8:
        cpu, count = cursor.u32(), cursor.u32()
        domains[cpu] = [
            SchedDomain(
                cursor.u32(),
                cursor.string() if version >= 17 else "",
                cursor.string(),
                cursor.string(),
            )
            for _ in range(count)
        ]
    return CpuDomains(version, most, domains)


DECODERS: dict[int, Any] = {
    Feature.BRANCH_STACK: decode_nothing,
    Feature.AUXTRACE: decode_auxtrace,
    Feature.STAT: decode_nothing,
    Feature.CACHE: decode_cache,
    Feature.MEM_TOPOLOGY: decode_mem_topology,
    Feature.DIR_FORMAT: decode_u64,
    Feature.BPF_PROG_INFO: decode_bpf_prog_info,
    Feature.BPF_BTF: decode_bpf_btf,
    Feature.COMPRESSED: decode_compressed,
    Feature.CPU_PMU_CAPS: decode_caps,
    Feature.HYBRID_TOPOLOGY: decode_hybrid_topology,
    Feature.PMU_CAPS: decode_pmu_caps,
    Feature.CPU_DOMAIN_INFO: decode_cpu_domain_info,
    Feature.E_MACHINE: decode_e_machine,
    Feature.CLN_SIZE: decode_u32,
}
