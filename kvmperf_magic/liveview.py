"""What a live view shows: whose rows, in which order, and what of it is frozen."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import HOST_MODES, MODES, mode_codes
from kvmperf_magic.places import Places
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.profile.tally import STRIP, TREND, News, Tally
from kvmperf_magic.ranking import Look, Ranked, heaviest, machine_shares, mode_shares, rank
from kvmperf_magic.table import Table

if TYPE_CHECKING:
    from kvmperf_widgets.top import Pool, Tab, TopView

ALL, HOST = "all", "host"  # the tabs that are no VM's
_HOST_PID = 0  # the host's among the pids of the VMMs


class LiveView:
    """A tally that goes on, and how it is looked at. `headline` is perf top's first line."""

    def __init__(self, look: Look, *, delay: float, decay: bool, modes: Iterable[str]) -> None:
        self.delay, self._decay = delay, decay
        self.headline = "waiting for the first samples"
        self.refreshes = 0
        self._shown_modes = np.zeros(len(MODES), np.bool_)
        self._shown_modes[mode_codes(modes)] = True
        self._a_bucket = max(1, round(1 / delay))  # refreshes: a second's, or a longer one
        self._lock = threading.RLock()
        self._look = look
        self._tally = self._frozen = Tally()  # what is counted, and what of it is shown
        self._paused = False
        self._names: dict[int, str] = {}  # machines by their VMM's pid, also those that are gone
        self._vms: list[int] = []  # those that run
        self._ranked: Ranked | None = None
        self._places = Places(self)

    @property
    def running(self) -> bool:
        raise NotImplementedError

    def note(self) -> str:
        """What there is to say besides the table."""
        raise NotImplementedError

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def table(self) -> Table:
        """overhead (percent of the machines looked at), samples, and what rows are by."""
        return self._rank().table

    @property
    def matched(self) -> float:
        """The percentage of what the filter finds."""
        return self._rank().matched

    @property
    def sort(self) -> str:
        """The column that rows are sorted by, with a `-` in front the other way round."""
        return self._look.sort

    @sort.setter
    def sort(self, column: str) -> None:
        self._change(sort=column)

    @property
    def filter(self) -> str:
        """A regular expression: rows in whose symbol, DSO or command it is found are shown."""
        return self._look.filter

    @filter.setter
    def filter(self, pattern: str | None) -> None:
        self._change(filter=pattern or "")

    @property
    def count_filter(self) -> int | None:
        """Rows of more than so many samples are shown; None: all."""
        return self._look.count_filter

    @count_filter.setter
    def count_filter(self, samples: int | None) -> None:
        self._change(count_filter=samples)

    @property
    def decay(self) -> bool:
        """Whether counts fade from refresh to refresh, or start anew with each."""
        return self._decay

    @decay.setter
    def decay(self, wanted: bool) -> None:
        self._decay = bool(wanted)
        self._changed()

    @property
    def machine(self) -> str:
        """Whose rows are shown: "all", "host" or a VM's name; may be set to a VMM's pid too."""
        pid = self._look.machine
        return ALL if pid is None else self._names.get(pid, str(pid))

    @machine.setter
    def machine(self, wanted: str | int | None) -> None:
        known = {tab.name: tab.key for tab in self._tabs()}
        if wanted is None or wanted in known.values():
            self._change(machine=wanted)
        elif wanted in known:
            self._change(machine=known[str(wanted)])
        else:
            raise QueryError(f"no machine {wanted!r}", f"there are: {', '.join(known)}")

    @property
    def machines(self) -> list[str]:
        """What `machine` can be now."""
        return [tab.name for tab in self._tabs()]

    def zero(self) -> None:
        """Forget what was counted until now; the trends stay."""
        with self._lock:
            self._tally, self._frozen = self._tally.zeroed(), self._frozen.zeroed()
        self._changed()

    def pause(self) -> None:
        """Freeze the view; samples are still taken and counted."""
        self._paused = True
        self._changed()

    def resume(self) -> None:
        """Show what was counted meanwhile, and go on."""
        with self._lock:
            self._paused, self._frozen = False, self._tally
        self._changed()

    def view(self, pool: bool = False) -> TopView:
        """What is shown now, for a renderer; with the `pool` that other views can be made of."""
        from kvmperf_widgets.top import TopView

        with self._lock:
            tally, look, ranked, tabs = self._frozen, self._look, self._rank(), self._tabs()
        strip = mode_shares(tally, look.machine)
        began = int(np.argmax(np.isfinite(strip[0]))) if np.isfinite(strip[0]).any() else STRIP
        since = min(began, STRIP - TREND)
        table = ranked.table
        values = {name: table[name].tolist() for name in table.columns}
        if "dso" in values:
            values["dso"] = [*map(short_dso, values["dso"])]
        return TopView(
            header=self.headline,
            columns=table.columns,
            values=[*values.values()],
            trend=ranked.trend.tolist(),
            second=self.delay * self._a_bucket,
            strip=strip[:, since:].tolist(),
            tabs=tabs,
            machine=look.machine,
            sort=look.sort,
            filter=look.filter,
            matched=ranked.matched,
            found=ranked.found,
            count_filter=look.count_filter,
            decay=self._decay,
            paused=self._paused,
            running=self.running,
            note=self.note(),
            pool=self._pool(tally, look, tabs, since) if pool else None,
        )

    def _pool(self, tally: Tally, look: Look, tabs: Sequence[Tab], since: int) -> Pool:
        """What a page can make a view of by itself."""
        from kvmperf_widgets.top import Pool

        found = heaviest(tally, look.keys, self._names)
        columns = {name: column.tolist() for name, column in found.columns.items()}
        if "dso" in columns:
            columns["dso"] = [*map(short_dso, columns["dso"])]
        strips = [mode_shares(tally, tab.key)[:, since:].tolist() for tab in tabs]
        return Pool(
            [*columns],
            [*columns.values()],
            found.pid.tolist(),
            found.period.tolist(),
            found.samples.tolist(),
            found.trend.tolist(),
            found.totals,
            look.entries,
            strips,
        )

    # -- what the counting thread tells

    def _count(self, news: News, headline: str) -> None:
        """One refresh: add what came, and show it unless the view is frozen."""
        with self._lock:
            self.refreshes += 1
            begun = int(self.refreshes % self._a_bucket == 0)
            self._tally = self._tally.then(news, begun, decay=self._decay)
            if self._paused:
                return
            self._frozen, self.headline = self._tally, headline
        self._changed()

    def _know(self, vms: Mapping[int, str]) -> None:
        """These VMs run, by their VMM's pid; those that are gone have their names until they are
        counted no more, but no tab."""
        running = [pid for pid in vms if Path(f"/proc/{pid}").exists()]
        with self._lock:
            counted = {int(row[-1]) for row in self._tally.rows}
            plain = {p: n.removesuffix(f":{p}") for p, n in self._names.items() if p in counted}
            plain = {**plain, **vms}
            plain.pop(_HOST_PID, None)
            met = Counter([ALL, HOST, *plain.values()])
            self._names = {_HOST_PID: HOST}
            for pid, name in plain.items():
                self._names[pid] = name if met[name] == 1 else f"{name}:{pid}"
            self._vms = running
            if self._look.machine not in {None, _HOST_PID, *running}:
                self._look, self._ranked = replace(self._look, machine=None), None

    # -- within

    def _change(self, **what: Any) -> None:
        """Look at it in another way."""
        with self._lock:
            self._look = replace(self._look, **what)
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            self._ranked = None
        self._places.show()

    def _rank(self) -> Ranked:
        with self._lock:
            if self._ranked is None:
                self._ranked = rank(self._frozen, self._look, self._names, self._shown_modes)
            return self._ranked

    def _tabs(self) -> list[Tab]:
        from kvmperf_widgets.top import Tab

        with self._lock:
            shares = machine_shares(self._frozen)
            names = {pid: self._names[pid] for pid in self._vms}
        if self._shown_modes[mode_codes(HOST_MODES)].any():
            names = {_HOST_PID: HOST, **names}
        return [Tab(None, ALL), *(Tab(p, name, shares.get(p, 0.0)) for p, name in names.items())]
