"""The feature sections that tell on which machine, and how, a recording was made."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from kvmperf_magic import __version__
from kvmperf_magic.perfdata import features
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.features import BuildId, CpuTopology, NumaNode
from kvmperf_magic.perfdata.writer import WrittenEvent
from kvmperf_magic.sampler.sysfs import (
    online_cpus,
    parse_cpu_list,
    pmu_types,
    read_int,
    read_text,
)

_CPUS = Path("/sys/devices/system/cpu")
_NODES = Path("/sys/devices/system/node")


def of_machine() -> dict[Feature, bytes]:
    """Everything that only depends on this machine."""
    uname = os.uname()
    online = online_cpus()
    available = len(parse_cpu_list(read_text(_CPUS / "present") or "0"))
    told = {
        Feature.HOSTNAME: features.encode_string(uname.nodename),
        Feature.OSRELEASE: features.encode_string(uname.release),
        Feature.VERSION: features.encode_string(f"kvmperf_magic {__version__}"),
        Feature.ARCH: features.encode_string(uname.machine),
        Feature.NRCPUS: features.encode_nrcpus(available, len(online)),
        Feature.TOTAL_MEM: features.encode_total_mem(_memory(read_text("/proc/meminfo") or "")[0]),
        Feature.PMU_MAPPINGS: features.encode_pmu_mappings(
            {type: name for name, type in pmu_types().items()}
        ),
        Feature.CPU_TOPOLOGY: features.encode_cpu_topology(_topology(available)),
        Feature.NUMA_TOPOLOGY: features.encode_numa_topology(_numa()),
    }
    cpu = _cpuinfo()
    if "model name" in cpu:
        told[Feature.CPUDESC] = features.encode_string(cpu["model name"])
    if "vendor_id" in cpu:  # tools/perf/arch/x86/util/header.c: vendor, family, model, stepping
        parts = (cpu.get(k, "") for k in ("vendor_id", "cpu family", "model", "stepping"))
        told[Feature.CPUID] = features.encode_string(",".join(parts))
    return told


def of_recording(
    cmdline: list[str],
    events: list[WrittenEvent],
    group_desc: bytes,
    build_ids: list[BuildId],
    ours: dict[str, Any],
) -> dict[Feature, bytes]:
    """What depends on the recording. `ours` is what only this program reads back."""
    return {
        Feature.CMDLINE: features.encode_cmdline(cmdline),
        Feature.EVENT_DESC: features.encode_event_desc([e.desc for e in events]),
        Feature.GROUP_DESC: group_desc,
        Feature.BUILD_ID: features.encode_build_ids(build_ids),
        Feature.KVMPERF: features.encode_kvmperf(ours),
    }


def boot_id() -> str:
    """Tells one boot of a machine from all others."""
    return read_text("/proc/sys/kernel/random/boot_id") or ""


def _cpuinfo() -> dict[str, str]:
    first = (read_text("/proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory(text: str) -> tuple[int, int]:
    """Total and free KiB of a meminfo file."""
    found = [re.search(rf"{name}:\s*(\d+) kB", text) for name in ("MemTotal", "MemFree")]
    total, free = (int(met[1]) if met else 0 for met in found)
    return total, free


def _topology(available: int) -> CpuTopology:
    """write_cpu_topology() of tools/perf/util/header.c: CPUs in order of their number."""

    def lists(*names: str) -> list[str]:
        found: dict[str, None] = {}
        for cpu in range(available):
            texts = (read_text(_CPUS / f"cpu{cpu}/topology/{name}") for name in names)
            found.setdefault(next(filter(None, texts), str(cpu)))
        return list(found)

    def ids(name: str) -> list[int]:
        return [
            max(0, read_int(_CPUS / f"cpu{cpu}/topology/{name}") or 0) for cpu in range(available)
        ]

    return CpuTopology(
        lists("package_cpus_list", "core_siblings_list"),
        lists("core_cpus_list", "thread_siblings_list"),
        ids("core_id"),
        ids("physical_package_id"),
        # in a stream the section is padded, and perf takes padding for a die part cut short
        lists("die_cpus_list", "package_cpus_list", "core_siblings_list"),
        ids("die_id"),
    )


def _numa() -> list[NumaNode]:
    nodes = []
    for node in parse_cpu_list(read_text(_NODES / "online") or ""):
        folder = _NODES / f"node{node}"
        total, free = _memory(read_text(folder / "meminfo") or "")
        nodes.append(NumaNode(node, total, free, read_text(folder / "cpulist") or ""))
    return nodes
