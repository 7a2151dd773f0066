"""SAMPLE records as columns, in one pass over their words.

tools/perf/util/evsel.c: evsel__parse_sample() decodes the same, a record at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kvmperf_magic.parallel import blocks
from kvmperf_magic.perfdata.abi import RecordType, SampleType
from kvmperf_magic.perfdata.attr import EventIds
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.layout import SampleLayout
from kvmperf_magic.perfdata.walk import Walk


@dataclass(frozen=True)
class GuestIds:
    """What ID_INDEX records tell: event ids (sorted) that belong to a guest's vCPU."""

    ids: NDArray[np.uint64]
    machine_pid: NDArray[np.int32]
    vcpu: NDArray[np.int32]


@dataclass(frozen=True)
class SampleColumns:
    """n samples ordered by time; those of one time are in file order.

    `event` indexes the file's events; `misc & 7` is the cpumode. `machine_pid` is 0 and `vcpu`
    -1 where the file does not tell. A field that the event does not record is 0 (pid, tid, cpu:
    -1), its callchain empty. `record` is where row i's record stands in `words`. Callchains are
    found when they are first asked for.
    """

    time: NDArray[np.uint64]  # ns of the recording's clock
    ip: NDArray[np.uint64]
    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    cpu: NDArray[np.int32]
    period: NDArray[np.uint64]
    event: NDArray[np.int32]
    misc: NDArray[np.uint16]
    machine_pid: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    chains_later: Callable[[], Chains]
    record: NDArray[np.int64]
    words: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.time)

    @cached_property
    def chains(self) -> Chains:
        return self.chains_later()

    @classmethod
    def joined(cls, parts: Sequence[SampleColumns]) -> SampleColumns:
        """Several (at least one) as one, ordered by time; ties in the order of the parts."""
        if len(parts) == 1:
            return parts[0]
        whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_ROW}
        shift = np.cumsum([0, *(len(part.words) for part in parts[:-1])]).tolist()
        record = [part.record + by for part, by in zip(parts, shift, strict=True)]
        words = np.concatenate([part.words for part in parts])
        if all(part.chains.words is part.words for part in parts):
            start = [part.chains.start + by for part, by in zip(parts, shift, strict=True)]
            length = [part.chains.length for part in parts]
            chains = Chains(words, np.concatenate(start), np.concatenate(length))
        else:
            chains = Chains.joined([part.chains for part in parts])
        together = cls(
            **whole, chains_later=lambda: chains, record=np.concatenate(record), words=words
        )
        return together.take(np.argsort(whole["time"], kind="stable"))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> SampleColumns:
        """Only these rows, in this order; rows may repeat."""
        return SampleColumns(
            **{name: getattr(self, name)[rows] for name in _PER_ROW},
            chains_later=lambda: self.chains.take(rows),
            record=self.record[rows],
            words=self.words,
        )


_OTHERS = ("chains_later", "record", "words")
_PER_ROW = [f.name for f in fields(SampleColumns) if f.name not in _OTHERS]


def decode_samples(
    walked: Walk, events: EventIds, guests: GuestIds
) -> tuple[SampleColumns, list[str]]:
    """The samples of a walk, and what was wrong with those that had to be left out."""
    problems: list[str] = []
    words = walked.words
    rows = walked.of_type(RecordType.SAMPLE)
    layouts = [SampleLayout.of(event.attr) for event in events.events]
    unique = list(dict.fromkeys(layouts))
    if len(rows) and not unique:
        return _empty(words), [f"{len(rows)} samples of no event: the file names none"]

    ids, event = _events_of(walked, rows, events)
    layout = np.array([unique.index(one) for one in layouts], np.int32)
    # a record must at least hold the fields of fixed place, and belong to an event
    least = np.array([one.fixed for one in layouts], np.int64)
    known = event >= 0
    whole = known & (walked.size[rows] >= (least[event] if len(least) else 0))
    for count, what in (
        (np.count_nonzero(~known), "samples carry an id that no event has"),
        (np.count_nonzero(known & ~whole), "samples are shorter than their event says"),
    ):
        if count:
            problems.append(f"{count} {what}")
    if problems:
        rows, event, ids = rows[whole], event[whole], ids[whole]

    position = walked.position[rows]
    time = np.zeros(len(rows), np.uint64)
    for i, one in enumerate(unique):
        if (at := one.word(SampleType.TIME)) is not None:
            mine = slice(None) if len(unique) == 1 else layout[event] == i
            time[mine] = words[position[mine] + at]
    if np.any(time[1:] < time[:-1]):
        order = np.argsort(time, kind="stable")
        rows, position, event = rows[order], position[order], event[order]
        ids, time = ids[order], time[order]

    columns = _Columns(time, event, walked.misc[rows], position, words)
    for i, one in enumerate(unique):
        mine = np.arange(len(rows)) if len(unique) == 1 else np.flatnonzero(layout[event] == i)
        columns.gather(one, mine)
    columns.default_periods([e.attr.sample_period for e in events.events], layouts)
    machine_pid, vcpu = _guests_of(ids, guests)
    layout_of = layout[event] if len(layout) else event
    later = partial(columns.chains, unique, layout_of, walked, rows)
    return columns.done(machine_pid, vcpu, later), problems


