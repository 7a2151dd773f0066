"""The feature sections that few ask for, against what perf prints of them, and byte by byte."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kvmperf_magic.perfdata import details, simpleperf
from kvmperf_magic.perfdata.abi import EventType, Feature, PerfEventAttr
from kvmperf_magic.perfdata.attr import Attr, event_name
from kvmperf_magic.perfdata.features import decode, encode_string
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.recording import open_recording

ZSTD = "KDAB__perfparser__vector_static_gcc_perf.data.zstd"
HYBRID = "KDAB__perfparser__cpp-inlining_cpp-inlining.perf.data"
SIMPLEPERF = "GrapheneOS__platform_system_extras__"


@pytest.mark.perf
@pytest.mark.fixtures
@pytest.mark.parametrize("name", [ZSTD, "KDAB__hotspot__cpp-recursion_perf.data"])
def test_published_sections_are_what_perf_prints(
    name: str, fixtures: Path, perf: Callable[..., str]
) -> None:
    path = fixtures / "recordings" / name
    told = perf("report", "--header-only", "-I", "-i", path, check=False)
    header = read(path).header
    caches = re.findall(r"^#  L(\d) (\S+) +(\S+) \[(\S+)\]", told, re.MULTILINE)
    assert header.caches is not None
    assert [(str(c.level), c.type, c.size, c.cpus) for c in header.caches] == caches
    assert len(caches) > 3
    if blocks := re.search(r"# memory nodes \(nr \d+, block size 0x([0-9a-f]+)\)", told):
        assert header.mem_topology is not None
        assert header.mem_topology.block_size == int(blocks[1], 16)
    if caps := re.search(r"# (?:cpu )?pmu capabilities: (.*)", told):
        expected = dict(part.split("=") for part in caps[1].split(", "))
        assert header.pmu_caps == {"cpu": expected}
    if compressed := re.search(r"# compressed : Zstd, level = (\d+), ratio = (\d+)", told):
        assert header.compression is not None
        assert (header.compression.level, header.compression.ratio) == (
            int(compressed[1]),
            int(compressed[2]),
        )
    assert name != ZSTD or (blocks and caps and compressed)


@pytest.mark.perf
@pytest.mark.root
def test_sections_of_a_recording_made_here(tmp_path: Path, perf: Callable[..., str]) -> None:
    path = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "-o", path, "-e", "mem:0x1000:w,cpu-clock:u", "--", "true"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    told = perf("report", "--header-only", "-I", "-i", path)
    rec = open_recording(path)
    nodes = re.findall(r"^#  *(\d+) \[[^]]+\]: *(\S+)", told, re.MULTILINE)
    topology = rec.header.mem_topology
    assert topology is not None
    assert [str(node.node) for node in topology.nodes] == [node for node, _ in nodes]
    for node, (_, ranges) in zip(topology.nodes, nodes, strict=True):
        listed: list[int] = []
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            listed += range(int(first), int(last or first) + 1)
        assert node.blocks == listed
    assert rec.header.nrcpus == rec.header.nrcpus_online
    assert "hostname" in rec.header._repr_html_()
    # the name that perf makes up is the one it wrote down
    event = read(path).events[0]
    assert event_name(event.attr) == event.name == "mem:0x1000:w"


@pytest.mark.fixtures
def test_pmus_of_cores_that_differ(fixtures: Path) -> None:
    header = read(fixtures / "recordings" / HYBRID).header
    assert header.core_pmus is not None
    assert set(header.core_pmus) == {"cpu_atom", "cpu_core"}
    assert header.pmu_caps is not None
    assert {"cpu_atom", "cpu_core"} <= set(header.pmu_caps)
    assert "branches" in header.pmu_caps["cpu_core"]


@pytest.mark.fixtures
def test_simpleperf_tells_names_and_itself(fixtures: Path) -> None:
    file = read(fixtures / "recordings" / f"{SIMPLEPERF}perf_with_trace_offcpu.data")
    assert [event.name for event in file.events] == ["cycles:HG", "sched:sched_switch"]
    assert file.header.simpleperf is not None
    assert file.header.simpleperf["trace_offcpu"] == "true"
    file = read(fixtures / "recordings" / f"{SIMPLEPERF}perf_etm.data")
    assert [event.name for event in file.events] == ["cs-etm"]
    assert file.header.os_release == "4.19.205-g248f514543f5-ab7734026"
    assert [e.size for e in file.features[Feature.AUXTRACE]] == [0x30]
    files = file.features.get(simpleperf.FILE2) or file.features.get(simpleperf.FILE, [])
    assert all(one.path for one in files)
    old = read(fixtures / "recordings" / f"{SIMPLEPERF}perf_no_unwind.data")
    kernel = old.features[simpleperf.FILE][0]
    assert kernel.path == "[kernel.kallsyms]"
    assert kernel.symbols[0][1:] == (0x4C, kernel.symbols[0][2])
    assert kernel.symbols[0][2].startswith("__sys_trac")
    unwound = read(fixtures / "recordings" / f"{SIMPLEPERF}debug_unwind_small_map_range.data")
    parts = unwound.features[simpleperf.DEBUG_UNWIND]
    whole = unwound.features[simpleperf.DEBUG_UNWIND_FILE]
    assert sum(part.size for part in parts) == len(whole)


@pytest.mark.fixtures
def test_events_of_a_pmu_have_its_name(fixtures: Path) -> None:
    name = "google__perf_data_converter__perf.data.piped.intel_pt-4.14"
    events = read(fixtures / "recordings" / name).events
    assert events[0].name == "intel_pt/config=0x300e601/"


def test_names_that_perf_makes_up() -> None:
    attr = PerfEventAttr()
    attr.type, attr.config1, attr.bp_type = EventType.BREAKPOINT, 0x1000, 2
    assert event_name(Attr.decode(bytes(attr))) == "mem:0x1000:w:HG"
    attr = PerfEventAttr()
    attr.type, attr.config, attr.flags = EventType.HW_CACHE, 0x10002, 1 << 20
    assert event_name(Attr.decode(bytes(attr))) == "LLC-load-misses"


def test_sections_that_no_recording_here_has() -> None:
    info = struct.pack("<II8sIIQQQIIQ16s", 2, 77, b"\1" * 8, 0, 0, 0, 0, 5000, 0, 0, 0, b"prog")
    programs = struct.pack("<III", 1, len(info), 4) + struct.pack("<Q", 3) + info + b"data"
    (program,) = decode(Feature.BPF_PROG_INFO, programs, {})
    assert (program.id, program.type, program.tag, program.name) == (77, 2, "01" * 8, "prog")
    assert (program.load_time, program.data) == (5000, b"data")
    assert decode(Feature.BPF_BTF, struct.pack("<III", 1, 9, 2) + b"ab", {}) == {9: b"ab"}
    assert decode(Feature.E_MACHINE, struct.pack("<II", 62, 0), {}) == (62, 0)
    assert decode(Feature.CLN_SIZE, struct.pack("<I", 64), {}) == 64
    assert decode(Feature.DIR_FORMAT, struct.pack("<Q", 1), {}) == 1
    assert decode(Feature.STAT, b"", {}) is True
    assert decode(Feature.BRANCH_STACK, b"", {}) is True
    domain = struct.pack("<I", 0) + b"".join(map(encode_string, ("MC", "3", "0-1")))
    section = struct.pack("<IIII", 17, 1, 0, 1) + domain
    domains = decode(Feature.CPU_DOMAIN_INFO, section, {})
    assert domains.domains == {0: [details.SchedDomain(0, "MC", "3", "0-1")]}


@pytest.mark.parametrize("feature", sorted({**details.DECODERS, **simpleperf.DECODERS}))
@pytest.mark.parametrize("size", [1, 4, 7, 16, 40])
def test_counts_are_not_believed(feature: int, size: int) -> None:
    for fill in (b"\xff", b"\1", b"\0"):
        with suppress(ValueError):
            decode(feature, fill * size, {})
