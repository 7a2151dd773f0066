"""Every sample of every published recording is what perf script says it is.

Time, pid, tid, cpu, period, event, ip, cpumode, callchain words, branches and comm, in perf's own
order. What perf 6.1 cannot read as it stands is compared through a copy that it can read
(readable.py); COPIES says why, and is itself checked.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perfscript import Account, Row, run
from readable import (
    decompressed,
    records,
    with_short_attrs,
    without_auxtrace,
    without_own_records,
    without_tracepoints,
)

from kvmperf_magic.perfdata.abi import EventType, RecordType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.reader import PerfFile, read

pytestmark = [pytest.mark.fixtures, pytest.mark.perf]


@dataclass(frozen=True)
class Copy:
    """How a copy is made that perf reads, and what perf says of the original."""

    changes: tuple[Callable[[bytes], bytes], ...]
    refusal: str
    reason: str


_LONG_ATTR = Copy(
    (with_short_attrs,),
    "incompatible file format",
    "its attrs are longer than the 128 bytes that perf 6.1 knows",
)
_LONG_ATTR_COMPRESSED2 = Copy(
    (with_short_attrs, decompressed),
    "incompatible file format",
    "long attrs, and COMPRESSED2 came with perf 6.16",
)
_TRACEPOINTS = Copy(
    (without_tracepoints, without_own_records),
    "incompatible file format",
    "simpleperf keeps tracing data in a record of its own, perf wants the feature",
)
COPIES = {
    "GrapheneOS__platform_system_extras__debug_unwind_small_map_range.data": _TRACEPOINTS,
    "GrapheneOS__platform_system_extras__perf_lbr.data": _LONG_ATTR,
    "GrapheneOS__platform_system_extras__perf_with_big_trace_data.data": _TRACEPOINTS,
    "GrapheneOS__platform_system_extras__perf_with_callchain_record.data": Copy(
        (without_own_records,),
        "failed to process type: 32775",
        "simpleperf's own record types; perf stops at the first",
    ),
    "GrapheneOS__platform_system_extras__perf_with_trace_offcpu.data": _TRACEPOINTS,
    "GrapheneOS__platform_system_extras__perf_with_trace_offcpu_v2.data": _TRACEPOINTS,
    "GrapheneOS__platform_system_extras__perf_with_tracepoint_event.data": _TRACEPOINTS,
    "GrapheneOS__platform_system_extras__perf_with_tracepoint_event_dynamic_field.data": (
        _TRACEPOINTS
    ),
    "KDAB__hotspot__perf.data.PerfFormatLost": _LONG_ATTR,
    "KDAB__perfparser__cpp-inlining_cpp-inlining.perf.data": _LONG_ATTR,
    "google__perf_data_converter__perf.data.piped.intel_pt-4.14": Copy(
        (without_auxtrace,),
        "bad event header size",
        "perf loses its place in a saved stream at the trace behind an AUXTRACE record",
    ),
    "microsoft__LinuxTracepoints__perf.data": _LONG_ATTR,
    "mstange__linux-perf-data__sleep.compressed.data": _LONG_ATTR,
    "mstange__linux-perf-data__sleep.compressed2.data": _LONG_ATTR_COMPRESSED2,
    "mstange__linux-perf-data__sleep.compressed2.pipe.data": Copy(
        (decompressed,), "failed to process type: 83", "COMPRESSED2 came with perf 6.16"
    ),
    "mstange__linux-perf-data__sleep.data": _LONG_ATTR,
}
# no event samples: they hold the trace of a device (CoreSight), or only maps and names
WITHOUT_SAMPLES = {
    "GrapheneOS__platform_system_extras__perf_etm.data",
    "GrapheneOS__platform_system_extras__perf_kernel.data",
    "GrapheneOS__platform_system_extras__perf_with_big_trace_data.data",
    "GrapheneOS__platform_system_extras__perf_with_missing_aux_data.data",
    "GrapheneOS__platform_system_extras__perf_with_unformatted_trace.data",
    "KDAB__hotspot__perf.data.true.v1",
}
# changes that leave the types of records alone
KEEP_TYPES = {with_short_attrs, decompressed, without_tracepoints}
# records that perf's dump does not show: it prints what was in the compressed ones instead
NOT_DUMPED = {RecordType.COMPRESSED, RecordType.COMPRESSED2}


def _index() -> list[dict[str, str]]:
    try:
        with Path(os.environ.get("KVMPERF_FIXTURES", ""), "INDEX.tsv").open() as lines:
            return list(csv.DictReader(lines, delimiter="\t"))
    except OSError:
        return []


INDEX = {row["file"]: row for row in _index()}
published = pytest.mark.parametrize("name", INDEX or ["no recordings"])


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="module")
def perfs(fixtures: Path, copies: Path) -> Callable[[str], Account]:
    """What perf says of a recording, asked once."""

    @cache
    def account(name: str) -> Account:
        path = fixtures / "recordings" / name
        if name in COPIES:
            raw = path.read_bytes()
            for change in COPIES[name].changes:
                raw = change(raw)
            path = copies / name
            path.write_bytes(raw)
        return run(path)

    return account


@pytest.fixture(scope="module")
def ours(fixtures: Path) -> Callable[[str], PerfFile]:
    return cache(lambda name: read(fixtures / "recordings" / name))


@published
def test_every_sample(
    name: str, perfs: Callable[[str], Account], ours: Callable[[str], PerfFile]
) -> None:
    account, file = perfs(name), ours(name)
    assert account.returncode == 0, account.errors
    assert account.dropped == []
    theirs = [_compared(row) for row in account.rows()]
    mine = list(_rows(file, account, name))
    assert len(mine) == len(theirs)
    assert mine == theirs
    assert bool(theirs) == (name not in WITHOUT_SAMPLES)


def _compared(row: Row) -> tuple[Any, ...]:
    event = re.sub(r"^(raw 0x[0-9a-f]+):\w+$", r"\1", row.event)
    return (
        row.time,
        row.pid,
        row.tid,
        row.cpu,
        row.period,
        event,
        row.ip,
        row.record.misc,
        row.record.chain,
    )


def _rows(file: PerfFile, account: Account, name: str) -> Iterator[tuple[Any, ...]]:
    """Our samples; None for what perf cannot print because some event does not record it."""
    s = file.samples
    renamed = name in COPIES and without_tracepoints in COPIES[name].changes
    names = [_raw_name(event) if renamed else event.name for event in file.events]
    bounds, words = (part.tolist() for part in s.chains.compact())
    columns = [s.pid, s.tid, s.cpu, s.period, s.ip, s.misc, s.event, s.time]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for i, (pid, tid, cpu, period, ip, misc, event, time) in enumerate(rows):
        yield (
            time if "time" in account.fields else None,
            pid,
            tid,
            cpu if "cpu" in account.fields else None,
            period,
            names[event],
            ip,
            misc,
            tuple(words[bounds[i] : bounds[i + 1]]),
        )


def _raw_name(event: Event) -> str:
    """A tracepoint is a raw event in the copy; perf names those by their number."""
    tracepoint = event.attr.type == EventType.TRACEPOINT
    return f"raw {event.attr.config:#x}" if tracepoint else event.name


@published
def test_fields(
    name: str, perfs: Callable[[str], Account], ours: Callable[[str], PerfFile]
) -> None:
    """The parts of samples that perf's dump shows: branches, registers, stacks, counters, ..."""
    records, file = [row.record for row in perfs(name).rows()], ours(name)
    fields = Fields(file.samples, file.events)
    names = set(fields.names())
    assert fields.problems == []
    for one in ("data_src", "weight", "phys_addr", "transaction", "time_enabled", "time_running"):
        if one in names:
            theirs = [record.number(one) or 0 for record in records]
            assert np.asarray(fields.column(one)).tolist() == theirs
    assert fields.addr.tolist() == [record.addr for record in records]
    assert [len(fields.stack_user[i]) for i in range(len(records))] == [
        record.number("stack_user") or 0 for record in records
    ]
    for i, record in enumerate(records):
        assert fields.regs_user[i].tolist() == record.registers(b"user")
        assert fields.regs_intr[i].tolist() == record.registers(b"intr")
        assert [(v["id"], v["value"]) for v in fields.read[i].tolist()] == record.read
        assert [*map(_branch, fields.branch_stack[i].tolist())] == record.branches


