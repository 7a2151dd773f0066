"""top(): what guests and host do now, from a stream of samples that nobody waits for.

A recording process streams records, a thread reads them, names the last seconds of them once a
refresh and redraws. Other cells run meanwhile; nothing is written to disk but by `snapshot()`.
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
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_magic.decoding import decode
from kvmperf_magic.errors import KvmperfError, QueryError
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.guests.collecting import Collector
from kvmperf_magic.guests.discovery import machines
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.history import History
from kvmperf_magic.modes import GUEST_MODES, HOST_MODES, MODES
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.recorder import collect, plan, say_on_stderr, start_sampler
from kvmperf_magic.recording import Recording, open_recording
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Table

if TYPE_CHECKING:
    from kvmperf_magic.profile.profile import Profile

SORTS = ("overhead", "symbol", "dso", "mode", "machine")
_KEYS = ("symbol", "dso", "mode", "machine")
_LOOK = 5.0  # seconds between looks for VMs that came or went
_STEP = 0.1  # seconds between looks at stop, pause and the stream

_running: weakref.WeakSet[Top] = weakref.WeakSet()


def stop_all() -> None:
    """Stop every live view of this process."""
    for one in list(_running):
        one.stop()


atexit.register(stop_all)


class Top:
    """A live view. `.table` and `.headline` are the latest; `.error` why it ended by itself.

    `pause()` freezes what is shown while samples go on being taken; `snapshot()` saves the last
    minutes as a recording; `stop()` ends the recording process at once.
    """

    def __init__(
        self,
        process: SamplerProcess,
        *,
        delay: float = 1.0,
        window: float = 2.0,
        sort: str = "overhead",
        modes: Iterable[str] | None = None,
        entries: int = 20,
        duration: float | None = None,
        history: float = 120.0,
        symbols: dict[str, Any] | None = None,
    ) -> None:
        self._sorted_by = _sort_key(sort)
        self.process = process
        self._delay, self._window, self._entries = delay, window, entries
        self._modes = list(modes) if modes is not None else None
        self._until = None if duration is None else time.monotonic() + duration
        self._symbols = symbols or {}
        self._machines: list[Machine] = []
        self._machines_due = 0.0
        self._named_size = -1
        self.guest_symbols: list[GuestSymbols] = []  # what was found so far, the newest last
        self._spaces: AddressSpaces | None = None
        self._symbolizer: Symbolizer | None = None
        self._lock = threading.Lock()
        self._history = History(history)
        self._end = threading.Event()
        self._paused = False
        self._tables: list[Any] = []  # where it is displayed
        self._buttons: list[Any] = []
        self._target = _target_of(process.options)
        self._modes_now: dict[str, float] = {}
        self.headline = "waiting for the first samples"  # then perf top's first line
        self.table = Table({key: np.zeros(0) for key in ("overhead", "samples", *_KEYS)})
        self.error: KvmperfError | None = None
        self._collector: Collector | None = None
        if process.options.guest and self._symbols.get("guest_symbols") != "none":
            self._collector = collect(process.options, self._found)
        self._thread = threading.Thread(target=self._run, name="kvm_top", daemon=True)
        _running.add(self)
        self._thread.start()

    # -- what a user does with it

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def sort(self) -> str:
        """What rows are sorted by, one of SORTS; may be set at any time."""
        return self._sorted_by

    @sort.setter
    def sort(self, key: str) -> None:
        self._sorted_by = _sort_key(key)
        self.table = self._sorted(self.table)
        self._show()

    def pause(self) -> None:
        """Freeze the view; samples are still taken."""
        self._paused = True
        self._show()

    def resume(self) -> None:
        self._paused = False
        self._refresh()

    def stop(self) -> None:
        """End it. The last view stays."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def snapshot(self, path: str | Path = "perf.data.top") -> Recording:
        """Save the samples of the last minutes as a perf.data and open it; an existing file
        becomes `.old`."""
        target = Path(path)
        if target.exists():
            target.replace(f"{target}.old")
        with self._lock:
            self._history.save(target, self.guest_symbols)
        return open_recording(target, **self._symbols)

    def watch(self) -> None:
        """Show it in a terminal until it ends or Ctrl-C."""
        try:
            while self.running:
                if sys.stdout.isatty():
                    print("\033[H\033[2J", end="")
                print(self, flush=True)
                self._end.wait(self._delay)
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def __repr__(self) -> str:
        from kvmperf_widgets.top import render_text

        return render_text(self.headline, *self._drawn(), note=self._note())

    def _ipython_display_(self) -> None:
        if not in_notebook():
            self.watch()
            return
        from IPython.display import display

        from kvmperf_widgets.controls import top_controls

        if not self._end.is_set():
            self._buttons.append(display(top_controls(self, SORTS), display_id=True))
        self._tables.append(display(self._bundle(), raw=True, display_id=True))
        self._show()  # it may have ended meanwhile

    # -- what the thread does

    def _run(self) -> None:
        due = time.monotonic() + self._delay
        try:
            while not self._end.is_set():
                self._read(min(_STEP, max(0.0, due - time.monotonic())))
                now = time.monotonic()
                if self._until is not None and now >= self._until:
                    break
                if now >= due:
                    due = now + self._delay
                    if not self._paused:
                        self._refresh()
        except KvmperfError as error:
            self.error = error
        except Exception as error:  # nobody else would hear of it, and the view would stand still
            self.error = KvmperfError(f"the live view failed: {error!r}", "please report this")
        finally:
            self._end.set()
            if self._collector is not None:
                self._collector.stop()
            try:
                self.process.stop()
            except KvmperfError as error:
                self.error = self.error or error
            _running.discard(self)
            self._show()

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

    def _refresh(self) -> None:
        with self._lock:
            profile, seconds = self._profile()
        if profile is None:
            return
        from kvmperf_magic.profile.report import report
        from kvmperf_widgets.top import header_line

        chosen = profile.in_modes(self._modes)
        answer = report(chosen, sort=_KEYS, children=False)
        self.table = self._sorted(answer.table[: self._entries])
        counts = np.bincount(profile.mode, minlength=len(MODES))
        shares = 100 * counts / counts.sum()
        self._modes_now = dict(zip(MODES, shares.tolist(), strict=True))
        name = self.process.events[0]
        attr = next(e.attr for e in self._history.events if e.name == name)
        self.headline = header_line(
            irqs=len(profile) / seconds,
            modes=self._modes_now,
            event=", ".join(self.process.events),
            frequency=attr.sample_period if attr.freq else None,
            period=None if attr.freq else attr.sample_period,
            target=self._target,
            cpus=os.cpu_count() or 1,
        )
        self._show()

    def _sorted(self, table: Table) -> Table:
        if self._sorted_by == "overhead":
            return table[np.argsort(-table["overhead"], kind="stable")]
        return table[np.argsort(table[self._sorted_by].astype(str), kind="stable")]

    def _profile(self) -> tuple[Profile | None, float]:
        """The named samples of the last `window` seconds, and how many seconds those are."""
        history = self._history
        samples, seconds = history.window(self._window, time.monotonic())
        if samples is None:
            return None, seconds
        sideband = history.sideband
        if self._named_size != history.sideband_size or time.monotonic() >= self._machines_due:
            self._named_size = history.sideband_size
            self._renew(sideband)
        assert self._symbolizer is not None
        assert self._spaces is not None
        decoded = decode(
            samples, sideband, history.events, self._machines, self._spaces, self._symbolizer
        )
        return decoded.profile, seconds

    def _found(self, symbols: GuestSymbols) -> None:
        """A VM's kernel was found, has started anew, or has loaded a module."""
        with self._lock:
            self.guest_symbols.append(symbols)
            self._named_size = -1

    def _renew(self, sideband: Sideband) -> None:
        """Maps, names and VMs have changed: see them, and keep the symbols found so far."""
        now = time.monotonic()
        if now >= self._machines_due:
            self._machines = machines()
            self._machines_due = now + _LOOK
        names = {m.pid: m.name for m in self._machines if m.kind == "guest"}
        guests = list(self.guest_symbols)
        self._spaces = AddressSpaces(sideband.mmap, sideband.comm, sideband.fork)
        if self._symbolizer is not None:
            self._symbolizer.update(self._spaces, sideband.mmap, names, guests)
            return
        self._symbolizer = Symbolizer(
            self._spaces,
            sideband.mmap,
            SymbolOptions.of(self._symbols),
            build_ids={},
            same_boot=True,
            os_release=os.uname().release,
            vm_names=names,
            guest_symbols=guests,
        )

    def _show(self) -> None:
        for table in self._tables:
            table.update(self._bundle(), raw=True)
        while self._end.is_set() and self._buttons:
            # a saved notebook keeps no widgets: what stays of them is an error message
            self._buttons.pop().update({"text/plain": "", "text/html": ""}, raw=True)

    def _bundle(self) -> dict[str, str]:
        from kvmperf_widgets.top import render_html

        drawn = self._drawn()
        html = render_html(self.headline, *drawn, modes=self._modes_now, note=self._note())
        return {"text/plain": repr(self), "text/html": html}

    def _drawn(self) -> tuple[list[str], list[list[Any]], int]:
        table = self.table
        shown = ["overhead", "samples", *_KEYS]
        values = [table[name].tolist() for name in shown]
        at = shown.index("dso")
        values[at] = [*map(short_dso, values[at])]
        return shown, values, len(table)

    def _note(self) -> str:
        """What there is to say besides the table: notices, pause, end, losses."""
        stats = self.process.stats()
        said = list(self.process.messages)
        if stats.lost or stats.dropped:
            said.append(f"lost {stats.lost:,} records, dropped {stats.dropped:,} bytes")
        if self.error is not None:
            said.append(str(self.error))
        elif self._end.is_set():
            said.append("stopped")
        elif self._paused:
            said.append("paused")
        return "; ".join(said)


