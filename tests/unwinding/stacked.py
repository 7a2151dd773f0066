"""Recordings with samples of our own making: branches, registers and stacks behind the chain."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from kvmperf_magic.perfdata import features as fe
from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata.abi import (
    ATTR_SIZE,
    MISC_USER,
    AttrFlag,
    EventType,
    Feature,
    PerfEventAttr,
    RecordType,
    SampleType,
)
from kvmperf_magic.perfdata.writer import PerfDataWriter, WrittenEvent

BASE = (
    SampleType.IDENTIFIER
    | SampleType.IP
    | SampleType.TID
    | SampleType.TIME
    | SampleType.CPU
    | SampleType.PERIOD
    | SampleType.CALLCHAIN
)
PID = 4242
ID = 7
TRAILER = r.sample_id(BASE)


def event(more: int = 0, **attr_fields: int) -> WrittenEvent:
    """cpu-clock with these fields beside the usual ones."""
    attr = PerfEventAttr(size=ATTR_SIZE, type=EventType.SOFTWARE, config=0)
    attr.sample_period, attr.sample_type = 1_000_000, BASE | more
    attr.flags = AttrFlag.SAMPLE_ID_ALL | AttrFlag.MMAP | AttrFlag.COMM | AttrFlag.TASK
    for name, value in attr_fields.items():
        setattr(attr, name, value)
    return WrittenEvent("cpu-clock", attr, (ID,))


def sample(
    time: int,
    chain: Sequence[int],
    more: bytes = b"",
    *,
    ip: int = 0x401000,
    tid: int = PID,
    misc: int = MISC_USER,
) -> bytes:
    """A SAMPLE record; `more` are the fields behind the callchain."""
    whole = r.sample(
        BASE,
        misc=misc,
        ip=ip,
        pid=PID,
        tid=tid,
        time=time,
        id=ID,
        period=1_000_000,
        callchain=chain,
    )
    return r.record(RecordType.SAMPLE, misc, whole[8:] + more)


def branches(entries: Iterable[tuple[int, int]]) -> bytes:
    """BRANCH_STACK without hw_idx: (from, to) the newest first."""
    listed = list(entries)
    words = [word for source, to in listed for word in (source, to, 0)]
    return struct.pack(f"<{1 + len(words)}Q", len(listed), *words)


def dump(registers: Sequence[int], stack: bytes, *, abi: int = 2, dynamic: int = -1) -> bytes:
    """REGS_USER and STACK_USER; `dynamic` is how much of the stack was copied, -1 all."""
    size = len(stack) // 8 * 8
    found = struct.pack("<Q", abi)
    found += struct.pack(f"<{len(registers)}Q", *registers) if abi else b""
    found += struct.pack("<Q", size) + stack[:size]
    return found + (struct.pack("<Q", size if dynamic < 0 else dynamic) if size else b"")


def write(path: Path, written: WrittenEvent, records: Iterable[bytes]) -> Path:
    features = {
        Feature.HOSTNAME: fe.encode_string("elsewhere"),
        Feature.OSRELEASE: fe.encode_string("6.18.0-test"),
        Feature.VERSION: fe.encode_string("test"),
        Feature.ARCH: fe.encode_string("x86_64"),
        Feature.EVENT_DESC: fe.encode_event_desc([written.desc]),
    }
    with PerfDataWriter(path, [written]) as writer:
        writer.write(r.comm(PID, PID, "stacked", trailer=TRAILER))
        for one in records:
            writer.write(one)
        writer.write(r.finished_round())
        writer.finish(features)
    return path
