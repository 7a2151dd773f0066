"""Every sample of every published recording is what perf script says it is.

Time, pid, tid, cpu, period, event, ip, cpumode, callchain words, comm, branches, registers and the
rest that perf's dump shows, in perf's own order. What perf 6.1 cannot read as it stands is compared
through a copy that it can read (readable.py); COPIES says why, and is itself checked.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from comparing import check_fields, comms, counts, ours, theirs
from perfscript import Account, run
from readable import (
    decompressed,
    records,
    with_short_attrs,
    without_auxtrace,
    without_own_records,
    without_tracepoints,
)

from kvmperf_magic.perfdata.abi import EventType, ReadFormat, RecordType
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
Accounts = Callable[[str], Account]
Files = Callable[[str], PerfFile]


KINDS: dict[str, Callable[[PerfFile], object]] = {
    "file": lambda f: not f.header.pipe,
    "pipe": lambda f: f.header.pipe,
    "zstd": lambda f: f.counts.keys() & {RecordType.COMPRESSED, RecordType.COMPRESSED2},
    "several events": lambda f: len(set(f.samples.event.tolist())) > 1,
    "callchain": lambda f: f.samples.chains.length.any(),
    "branch": lambda f: "branch_stack" in Fields(f.samples, f.events).names(),
    "tracepoint": lambda f: any(e.attr.type == EventType.TRACEPOINT for e in f.events),
    "group": lambda f: any(e.attr.read_format & ReadFormat.GROUP for e in f.events),
    "stack dump": lambda f: "stack_user" in Fields(f.samples, f.events).names(),
}


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
def perfs(fixtures: Path, copies: Path) -> Accounts:
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
def files(fixtures: Path) -> Files:
    return cache(lambda name: read(fixtures / "recordings" / name))


@published
def test_every_sample(name: str, perfs: Accounts, files: Files) -> None:
    account, file = perfs(name), files(name)
    assert account.returncode == 0, account.errors
    assert account.dropped == []
    renamed = name in COPIES and without_tracepoints in COPIES[name].changes
    assert ours(file, account, tracepoints_as_raw=renamed) == theirs(account)
    assert bool(account.records) == (name not in WITHOUT_SAMPLES)


@published
def test_fields(name: str, perfs: Accounts, files: Files) -> None:
    check_fields(files(name), perfs(name))


@published
def test_names_of_threads(name: str, perfs: Accounts, files: Files) -> None:
    assert comms(files(name)) == [row.comm for row in perfs(name).rows()]


@published
def test_records_by_type(name: str, fixtures: Path, perfs: Accounts, files: Files) -> None:
    if name in COPIES and not KEEP_TYPES.issuperset(COPIES[name].changes):
        # perf was given other types than the file has: count those in the bytes
        raw = (fixtures / "recordings" / name).read_bytes()
        expected = Counter(record.type for record in records(raw))
    else:
        expected = perfs(name).counts
    assert Counter(counts(files(name))) == expected


def test_all_kinds_are_among_them(perfs: Accounts, files: Files) -> None:
    compared = [name for name in INDEX if perfs(name).records]
    assert len(compared) == len(INDEX) - len(WITHOUT_SAMPLES)
    assert {"x86_64", "i686", "armv7l", "aarch64"} <= {INDEX[name]["arch"] for name in compared}
    opened = [files(name) for name in compared]
    found = {kind: sum(bool(is_one(file)) for file in opened) for kind, is_one in KINDS.items()}
    assert min(found.values()) > 1, found


@pytest.mark.parametrize("name", COPIES)
def test_perf_refuses_the_original(name: str, fixtures: Path) -> None:
    """Should a perf read it one day, it is to be compared as it stands."""
    account = run(fixtures / "recordings" / name)
    assert COPIES[name].refusal in account.errors
    assert account.returncode != 0
