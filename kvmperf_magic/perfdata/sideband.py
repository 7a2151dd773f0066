"""The records beside the samples: maps, names, forks, losses, as tables ordered by time.

Layouts: include/uapi/linux/perf_event.h. A record's own time is in its trailer (sample_id_all);
records that the recorder made up have 0 there, and hold from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import (
    MISC_COMM_EXEC,
    MISC_MMAP_BUILD_ID,
    MISC_MMAP_DATA,
    AttrFlag,
    RecordType,
    SampleType,
)
from kvmperf_magic.perfdata.attr import EventIds
from kvmperf_magic.perfdata.features import text
from kvmperf_magic.perfdata.layout import trailer_word
from kvmperf_magic.perfdata.walk import Walk
from kvmperf_magic.table import Categorical, Column, Ragged, Table

PROT_EXEC = 4


@dataclass(frozen=True)
class Sideband:
    """Each a Table ordered by `time` (u64, ns), those of one time in file order.

    `order` is the place of a record among all records: it settles ties between tables.
    mmap: time order pid tid addr len pgoff filename build_id prot misc (MMAP and MMAP2);
    comm: time order pid tid comm exec; fork, exit: time order pid ppid tid ptid;
    lost: time order lost kind (RecordType.LOST counts records, LOST_SAMPLES samples);
    throttle: time order id kind (RecordType.THROTTLE or UNTHROTTLE);
    deferred: time order tid cookie chain (CALLCHAIN_DEFERRED: user callchains of samples before,
    whose chains end in the same cookie).
    """

    mmap: Table
    comm: Table
    fork: Table
    exit: Table
    lost: Table
    throttle: Table
    deferred: Table

    @classmethod
    def joined(cls, parts: Sequence[Sideband]) -> Sideband:
        """Several (at least one) as one, ordered by time; ties in the order of the parts."""
        names = ("mmap", "comm", "fork", "exit", "lost", "throttle", "deferred")
        return cls(*(_joined([getattr(part, name) for part in parts]) for name in names))

    def comm_of(self, tid: NDArray[np.int32], time: NDArray[np.uint64]) -> Categorical:
        """What each thread is called at each time, as perf names threads.

        A COMM names a thread; a FORK hands the parent's name on. Thread 0 is `swapper`, one
        that is never named `:TID`.
        """
        history = self._comm_history
        tids, which = np.unique(tid, return_inverse=True)
        group = np.searchsorted(history.tids, tids)
        known = group < len(history.tids)
        known[known] = history.tids[group[known]] == tids[known]
        # one sorted key of (thread, time): both are turned into their ranks
        rank = np.searchsorted(history.times, time, "right")
        key = group[which] * (len(history.times) + 1) + rank
        at = np.searchsorted(history.keys, key, "right") - 1
        found = known[which] & (at >= 0)
        found[found] = history.group[at[found]] == group[which][found]

        fallback = ["swapper" if one == 0 else f":{one}" for one in tids.tolist()]
        categories = list(dict.fromkeys([*history.names, *fallback]))
        place = {name: i for i, name in enumerate(categories)}
        of_history = np.array([place[name] for name in history.names], np.int32)[history.codes]
        of_fallback = np.array([place[name] for name in fallback], np.int32)
        codes = of_fallback[which] if len(tids) else np.zeros(0, np.int32)
        codes[found] = of_history[at[found]]
        return Categorical(codes, categories)

    @cached_property
    def _comm_history(self) -> _CommHistory:
        """Every change of a thread's name, FORKs resolved."""
        comm, fork = self.comm, self.fork
        time = np.concatenate([comm["time"], fork["time"]])
        order = np.lexsort((np.concatenate([comm["order"], fork["order"]]), time)).tolist()
        named = comm.column("comm")
        assert isinstance(named, Categorical)
        codes = [*named.codes.tolist(), *([-1] * len(fork))]
        child = np.concatenate([comm["tid"], fork["tid"]]).tolist()
        parent = [-1] * len(comm) + fork["ptid"].tolist()
        now: dict[int, int] = {}
        changes: list[tuple[int, int, int]] = []
        for i in order:
            code = codes[i] if codes[i] >= 0 else now.get(parent[i], -1)
            if code >= 0:
                now[child[i]] = code
                changes.append((child[i], i, code))
        table = np.array(changes, np.int64).reshape(-1, 3)
        table = table[np.argsort(table[:, 0], kind="stable")]
        tids, group = np.unique(table[:, 0], return_inverse=True)
        times = np.unique(time)
        # `rank` counts the times up to and with this one, as the look-up does
        rank = np.searchsorted(times, time[table[:, 1]], "right")
        keys = group * (len(times) + 1) + rank
        return _CommHistory(
            tids.astype(np.int32), group, times, keys, table[:, 2], named.categories
        )


