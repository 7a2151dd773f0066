"""Published recordings: as many samples as perf counts, and the records that quipper prints."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quipper import Message, events

from kvmperf_magic.perfdata.abi import AttrFlag, RecordType
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.stream import StreamReader

pytestmark = pytest.mark.fixtures

# written by simpleperf: their tracing data does not stand as perf lays it out, or it adds
# fields of its own; perf refuses them all
SIMPLEPERF = ("perf_with_trace", "perf_with_tracepoint", "debug_unwind")
QUIPPER = ("armv7-3.4", "callgraph-3.4", "callgraph-3.8", "hw_and_sw-3.4", "lost_samples-4.4")
QUIPPER += ("busy.0-3.4", "piped.target-3.8", "piped.intel_pt-4.14", "ctx_switch_namespaces-4.14")
QUIPPER += ("piped.header_feautres_group_desc-6.8", "branch_stack_spec", "remmap-3.2")
# a sample of these stands for one of each member of its group: test_fields_group.py
GROUPS = ("GrapheneOS__platform_system_extras__perf_with_add_counter.data",)
GROUPS += ("KDAB__hotspot__perf.data.PerfFormatLost",)

# quipper's text has bit 63 set in some addresses where perf -D shows it clear
ADDRESS = 2**63 - 1


def index(fixtures: Path) -> list[dict[str, str]]:
    with (fixtures / "INDEX.tsv").open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_as_many_samples_as_perf(fixtures: Path) -> None:
    seen, wrong = 0, {}
    for row in index(fixtures):
        name = row["file"]
        if any(word in name for word in SIMPLEPERF):
            continue
        file = read(fixtures / "recordings" / name)
        theirs = {row["samples_by_perf6.1"], row["samples_by_perf7.2"]}
        records = file.counts.get(RecordType.SAMPLE, 0)
        if str(records) not in theirs:
            wrong[name] = records, theirs
        if name not in GROUPS:
            assert len(file.samples) == records, name
        assert np.all(np.diff(file.samples.time.astype(np.int64)) >= 0), name
        if row["kernel"] not in ("?", "") and not file.header.pipe:
            assert file.header.os_release == row["kernel"], name
        seen += 1
    assert wrong == {}
    assert seen > 60


@pytest.mark.parametrize("name", QUIPPER)
def test_records_are_quippers(fixtures: Path, name: str) -> None:
    recording = f"google__perf_data_converter__perf.data.{name}"
    path = next((fixtures / "golden").glob(f"{recording}.*pb_text.gz"), None)
    if path is None:
        pytest.fail(f"no golden of {name}")
    golden: dict[str, list[Message]] = {}
    for kind, message in events(path):
        golden.setdefault(kind, []).append(message)
    file = read(fixtures / "recordings" / recording)
    assert _samples(file) == Counter(map(_sample, golden["sample_event"]))
    remapped = "parse.out" in path.name  # those have addresses of quipper's own
    mmap, comm, fork = file.sideband.mmap, file.sideband.comm, file.sideband.fork
    keys = ["pid", "tid", "len", "pgoff", "filename"] + ["start"] * (not remapped)
    ours = _rows(mmap, [{"start": "addr"}.get(key, key) for key in keys])
    theirs = Counter(_picked(m, keys) for m in golden["mmap_event"])
    # quipper makes one map of a Chrome library and the anonymous maps around it
    chrome = ("/opt/google/chrome/", "//anon")
    assert _without(ours, chrome) == _without(theirs, chrome)
    names = _rows(comm, ["pid", "tid", "comm"])
    assert names == Counter(_picked(m, ["pid", "tid", "comm"]) for m in golden["comm_event"])
    forks = _rows(fork, ["pid", "ppid", "tid", "ptid", "time"])
    keys = ["pid", "ppid", "tid", "ptid", "fork_time_ns"]
    assert forks == Counter(_picked(m, keys) for m in golden.get("fork_event", []))
    assert len(file.sideband.exit) == len(golden.get("exit_event", []))
    assert len(file.sideband.throttle) == len(golden.get("throttle_event", []))
    lost = sum(m["num_lost"][0] for m in golden.get("lost_samples_event", []))
    assert file.sideband.lost["lost"].sum() == lost


def _picked(message: Message, keys: list[str]) -> tuple[Any, ...]:
    """Fields that are ids are unsigned in quipper's, signed in ours."""
    values = [message.get(key, [0 if key != "filename" else ""])[0] for key in keys]
    masks = dict.fromkeys(("pid", "tid", "ppid", "ptid"), 2**32 - 1) | {"start": ADDRESS}
    return tuple(
        value & masks[key] if key in masks else value
        for key, value in zip(keys, values, strict=True)
    )


