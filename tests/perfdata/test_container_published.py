"""Every published recording opens; what is cut off of them is told, and what is left is read."""

from __future__ import annotations

import csv
import resource
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from effort import cost

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.reader import read

pytestmark = pytest.mark.fixtures

SIMPLEPERF = "GrapheneOS__platform_system_extras__"
# neither perf reads these: it gives 0, and these are the SAMPLE records in their bytes
FROM_THE_BYTES = {
    f"{SIMPLEPERF}perf_with_trace_offcpu.data": 2369,
    f"{SIMPLEPERF}perf_with_trace_offcpu_v2.data": 304,
    f"{SIMPLEPERF}perf_with_tracepoint_event.data": 45,
    f"{SIMPLEPERF}perf_with_tracepoint_event_dynamic_field.data": 10,
    f"{SIMPLEPERF}debug_unwind_small_map_range.data": 1,
}
# a sample with values of counters is one sample a counter: what perf script prints of them
VALUES = ("PerfFormatLost", "perf_with_add_counter", "busy.0-3.8", "systemwide.0-3.8")


def rows(fixtures: Path) -> list[dict[str, str]]:
    with (fixtures / "INDEX.tsv").open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def in_the_bytes(data: bytes) -> int:
    """SAMPLE records in a file of simpleperf's, whose own types have a size of 32 bits."""
    at, size = struct.unpack_from("<QQ", data, 40)
    end, found = at + size, 0
    while at < end:
        kind, misc, size = struct.unpack_from("<IHH", data, at)
        found += kind == 9
        at += size + (misc << 16 if kind >= 32768 else 0)
    return found


def test_all_of_them(fixtures: Path) -> None:
    wrong = {}
    seen = rows(fixtures)
    for row in seen:
        name = row["file"]
        path = fixtures / "recordings" / name
        file = read(path)
        samples = file.counts.get(9, 0)
        if name in FROM_THE_BYTES:
            wanted = in_the_bytes(path.read_bytes())
            assert wanted == FROM_THE_BYTES[name]
        else:
            # 7.2 where 6.1 reads none: attrs over 128 bytes, COMPRESSED2, simpleperf's callchains
            wanted = int(row["samples_by_perf6.1"]) or int(row["samples_by_perf7.2"])
        if samples != wanted:
            wrong[name] = samples, wanted
        assert len(file.samples) >= samples or any(v in name for v in VALUES), name
        assert np.all(np.diff(file.samples.time.astype(np.int64)) >= 0), name
        assert len(file.events) > 0, name
    assert wrong == {}
    assert len(seen) == 80


def test_version_1(fixtures: Path) -> None:
    file = read(fixtures / "recordings" / "KDAB__hotspot__perf.data.true.v1")
    assert not file.header.pipe
    assert [event.name for event in file.events] == ["cpu-clock:HG"]
    assert file.events[0].ids.tolist() == [9]
    assert file.damage == []
    assert file.counts.get(9, 0) == 0
    assert len(file.sideband.mmap) > 50
    assert any(name.endswith("/true") for name in file.sideband.mmap["filename"])


def test_traces_are_stepped_over(fixtures: Path) -> None:
    file = read(
        fixtures / "recordings" / "google__perf_data_converter__perf.data.piped.intel_pt-4.14"
    )
    assert (file.auxtrace.count, file.auxtrace.bytes) == (2, 144592)
    assert file.counts[71] == 2
    etm = read(fixtures / "recordings" / f"{SIMPLEPERF}perf_kernel.data")
    assert (etm.auxtrace.count, etm.auxtrace.bytes) == (3, 39200)


def test_tracing_data_is_found(fixtures: Path) -> None:
    """In a section, behind its record, within simpleperf's, in pieces of it."""
    sizes = {
        "KDAB__perfparser__probe.data.stream": 1000,
        "KDAB__perfparser__probe.data.file": 1000,
        f"{SIMPLEPERF}perf_with_tracepoint_event.data": 1000,
        f"{SIMPLEPERF}perf_with_tracepoint_event_dynamic_field.data": 1000,
        f"{SIMPLEPERF}perf_with_big_trace_data.data": 130_000,
    }
    for name, least in sizes.items():
        tracing = read(fixtures / "recordings" / name).tracing
        assert tracing is not None, name
        assert len(tracing) > least, name
    assert read(fixtures / "recordings" / f"{SIMPLEPERF}perf.data").tracing is None


def test_any_cut(fixtures: Path, tmp_path: Path) -> None:
    """Cut at places drawn at random: damage is told, nothing else is raised."""
    random = np.random.default_rng(3)
    for row in rows(fixtures):
        data = (fixtures / "recordings" / row["file"]).read_bytes()
        whole = len(read(fixtures / "recordings" / row["file"]).samples)
        for i, size in enumerate(random.integers(0, len(data), 4).tolist()):
            path = tmp_path / f"{row['file'][:200]}.{i}"
            path.write_bytes(data[:size])
            if size < 104:
                with suppress(FileError):
                    read(path)
                continue
            file = read(path)
            samples = len(file.samples)
            assert samples <= whole, (row["file"], size)
            assert file.damage or file.header.pipe or size > 0.9 * len(data), (row["file"], size)
            path.unlink()


def test_sections_that_overlap(tmp_path: Path) -> None:
    """A small file whose every section is the whole file makes no more than the file."""
    size = 1 << 20
    stride = 80
    attrs = b"".join(
        struct.pack("<II", 1, 64) + bytes(56) + struct.pack("<QQ", 0, size) for _ in range(5000)
    )
    header = b"PERFILE2" + struct.pack("<8Q", 104, stride, 104, len(attrs), size - 4096, 8, 0, 0)
    data = bytearray((header + b"\xff" * 32 + attrs).ljust(size, b"\0"))
    data[size - 4096 : size - 4088] = struct.pack("<IHH", 68, 0, 8)
    for i in range(256):
        struct.pack_into("<QQ", data, size - 4088 + 16 * i if i < 255 else size - 16, 0, size)
    path = tmp_path / "overlapping"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = read(path)
    assert len(file.damage) > 4000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_opening_takes_no_longer_for_more(fixtures: Path, tmp_path: Path) -> None:
    """A file of 256 MB opens as soon as a small one: its samples are not touched."""
    name = "google__perf_data_converter__perf.data.callgraph-3.4"
    data = (fixtures / "recordings" / name).read_bytes()
    start, size = struct.unpack_from("<QQ", data, 40)
    times = (1 << 28) // size
    path = tmp_path / "large"
    with path.open("wb") as out:
        out.write(data[:48] + struct.pack("<Q", size * times) + data[56:start])
        for _ in range(times):
            out.write(data[start : start + size])
        moved = (times - 1) * size
        table = data[start + size :]
        count = int.from_bytes(data[72:104], "little").bit_count()
        for i in range(count):
            offset, length = struct.unpack_from("<QQ", table, 16 * i)
            out.write(struct.pack("<QQ", offset + moved, length))
        out.write(table[16 * count :])
    small = fixtures / "recordings" / name

    def opened(path: Path) -> None:
        file = read(path)
        assert file.header.hostname
        assert file.events

    opened(small)
    assert cost(lambda: opened(path), 5) < 3 * cost(lambda: opened(small), 5) + 0.01
    file = read(path)
    assert file.header.hostname == read(small).header.hostname
    assert len(file.samples) == 1548 * times
