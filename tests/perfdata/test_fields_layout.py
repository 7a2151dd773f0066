"""The rarer fields of samples of every layout, written here by the kernel's rules and read back."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmperf_magic.perfdata.abi import ATTR_SIZE, PerfEventAttr, ReadFormat, SampleType
from kvmperf_magic.perfdata.attr import Attr, Event, EventIds
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.layout import SampleLayout
from kvmperf_magic.perfdata.samples import GuestIds, decode_samples
from kvmperf_magic.perfdata.walk import walk
from kvmperf_magic.table import Ragged

HW_INDEX, COUNTERS = 1 << 17, 1 << 19
NOBODY = GuestIds(np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32))
ALL = (1 << 25) - 1


@dataclass
class Written:
    """A sample's fields, as evsel__parse_sample() would hand them out."""

    values: list[tuple[int, int, int]] = field(default_factory=lambda: [(10, 1, 2)])
    chain: list[int] = field(default_factory=list)
    raw: bytes = b""
    branches: list[tuple[int, int, int]] = field(default_factory=list)
    user: list[int] | None = None
    intr: list[int] | None = None
    stack: bytes = b""
    room: int = 0
    aux: bytes = b""
    base: int = 1000


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def encode(attr: Attr, one: Written) -> bytes:
    """perf_output_sample(), kernel/events/core.c."""
    kind, out, base = SampleType(attr.sample_type), b"", one.base
    if kind & SampleType.IDENTIFIER:
        out += words(attr.config)
    for bit in (SampleType.IP, SampleType.TID, SampleType.TIME, SampleType.ADDR):
        out += words(base + bit) if kind & bit else b""
    for bit in (SampleType.ID, SampleType.STREAM_ID, SampleType.CPU, SampleType.PERIOD):
        number = attr.config if bit == SampleType.ID else base + bit
        out += words(number) if kind & bit else b""
    if kind & SampleType.READ:
        form = ReadFormat(attr.read_format)
        times = [base + 1] if form & ReadFormat.TOTAL_TIME_ENABLED else []
        times += [base + 2] if form & ReadFormat.TOTAL_TIME_RUNNING else []
        told = [
            [v, *([i] if form & ReadFormat.ID else []), *([n] if form & ReadFormat.LOST else [])]
            for v, i, n in one.values
        ]
        if form & ReadFormat.GROUP:
            out += words(len(told), *times, *(n for value in told for n in value))
        else:
            out += words(told[0][0], *times, *told[0][1:])
    if kind & SampleType.CALLCHAIN:
        out += words(len(one.chain), *one.chain)
    if kind & SampleType.RAW:
        padded = one.raw + bytes(-(len(one.raw) + 4) % 8)
        out += struct.pack("<I", len(padded)) + padded
    if kind & SampleType.BRANCH_STACK:
        out += words(len(one.branches))
        out += words(base + 3) if attr.branch_sample_type & HW_INDEX else b""
        out += b"".join(words(*branch) for branch in one.branches)
        if attr.branch_sample_type & COUNTERS:
            out += words(*(i + 7 for i in range(len(one.branches))))
    if kind & SampleType.REGS_USER:
        out += words(0) if one.user is None else words(2, *one.user)
    if kind & SampleType.STACK_USER:
        out += words(one.room)
        out += one.stack.ljust(one.room, b"\xee") + words(len(one.stack)) if one.room else b""
    if kind & (SampleType.WEIGHT | SampleType.WEIGHT_STRUCT):
        out += struct.pack("<IHH", base + 4, 5, 6)
    for bit in (SampleType.DATA_SRC, SampleType.TRANSACTION):
        out += words(base + bit) if kind & bit else b""
    if kind & SampleType.REGS_INTR:
        out += words(0) if one.intr is None else words(2, *one.intr)
    for bit in (SampleType.PHYS_ADDR, SampleType.CGROUP, SampleType.DATA_PAGE_SIZE):
        out += words(base + bit) if kind & bit else b""
    out += words(base + SampleType.CODE_PAGE_SIZE) if kind & SampleType.CODE_PAGE_SIZE else b""
    if kind & SampleType.AUX:
        out += words(len(one.aux)) + one.aux
    return struct.pack("<IHH", 9, 2, 8 + len(out)) + out


