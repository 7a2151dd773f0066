"""top(): what guests and host do now, from a stream of samples that nobody waits for.

A recording process streams records, a thread reads them, names the new ones once a refresh and
counts them. Other cells run meanwhile; nothing is written to disk but by `snapshot()`.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kvmperf_magic.errors import KvmperfError, QueryError
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.guests.collecting import Collector
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.history import History
from kvmperf_magic.livenames import LiveNames
from kvmperf_magic.liveview import LiveView
from kvmperf_magic.modes import GUEST_MODES, HOST_MODES, KERNEL_MODES, MODES, USER_MODES, mode_codes
from kvmperf_magic.places import watch
from kvmperf_magic.profile.tally import News, news_of
from kvmperf_magic.ranking import Look, sort_keys
from kvmperf_magic.recorder import collect, plan, say_on_stderr, start_sampler
from kvmperf_magic.recording import Recording, open_recording
from kvmperf_magic.sampler.options import SamplerOptions, seconds
from kvmperf_magic.sampler.process import SamplerProcess
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.table import Table

if TYPE_CHECKING:
    from kvmperf_magic.decoding import Decoded

_STEP = 0.1  # seconds between looks at stop and the stream
_SHORTEST = 0.05  # seconds between refreshes

_running: weakref.WeakSet[Top] = weakref.WeakSet()


def stop_all() -> None:
    """Stop every live view of this process."""
    for one in list(_running):
        one.stop()


atexit.register(stop_all)


class Top(LiveView):
    """A live view. `.table` and `.headline` are the latest; `.error` why it ended by itself.

    `sort`, `filter`, `machine`, `count_filter` and `decay` say what is shown, and may be set at any
    time. `zero()` forgets what was counted; `pause()` freezes what is shown while samples go on
    being counted, until `resume()`; `snapshot()` saves the last minutes as a recording; `stop()`
    ends the recording process at once.
    """

    def __init__(
        self,
        process: SamplerProcess,
        look: Look,
        *,
        delay: float = 1.0,
        decay: bool = True,
        modes: Iterable[str] = MODES,
        duration: float | None = None,
        history: float = 120.0,
        symbols: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(look, delay=delay, decay=decay, modes=modes)
        self.process = process
        self._until = None if duration is None else time.monotonic() + duration
        self._symbols = symbols or {}
        self._history = History(history)
        into_guests = process.options.guest and self._symbols.get("guest_symbols") != "none"
        self._naming = LiveNames(
            self._history,
            [Machine.from_json(told) for told in process.options.machines],
            self._symbols,
            process.began,
            into_guests=into_guests,
        )
        self._end = threading.Event()
        self._refreshed = time.monotonic()
        self._target = _target_of(process.options)
        self.error: KvmperfError | None = None
        self._know(self._vms_of(None))
        self._collector: Collector | None = None
        if into_guests:
            self._collector = collect(process.options, self._found)
        self._thread = threading.Thread(target=self._run, name="kvm_top", daemon=True)
        _running.add(self)
        self._thread.start()

    # -- what a user does with it

    @property
    def running(self) -> bool:
        return not self._end.is_set()

    def stop(self) -> None:
        """End it. The last view stays."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def guest_symbols(self) -> list[GuestSymbols]:
        """What was found of guests' kernels so far, the newest last."""
        return self._naming.guest_symbols

    @property
    def symbols(self) -> Table:
        """Where the names of each DSO met so far come from: dso, source, symbols, note."""
        return self._naming.symbols

    @property
    def warnings(self) -> list[str]:
        """What stands in the way of names, one line each."""
        return self._naming.warnings

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after so many seconds at most."""
        return self._end.wait(seconds)

    def snapshot(self, path: str | Path = "perf.data.top") -> Recording:
        """Save the samples of the last minutes as a perf.data and open it; an existing file
        becomes `.old`."""
        target = Path(path)
        if target.exists():
            target.replace(f"{target}.old")
        with self._lock:
            self._history.save(target, self.guest_symbols, self._naming.looks())
        return open_recording(target, **self._symbols)

    def watch(self) -> None:
        """Show it in a terminal until it ends or Ctrl-C; the last view stays there."""
        watch(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        from kvmperf_widgets.top import render_text

        return render_text(self.view())

    def _ipython_display_(self) -> None:
        if in_notebook():
            self._places.add()
        elif sys.stdout is not None and sys.stdout.isatty():
            self.watch()
        else:  # nobody could end it
            print(self)

    def note(self) -> str:
        """Notices, pause, end, losses."""
        stats = self.process.stats()
        said = list(self.process.messages)
        if stats.lost or stats.dropped:
            said.append(f"lost {stats.lost:,} records, dropped {stats.dropped:,} bytes")
        if self._collector is not None and (searching := self._collector.searching()):
            said.append(searching)
        if self.error is not None:
            said.append(str(self.error))
        elif self._end.is_set():
            said.append("stopped")
        elif self._paused:
            said.append("paused")
        return "; ".join(said)

    # -- what the thread does

    def _run(self) -> None:
        due = time.monotonic() + self.delay
        try:
            while not self._end.is_set():
                self._read(min(_STEP, max(0.0, due - time.monotonic())))
                now = time.monotonic()
                if self._until is not None and now >= self._until:
                    break
                if now >= due:
                    due = now + self.delay
                    self._refresh(now)
        except KvmperfError as error:
            self.error = error
        except Exception as error:  # nobody else would hear of it, and the view would stand still
            self.error = KvmperfError(f"the live view failed: {error!r}", "please report this")
        finally:
            if self._collector is not None:
                self._collector.stop()
            self._naming.stop()
            try:
                self.process.stop()
            except KvmperfError as error:
                self.error = self.error or error
            self.process.close()  # the view may be kept for long, its descriptors need not
            self._end.set()
            _running.discard(self)
            self._changed()

    def _read(self, seconds: float) -> None:
        fd = self.process.stream
        assert fd is not None
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            return
        data = os.read(fd, 1 << 20)
        if not data:
            self.process.wait()  # raises what the recording process died of
            self._end.set()
            return
        with self._lock:
            self._history.feed(data, time.monotonic())

    def _refresh(self, now: float) -> None:
        samples = self._history.fresh()
        if samples is None and not self.refreshes:
            return  # the first samples are still to come
        decoded = self._naming.decoded(samples)
        seconds, self._refreshed = now - self._refreshed, now
        news = News()
        if decoded is not None:
            keys = [key for key in self._look.keys if key != "machine"]
            news = news_of(decoded.profile, decoded.machine_pid, keys, self._shown_modes)
        self._know(self._vms_of(decoded))
        self._count(news, self._headline(decoded, seconds))

    def _headline(self, decoded: Decoded | None, seconds: float) -> str:
        from kvmperf_widgets.top import header_line

        modes = np.zeros(0, np.uint8) if decoded is None else decoded.profile.mode
        counts = np.bincount(modes, minlength=len(MODES))
        shares = 100 * counts / max(len(modes), 1)
        name = self.process.events[0]
        attr = next(e.attr for e in self._history.events if e.name == name)
        return header_line(
            irqs=len(modes) / seconds,
            modes=dict(zip(MODES, shares.tolist(), strict=True)),
            event=", ".join(self.process.events),
            frequency=attr.sample_period if attr.freq else None,
            period=None if attr.freq else attr.sample_period,
            target=self._target,
            cpus=os.cpu_count() or 1,
        )

    def _found(self, symbols: GuestSymbols) -> None:
        """A VM's kernel was found, has started anew, or has loaded a module."""
        with self._lock:
            self._naming.found(symbols)

    def _vms_of(self, decoded: Decoded | None) -> dict[int, str]:
        """The VMs that can have samples, by their VMM's pid, and those that have some now."""
        wanted = self.process.options.pids
        found = {
            machine.pid: machine.name
            for machine in self._naming.machines
            if machine.kind == "guest" and machine.accel != "tcg"
            if not wanted or machine.pid in wanted
        }
        if decoded is not None:
            pids, first = np.unique(decoded.machine_pid, return_index=True)
            met = zip(pids.tolist(), decoded.profile.machine.take(first).values(), strict=True)
            new = {pid: name for pid, name in met if pid and pid not in found}
            if new.keys() - self._names.keys():
                self._naming.hurry()  # it has just started
            found |= new
        return found


