"""The fields of samples that few ask for: decoded for a whole column when first asked for.

tools/perf/util/evsel.c: evsel__parse_sample() decodes them, a record at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import ReadFormat, SampleType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.parts import BRANCH, READ_VALUE, WEIGHTS, Parts, Shape
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.table import Column, Ragged

_Places = tuple[NDArray[np.int64], NDArray[np.int64]]  # start and length, a row each


class Fields:
    """Columns of n samples, each an array or a `Ragged` of n rows.

    A row whose event does not record a field has 0 or no items there. What a record is too short
    for is cut at its end: `problems` tells how many were, of the fields decoded so far.

    u64: addr, id, stream_id, transaction, phys_addr, cgroup, data_page_size, code_page_size,
    data_src, hw_idx, weight (with WEIGHT_STRUCT its low half; ins_lat and p_stage_cyc the rest),
    time_enabled and time_running (ns, of `read`), regs_user_abi and regs_intr_abi (0 none, 1 for
    32 bits, 2 for 64), regs_user_mask and regs_intr_mask (a bit a register).

    Ragged: read (rows of value, id, lost); raw, stack_user, aux (bytes); branch_stack (rows of
    from, to, flags, the newest first), branch_counters (u64, one a branch); regs_user, regs_intr
    (u64, one a bit of the mask, the lowest first).
    """

    def __init__(self, samples: SampleColumns, events: Sequence[Event]) -> None:
        self._samples = samples
        self._events = events
        self._words = samples.words
        shapes = [Shape.of(event.attr) for event in events]
        self._shapes = list(dict.fromkeys(shapes))
        self._of_event = np.array([self._shapes.index(shape) for shape in shapes], np.int32)

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        named = ", ".join(self.names_of(self._events)) or "none"
        return f"<Fields of {len(self):,} samples: {named}>"

    @staticmethod
    def names_of(events: Sequence[Event]) -> list[str]:
        """The fields that some of these events record."""
        shapes = {Shape.of(event.attr) for event in events}
        return [
            name
            for name, (bits, _) in _COLUMNS.items()
            if any(_records(shape, name, int(bits)) for shape in shapes)
        ]

    def names(self) -> list[str]:
        """The fields that some event here records."""
        return self.names_of(self._events)

    def column(self, name: str) -> Column:
        """A field by its name, recorded or not. KeyError for what is none."""
        return _COLUMNS[name][1](self)

    @property
    def problems(self) -> list[str]:
        """One line for each field that records were too short for."""
        lost: dict[int, int] = {}
        for _, parts in self._parts:
            for part, count in parts.short.items():
                lost[part] = lost.get(part, 0) + count
        return [
            f"{count} samples are too short for their {SampleType(part & -part).name}"
            for part, count in lost.items()
        ]

    @cached_property
    def _parts(self) -> list[tuple[NDArray[np.intp] | slice, Parts]]:
        """The rows of each shape, and their parts."""
        words, record, event = self._words, self._samples.record, self._samples.event
        size = (words[record] >> np.uint64(48)).astype(np.int64)
        end = np.minimum(record + (size + 7) // 8, len(words))
        if len(self._shapes) == 1:
            return [(slice(None), Parts(self._shapes[0], words, record, end))]
        found: list[tuple[NDArray[np.intp] | slice, Parts]] = []
        for i, shape in enumerate(self._shapes):
            rows = np.flatnonzero(self._of_event[event] == i)
            found.append((rows, Parts(shape, words, record[rows], end[rows])))
        return found

    # of fixed place

    @cached_property
    def addr(self) -> NDArray[np.uint64]:
        return self._fixed(SampleType.ADDR)

    @cached_property
    def id(self) -> NDArray[np.uint64]:
        return self._fixed(SampleType.IDENTIFIER, SampleType.ID)

    @cached_property
    def stream_id(self) -> NDArray[np.uint64]:
        return self._fixed(SampleType.STREAM_ID)

    def _fixed(self, *fields: SampleType) -> NDArray[np.uint64]:
        """The first of these that a sample has."""
        column = np.zeros(len(self), np.uint64)
        for rows, parts in self._parts:
            places = [parts.shape.layout.word(field) for field in fields]
            for place in [place for place in places if place is not None][:1]:
                column[rows] = self._words[parts.record + place]
        return column

    # one word each

    @cached_property
    def weight(self) -> NDArray[np.uint64]:
        column = self._word(WEIGHTS)
        for rows, parts in self._parts:
            if parts.has(SampleType.WEIGHT_STRUCT):
                column[rows] &= np.uint64(0xFFFFFFFF)
        return column

    @cached_property
    def ins_lat(self) -> NDArray[np.uint16]:
        """Latency of the instruction, cycles: var2_w of union perf_sample_weight."""
        return (self._word(SampleType.WEIGHT_STRUCT) >> np.uint64(32)).astype(np.uint16)

    @cached_property
    def p_stage_cyc(self) -> NDArray[np.uint16]:
        """Cycles in a pipeline stage, or retire latency: var3_w of union perf_sample_weight."""
        return (self._word(SampleType.WEIGHT_STRUCT) >> np.uint64(48)).astype(np.uint16)

    @cached_property
    def data_src(self) -> NDArray[np.uint64]:
        """union perf_mem_data_src."""
        return self._word(SampleType.DATA_SRC)

    @cached_property
    def transaction(self) -> NDArray[np.uint64]:
        return self._word(SampleType.TRANSACTION)

    @cached_property
    def phys_addr(self) -> NDArray[np.uint64]:
        return self._word(SampleType.PHYS_ADDR)

    @cached_property
    def cgroup(self) -> NDArray[np.uint64]:
        """The cgroup's id: its path is in the sideband's `cgroup`."""
        return self._word(SampleType.CGROUP)

    @cached_property
    def data_page_size(self) -> NDArray[np.uint64]:
        return self._word(SampleType.DATA_PAGE_SIZE)

    @cached_property
    def code_page_size(self) -> NDArray[np.uint64]:
        return self._word(SampleType.CODE_PAGE_SIZE)

    @cached_property
    def hw_idx(self) -> NDArray[np.uint64]:
        """Which of the hardware's branch registers is the newest entry's; all ones: unknown."""
        column = np.zeros(len(self), np.uint64)
        for rows, parts in self._parts:
            if parts.shape.hw_idx:
                column[rows] = parts.word(SampleType.BRANCH_STACK, 1)
        return column

    @cached_property
    def regs_user_abi(self) -> NDArray[np.uint64]:
        return self._word(SampleType.REGS_USER)

    @cached_property
    def regs_intr_abi(self) -> NDArray[np.uint64]:
        return self._word(SampleType.REGS_INTR)

    @cached_property
    def regs_user_mask(self) -> NDArray[np.uint64]:
        masks = np.array([shape.regs_user for shape in self._shapes], np.uint64)
        return masks[self._of_event[self._samples.event]]

    @cached_property
    def regs_intr_mask(self) -> NDArray[np.uint64]:
        masks = np.array([shape.regs_intr for shape in self._shapes], np.uint64)
        return masks[self._of_event[self._samples.event]]

    @cached_property
    def time_enabled(self) -> NDArray[np.uint64]:
        return self._read_time(ReadFormat.TOTAL_TIME_ENABLED)

    @cached_property
    def time_running(self) -> NDArray[np.uint64]:
        return self._read_time(ReadFormat.TOTAL_TIME_RUNNING)

    def _read_time(self, which: ReadFormat) -> NDArray[np.uint64]:
        column = np.zeros(len(self), np.uint64)
        for rows, parts in self._parts:
            form = parts.shape.layout.read_format
            if form & which:
                before = which == ReadFormat.TOTAL_TIME_RUNNING
                before = before and bool(form & ReadFormat.TOTAL_TIME_ENABLED)
                column[rows] = parts.word(SampleType.READ, 1 + int(before))
        return column

    def _word(self, part: int) -> NDArray[np.uint64]:
        column = np.zeros(len(self), np.uint64)
        for rows, parts in self._parts:
            if parts.has(part):
                # both kinds of weight are one part
                column[rows] = parts.word(WEIGHTS if part & WEIGHTS else part)
        return column

    # of several items

    @cached_property
    def read(self) -> Ragged:
        """The counters' values; in a group all members', the leader's first."""
        start, length = self._places(SampleType.READ, Parts.read_values)
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(length, out=offsets[1:])
        values = np.zeros(offsets[-1], READ_VALUE)
        for rows, parts in self._parts:
            if not parts.has(SampleType.READ):
                continue
            count = length[rows]
            nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            into = np.repeat(offsets[:-1][rows], count) + nth
            place = np.repeat(start[rows], count) + parts.read_stride * nth
            for name, at in parts.read_places.items():
                values[name][into] = self._words[place + at]
        return Ragged(offsets, values)

    @cached_property
    def raw(self) -> Ragged:
        """What a tracepoint (or a PMU) wrote, padding included."""
        return Ragged.view(*self._places(SampleType.RAW, Parts.raw), self._words.view(np.uint8))

    @cached_property
    def branch_stack(self) -> Ragged:
        # entries overlap in this view: one begins at each word
        count = max(len(self._words) - 2, 0)
        pool = np.ndarray(count, BRANCH, np.ascontiguousarray(self._words), strides=(8,))
        return Ragged.view(*self._places(SampleType.BRANCH_STACK, Parts.branches), pool, 3)

    @cached_property
    def branch_counters(self) -> Ragged:
        """Occurrences of events between branches: the fields' widths are in CPU_PMU_CAPS."""
        return Ragged.view(*self._places(SampleType.BRANCH_STACK, Parts.counters), self._words)

    @cached_property
    def regs_user(self) -> Ragged:
        return self._registers(SampleType.REGS_USER)

    @cached_property
    def regs_intr(self) -> Ragged:
        return self._registers(SampleType.REGS_INTR)

    @cached_property
    def stack_user(self) -> Ragged:
        """The user stack from its pointer on, as much of it as the kernel could copy."""
        return Ragged.view(
            *self._places(SampleType.STACK_USER, Parts.stack), self._words.view(np.uint8)
        )

    @cached_property
    def aux(self) -> Ragged:
        return Ragged.view(*self._places(SampleType.AUX, Parts.aux), self._words.view(np.uint8))

    def register(self, bit: int, *, user: bool = True) -> NDArray[np.uint64]:
        """One register of every sample, by its number in asm/perf_regs.h; 0 where there is none."""
        values, masks = (
            (self.regs_user, self.regs_user_mask) if user else (self.regs_intr, self.regs_intr_mask)
        )
        column = np.zeros(len(self), np.uint64)
        for mask in np.unique(masks).tolist():
            place = (mask & ((1 << bit) - 1)).bit_count()
            if mask >> bit & 1:
                rows = np.flatnonzero((masks == mask) & (values.length > place))
                column[rows] = values.pool[values.start[rows] + place]
        return column

    def _registers(self, part: SampleType) -> Ragged:
        places = self._places(part, lambda parts: parts.registers(part))
        return Ragged.view(*places, self._words)

    def _places(self, part: SampleType, where: Callable[[Parts], _Places]) -> _Places:
        start, length = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        for rows, parts in self._parts:
            if parts.has(part):
                start[rows], length[rows] = where(parts)
        return start, length


