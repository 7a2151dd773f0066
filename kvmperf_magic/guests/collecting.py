"""The symbols of all VMs, found and kept up to date beside whatever records them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from kvmperf_magic.guests.discovery import machines
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.watch import GuestWatch, searched, watch
from kvmperf_magic.progress import share
from kvmperf_magic.symbols.guestsymbols import GuestSymbols

_EVERY = 1.0  # seconds between looks at the VMs
_LOOK = 5.0  # seconds between looks for new ones
_STEP = 0.1
_PATIENCE = 20.0  # seconds that a recording waits at its end for memory to be searched


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
        self._watched: dict[int, GuestWatch] = {}
        self._end, self._last = threading.Event(), False
        self._telling, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="kvmperf-guests", daemon=True)
        self._thread.start()

    @property
    def searched(self) -> tuple[int, int] | None:
        """How far a search for kernels goes that takes long: bytes done and in all."""
        return searched(list(self._watched.values()))

    def searching(self) -> str:
        """The same in words, "" while there is none."""
        now = self.searched
        return f"searching guests' memory: {100 * now[0] // max(now[1], 1)} %" if now else ""

    def stop(self, last: bool = False) -> None:
        """End it; with `last` after one more look, so that what was loaded just now is named too.
        Nothing is found afterwards."""
        self._last = last
        self._end.set()
        end = time.monotonic() + (_PATIENCE if last else 0)
        with share("searching guests' memory") as tell:
            while self._thread.is_alive() and time.monotonic() < end:
                self._thread.join(_STEP)
                tell(*(self.searched or (0, 0)))
        with self._telling:
            self._closed = True

    def _run(self) -> None:
        due = time.monotonic() + _LOOK
        while True:
            ending = self._end.is_set()
            # those first of which there are guest samples
            for machine in sorted(self._machines, key=lambda one: one.accel != "kvm"):
                if self._end.is_set() and not self._awaited(machine):
                    continue
                if machine.kind == "guest" and (self._pids is None or machine.pid in self._pids):
                    try:
                        self._look(machine)
                    except RuntimeError:
                        # nobody waits for a search: the interpreter may end, and its pools first
                        if not self._end.is_set():
                            raise
                        return
            if ending:
                return
            if not self._end.wait(_EVERY) and time.monotonic() >= due and self._pids is None:
                due = time.monotonic() + _LOOK
                self._machines = machines()

    def _awaited(self, machine: Machine) -> bool:
        """Whether a recording that ends waits for it: of TCG's there are no guest samples, and
        nobody named them."""
        return self._last and (machine.accel == "kvm" or self._pids is not None)

    def _look(self, machine: Machine) -> None:
        watched = self._watched[machine.pid] = watch(machine)
        watched.refresh()
        now, before = watched.symbols, self._told.get(machine.pid)
        # that a VM has ended makes nothing of it untrue
        if now is not before and (now.table is not None or before is None):
            self._told[machine.pid] = now
            with self._telling:
                if not self._closed:
                    self._found(now)