def _sort_key(key: str) -> str:
    if key not in SORTS:
        raise QueryError(f"no sort key {key!r}", f"one of {', '.join(SORTS)}")
    return key


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
    frequency: int | None = None,
    period: int | None = None,
    duration: float | None = None,
    pid: int | Sequence[int] | None = None,
    tid: int | Sequence[int] | None = None,
    vm: str | int | Sequence[str | int] | None = None,
    cpus: Sequence[int] | None = None,
    mmap_pages: int = 128,
    delay: float = 1.0,
    window: float = 2.0,
    sort: str = "overhead",
    modes: str | Iterable[str] | None = None,
    entries: int = 20,
    history: float = 120.0,
    say: Callable[[str], None] = say_on_stderr,
    **symbol_options: Any,
) -> Top:
    """A live view of both sides (or of one, with `guest` or `host`), running when it is given.

    A view covers the last `window` seconds and is renewed every `delay`; `history` seconds are
    kept for `snapshot()`. Targets, events and errors as in `record()`.
    """
    if guest is None and host is None:
        guest = host = True
    SymbolOptions.of(symbol_options)
    _sort_key(sort)
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
    if modes is None and not (options.guest and options.host):
        # software events take no notice of exclude_host: what was not asked for is not shown
        modes = GUEST_MODES if options.guest else HOST_MODES
    process = start_sampler(options, say)
    return Top(
        process,
        delay=delay,
        window=window,
        sort=sort,
        modes=[modes] if isinstance(modes, str) else modes,
        entries=entries,
        duration=duration,
        history=history,
        symbols=symbol_options,
    )
