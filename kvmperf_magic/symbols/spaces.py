"""User address spaces by time, worked out from MMAP, COMM (exec) and FORK records.

A process's **life** begins with a fork (it starts with its parent's maps) or an exec (it starts
empty). A life is cut into **epochs**: within one epoch no address ever belongs to two files, so
one sorted list of maps serves for all of its time, and (epoch, address) names a place in a file.
perf applies the same records one by one (tools/perf/util/machine.c:
machine__process_mmap2_event(), maps.c: maps__fixup_overlappings()).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.perfmap import is_anonymous
from kvmperf_magic.table import Categorical, Table

_CPUMODE = 7
_UNKNOWN_MODE, _USER_MODE = 0, 2


@dataclass(frozen=True)
class Maps:
    """The maps of one epoch: m rows sorted by address that do not overlap.

    `filename` and `build_id` index the categories of the MMAP table's columns of these names;
    `row` is the record each comes from.
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    pgoff: NDArray[np.uint64]
    filename: NDArray[np.int32]
    build_id: NDArray[np.int32]
    row: NDArray[np.int64]

    def find(self, address: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which of the maps holds each address, -1 where none does."""
        if not len(self.start):
            return np.full(len(address), -1, np.int64)
        found = np.searchsorted(self.start, address, side="right").astype(np.int64) - 1
        found[(found >= 0) & (address >= self.end[found])] = -1
        return found


@dataclass(frozen=True)
class _Flat:
    """All maps sorted by `keys`, (epoch, rank of the start among `edges`) as one number; `overlaid`
    tells the epochs in which maps overlap."""

    rows: NDArray[np.int64]
    edges: NDArray[np.uint64]
    keys: NDArray[np.int64]
    overlaid: NDArray[np.bool_]


@dataclass
class _Life:
    """From a fork or exec of one pid to its next: `cuts[i]` is when `epochs[i]` begins."""

    pid: int
    time: int
    parent: int | None
    rows: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)

    def epoch_at(self, time: int) -> int:
        """The epoch at a time, -1 before the first."""
        at = bisect_right(self.cuts, time) - 1
        return self.epochs[at] if at >= 0 else -1


class AddressSpaces:
    """Which maps a process had at a time. Memory and time grow with the records, not samples.

    Args:
        mmap: columns time, pid, addr, len, pgoff, filename, build_id, misc; in time order.
        comm: columns time, pid, exec.
        fork: columns time, pid, ppid.
        renewed: times, ascending, at which a process's code changes though its maps do not.
    """

    def __init__(
        self,
        mmap: Table,
        comm: Table,
        fork: Table,
        renewed: Mapping[int, NDArray[np.uint64]] | None = None,
    ) -> None:
        self._time = mmap["time"].astype(np.uint64)
        self._start = mmap["addr"].astype(np.uint64)
        length = mmap["len"].astype(np.uint64)
        # a length that runs over the end of the address space ends with it
        self._end = np.where(
            length > ~self._start, np.uint64(2**64 - 1), self._start + length
        ).astype(np.uint64)
        self._pgoff = mmap["pgoff"].astype(np.uint64)
        filename, build_id = mmap.column("filename"), mmap.column("build_id")
        assert isinstance(filename, Categorical)
        assert isinstance(build_id, Categorical)
        self._filename, self._build_id = filename.codes, build_id.codes
        anonymous = filename.where(is_anonymous)
        # two maps with the same file, build and shift say the same of an address
        self._shift = np.where(anonymous, np.uint64(0), self._start - self._pgoff)
        mode = mmap["misc"].astype(np.int64) & _CPUMODE
        pid = mmap["pid"].astype(np.int64)
        user = ((mode == _UNKNOWN_MODE) | (mode == _USER_MODE)) & (pid >= 0)
        self._rows_of: list[list[int]] = []
        self._executed: dict[int, int] = {}
        self._built: dict[int, Maps] = {}
        lives = _lives(np.unique(pid[user]), comm, fork)
        self._assign(lives, pid, np.flatnonzero(user & (self._end > self._start)))
        self._cut_lives(lives, renewed or {})
        self._index(lives)

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self._rows_of)

    def _assign(self, lives: list[_Life], pid: NDArray[np.int64], rows: NDArray[np.intp]) -> None:
        """Give each map record to the life of its process at its time."""
        by_pid: dict[int, list[_Life]] = {}
        for life in lives:
            by_pid.setdefault(life.pid, []).append(life)
        times = {one: [life.time for life in many] for one, many in by_pid.items()}
        rows = rows[np.argsort(self._time[rows], kind="stable")]
        for row, one, time in zip(
            rows.tolist(), pid[rows].tolist(), self._time[rows].tolist(), strict=True
        ):
            by_pid[one][bisect_right(times[one], time) - 1].rows.append(row)

    def _cut_lives(self, lives: list[_Life], renewed: Mapping[int, NDArray[np.uint64]]) -> None:
        """Cut every life into epochs, parents first: a child begins with their maps."""
        current: dict[int, _Life] = {}
        ends = {
            (one.pid, one.time): after.time
            for one, after in pairwise(lives)
            if one.pid == after.pid and one.pid in renewed
        }
        for life in sorted(lives, key=lambda one: one.time):
            base: list[int] = []
            inherited = -1
            parent = current.get(life.parent) if life.parent is not None else None
            if parent is not None:
                inherited = parent.epoch_at(life.time)
                if inherited >= 0 and life.rows:
                    base = [row for row in self._rows_of[inherited] if self._time[row] <= life.time]
            replaced = current.get(life.pid) if life.parent is None else None
            current[life.pid] = life
            if not life.rows:
                # a child that maps nothing shares its parent's epoch, and the names found there
                life.cuts.append(life.time)
                life.epochs.append(inherited)
                continue
            life.cuts.append(life.time)
            life.epochs.append(-1)
            self._cut(life, base)
            if life.pid in renewed:
                end = ends.get((life.pid, life.time), 2**64)
                self._renew(life, [t for t in renewed[life.pid].tolist() if t < end])
            if replaced is not None and replaced.epoch_at(life.time) >= 0:
                old = replaced.epoch_at(life.time)
                self._executed |= dict.fromkeys(life.epochs, old)

    def _renew(self, life: _Life, times: Iterable[int]) -> None:
        """Cut a life at these times too, with the maps that it has then."""
        for time in times:
            at = bisect_right(life.cuts, time) - 1
            if at >= 0 and life.cuts[at] < time and life.epochs[at] >= 0:
                life.cuts.insert(at + 1, time)
                life.epochs.insert(at + 1, self._new(self._rows_of[life.epochs[at]]))

    def _new(self, rows: list[int]) -> int:
        self._rows_of.append(rows)
        return len(self._rows_of) - 1

    def _cut(self, life: _Life, base: list[int]) -> None:
        rows = base + life.rows
        if not self._collide(rows):
            life.epochs[-1] = self._new(rows)
            return
        life.epochs[-1] = self._new(list(base))
        # what lies where now, in address order: begin, end, what it says of an address, whose
        begins: list[int] = []
        ends: list[int] = []
        says: list[tuple[tuple[int, int, int], int]] = []
        for n, row in enumerate(rows):
            first, last = int(self._start[row]), int(self._end[row])
            what = (int(self._filename[row]), int(self._build_id[row]), int(self._shift[row]))
            low = bisect_right(ends, first)
            high = bisect_left(begins, last)
            hidden = list(zip(begins[low:high], ends[low:high], says[low:high], strict=True))
            pieces = [(first, last, (what, n))]
            if hidden and hidden[0][0] < first:
                pieces.insert(0, (hidden[0][0], first, hidden[0][2]))
            if hidden and hidden[-1][1] > last:
                pieces.append((last, hidden[-1][1], hidden[-1][2]))
            begins[low:high] = [piece[0] for piece in pieces]
            ends[low:high] = [piece[1] for piece in pieces]
            says[low:high] = [piece[2] for piece in pieces]
            if n < len(base):
                continue
            time = int(self._time[row])
            if life.cuts[-1] < time and any(other != what for _, _, (other, _) in hidden):
                life.cuts.append(time)
                # only what can still be seen is carried on
                life.epochs.append(self._new([rows[i] for i in sorted({i for _, i in says})]))
            else:
                self._rows_of[life.epochs[-1]].append(row)

    def _collide(self, rows: list[int]) -> bool:
        """Whether any two of these maps overlap."""
        which = np.array(rows)
        which = which[np.argsort(self._start[which], kind="stable")]
        return bool((self._end[which[:-1]] > self._start[which[1:]]).any())

    def _index(self, lives: list[_Life]) -> None:
        """One sorted key of (pid, time of cut) for look-ups of whole columns."""
        cuts = sorted(
            (life.pid, life.time, n, cut, epoch)
            for n, life in enumerate(lives)
            for cut, epoch in zip(life.cuts, life.epochs, strict=True)
        )
        self._pids = np.unique(np.array([cut[0] for cut in cuts], np.int64))
        self._times = np.unique(np.array([cut[3] for cut in cuts], np.uint64))
        pid = np.searchsorted(self._pids, np.array([cut[0] for cut in cuts], np.int64))
        rank = np.searchsorted(self._times, np.array([cut[3] for cut in cuts], np.uint64))
        self._since = np.full(len(self._rows_of), 2**64 - 1, np.uint64)
        np.minimum.at(
            self._since,
            np.array([cut[4] for cut in cuts if cut[4] >= 0], np.int64),
            np.array([cut[3] for cut in cuts if cut[4] >= 0], np.uint64),
        )
        self._keys = pid.astype(np.int64) * (len(self._times) + 1) + rank + 1
        self._epochs = np.array([cut[4] for cut in cuts], np.int32)

    @property
    def times(self) -> NDArray[np.uint64]:
        """When the maps of any process change: between two of these `epoch_of` is constant."""
        return self._times

    def since(self, epoch: NDArray[np.int32]) -> NDArray[np.uint64]:
        """When each of these epochs (>= 0) begins."""
        return self._since[epoch]

    def epoch_of(self, pid: NDArray[np.int32], time: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The epoch of each (pid, time): int32[n], -1 where nothing is known of the process."""
        if not len(self._pids):
            return np.full(len(pid), -1, np.int32)
        wide = pid.astype(np.int64)
        code = np.minimum(np.searchsorted(self._pids, wide), len(self._pids) - 1)
        rank = np.searchsorted(self._times, time.astype(np.uint64), side="right")
        at = np.searchsorted(self._keys, code * (len(self._times) + 1) + rank, side="right") - 1
        found = (self._pids[code] == wide) & (at >= 0)
        # the cut before may be another process's
        found &= self._keys[at] > code * (len(self._times) + 1)
        return np.where(found, self._epochs[at], np.int32(-1)).astype(np.int32)

    def find(
        self, epoch: NDArray[np.int32], address: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The map record of each (epoch, address), -1 where none is, and the file offset.

        The address that called exec is one of the program before: what the new one does not map
        is looked for there. perf keeps old maps until new ones hide them, with the same effect.
        """
        row, offset = self._find(epoch, address)
        lost = np.flatnonzero((row < 0) & (epoch >= 0))
        lost = lost[self._before[epoch[lost]] >= 0] if len(lost) else lost
        if len(lost):
            row[lost], offset[lost] = self._find(self._before[epoch[lost]], address[lost])
        return row, offset

    @cached_property
    def _before(self) -> NDArray[np.int32]:
        """For each epoch the last one of the program before the exec, -1 for none."""
        before = np.full(len(self._rows_of), -1, np.int32)
        before[[*self._executed]] = [*self._executed.values()]
        return before

    def _find(
        self, epoch: NDArray[np.int32], address: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Without what was before an exec."""
        if not self._rows_of:
            return np.full(len(address), -1, np.int64), address
        flat = self._flat
        rank = np.searchsorted(flat.edges, address, side="right")
        key = epoch.astype(np.int64) * (len(flat.edges) + 1)
        at = np.searchsorted(flat.keys, key + rank, side="right") - 1
        # the map before may be another epoch's
        held = (epoch >= 0) & (at >= 0)
        held &= flat.keys[at] > key
        row = np.where(held, flat.rows[at], -1)
        row[held & (address >= self._end[row])] = -1
        offset = address - self._start[row] + self._pgoff[row]
        if flat.overlaid.any():
            # few epochs have maps that hide one another
            for one in np.unique(epoch[flat.overlaid[epoch] & (epoch >= 0)]).tolist():
                mine = np.flatnonzero(epoch == one)
                maps = self.maps(one)
                found = maps.find(address[mine])
                row[mine] = np.where(found >= 0, maps.row[found], -1)
                offset[mine] = address[mine] - maps.start[found] + maps.pgoff[found]
        return row, offset

    @cached_property
    def _flat(self) -> _Flat:
        """The maps of all epochs, sorted by (epoch, address)."""
        counts = np.fromiter(map(len, self._rows_of), np.int64, len(self._rows_of))
        rows = np.fromiter(chain.from_iterable(self._rows_of), np.int64, int(counts.sum()))
        epoch = np.repeat(np.arange(len(counts)), counts)
        edges = np.unique(self._start[rows])
        key = epoch * (len(edges) + 1) + np.searchsorted(edges, self._start[rows], side="right")
        order = np.argsort(key, kind="stable")
        rows, epoch = rows[order], epoch[order]
        hidden = (epoch[1:] == epoch[:-1]) & (self._end[rows[:-1]] > self._start[rows[1:]])
        overlaid = np.zeros(len(counts) + 1, np.bool_)  # the last: of epoch -1
        overlaid[epoch[1:][hidden]] = True
        return _Flat(rows, edges, key[order], overlaid)

    def maps(self, epoch: int) -> Maps:
        """The maps of an epoch; of -1 none."""
        built = self._built.get(epoch)
        if built is None:
            rows = np.array(self._rows_of[epoch] if epoch >= 0 else [], np.int64)
            built = self._built[epoch] = self._sorted(rows)
        return built

    def _sorted(self, rows: NDArray[np.int64]) -> Maps:
        if len(rows) and self._collide(rows.tolist()):
            start, end, rows = self._overlay(rows)
        else:
            rows = rows[np.argsort(self._start[rows], kind="stable")]
            start, end = self._start[rows], self._end[rows]
        pgoff = self._pgoff[rows] + (start - self._start[rows])
        return Maps(start, end, pgoff, self._filename[rows], self._build_id[rows], rows)

    def _overlay(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
        """Lay maps over one another in time order: the later one counts."""
        edges = np.unique(np.concatenate([self._start[rows], self._end[rows]]))
        owner = np.full(len(edges), -1, np.int64)
        first = np.searchsorted(edges, self._start[rows])
        last = np.searchsorted(edges, self._end[rows])
        for row, a, b in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
            owner[a:b] = row
        ends = np.append(edges[1:], edges[-1])
        # neighbouring pieces of one map are one piece again
        begins = np.append(True, owner[1:] != owner[:-1])
        at = np.flatnonzero(begins)
        end = ends[np.append(at[1:], len(edges)) - 1]
        held = owner[at] >= 0
        return edges[at][held], end[held], owner[at][held]


def _lives(mapped: NDArray[np.int64], comm: Table, fork: Table) -> list[_Life]:
    """Every life of every process, sorted by pid, then time."""
    lives = [_Life(pid, 0, None) for pid in mapped.tolist()]
    born = fork["time"], fork["pid"], fork["ppid"]
    for time, pid, ppid in zip(*(column.tolist() for column in born), strict=True):
        # a new thread is no new address space; what is synthesised maps its own files
        if pid != ppid and time > 0:
            lives.append(_Life(pid, time, ppid))
    execs = comm["exec"].astype(np.bool_)
    for time, pid in zip(comm["time"][execs].tolist(), comm["pid"][execs].tolist(), strict=True):
        lives.append(_Life(pid, time, None))
    # a fork comes before an exec of the same instant: the sort is stable
    lives.sort(key=lambda life: (life.pid, life.time))
    return lives
