"""Our account of a recording against perf script's, sample by sample and part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from perfscript import Account, Row

from kvmperf_magic.perfdata.abi import EventType, RecordType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.reader import PerfFile

# perf's dump does not show these: it prints what was in them instead
NOT_DUMPED = {RecordType.COMPRESSED, RecordType.COMPRESSED2}
_ONE_NUMBER = ("data_src", "weight", "phys_addr", "transaction", "time_enabled", "time_running")


def theirs(account: Account) -> list[tuple[Any, ...]]:
    """time, pid, tid, cpu, period, event, ip, misc, chain of every sample, in perf's order."""
    return [_theirs(row) for row in account.rows()]


def _theirs(row: Row) -> tuple[Any, ...]:
    event = re.sub(r"^(raw 0x[0-9a-f]+):\w+$", r"\1", row.event)
    record = row.record
    return row.time, row.pid, row.tid, row.cpu, row.period, event, row.ip, record.misc, record.chain


def ours(
    file: PerfFile, account: Account, *, tracepoints_as_raw: bool = False
) -> list[tuple[Any, ...]]:
    """The same of our columns; None for what perf cannot print, as some event does not record it.

    `tracepoints_as_raw`: perf was given a copy with its tracepoints turned into raw events.
    """
    return [*_ours(file, account, tracepoints_as_raw)]


def _ours(file: PerfFile, account: Account, as_raw: bool) -> Iterator[tuple[Any, ...]]:
    s = file.samples
    names = [_raw_name(event) if as_raw else event.name for event in file.events]
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
    tracepoint = event.attr.type == EventType.TRACEPOINT
    return f"raw {event.attr.config:#x}" if tracepoint else event.name


def comms(file: PerfFile) -> list[str]:
    """What the thread of every sample was called."""
    return file.sideband.comm_of(file.samples.tid, file.samples.time).values().tolist()


def counts(file: PerfFile) -> dict[int, int]:
    """Records by type, without those that perf's dump does not show."""
    return {kind: n for kind, n in file.counts.items() if kind not in NOT_DUMPED}


def check_fields(file: PerfFile, account: Account) -> None:
    """The parts of samples that perf's dump shows: branches, registers, stacks, counters, ..."""
    records = [row.record for row in account.rows()]
    fields = Fields(file.samples, file.events)
    names = set(fields.names())
    assert fields.problems == []
    for name in names.intersection(_ONE_NUMBER):
        told = [record.number(name) or 0 for record in records]
        assert np.asarray(fields.column(name)).tolist() == told, name
    assert fields.addr.tolist() == [record.addr for record in records]
    sizes = [record.number("stack_user") or 0 for record in records]
    assert [len(fields.stack_user[i]) for i in range(len(records))] == sizes
    for i, record in enumerate(records):
        assert fields.regs_user[i].tolist() == record.registers(b"user")
        assert fields.regs_intr[i].tolist() == record.registers(b"intr")
        assert [(v["id"], v["value"]) for v in fields.read[i]] == record.read
        assert [*map(_branch, fields.branch_stack[i].tolist())] == record.branches


def _branch(entry: tuple[int, int, int]) -> tuple[int, int, int, bool, bool]:
    """struct perf_branch_entry: mispred:1 predicted:1 in_tx:1 abort:1 cycles:16 ..."""
    source, target, flags = entry
    return source, target, flags >> 4 & 0xFFFF, bool(flags & 1), bool(flags & 2)