def _without(rows: Counter[tuple[Any, ...]], names: tuple[str, ...]) -> Counter[tuple[Any, ...]]:
    return Counter({row: n for row, n in rows.items() if not row[4].startswith(names)})


def _rows(table: Any, keys: list[str]) -> Counter[tuple[Any, ...]]:
    columns = []
    for key in keys:
        column = table[key].view(np.uint32) if table[key].dtype == np.int32 else table[key]
        columns.append((column & np.uint64(ADDRESS) if key == "addr" else column).tolist())
    return Counter(zip(*columns, strict=True))


def _sample(message: Message) -> tuple[Any, ...]:
    chain = tuple(word & ADDRESS for word in message.get("callchain", []))
    keys = [("sample_time_ns", 0), ("ip", 0), ("pid", -1), ("tid", -1), ("cpu", -1), ("period", 0)]
    time, ip, pid, tid, cpu, period = (message.get(key, [no])[0] for key, no in keys)
    return time, ip, pid & 2**32 - 1, tid & 2**32 - 1, cpu & 2**32 - 1, period, chain


def _samples(file: PerfFile) -> Counter[tuple[Any, ...]]:
    s = file.samples
    numbers = [s.time, s.ip, *(c.view(np.uint32) for c in (s.pid, s.tid, s.cpu))]
    freq = np.array([e.attr.has(AttrFlag.FREQ) or e.attr.sample_type & 256 for e in file.events])
    # quipper leaves the period out where the record has none; we give the attr's
    numbers.append(np.where(freq.astype(bool)[s.event], s.period, 0))
    offsets, chain = s.chains.compact()
    bounds, words = offsets.tolist(), (chain & np.uint64(ADDRESS)).tolist()
    rows = zip(*(n.tolist() for n in numbers), strict=True)
    return Counter((*row, tuple(words[bounds[i] : bounds[i + 1]])) for i, row in enumerate(rows))


def test_build_ids_are_quippers(fixtures: Path) -> None:
    seen = 0
    for path in sorted((fixtures / "golden").glob("*.buildids.gz")):
        file = read(fixtures / "recordings" / path.name.removesuffix(".buildids.gz"))
        with gzip.open(path, "rt") as lines:
            theirs = [line.rstrip("\n") for line in lines]
        assert {f"{b.build_id} {b.filename}" for b in file.build_ids} == set(theirs)
        seen += len(theirs)
    assert seen > 50


@pytest.mark.parametrize("name", ["piped.target-3.8", "piped.header_feautres_group_desc-6.8"])
def test_a_stream_in_pieces(fixtures: Path, name: str) -> None:
    """Fed piece by piece, a published stream gives what read() gives."""
    path = fixtures / "recordings" / f"google__perf_data_converter__perf.data.{name}"
    data, whole = path.read_bytes(), read(path)
    reader = StreamReader()
    samples = 0
    for at in range(0, len(data), 4099):
        batch = reader.feed(data[at : at + 4099])
        samples += len(batch.samples)
    assert samples == len(whole.samples) > 10
    assert reader.header == whole.header
    assert [e.name for e in reader.events] == [e.name for e in whole.events]
    assert reader.pending == 0
