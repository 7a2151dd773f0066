"""Decodes the records that are no samples, a table a kind.

Layouts: include/uapi/linux/perf_event.h, enum perf_event_type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import (
    MISC_COMM_EXEC,
    MISC_MMAP_BUILD_ID,
    MISC_MMAP_DATA,
    MISC_SWITCH_OUT,
    AttrFlag,
    ReadFormat,
    RecordType,
    SampleType,
)
from kvmperf_magic.perfdata.attr import EventIds
from kvmperf_magic.perfdata.layout import trailer_word
from kvmperf_magic.perfdata.strings import strings, unique_rows
from kvmperf_magic.perfdata.walk import Walk
from kvmperf_magic.table import Categorical, Column, Ragged, Table

PROT_EXEC = 4
_SWITCH_OUT_PREEMPT = 1 << 14  # of misc
_NAMESPACE = np.dtype([("dev", np.uint64), ("ino", np.uint64)])
# NET_NS_INDEX and those behind it
_NAMESPACES = ("net", "uts", "ipc", "pid", "user", "mnt", "cgroup")
_HALF = np.uint64(0xFFFF)


class Besides:
    """The records of a walk that are no samples. Each method gives the table of one kind;
    `problems` tells what was left out. `first` is how many records came before this walk."""

    def __init__(self, walked: Walk, events: EventIds, first: int) -> None:
        mine = np.flatnonzero(walked.type != RecordType.SAMPLE)
        self.events = events
        self.problems: list[str] = []
        self._timed = any(e.attr.sample_type & SampleType.TIME for e in events.events)
        # of samples nothing is kept: these tables may be asked for late
        self._words = walked.words
        self._position, self._size = walked.position[mine], walked.size[mine]
        self._type, self._misc = walked.type[mine], walked.misc[mine]
        self._order = mine.astype(np.int64) + first
        kinds, which, counts = np.unique(self._type, return_inverse=True, return_counts=True)
        self.counts: dict[int, int] = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
        # bytes of all records of a type; those left are the samples'
        sizes = 8 * np.bincount(which, self._size, len(kinds)).astype(np.int64)
        self.sizes: dict[int, int] = dict(zip(kinds.tolist(), sizes.tolist(), strict=True))
        if len(mine) < len(walked.type):
            self.sizes[RecordType.SAMPLE] = 8 * int(walked.size.sum() - self._size.sum())

    def mmaps(self) -> Table:
        rows = self._rows(6, RecordType.MMAP, RecordType.MMAP2)
        second = self._type[rows] == RecordType.MMAP2
        bad = second & (self._size[rows] < 10)
        if bad.any():
            self.problems.append(f"{np.count_nonzero(bad)} records of type MMAP2 are too short")
            rows, second = rows[~bad], second[~bad]
        misc = self._misc[rows]
        prot = np.where(misc & MISC_MMAP_DATA, 0, PROT_EXEC).astype(np.uint32)
        prot[second] = self._halves(rows[second], 8)[0].view(np.uint32)
        pid, tid = self._halves(rows, 1)
        holds = second & self._hold_build_ids(rows, misc)
        inode = rows[second & ~holds], second & ~holds

        def device(high: bool) -> NDArray[np.uint32]:
            return _spread(self._halves(inode[0], 5)[high].view(np.uint32), inode[1])

        return self._table(
            rows,
            pid=pid,
            tid=tid,
            addr=self._word(rows, 2),
            len=self._word(rows, 3),
            pgoff=self._word(rows, 4),
            filename=self._strings(rows, np.where(second, 9, 5)),
            build_id=self._build_ids(rows, holds),
            prot=prot,
            misc=misc,
            maj=lambda: device(False),
            min=lambda: device(True),
            ino=lambda: _spread(self._word(inode[0], 6), inode[1]),
            ino_generation=lambda: _spread(self._word(inode[0], 7), inode[1]),
            flags=lambda: _spread(self._halves(rows[second], 8)[1].view(np.uint32), second),
        )

    def _hold_build_ids(
        self, rows: NDArray[np.intp], misc: NDArray[np.uint16]
    ) -> NDArray[np.bool_]:
        """Where misc says so and can be believed. As long as some recorder on the machine asks
        for build-ids, kernels (6.18 seen) set the bit for all others too, whose records hold
        device numbers and an inode all the same."""
        told = (misc & MISC_MMAP_BUILD_ID) != 0
        # {u8 size, u8 and u16 reserved}, against the u32 of a major device number
        size = self._halves(rows, 5)[0]
        asked = any(event.attr.has(AttrFlag.BUILD_ID) for event in self.events.events)
        whole = (size == 20) | (size == 16)  # SHA-1, MD5 or UUID
        return np.asarray(told & ((size >= 1) & (size <= 20) if asked else whole))

    def _build_ids(self, rows: NDArray[np.intp], has: NDArray[np.bool_]) -> Categorical:
        """Hex, or "" where the record carries an inode instead (or is an MMAP)."""
        places = {"": 0}
        codes = np.zeros(len(rows), np.int32)
        raw = self._words[self._position[rows[has]][:, None] + np.arange(5, 8)]
        unique, which = unique_rows(raw)
        names = [row.tobytes() for row in unique]
        names = [name[4 : 4 + min(name[0], 20)].hex() for name in names]
        of_unique = [places.setdefault(name, len(places)) for name in names]
        codes[has] = np.array(of_unique, np.int32)[which]
        return Categorical(codes, list(places))

    def comms(self) -> Table:
        rows = self._rows(3, RecordType.COMM)
        pid, tid = self._halves(rows, 1)
        exec_ = (self._misc[rows] & MISC_COMM_EXEC) != 0
        return self._table(rows, pid=pid, tid=tid, comm=self._strings(rows, 2), exec=exec_)

    def forks(self, kind: RecordType) -> Table:
        rows = self._rows(4, kind)
        pid, ppid = self._halves(rows, 1)
        tid, ptid = self._halves(rows, 2)
        return self._table(rows, time=self._word(rows, 3), pid=pid, ppid=ppid, tid=tid, ptid=ptid)

    def losses(self) -> Table:
        rows = self._rows(2, RecordType.LOST, RecordType.LOST_SAMPLES)
        kind = self._type[rows]
        # LOST {id, lost}, LOST_SAMPLES {lost}
        at = np.where(kind == RecordType.LOST, 2, 1)
        at = np.minimum(at, self._size[rows] - 1)
        return self._table(rows, lost=self._words[self._position[rows] + at], kind=kind)

    def throttles(self) -> Table:
        rows = self._rows(3, RecordType.THROTTLE, RecordType.UNTHROTTLE)
        time, id = self._word(rows, 1), self._word(rows, 2)
        return self._table(rows, time=time, id=id, kind=self._type[rows])

    def callchains(self) -> Table:
        """CALLCHAIN_DEFERRED: {u64 cookie, nr, ips[nr]}; the thread is the trailer's."""
        rows = self._rows(3, RecordType.CALLCHAIN_DEFERRED)
        length = np.minimum(self._word(rows, 2), np.uint64(1 << 16)).astype(np.int64)
        whole = length <= self._size[rows] - 3
        if not whole.all():
            self.problems.append(f"{np.count_nonzero(~whole)} deferred callchains are cut off")
            rows, length = rows[whole], length[whole]
        return self._table(
            rows,
            tid=self._task(rows)[1],
            cookie=self._word(rows, 1),
            chain=Ragged.view(self._position[rows] + 3, length, self._words),
        )

    def switches(self) -> Table:
        """SWITCH, and SWITCH_CPU_WIDE that tells the other thread too."""
        rows = self._rows(1, RecordType.SWITCH, RecordType.SWITCH_CPU_WIDE)
        misc = self._misc[rows]
        pid, tid = self._task(rows)
        wide = (self._type[rows] == RecordType.SWITCH_CPU_WIDE) & (self._size[rows] >= 2)
        other_pid, other_tid = self._halves(rows[wide], 1)
        return self._table(
            rows,
            pid=pid,
            tid=tid,
            cpu=self._cpu(rows),
            out=(misc & MISC_SWITCH_OUT) != 0,
            preempt=(misc & _SWITCH_OUT_PREEMPT) != 0,
            next_prev_pid=_spread(other_pid, wide, -1),
            next_prev_tid=_spread(other_tid, wide, -1),
        )

    def namespaces(self) -> Table:
        """NAMESPACES: {u32 pid, tid; u64 nr; {u64 dev, ino}[nr]}."""
        rows = self._rows(3, RecordType.NAMESPACES)
        pid, tid = self._halves(rows, 1)
        room = (self._size[rows] - 3) // 2
        count = np.minimum(self._word(rows, 2), np.uint64(1 << 16)).astype(np.int64)
        count = np.minimum(count, room)
        start = self._position[rows] + 3
        pool = np.ndarray(max(len(self._words) - 1, 0), _NAMESPACE, self._words, strides=(8,))
        inodes: dict[str, Column | Callable[[], Column]] = {}
        for i, name in enumerate(_NAMESPACES):
            has = count > i
            inodes[f"{name}_ns"] = _spread(self._words[start[has] + 2 * i + 1], has)
        listed = Ragged.view(start, count, pool, 2)
        return self._table(rows, pid=pid, tid=tid, namespaces=listed, **inodes)

    def cgroups(self) -> Table:
        rows = self._rows(3, RecordType.CGROUP)
        return self._table(rows, id=self._word(rows, 1), path=self._strings(rows, 2))

    def ksymbols(self) -> Table:
        """KSYMBOL: {u64 addr; u32 len; u16 type, flags; char name[]}."""
        rows = self._rows(4, RecordType.KSYMBOL)
        rest = self._word(rows, 2)
        return self._table(
            rows,
            addr=self._word(rows, 1),
            len=rest.astype(np.uint32),
            type=(rest >> np.uint64(32)).astype(np.uint16),
            unregister=(rest >> np.uint64(48) & np.uint64(1)) != 0,
            name=self._strings(rows, 3),
        )

    def bpf_events(self) -> Table:
        """BPF_EVENT: {u16 type, flags; u32 id; u8 tag[8]}."""
        rows = self._rows(3, RecordType.BPF_EVENT)
        word = self._word(rows, 1)
        tags, which = np.unique(self._word(rows, 2), return_inverse=True)
        names = [tag.to_bytes(8, "little").hex() for tag in tags.tolist()]
        return self._table(
            rows,
            type=word.astype(np.uint16),
            flags=(word >> np.uint64(16)).astype(np.uint16),
            id=(word >> np.uint64(32)).astype(np.uint32),
            tag=Categorical(which.astype(np.int32), names),
        )

    def text_pokes(self) -> Table:
        """TEXT_POKE: {u64 addr; u16 old_len, new_len; u8 bytes[]}, old ones first."""
        rows = self._rows(3, RecordType.TEXT_POKE)
        lengths = self._word(rows, 2)
        old, new = ((lengths >> np.uint64(by) & _HALF).astype(np.int64) for by in (0, 16))
        start = 8 * (self._position[rows] + 2) + 4
        room = 8 * (self._position[rows] + self._size[rows]) - start
        old = np.minimum(old, room)
        new = np.minimum(new, room - old)
        pool = self._words.view(np.uint8)
        return self._table(
            rows,
            addr=self._word(rows, 1),
            old=Ragged.view(start, old, pool),
            new=Ragged.view(start + old, new, pool),
        )

    def auxes(self) -> Table:
        rows = self._rows(4, RecordType.AUX)
        offset, size, flags = (self._word(rows, at) for at in (1, 2, 3))
        return self._table(rows, offset=offset, size=size, flags=flags, **self._where(rows))

    def itrace_starts(self) -> Table:
        rows = self._rows(2, RecordType.ITRACE_START)
        pid, tid = self._halves(rows, 1)
        return self._table(rows, pid=pid, tid=tid)

    def aux_output_hw_ids(self) -> Table:
        rows = self._rows(2, RecordType.AUX_OUTPUT_HW_ID)
        return self._table(rows, hw_id=self._word(rows, 1), **self._where(rows))

    def reads(self) -> Table:
        """READ: {u32 pid, tid; values by read_format}. All events of a recording must have one
        read_format, perf's own rule; else the first event's is believed."""
        events = self.events.events
        form = events[0].attr.read_format if events else 0
        group = bool(form & ReadFormat.GROUP)
        names = ["nr"] * group
        times = {"time_enabled": ReadFormat.TOTAL_TIME_ENABLED}
        times["time_running"] = ReadFormat.TOTAL_TIME_RUNNING
        behind = {"id": ReadFormat.ID, "lost": ReadFormat.LOST}
        held = [name for name, bit in times.items() if form & bit]
        names += [*held, "value"] if group else ["value", *held]
        names += [name for name, bit in behind.items() if form & bit]
        rows = self._rows(2 + len(names), RecordType.READ)
        pid, tid = self._halves(rows, 1)
        none = np.zeros(len(rows), np.uint64)
        words = {name: self._word(rows, 2 + at) for at, name in enumerate(names)}
        known = ("value", *times, *behind)
        return self._table(
            rows, pid=pid, tid=tid, **{name: words.get(name, none) for name in known}
        )

    def _rows(self, least: int, *types: RecordType) -> NDArray[np.intp]:
        """Rows of these types that have at least so many words."""
        rows = np.flatnonzero(np.isin(self._type, types))
        whole = self._size[rows] >= least
        if not whole.all():
            left = int(np.count_nonzero(~whole))
            self.problems.append(f"{left} records of type {types[0].name} are too short")
        return rows[whole]

    def _word(self, rows: NDArray[np.intp], at: int) -> NDArray[np.uint64]:
        return self._words[self._position[rows] + at]

    def _halves(
        self, rows: NDArray[np.intp], at: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The two signed 32-bit numbers of a word."""
        return _split(self._word(rows, at))

    def _trailer(
        self, rows: NDArray[np.intp], field: SampleType
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """A word of the trailer (sample_id_all), and where it is there.

        With different attrs, the trailer's id says which holds.
        """
        events = self.events.events
        places = [trailer_word(e.attr, field) or 0 for e in events]
        if not any(places):
            return np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.bool_)
        end = self._position[rows] + self._size[rows]
        back = np.full(len(rows), places[0], np.int64)
        if len(set(places)) > 1:
            # IDENTIFIER is the last word of a trailer, for this very purpose
            event = self.events.of(self._words[end - 1])
            back = np.where(event >= 0, np.array(places)[event], 0)
        there = (back > 0) & (back < self._size[rows])
        word = self._words[np.where(there, end - back, 0)]
        return np.where(there, word, 0).astype(np.uint64), there

    def _task(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """pid and tid of the trailer, -1 where there is none."""
        word, there = self._trailer(rows, SampleType.TID)
        pid, tid = _split(word)
        return np.where(there, pid, -1).astype(np.int32), np.where(there, tid, -1).astype(np.int32)

    def _cpu(self, rows: NDArray[np.intp]) -> NDArray[np.int32]:
        word, there = self._trailer(rows, SampleType.CPU)
        return np.where(there, _split(word)[0], -1).astype(np.int32)

    def _where(self, rows: NDArray[np.intp]) -> dict[str, Column | Callable[[], Column]]:
        """pid tid cpu of the trailer."""
        pid, tid = self._task(rows)
        return {"pid": pid, "tid": tid, "cpu": self._cpu(rows)}

    def _strings(self, rows: NDArray[np.intp], at: NDArray[np.int64] | int) -> Categorical:
        """NUL-terminated strings at these words of the records."""
        position = self._position[rows]
        return strings(self._words, position + at, position + self._size[rows])

    def _table(self, rows: NDArray[np.intp], **columns: Column | Callable[[], Column]) -> Table:
        time = columns.pop("time", None)
        # where no event records times, those that some records have of their own would stand
        # behind all others
        if time is None or not self._timed:
            time = self._trailer(rows, SampleType.TIME)[0]
        return by_time(Table({"time": time, "order": self._order[rows], **columns}, len(rows)))


def by_time(table: Table) -> Table:
    time = table["time"]
    if not np.any(time[1:] < time[:-1]):
        return table
    return table[np.argsort(time, kind="stable")]


def _split(words: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    pairs = np.ascontiguousarray(words).view(np.int32).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _spread(values: NDArray[np.generic], where: NDArray[np.bool_], other: int = 0) -> NDArray[Any]:
    """A column that has these values where `where` is true, else `other`."""
    column = np.full(len(where), other, values.dtype)
    column[where] = values
    return column