def _target_of(options: SamplerOptions) -> str:
    """The target as perf top words it."""
    if options.pids:
        return f"target_pid: {','.join(map(str, options.pids))}"
    if options.tids:
        return f"target_tid: {','.join(map(str, options.tids))}"
    return "all" if options.cpus is None else f"CPU {','.join(map(str, options.cpus))}"


def top(
    guest: bool | None = None,
    host: bool | None = None,
    events: str | Sequence[str] | None = None,
    frequency: int | str | None = None,
    period: int | None = None,
    duration: float | None = None,
    pid: int | Sequence[int] | None = None,
    tid: int | Sequence[int] | None = None,
    vm: str | int | Sequence[str | int] | None = None,
    cpus: int | Sequence[int] | None = None,
    mmap_pages: int | str = 128,
    delay: float = 1.0,
    keys: str | Sequence[str] | None = None,
    sort: str = "overhead",
    filter: str = "",
    modes: str | Iterable[str] | None = None,
    hide_kernel: bool = False,
    hide_user: bool = False,
    entries: int = 20,
    count_filter: int | None = None,
    decay: bool = True,
    history: float = 120.0,
    say: Callable[[str], None] = say_on_stderr,
    **symbol_options: Any,
) -> Top:
    """A live view of both sides (or of one, with `guest` or `host`), running when it is given.

    Every `delay` seconds what was counted fades to 7/8, as in perf top, or without `decay` to
    nothing, and what came is added. Rows are by `keys` (default: symbol, dso, mode, machine) and
    sorted by the column `sort`, with a `-` in front the other way round; `entries` of them are
    shown, those of more than `count_filter` samples whose symbol, DSO or command the regular
    expression `filter` finds. `modes` are what is shown, less the kernels' (`hide_kernel`) or the
    users' (`hide_user`). It ends after `duration` seconds, by `stop()`, or at the end of its `with`
    block. `history` seconds are kept for `snapshot()`. Targets, events and errors as in `record()`.
    """
    if guest is None and host is None:
        guest = host = True
    SymbolOptions.of(symbol_options).check()
    duration = seconds(duration)
    if not delay >= _SHORTEST:
        raise QueryError(f"a delay of {delay} s is no delay", f"{_SHORTEST} and more can be done")
    look = Look(sort_keys(keys), sort, filter, None, entries, count_filter)
    options = plan(
        guest=guest,
        host=host,
        events=events,
        frequency=frequency,
        period=period,
        pid=pid,
        tid=tid,
        vm=vm,
        cpus=cpus,
        mmap_pages=mmap_pages,
        say=say,
    )
    if modes is None:
        # software events take no notice of exclude_host: what was not asked for is not shown
        both = options.guest and options.host
        modes = MODES if both else GUEST_MODES if options.guest else HOST_MODES
    hidden = (KERNEL_MODES if hide_kernel else ()) + (USER_MODES if hide_user else ())
    chosen = [MODES[code] for code in mode_codes([modes] if isinstance(modes, str) else modes)]
    shown = [mode for mode in chosen if mode not in hidden]
    if not shown or (hide_kernel and hide_user):
        raise QueryError(f"nothing is shown of {', '.join(chosen)}", "hide less")
    process = start_sampler(options, say)
    return Top(
        process,
        look,
        delay=delay,
        decay=decay,
        modes=shown,
        duration=duration,
        history=history,
        symbols=symbol_options,
    )