@dataclass(frozen=True)
class _CommHistory:
    """Changes ordered by (thread, time): `keys` is that order as one number."""

    tids: NDArray[np.int32]
    group: NDArray[np.intp]
    times: NDArray[np.uint64]
    keys: NDArray[np.int64]
    codes: NDArray[np.int64]
    names: list[str]


def decode_sideband(walked: Walk, events: EventIds, first: int) -> tuple[Sideband, list[str]]:
    """The sideband of a walk, and what was wrong with records that had to be left out.

    `first` is how many records came before this walk.
    """
    reader = _Reader(walked, events, first)
    sideband = Sideband(
        mmap=reader.mmaps(),
        comm=reader.comms(),
        fork=reader.forks(RecordType.FORK),
        exit=reader.forks(RecordType.EXIT),
        lost=reader.losses(),
        throttle=reader.throttles(),
        deferred=reader.callchains(),
    )
    return sideband, reader.problems


class _Reader:
    def __init__(self, walked: Walk, events: EventIds, first: int) -> None:
        self.walked = walked
        self.events = events
        self.first = first
        self.problems: list[str] = []
        # a view without items cannot be cast
        self._bytes = walked.words.data.cast("B") if len(walked.words) else memoryview(b"")

    def rows(self, least: int, *types: RecordType) -> NDArray[np.intp]:
        """Rows of these types that have at least so many words."""
        rows = self.walked.of_type(*types)
        whole = self.walked.size[rows] >= least
        if not whole.all():
            left = int(np.count_nonzero(~whole))
            self.problems.append(f"{left} records of type {types[0].name} are too short")
        return rows[whole]

    def word(self, rows: NDArray[np.intp], at: int) -> NDArray[np.uint64]:
        return self.walked.words[self.walked.position[rows] + at]

    def halves(
        self, rows: NDArray[np.intp], at: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The two signed 32-bit numbers of a word."""
        pairs = self.word(rows, at).view(np.int32).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def times(self, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
        return self._trailer(rows, SampleType.TIME)

    def _trailer(self, rows: NDArray[np.intp], field: SampleType) -> NDArray[np.uint64]:
        """A word of the trailer; with different attrs, the trailer's id says which holds."""
        events = self.events.events
        places = [trailer_word(e.attr, field) or 0 for e in events]
        if not any(places):
            return np.zeros(len(rows), np.uint64)
        end = self.walked.position[rows] + self.walked.size[rows]
        back = np.full(len(rows), places[0], np.int64)
        if len(set(places)) > 1:
            # IDENTIFIER is the last word of a trailer, for this very purpose
            event = self.events.of(self.walked.words[end - 1])
            back = np.where(event >= 0, np.array(places)[event], 0)
        there = (back > 0) & (back < self.walked.size[rows])
        time = self.walked.words[np.where(there, end - back, 0)]
        return np.where(there, time, 0).astype(np.uint64)

    def strings(self, rows: NDArray[np.intp], at: NDArray[np.int64]) -> Categorical:
        """NUL-terminated strings at these words of the records."""
        start = 8 * (self.walked.position[rows] + at)
        end = 8 * (self.walked.position[rows] + self.walked.size[rows])
        places: dict[bytes, int] = {}
        codes = []
        for a, b in zip(start.tolist(), end.tolist(), strict=True):
            raw = bytes(self._bytes[a:b]).split(b"\0", 1)[0]
            codes.append(places.setdefault(raw, len(places)))
        return _categorical(np.array(codes, np.int32), [text(raw) for raw in places])

    def mmaps(self) -> Table:
        rows = self.rows(6, RecordType.MMAP, RecordType.MMAP2)
        second = self.walked.type[rows] == RecordType.MMAP2
        bad = second & (self.walked.size[rows] < 10)
        if bad.any():
            self.problems.append(f"{np.count_nonzero(bad)} records of type MMAP2 are too short")
            rows, second = rows[~bad], second[~bad]
        misc = self.walked.misc[rows]
        prot = np.where(misc & MISC_MMAP_DATA, 0, PROT_EXEC).astype(np.uint32)
        prot[second] = self.halves(rows[second], 8)[0].view(np.uint32)
        pid, tid = self.halves(rows, 1)
        return self._table(
            rows,
            pid=pid,
            tid=tid,
            addr=self.word(rows, 2),
            len=self.word(rows, 3),
            pgoff=self.word(rows, 4),
            filename=self.strings(rows, np.where(second, 9, 5)),
            build_id=self._build_ids(rows, second & self._hold_build_ids(rows, misc)),
            prot=prot,
            misc=misc,
        )

    def _hold_build_ids(
        self, rows: NDArray[np.intp], misc: NDArray[np.uint16]
    ) -> NDArray[np.bool_]:
        """Where misc says so and can be believed. As long as some recorder on the machine asks
        for build-ids, kernels (6.18 seen) set the bit for all others too, whose records hold
        device numbers and an inode all the same."""
        told = (misc & MISC_MMAP_BUILD_ID) != 0
        # {u8 size, u8 and u16 reserved}, against the u32 of a major device number
        size = self.halves(rows, 5)[0]
        asked = any(event.attr.has(AttrFlag.BUILD_ID) for event in self.events.events)
        whole = (size == 20) | (size == 16)  # SHA-1, MD5 or UUID
        return np.asarray(told & ((size >= 1) & (size <= 20) if asked else whole))

    def _build_ids(self, rows: NDArray[np.intp], has: NDArray[np.bool_]) -> Categorical:
        """Hex, or "" where the record carries an inode instead (or is an MMAP)."""
        places = {"": 0}
        codes = np.zeros(len(rows), np.int32)
        for i in np.flatnonzero(has).tolist():
            at = 8 * (int(self.walked.position[rows[i]]) + 5)
            length = min(self._bytes[at], 20)
            name = bytes(self._bytes[at + 4 : at + 4 + length]).hex()
            codes[i] = places.setdefault(name, len(places))
        return Categorical(codes, list(places))

    def comms(self) -> Table:
        rows = self.rows(3, RecordType.COMM)
        pid, tid = self.halves(rows, 1)
        named = self.strings(rows, np.full(len(rows), 2))
        exec_ = (self.walked.misc[rows] & MISC_COMM_EXEC) != 0
        return self._table(rows, pid=pid, tid=tid, comm=named, exec=exec_)

    def forks(self, kind: RecordType) -> Table:
        rows = self.rows(4, kind)
        pid, ppid = self.halves(rows, 1)
        tid, ptid = self.halves(rows, 2)
        return self._table(rows, time=self.word(rows, 3), pid=pid, ppid=ppid, tid=tid, ptid=ptid)

    def losses(self) -> Table:
        rows = self.rows(2, RecordType.LOST, RecordType.LOST_SAMPLES)
        kind = self.walked.type[rows]
        # LOST {id, lost}, LOST_SAMPLES {lost}
        at = np.where(kind == RecordType.LOST, 2, 1)
        at = np.minimum(at, self.walked.size[rows] - 1)
        count = self.walked.words[self.walked.position[rows] + at]
        return self._table(rows, lost=count, kind=kind)

    def throttles(self) -> Table:
        rows = self.rows(3, RecordType.THROTTLE, RecordType.UNTHROTTLE)
        return self._table(
            rows, time=self.word(rows, 1), id=self.word(rows, 2), kind=self.walked.type[rows]
        )

    def callchains(self) -> Table:
        """CALLCHAIN_DEFERRED: {u64 cookie, nr, ips[nr]}; the thread is the trailer's."""
        rows = self.rows(3, RecordType.CALLCHAIN_DEFERRED)
        length = np.minimum(self.word(rows, 2), np.uint64(1 << 16)).astype(np.int64)
        whole = length <= self.walked.size[rows] - 3
        if not whole.all():
            self.problems.append(f"{np.count_nonzero(~whole)} deferred callchains are cut off")
            rows, length = rows[whole], length[whole]
        task = self._trailer(rows, SampleType.TID)
        return self._table(
            rows,
            tid=(task >> np.uint64(32)).astype(np.int32),
            cookie=self.word(rows, 1),
            chain=Ragged.view(self.walked.position[rows] + 3, length, self.walked.words),
        )

    def _table(self, rows: NDArray[np.intp], **columns: Column) -> Table:
        time = columns.pop("time", None)
        time = self.times(rows) if time is None else time
        order = (rows + self.first).astype(np.int64)
        return _by_time(Table({"time": time, "order": order, **columns}, len(rows)))


def _categorical(codes: NDArray[np.int32], names: list[str]) -> Categorical:
    """A Categorical whose categories are distinct, though two raw names may read the same."""
    places: dict[str, int] = {}
    to = np.array([places.setdefault(name, len(places)) for name in names], np.int32)
    return Categorical(to[codes] if len(codes) else codes, list(places))


def _by_time(table: Table) -> Table:
    time = table["time"]
    if not np.any(time[1:] < time[:-1]):
        return table
    return table[np.argsort(time, kind="stable")]


def _joined(tables: Sequence[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, Column] = {}
    for name in tables[0].columns:
        parts = [table.column(name) for table in tables]
        strings = [part for part in parts if isinstance(part, Categorical)]
        ragged = [part for part in parts if isinstance(part, Ragged)]
        if ragged:
            lengths = np.concatenate([part.length for part in ragged])
            values = np.concatenate([part.values for part in ragged])
            columns[name] = Ragged(np.append(0, np.cumsum(lengths)), values)
        elif strings:
            shift = np.cumsum([0, *(len(part.categories) for part in strings)])
            codes = [part.codes + shift[i] for i, part in enumerate(strings)]
            names = [name for part in strings for name in part.categories]
            columns[name] = _categorical(np.concatenate(codes).astype(np.int32), names)
        else:
            columns[name] = np.concatenate([np.asarray(part) for part in parts])
    return _by_time(Table(columns))
