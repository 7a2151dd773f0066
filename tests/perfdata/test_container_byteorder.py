"""Recordings of big-endian machines: a real one, rewritten field by field, gives the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bigendian import BigEndian

from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.stream import StreamReader
from kvmperf_magic.table import Categorical, Column, Ragged

GOOGLE = "google__perf_data_converter__perf.data."
PUBLISHED = (
    *(GOOGLE + name for name in ("callgraph-3.4", "callgraph_and_branch-3.8", "raw-3.4")),
    *(GOOGLE + name for name in ("hw_and_sw-3.4", "group_desc-4.14", "branch_stack_spec")),
    *(GOOGLE + name for name in ("ctx_switch_namespaces-4.14", "lost_samples-4.4", "i686-3.4")),
    *(GOOGLE + name for name in ("armv7-3.4", "piped.target-3.8", "piped.intel_pt-4.14")),
    GOOGLE + "piped.header_feautres_group_desc-6.8",
    "KDAB__hotspot__perf.data.PerfFormatLost",
    "KDAB__perfparser__vector_static_gcc_perf.data",
    "KDAB__perfparser__probe.data.file",
    "KDAB__perfparser__probe.data.stream",
    "microsoft__LinuxTracepoints__perf.data",
    "mstange__linux-perf-data__sleep.data",
    "GrapheneOS__platform_system_extras__perf_lbr.data",
)


def listed(column: Column) -> list[object]:
    if isinstance(column, Categorical):
        return column.values().tolist()
    return column.tolist()


def assert_same(ours: PerfFile, theirs: PerfFile) -> None:
    a, b = ours.samples, theirs.samples
    assert len(a) == len(b)
    for name in ("time", "ip", "pid", "tid", "cpu", "period", "event", "misc", "vcpu"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    for one, other in zip(a.chains.compact(), b.chains.compact(), strict=True):
        assert np.array_equal(one, other)
    assert [dataclasses.replace(e, ids=None) for e in ours.events] == [
        dataclasses.replace(e, ids=None) for e in theirs.events
    ]
    for one, other in zip(ours.events, theirs.events, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
    fields, others = Fields(a, ours.events), Fields(b, theirs.events)
    assert fields.names() == others.names()
    for name in fields.names():
        assert listed(fields.column(name)) == listed(others.column(name)), name
    for name in ours.sideband:
        table, other = ours.sideband[name], theirs.sideband[name]
        for column in table.columns:
            assert listed(table.column(column)) == listed(other.column(column)), (name, column)
    assert ours.header == theirs.header
    assert ours.counts == theirs.counts
    assert ours.build_ids == theirs.build_ids
    assert ours.tracing == theirs.tracing
    assert ours.auxtrace == theirs.auxtrace
    assert ours.damage == theirs.damage
    decoded = {f: v for f, v in ours.features.items() if not isinstance(v, bytes)}
    assert decoded == {f: theirs.features[f] for f in decoded}


@pytest.mark.fixtures
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_big_endian_copy_is_the_same(fixtures: Path, tmp_path: Path, name: str) -> None:
    path = fixtures / "recordings" / name
    turned = BigEndian(path.read_bytes()).out
    assert turned[:8] == b"2ELIFREP"
    (tmp_path / "big").write_bytes(turned)
    big = read(tmp_path / "big")
    assert [e.name for e in big.events] == [e.name for e in read(path).events]  # before samples
    assert_same(big, read(path))


@pytest.mark.fixtures
def test_of_a_32_bit_machine(fixtures: Path, tmp_path: Path) -> None:
    """Its mask of features is laid out in longs of 4 bytes."""
    path = fixtures / "recordings" / (GOOGLE + "armv7-3.4")
    turned = BigEndian(path.read_bytes(), long=4).out
    assert turned != BigEndian(path.read_bytes()).out
    (tmp_path / "big").write_bytes(turned)
    big = read(tmp_path / "big")
    assert big.header.arch == "armv7l"
    assert_same(big, read(path))


@pytest.mark.fixtures
@pytest.mark.parametrize("size", [7, 97, 4099])
def test_a_big_endian_stream_in_pieces(fixtures: Path, size: int) -> None:
    path = fixtures / "recordings" / (GOOGLE + "piped.header_feautres_group_desc-6.8")
    turned = bytes(BigEndian(path.read_bytes()).out)
    reader = StreamReader()
    batches = [reader.feed(turned[at : at + size]) for at in range(0, len(turned), size)]
    samples = type(batches[0].samples).joined([b.samples for b in batches])
    whole = read(path)
    assert len(samples) == len(whole.samples) > 10
    assert np.array_equal(samples.ip, whole.samples.ip)
    assert np.array_equal(samples.period, whole.samples.period)
    assert reader.header == whole.header
    assert [e.name for e in reader.events] == [e.name for e in whole.events]
    assert reader.problems == []


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.parametrize(
    "options",
    [
        ("-e", "cpu-clock", "-g", "--weight", "-d", "--phys-data", "--transaction"),
        ("-e", "cpu-clock", "--call-graph", "dwarf,512", "--intr-regs", "--all-cgroups"),
        ("-e", "cpu-clock", "--data-page-size", "--code-page-size", "--namespaces"),
        ("-e", "{cpu-clock,task-clock}:S", "--switch-events"),
        ("-e", "sched:sched_switch", "-e", "cpu-clock"),
    ],
)
def test_fields_that_perf_can_record(
    perf: Callable[..., str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    path = tmp_path / "perf.data"
    loop = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; ls / >/dev/null"
    perf("record", "-q", "-F", "500", "-o", path, *options, "--", "sh", "-c", loop)
    (tmp_path / "big").write_bytes(BigEndian(path.read_bytes()).out)
    ours = read(path)
    assert len(ours.samples) > 5
    assert_same(read(tmp_path / "big"), ours)


def test_ragged_columns_are_compared() -> None:
    """listed() sees into them: what the tests above rely on."""
    one = Ragged(np.array([0, 2, 3]), np.array([1, 2, 3], np.uint64))
    other = Ragged(np.array([0, 2, 3]), np.array([1, 2, 4], np.uint64))
    assert listed(one) != listed(other)