def event(config: int, sample_type: int, form: int = 0, branch: int = 0) -> Event:
    attr = PerfEventAttr()
    attr.size, attr.config, attr.sample_type = ATTR_SIZE, config, sample_type
    attr.read_format, attr.branch_sample_type = form, branch
    attr.sample_regs_user, attr.sample_regs_intr = 0b1011, 0b110
    return Event(f"event {config}", Attr.decode(bytes(attr)), np.array([config], np.uint64))


def decoded(events: list[Event], records: list[bytes]) -> Fields:
    samples, problems = decode_samples(walk(b"".join(records)), EventIds(events), NOBODY)
    assert not problems
    return Fields(samples, events)


blobs = st.binary(max_size=40)
numbers = st.integers(0, 2**64 - 1)
written = st.builds(
    Written,
    values=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4),
    chain=st.lists(numbers, max_size=5),
    raw=blobs,
    branches=st.lists(st.tuples(numbers, numbers, numbers), max_size=4),
    user=st.none() | st.lists(numbers, min_size=3, max_size=3),
    intr=st.none() | st.lists(numbers, min_size=2, max_size=2),
    stack=st.binary(max_size=24),
    room=st.sampled_from([0, 24, 48]),
    aux=st.binary(max_size=3).map(lambda raw: raw * 8),
)
kinds = st.integers(0, ALL).map(
    # what every file has: perf asks for the place of the id, and both weights exclude each other
    lambda bits: (
        (bits | SampleType.IDENTIFIER | SampleType.TIME)
        & ~(SampleType.WEIGHT if bits & SampleType.WEIGHT_STRUCT else 0)
    )
)
shapes = st.tuples(
    kinds, st.integers(0, 31), st.sampled_from([0, HW_INDEX, COUNTERS, HW_INDEX | COUNTERS])
)


@settings(max_examples=100, deadline=None)
@given(st.lists(shapes, min_size=1, max_size=3), st.lists(written, min_size=1, max_size=8))
def test_what_is_written_is_read(forms: list[tuple[int, int, int]], samples: list[Written]) -> None:
    events = [event(i + 1, *form) for i, form in enumerate(forms)]
    owners = [events[i % len(events)] for i in range(len(samples))]
    for i, one in enumerate(samples):
        one.base = 1000 + 100 * i  # time goes up
        one.stack = one.stack[: one.room]
    records = [encode(owner.attr, one) for owner, one in zip(owners, samples, strict=True)]
    fields = decoded(events, records)
    for i, (owner, one) in enumerate(zip(owners, samples, strict=True)):
        check(fields, i, owner.attr, one)
    assert not fields.problems


