"""What is in a recording, and the views of it that `filter()` gives.

Opening reads the file's columns; names are worked out when first asked for, once for all views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.callchains import Callchains
from kvmperf_magic.decoding import Decoded, unit_of
from kvmperf_magic.describing import events_table, records_table
from kvmperf_magic.files import write_pieces
from kvmperf_magic.filters import select
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.lost import Lost
from kvmperf_magic.modes import GUEST_MODES, HOST_MODES, MODES
from kvmperf_magic.perfdata.abi import RecordType
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.packed import SUFFIX
from kvmperf_magic.perfdata.reader import Header
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.perfdata.tracepoints import TracepointFields, fields_of
from kvmperf_magic.profile.groups import group
from kvmperf_magic.profile.report import GUEST_KEYS, SURE
from kvmperf_magic.source import Source
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.table import Categorical, Column, Table

if TYPE_CHECKING:
    from kvmperf_magic.profile.profile import Profile


class Contents:
    """One perf.data, or a view of it: its samples and what came with them."""

    def __init__(
        self,
        source: Source,
        mask: NDArray[np.bool_] | None = None,
        inline: bool | None = None,
    ) -> None:
        self._source = source
        self._mask = mask
        self._inline = inline

    @property
    def _decoded(self) -> Decoded:
        return self._source.decoded if self._inline is None else self._source.lined(self._inline)

    def with_lines(self, *, inline: bool = False) -> Self:
        """This view with the source line of every frame; `inline`: what the compiler inlined is a
        frame of its own, `NAME (inlined)`. Needs symbolic (extra `dwarf`) and debug data."""
        return type(self)(self._source, self._mask, inline)

    @property
    def path(self) -> str:
        """What was opened, as it was named."""
        return self._source.file.path

    @property
    def name(self) -> str:
        """The file's name when it was recorded, for titles."""
        return self._source.file.name

    @property
    def header(self) -> Header:
        """Who recorded it where: hostname, os_release, arch, cpudesc, nrcpus, cmdline ..."""
        return self._source.file.header

    @property
    def machines(self) -> list[Machine]:
        """The machines the recorder found, where it wrote them down."""
        return self._source.machines

    @property
    def guest_symbols(self) -> list[GuestSymbols]:
        """The kernels of its guests, as the recorder found them in their memory."""
        return self._source.guest_symbols

    @property
    def sides(self) -> tuple[str, ...]:
        """`host`, `guest` or both: what was asked to be recorded."""
        return self._source.sides

    @property
    def warnings(self) -> list[str]:
        """What stood in the way of naming addresses, unwinding stacks and of the columns of
        tracepoints decoded so far, one line each."""
        fields = self._tracepoint.problems if self._tracepoint else []
        return [*self._source.said.warnings, *fields]

    @property
    def symbols(self) -> Table:
        """Where the names of each DSO met so far came from: dso, source, symbols, note. Those of
        callers are met when stacks are first asked for."""
        return self._source.said.sources

    def save(self, path: str | Path, name: str | None = None, *, lines: bool | None = None) -> None:
        """Write the whole recording with all that names it, but no content of any file, so that
        it reads the same where none of its binaries are.

        A name that ends in `.kvmperf` gets one compressed file for `open()`; any other a perf.data,
        which perf reads, too. `name` is what titles call it then, as now where it is not given.
        `lines`: also the source lines and inlined functions of what was sampled; they are kept
        unasked where a report or picture had them before, else looking them up may take a while.
        Raises FileError where it cannot be written, LibraryError where lines need symbolic (extra
        `dwarf`).
        """
        carried, file = self._source.carried(lines), self._source.file
        if Path(path).name.endswith(SUFFIX):
            write_pieces(path, file.packed(name or self.name, carried))
        else:
            write_pieces(path, file.carrying(carried))

    @cached_property
    def profile(self) -> Profile:
        """The samples of this view with their names: what every answer is computed from."""
        whole = self._decoded.profile
        if self._mask is None:
            return whole
        there = (self.events["samples"] > 0).tolist()
        events = [
            event.name
            for event, is_there in zip(self._source.file.events, there, strict=True)
            if is_there
        ]
        selected = whole.select(self._mask)
        return replace(selected, unit=unit_of(events)) if events else selected

    @cached_property
    def events(self) -> Table:
        """One row an event: name type config period frequency exclude_host exclude_guest samples
        periods (their sum)."""
        index, period = self._source.weights
        if self._mask is not None:
            index, period = index[self._mask], period[self._mask]
        return events_table(self._source.file.events, index, period)

    @cached_property
    def lost(self) -> Lost:
        """Records lost, events throttled, bytes damaged: how complete the whole file is."""
        file = self._source.file
        lost = file.sideband.lost
        count, kind = lost["lost"], lost["kind"]
        told = int(count[kind == RecordType.LOST].sum())
        # our recorder asks the counters at the end: of a last loss the kernel writes no record
        progress = file.kvmperf.get("progress")
        counted = progress.get("lost") if isinstance(progress, dict) else 0
        return Lost(
            records=max(told, counted if isinstance(counted, int) else 0),
            samples=int(count[kind == RecordType.LOST_SAMPLES].sum()),
            throttled=file.counts.get(RecordType.THROTTLE, 0),
            damage=file.damage,
            received=len(file.samples),
        )

    @cached_property
    def samples(self) -> Table:
        """One row a sample: time (ns) event cpu pid tid comm period mode ip symbol dso machine
        vcpu (-1 where none). Where all samples of the view are of one tracepoint, its fields too:
        `rec.filter(event="kvm:kvm_exit").samples["exit_reason_name"]`, see TracepointFields; one
        that is called as a column above becomes `sched_wakeup.pid`. Of guests, where the recorder
        saw it, what their CPUs ran: guest_comm, guest_pid, guest_sure (0 to 1). Behind them all
        other fields that some event records, see `Fields`: decoded when asked for."""
        p = self.profile
        columns: dict[str, Column | Callable[[], Column]] = {
            "time": p.time,
            "event": p.event,
            "cpu": p.cpu,
            "pid": p.pid,
            "tid": p.tid,
            "comm": p.comm,
            "period": p.period,
            "mode": Categorical(p.mode.astype(np.int32), list(MODES)),
            "ip": p.ip,
            "symbol": p.symbol,
            "dso": p.dso,
            "machine": p.machine,
            "vcpu": p.vcpu,
        }
        if p.tasks_later is not None:
            names = (*GUEST_KEYS, SURE)
            columns |= {name: partial(getattr, p, name) for name in names}
        if self._tracepoint:
            columns |= self._tracepoint.lazy(columns)
        events = self._source.file.events
        for name in Fields.names_of(events):
            columns.setdefault(name, partial(self._field, name))
        return Table(columns)

    @cached_property
    def fields(self) -> Fields:
        """The rarer fields of this view's samples: raw, branches, registers, user stacks ..."""
        file = self._source.file
        samples = file.samples if self._mask is None else file.samples.take(self._mask)
        return Fields(samples, file.events)

    def _field(self, name: str) -> Column:
        return self.fields.column(name)

    @property
    def sideband(self) -> Sideband:
        """What happened beside the samples, in the whole file: `sideband.comm`, `.mmap`, `.fork`,
        `.exit`, `.switch`, `.namespaces`, `.cgroup`, `.ksymbol`, `.bpf` ... are tables."""
        return self._source.file.sideband

    @property
    def records(self) -> Table:
        """The records of the whole file: type (number), name (of unknown ones the number), count,
        bytes (in whole words)."""
        file = self._source.file
        return records_table(file.counts, file.sideband.sizes)

    @cached_property
    def _tracepoint(self) -> TracepointFields | None:
        file = self._source.file
        event, _ = self._source.weights
        event = event if self._mask is None else event[self._mask]
        return fields_of(event, file.events, file.tracing, lambda: self.fields.raw)

    @cached_property
    def callchains(self) -> Callchains:
        """The frames of every sample, leaf first, each with its own mode and name."""
        decoded, profile = self._decoded, self.profile
        return Callchains.of(profile, decoded.frame_ip, decoded.frame_mode)

    def stack_chains(self) -> Callchains:
        """The frames of one sample for each stack of the view, in the order of
        `profile.groups.group(profile.stack)`: what formats that store a stack once are made of."""
        decoded, rows = self._decoded, group(self.profile.stack).row
        return Callchains.of(self.profile.select(rows), decoded.frame_ip, decoded.frame_mode)

    def filter(
        self,
        *,
        modes: str | Iterable[str] | None = None,
        pid: int | Sequence[int] | None = None,
        tid: int | Sequence[int] | None = None,
        cpu: int | Sequence[int] | None = None,
        vm: str | int | Sequence[str | int] | None = None,
        vcpu: int | Sequence[int] | None = None,
        comm: str | Sequence[str] | None = None,
        time: tuple[float | None, float | None] | None = None,
        event: str | Sequence[str] | None = None,
        symbol: str | Sequence[str] | None = None,
        dso: str | Sequence[str] | None = None,
        guest_comm: str | Sequence[str] | None = None,
        guest_pid: int | Sequence[int] | None = None,
    ) -> Self:
        """The samples that satisfy all that is given.

        `modes`: names, `host` or `guest`; `vm`: name or pid; `time`: (from, until), as int the
        samples' own nanoseconds, as float seconds since the first sample of the file; `comm`,
        `symbol`, `dso`: a regular expression searched for, or a list of whole names. `guest_comm`
        and `guest_pid` are those of the process that the guest's CPU ran, where it is known.
        Raises QueryError for what cannot be.
        """
        mask = select(
            self._decoded,
            self.path,
            modes=modes,
            numbers={"pid": pid, "tid": tid, "cpu": cpu, "vcpu": vcpu, "guest_pid": guest_pid},
            patterns={"comm": comm, "symbol": symbol, "dso": dso, "guest_comm": guest_comm},
            vm=vm,
            time=time,
            event=event,
        )
        mask = mask if self._mask is None else mask & self._mask
        return type(self)(self._source, mask, self._inline)

    def of_sides(self, modes: str | Iterable[str] | None = None) -> Self:
        """These modes of this view; those that were to be recorded where None are named."""
        if modes is None and self.sides != ("host", "guest"):
            modes = [
                m for side in self.sides for m in (HOST_MODES if side == "host" else GUEST_MODES)
            ]
        return self if modes is None else self.filter(modes=modes)

    def answerable(
        self, modes: str | Iterable[str] | None = None, event: str | None = None
    ) -> Self:
        """This view as an answer takes it: the modes that were to be recorded, and one event,
        the first with samples, because periods of different events cannot be added."""
        view = self.of_sides(modes)
        counts = self.events["samples"]
        if event is None and np.count_nonzero(counts) > 1:
            event = str(self.events["name"][np.flatnonzero(counts)[0]])
        return view if event is None else view.filter(event=event)

    @property
    def origin(self) -> int:
        """What seconds are counted from: the first sample of the file, ns of its clock."""
        return int(next(iter(self._source.decoded.profile.time[:1]), 0))

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the last."""
        time = self.profile.time
        return float(time[-1] - time[0]) / 1e9 if len(time) else 0.0

    def __len__(self) -> int:
        return len(self.profile.time)
