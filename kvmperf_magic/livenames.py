"""Who the samples of a live view are: all that names them is kept up to date while it runs.

Maps, commands and BPF programs come with the stream; VMs, what their CPUs run, the dumps of JIT
compilers and the host's modules are looked at again with every refresh.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_magic.decoding import decode
from kvmperf_magic.guests.clock import ahead
from kvmperf_magic.guests.discovery import machines
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.tasks import TaskLooks, TaskSampler
from kvmperf_magic.history import History
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.symbols.jitdump import Dumps
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import NO_SOURCES, Symbolizer
from kvmperf_magic.table import Table

if TYPE_CHECKING:
    from kvmperf_magic.decoding import Decoded

_LOOK = 5.0  # seconds between looks for VMs that came or went


class LiveNames:
    """Names samples as they come; `guest_symbols` is what was found so far, the newest last.

    `began` is when the recording began, CLOCK_MONOTONIC_RAW in ns; `into_guests`: what guests'
    CPUs run may be looked at.
    """

    def __init__(
        self,
        history: History,
        known: Sequence[Machine],
        symbols: Mapping[str, Any],
        began: int,
        *,
        into_guests: bool,
    ) -> None:
        self._history = history
        self._options = SymbolOptions.of(dict(symbols))
        self._began = began
        self.machines = list(known)
        self._machines_due = 0.0
        self.guest_symbols: list[GuestSymbols] = []
        self._named_size = -1
        self._spaces: AddressSpaces | None = None
        self._symbolizer: Symbolizer | None = None
        # samples are of now: what a place held before does not matter, whatever their clock
        self._dumps = Dumps(timed=False)
        self._lock = threading.Lock()
        self._tasks = TaskSampler(_sampled(known)) if into_guests else None
        self._first = 0  # the first sample's time
        self._ahead = 0  # of CLOCK_MONOTONIC_RAW is perf's clock, ns

    def stop(self) -> None:
        """Look no more; what is known stays."""
        if self._tasks is not None:
            self._tasks.stop()

    def found(self, symbols: GuestSymbols) -> None:
        """A VM's kernel was found, has started anew, or has loaded a module."""
        self.guest_symbols.append(symbols)
        self._named_size = -1

    def hurry(self) -> None:
        """A VM that nobody knows has samples: the next ones know its name."""
        self._machines_due = 0.0

    def decoded(self, samples: SampleColumns | None) -> Decoded | None:
        """These samples, named by what is known now."""
        with self._lock:
            return self._decoded(samples)

    @property
    def symbols(self) -> Table:
        """Where the names of each DSO met so far come from: dso, source, symbols, note."""
        with self._lock:
            return self._symbolizer.sources if self._symbolizer else NO_SOURCES

    @property
    def warnings(self) -> list[str]:
        """What stands in the way of names, one line each."""
        with self._lock:
            return self._symbolizer.warnings if self._symbolizer else []

    def _decoded(self, samples: SampleColumns | None) -> Decoded | None:
        history = self._history
        if self._named_size != history.sideband_size or time.monotonic() >= self._machines_due:
            self._named_size = history.sideband_size
            self._renew()
        if samples is None:
            return None
        assert self._symbolizer is not None
        assert self._spaces is not None
        self._symbolizer.refresh(self._dumps.jits(alive=True))
        named = decode(
            samples,
            history.sideband,
            history.events,
            self.machines,
            self._spaces,
            self._symbolizer,
        )
        return named.with_tasks(self._looks_for(samples))

    def looks(self) -> list[TaskLooks]:
        """What guests' CPUs were seen running, as long as samples are kept; by perf's clock."""
        return self._seen(0)

    def _looks_for(self, samples: SampleColumns) -> list[TaskLooks]:
        """Those that can tell of these samples."""
        if self._tasks is None or not len(samples.time):
            return []
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        first, last = int(samples.time.min()), int(samples.time.max())
        self._first = self._first or first
        self._ahead = ahead(self._began, now, self._first, last)
        self._tasks.forget(now - int(self._history.seconds * 1e9))
        return self._seen(first - int(self._tasks.reach * 1e9))

    def _seen(self, since: int) -> list[TaskLooks]:
        found = [] if self._tasks is None else self._tasks.looks(max(0, since - self._ahead))
        shift = np.int64(self._ahead)
        return [
            replace(one, time=(one.time.astype(np.int64) + shift).astype(np.uint64))
            for one in found
        ]

    def _renew(self) -> None:
        """Maps, names and VMs have changed: see them, and keep the symbols found so far."""
        now = time.monotonic()
        if now >= self._machines_due:
            self.machines = machines()
            self._machines_due = now + _LOOK
            if self._tasks is not None:
                self._tasks.know(_sampled(self.machines))
        sideband = self._history.sideband
        names = {m.pid: m.name for m in self.machines if m.kind == "guest"}
        guests = list(self.guest_symbols)
        self._dumps.follow(sideband.mmap)
        self._spaces = AddressSpaces(sideband.mmap, sideband.comm, sideband.fork)
        if self._symbolizer is not None:
            self._symbolizer.update(self._spaces, sideband.mmap, names, guests, sideband.ksymbol)
            return
        self._symbolizer = Symbolizer(
            self._spaces,
            sideband.mmap,
            self._options,
            build_ids={},
            same_boot=True,
            os_release=os.uname().release,
            vm_names=names,
            guest_symbols=guests,
            ksymbols=sideband.ksymbol,
        )


def _sampled(found: Sequence[Machine]) -> list[Machine]:
    """The VMs of which there are guest samples."""
    return [machine for machine in found if machine.kind == "guest" and machine.accel == "kvm"]
