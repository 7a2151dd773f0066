"""The records beside the samples: maps, names, forks, switches, losses ..., as tables by time.

A record's own time is in its trailer (sample_id_all); records that the recorder made up have 0
there, and hold from the beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import RecordType
from kvmperf_magic.perfdata.attr import EventIds
from kvmperf_magic.perfdata.besides import Besides, by_time
from kvmperf_magic.perfdata.strings import categorical
from kvmperf_magic.perfdata.walk import Walk
from kvmperf_magic.table import Categorical, Column, Ragged, Table

# by the name of the table: which records it is of, and what decodes them
_TABLES: dict[str, tuple[tuple[RecordType, ...], Callable[[Besides], Table]]] = {
    "mmap": ((RecordType.MMAP, RecordType.MMAP2), Besides.mmaps),
    "comm": ((RecordType.COMM,), Besides.comms),
    "fork": ((RecordType.FORK,), lambda besides: besides.forks(RecordType.FORK)),
    "exit": ((RecordType.EXIT,), lambda besides: besides.forks(RecordType.EXIT)),
    "lost": ((RecordType.LOST, RecordType.LOST_SAMPLES), Besides.losses),
    "throttle": ((RecordType.THROTTLE, RecordType.UNTHROTTLE), Besides.throttles),
    "deferred": ((RecordType.CALLCHAIN_DEFERRED,), Besides.callchains),
    "switch": ((RecordType.SWITCH, RecordType.SWITCH_CPU_WIDE), Besides.switches),
    "namespaces": ((RecordType.NAMESPACES,), Besides.namespaces),
    "cgroup": ((RecordType.CGROUP,), Besides.cgroups),
    "ksymbol": ((RecordType.KSYMBOL,), Besides.ksymbols),
    "bpf": ((RecordType.BPF_EVENT,), Besides.bpf_events),
    "text_poke": ((RecordType.TEXT_POKE,), Besides.text_pokes),
    "aux": ((RecordType.AUX,), Besides.auxes),
    "itrace_start": ((RecordType.ITRACE_START,), Besides.itrace_starts),
    "aux_output_hw_id": ((RecordType.AUX_OUTPUT_HW_ID,), Besides.aux_output_hw_ids),
    "read": ((RecordType.READ,), Besides.reads),
}
# what every recording has and every answer needs: decoded at once, so that damage is told
_ALWAYS = ("mmap", "comm", "fork", "exit", "lost", "throttle", "deferred")


class Sideband(Mapping[str, Table]):
    """Tables by name, each ordered by `time` (u64, ns), those of one time in file order; those
    that few ask for are decoded then.

    `order` is the place of a record among all records: it settles ties between tables.
    mmap (MMAP and MMAP2): pid tid addr len pgoff filename build_id prot misc maj min ino
    ino_generation flags; comm: pid tid comm exec; fork, exit: pid ppid tid ptid;
    lost: lost kind (RecordType.LOST counts records, LOST_SAMPLES samples);
    throttle: id kind (RecordType.THROTTLE or UNTHROTTLE);
    deferred: tid cookie chain (user callchains of samples before, that end in this cookie);
    switch: pid tid cpu out preempt next_prev_pid next_prev_tid (-1 if not CPU-wide);
    namespaces: pid tid namespaces (dev, ino) and the inode of each kind;
    cgroup: id path; ksymbol: addr len type unregister name; bpf: type flags id tag;
    text_poke: addr old new (bytes); aux: offset size flags pid tid cpu; itrace_start: pid tid;
    aux_output_hw_id: hw_id pid tid cpu; read: pid tid value time_enabled time_running id lost.
    """

    def __init__(
        self,
        tables: Mapping[str, Table | Callable[[], Table]],
        rows: Mapping[str, int],
        sizes: Mapping[int, int],
    ) -> None:
        self._tables = dict(tables)
        self._rows = dict(rows)
        self.sizes = dict(sizes)  # bytes of all records of a type, samples too, in whole words

    def __getitem__(self, name: str) -> Table:
        table = self._tables[name]
        if callable(table):
            table = self._tables[name] = table()
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def __getattr__(self, name: str) -> Table:
        if name.startswith("_") or name not in self._tables:
            raise AttributeError(f"no table {name!r}: {', '.join(self._tables)}")
        return self[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    @property
    def summary(self) -> Table:
        """The tables and how many records each is of."""
        names = [name for name in self if self._rows[name]]
        codes = np.arange(len(names), dtype=np.int32)
        rows = np.array([self._rows[name] for name in names], np.int64)
        return Table({"table": Categorical(codes, names), "rows": rows})

    def __repr__(self) -> str:
        return repr(self.summary)

    def _repr_html_(self) -> str:
        return self.summary._repr_html_()

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several (at least one) as one, ordered by time; ties in the order of the parts."""
        if len(parts) == 1:
            return parts[0]
        tables = {name: _joined([part[name] for part in parts]) for name in parts[0]}
        rows = {name: sum(part._rows[name] for part in parts) for name in tables}
        sizes = sum((Counter(part.sizes) for part in parts), Counter[int]())
        return cls(tables, rows, sizes)

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
    besides = Besides(walked, events, first)
    tables: dict[str, Table | Callable[[], Table]] = {}
    rows: dict[str, int] = {}
    for name, (kinds, decoded) in _TABLES.items():
        rows[name] = sum(besides.counts.get(kind, 0) for kind in kinds)
        if name in _ALWAYS or not rows[name]:
            tables[name] = decoded(besides)
        else:
            tables[name] = partial(decoded, besides)
    return Sideband(tables, rows, besides.sizes), besides.problems


def _joined(tables: Sequence[Table]) -> Table:
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
            columns[name] = categorical(np.concatenate(codes).astype(np.int32), names)
        else:
            columns[name] = np.concatenate([np.asarray(part) for part in parts])
    return by_time(Table(columns))
