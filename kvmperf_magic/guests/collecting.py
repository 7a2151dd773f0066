"""The symbols of all VMs, found and kept up to date beside whatever records them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from kvmperf_magic.guests.discovery import machines
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.watch import watch
from kvmperf_magic.symbols.guestsymbols import GuestSymbols

_EVERY = 1.0  # seconds between looks at the VMs
_LOOK = 5.0  # seconds between looks for new ones


class Collector:
    """A thread that calls `found` with the symbols of each VM, and again when they change.

    `pids` are the VMMs it is about, None for all there are and all that start.
    """

    def __init__(
        self,
        found: Callable[[GuestSymbols], None],
        known: Sequence[Machine],
        pids: Collection[int] | None = None,
    ) -> None:
        self._found = found
        self._machines = list(known)
        self._pids = pids
        self._told: dict[int, GuestSymbols] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvmperf-guests", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it when every VM has been looked at; nothing is found afterwards."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + _LOOK
        while True:
            last = self._end.is_set()
            for machine in self._machines:
                if machine.kind == "guest" and (self._pids is None or machine.pid in self._pids):
                    self._look(machine)
            if last or self._end.wait(_EVERY):
                # one more look at the end: what was loaded since the last one is named too
                if last:
                    return
                continue
            if time.monotonic() >= due:
                due = time.monotonic() + _LOOK
                if self._pids is None:
                    self._machines = machines()

    def _look(self, machine: Machine) -> None:
        watched = watch(machine)
        watched.refresh()
        now, before = watched.symbols, self._told.get(machine.pid)
        # that a VM has ended makes nothing of it untrue
        if now is not before and (now.table is not None or before is None):
            self._told[machine.pid] = now
            self._found(now)