def _records(shape: Shape, name: str, bits: int) -> bool:
    """If samples of this shape have a field; `bits`: those of sample_type that can give it."""
    if not shape.layout.sample_type & bits:
        return False
    return {
        "hw_idx": shape.hw_idx,
        "branch_counters": shape.counters,
        "time_enabled": bool(shape.layout.read_format & ReadFormat.TOTAL_TIME_ENABLED),
        "time_running": bool(shape.layout.read_format & ReadFormat.TOTAL_TIME_RUNNING),
    }.get(name, True)


_COLUMNS: dict[str, tuple[int, Callable[[Fields], Column]]] = {
    "addr": (SampleType.ADDR, lambda f: f.addr),
    "id": (SampleType.ID | SampleType.IDENTIFIER, lambda f: f.id),
    "stream_id": (SampleType.STREAM_ID, lambda f: f.stream_id),
    "time_enabled": (SampleType.READ, lambda f: f.time_enabled),
    "time_running": (SampleType.READ, lambda f: f.time_running),
    "read": (SampleType.READ, lambda f: f.read),
    "raw": (SampleType.RAW, lambda f: f.raw),
    "branch_stack": (SampleType.BRANCH_STACK, lambda f: f.branch_stack),
    "hw_idx": (SampleType.BRANCH_STACK, lambda f: f.hw_idx),
    "branch_counters": (SampleType.BRANCH_STACK, lambda f: f.branch_counters),
    "regs_user_abi": (SampleType.REGS_USER, lambda f: f.regs_user_abi),
    "regs_user": (SampleType.REGS_USER, lambda f: f.regs_user),
    "stack_user": (SampleType.STACK_USER, lambda f: f.stack_user),
    "weight": (WEIGHTS, lambda f: f.weight),
    "ins_lat": (SampleType.WEIGHT_STRUCT, lambda f: f.ins_lat),
    "p_stage_cyc": (SampleType.WEIGHT_STRUCT, lambda f: f.p_stage_cyc),
    "data_src": (SampleType.DATA_SRC, lambda f: f.data_src),
    "transaction": (SampleType.TRANSACTION, lambda f: f.transaction),
    "regs_intr_abi": (SampleType.REGS_INTR, lambda f: f.regs_intr_abi),
    "regs_intr": (SampleType.REGS_INTR, lambda f: f.regs_intr),
    "phys_addr": (SampleType.PHYS_ADDR, lambda f: f.phys_addr),
    "cgroup": (SampleType.CGROUP, lambda f: f.cgroup),
    "data_page_size": (SampleType.DATA_PAGE_SIZE, lambda f: f.data_page_size),
    "code_page_size": (SampleType.CODE_PAGE_SIZE, lambda f: f.code_page_size),
    "aux": (SampleType.AUX, lambda f: f.aux),
}