def check(fields: Fields, row: int, attr: Attr, one: Written) -> None:
    kind, base = SampleType(attr.sample_type), one.base
    for bit, name in (
        *((SampleType.ADDR, "addr"), (SampleType.STREAM_ID, "stream_id")),
        *((SampleType.DATA_SRC, "data_src"), (SampleType.TRANSACTION, "transaction")),
        *((SampleType.PHYS_ADDR, "phys_addr"), (SampleType.CGROUP, "cgroup")),
        (SampleType.DATA_PAGE_SIZE, "data_page_size"),
        (SampleType.CODE_PAGE_SIZE, "code_page_size"),
    ):
        assert getattr(fields, name)[row] == (base + bit if kind & bit else 0)
        assert not kind & bit or name in fields.names()
    struct_ = bool(kind & SampleType.WEIGHT_STRUCT)
    whole = base + 4 + (5 << 32) + (6 << 48)
    weight = base + 4 if struct_ else whole if kind & SampleType.WEIGHT else 0
    assert fields.weight[row] == weight
    assert fields.ins_lat[row] == (5 if struct_ else 0)
    assert fields.p_stage_cyc[row] == (6 if struct_ else 0)

    padded = one.raw + bytes(-(len(one.raw) + 4) % 8)
    assert fields.raw[row].tobytes() == (padded if kind & SampleType.RAW else b"")
    assert fields.stack_user[row].tobytes() == (one.stack if kind & SampleType.STACK_USER else b"")
    assert fields.aux[row].tobytes() == (one.aux if kind & SampleType.AUX else b"")
    user = one.user if kind & SampleType.REGS_USER else None
    intr = one.intr if kind & SampleType.REGS_INTR else None
    assert fields.regs_user[row].tolist() == (user or [])
    assert fields.regs_intr[row].tolist() == (intr or [])
    assert fields.register(3)[row] == (user[2] if user else 0)
    assert fields.register(2, user=False)[row] == (intr[1] if intr else 0)
    assert fields.register(2)[row] == 0

    branches = bool(kind & SampleType.BRANCH_STACK)
    hw_idx = branches and attr.branch_sample_type & HW_INDEX
    counted = branches and attr.branch_sample_type & COUNTERS
    assert fields.branch_stack[row].tolist() == (one.branches if branches else [])
    assert fields.hw_idx[row] == (base + 3 if hw_idx else 0)
    assert len(fields.branch_counters[row]) == (len(one.branches) if counted else 0)
    assert fields.branch_counters[row].tolist() == [7 + i for i in range(len(one.branches))] * bool(
        counted
    )
    if not kind & SampleType.READ:
        assert not len(fields.read[row])
        return
    form = ReadFormat(attr.read_format)
    values = one.values if form & ReadFormat.GROUP else one.values[:1]
    assert fields.read[row].tolist() == [
        (v, i if form & ReadFormat.ID else 0, n if form & ReadFormat.LOST else 0)
        for v, i, n in values
    ]
    enabled, running = ReadFormat.TOTAL_TIME_ENABLED, ReadFormat.TOTAL_TIME_RUNNING
    assert fields.time_enabled[row] == (base + 1 if form & enabled else 0)
    assert fields.time_running[row] == (base + 2 if form & running else 0)


@settings(max_examples=100, deadline=None)
@given(shapes, st.lists(written, min_size=1, max_size=4), st.data())
def test_what_is_cut_off_stays_within_its_record(
    form: tuple[int, int, int], samples: list[Written], data: st.DataObject
) -> None:
    """Records cut anywhere, or with a changed word: nothing fails, nothing is read behind one."""
    one = event(1, *form)
    fixed = Fields(decode_samples(walk(b""), EventIds([one]), NOBODY)[0], [one])
    assert all(len(fixed.column(name)) == 0 for name in fixed.names())
    records = []
    for i, sample in enumerate(samples):
        sample.base, sample.stack = 1000 + 100 * i, sample.stack[: sample.room]
        raw = bytearray(encode(one.attr, sample))
        least = 8 * SampleLayout.of(one.attr).fixed
        if data.draw(st.booleans()):
            raw = raw[: data.draw(st.integers(least // 8, len(raw) // 8)) * 8]
            raw[6:8] = struct.pack("<H", len(raw))
        elif len(raw) > least:
            at = data.draw(st.integers(least // 8, len(raw) // 8 - 1)) * 8
            raw[at : at + 8] = words(data.draw(numbers))
        records.append(bytes(raw))
    columns, _ = decode_samples(walk(b"".join(records)), EventIds([one]), NOBODY)
    fields = Fields(columns, [one])
    ends = np.cumsum([len(record) for record in records])
    for name in fields.names():
        column = fields.column(name)
        if isinstance(column, Ragged) and name != "read":
            unit = 1 if column.dtype == np.uint8 else 8
            last = column.start * unit + column.length * column.step * unit
            assert np.all((column.length == 0) | (last <= ends))
            assert np.all(column.length >= 0)
        column.tolist()


def test_records_too_short_are_told() -> None:
    one = event(1, SampleType.IDENTIFIER | SampleType.RAW | SampleType.DATA_SRC)
    whole = encode(one.attr, Written(raw=b"abcd"))
    cut = bytearray(whole[:-16])
    cut[6:8] = struct.pack("<H", len(cut))
    fields = decoded([one], [whole, bytes(cut), whole])
    assert fields.data_src.tolist() == [1000 + SampleType.DATA_SRC, 0, 1000 + SampleType.DATA_SRC]
    assert fields.problems == ["1 samples are too short for their RAW"]
    assert [len(raw) for raw in fields.raw] == [4, 0, 4]