def _branch(entry: tuple[int, int, int]) -> tuple[int, int, int, bool, bool]:
    """struct perf_branch_entry: mispred:1 predicted:1 in_tx:1 abort:1 cycles:16 ..."""
    source, target, flags = entry
    return source, target, flags >> 4 & 0xFFFF, bool(flags & 1), bool(flags & 2)


@published
def test_names_of_threads(
    name: str, perfs: Callable[[str], Account], ours: Callable[[str], PerfFile]
) -> None:
    account, file = perfs(name), ours(name)
    s = file.samples
    mine = file.sideband.comm_of(s.tid, s.time).values().tolist()
    assert mine == [row.comm for row in account.rows()]


@published
def test_records_by_type(
    name: str,
    fixtures: Path,
    perfs: Callable[[str], Account],
    ours: Callable[[str], PerfFile],
) -> None:
    mine = Counter({kind: n for kind, n in ours(name).counts.items() if kind not in NOT_DUMPED})
    if name in COPIES and not KEEP_TYPES.issuperset(COPIES[name].changes):
        # perf was given other types than the file has: count those in the bytes
        raw = (fixtures / "recordings" / name).read_bytes()
        assert mine == Counter(record.type for record in records(raw))
    else:
        assert mine == perfs(name).counts


@pytest.mark.parametrize("name", COPIES)
def test_perf_refuses_the_original(name: str, fixtures: Path) -> None:
    """Should a perf read it one day, it is to be compared as it stands."""
    account = run(fixtures / "recordings" / name)
    assert COPIES[name].refusal in account.errors
    assert account.returncode != 0