def _empty(words: NDArray[np.uint64]) -> SampleColumns:
    none = np.zeros(0, np.int64)
    i32, u64 = none.astype(np.int32), none.astype(np.uint64)
    return SampleColumns(
        time=u64,
        ip=u64,
        pid=i32,
        tid=i32,
        cpu=i32,
        period=u64,
        event=i32,
        misc=none.astype(np.uint16),
        machine_pid=i32,
        vcpu=i32,
        chains_later=partial(Chains.none, 0),
        record=none,
        words=words,
    )


def _events_of(
    walked: Walk, rows: NDArray[np.intp], events: EventIds
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """The id and the event of each sample."""
    at = events.sample_id_word()
    if at is None:
        ids = np.zeros(len(rows), np.uint64)
    else:
        # a record too short for its id is too short for its event, and left out later
        inside = np.minimum(at, np.maximum(walked.size[rows] - 1, 0))
        ids = walked.words[walked.position[rows] + inside]
    return ids, events.of(ids)


def _guests_of(
    ids: NDArray[np.uint64], guests: GuestIds
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    if not len(guests.ids):
        return np.zeros(len(ids), np.int32), np.full(len(ids), -1, np.int32)
    at = np.minimum(np.searchsorted(guests.ids, ids), len(guests.ids) - 1)
    found = guests.ids[at] == ids
    return (
        np.where(found, guests.machine_pid[at], 0).astype(np.int32),
        np.where(found, guests.vcpu[at], -1).astype(np.int32),
    )


class _Columns:
    """Columns being filled, layout by layout and block by block."""

    def __init__(
        self,
        time: NDArray[np.uint64],
        event: NDArray[np.int32],
        misc: NDArray[np.uint16],
        position: NDArray[np.int64],
        words: NDArray[np.uint64],
    ) -> None:
        n = len(time)
        self.time, self.event, self.misc = time, event, misc
        self.position, self.words = position, words
        self.ip = np.zeros(n, np.uint64)
        self.period = np.zeros(n, np.uint64)
        self.pid = np.full(n, -1, np.int32)
        self.tid = np.full(n, -1, np.int32)
        self.cpu = np.full(n, -1, np.int32)

    def gather(self, layout: SampleLayout, rows: NDArray[np.intp]) -> None:
        """The fields of fixed place, for the rows of one layout."""
        if not len(rows):
            return
        windows = sliding_window_view(self.words, layout.fixed)
        ip, period = layout.word(SampleType.IP), layout.word(SampleType.PERIOD)
        task, cpu = layout.word(SampleType.TID), layout.word(SampleType.CPU)

        def work(part: slice) -> None:
            mine = rows[part]
            block = windows[self.position[mine]]
            halves = block.view(np.int32)  # little endian: the low half of a word comes first
            if ip is not None:
                self.ip[mine] = block[:, ip]
            if task is not None:
                self.pid[mine] = halves[:, 2 * task]
                self.tid[mine] = halves[:, 2 * task + 1]
            if cpu is not None:
                self.cpu[mine] = halves[:, 2 * cpu]
            if period is not None:
                self.period[mine] = block[:, period]

        blocks(work, len(rows))

    def default_periods(self, periods: list[int], layouts: list[SampleLayout]) -> None:
        """An event that does not record its periods has the one of its attr."""
        for i, (period, layout) in enumerate(zip(periods, layouts, strict=True)):
            if not layout.sample_type & SampleType.PERIOD:
                self.period[self.event == i] = period

    def chains(
        self,
        layouts: list[SampleLayout],
        layout: NDArray[np.int32],
        walked: Walk,
        rows: NDArray[np.intp],
    ) -> Chains:
        """Where each chain starts and how long it is."""
        start, length = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)

        def measure(one: SampleLayout, of: NDArray[np.intp], part: slice) -> int:
            mine = of[part]
            position, size = self.position[mine], walked.size[rows[mine]]
            begin = one.after_read(self.words, position, size)
            at = position + np.minimum(begin, size - 1)
            room = np.maximum(size - begin - 1, 0)
            count = np.minimum(self.words[at], np.uint64(1 << 20)).astype(np.int64)
            count[begin >= size] = 1  # not even the length is there
            length[mine] = np.minimum(count, room)
            start[mine] = at + 1
            return int(np.count_nonzero(count > room))

        cut = 0
        for i, one in enumerate(layouts):
            mine = np.flatnonzero(layout == i)
            if one.sample_type & SampleType.CALLCHAIN and len(mine):
                cut += sum(blocks(partial(measure, one, mine), len(mine)))
        return Chains(self.words, start, length, cut)

    def done(
        self,
        machine_pid: NDArray[np.int32],
        vcpu: NDArray[np.int32],
        chains_later: Callable[[], Chains],
    ) -> SampleColumns:
        return SampleColumns(
            time=self.time,
            ip=self.ip,
            pid=self.pid,
            tid=self.tid,
            cpu=self.cpu,
            period=self.period,
            event=self.event,
            misc=self.misc,
            machine_pid=machine_pid,
            vcpu=vcpu,
            chains_later=chains_later,
            record=self.position,
            words=self.words,
        )
