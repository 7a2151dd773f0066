"""Where a live view is shown: outputs of a notebook, each with a widget, or a terminal."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from kvmperf_magic.frontend import write_nowhere

if TYPE_CHECKING:
    from kvmperf_widgets.top import TopView
    from kvmperf_widgets.top_widget import TopWidget

_SAVED = 10.0  # seconds between pictures for the saved notebook, where a widget shows the view
_LOOK = 0.1  # seconds between looks for a new view
_MOST = 8  # outputs that are told: cells run again leave theirs behind, and nobody says so


class Viewed(Protocol):
    """What can be shown."""

    def view(self) -> TopView: ...


class Live(Viewed, Protocol):
    """What can be watched."""

    refreshes: int

    def wait(self, seconds: float) -> bool: ...
    def stop(self) -> None: ...


class Place(Protocol):
    """What is told of each new view."""

    def show(self, view: TopView) -> None: ...


class Places:
    """The places that show a live view."""

    def __init__(self, live: Viewed) -> None:
        self._live = live
        self._places: list[Place] = []
        self._lock = threading.Lock()

    def add(self, place: Place | None = None) -> None:
        """Show it there, too, or in an output that is made for it."""
        place = place or Output(self._live)
        with self._lock:
            self._places = [*self._places[1 - _MOST :], place]
        self.show()  # something may have come, or it may have ended, meanwhile

    def show(self) -> None:
        """Show what there is now, in all of them."""
        if not self._places:
            return
        with self._lock:  # one at a time, and each the newest
            view = self._live.view()
            for place in self._places:
                place.show(view)


class Output:
    """An output of a cell. The page's side of the widget takes its place where there is one; what
    is saved, and shown elsewhere, is the output."""

    def __init__(self, live: Any) -> None:
        from IPython.display import display

        from kvmperf_widgets.top_widget import TopWidget

        self._id = uuid.uuid4().hex
        self._widget: TopWidget = TopWidget(live, self._id)
        self._handle = display(self._bundle(live.view()), raw=True, display_id=True)
        self._due = 0.0

    def show(self, view: TopView) -> None:
        self._widget.show(view)
        now = time.monotonic()
        if self._widget.asked is None or not view.running or view.paused or now >= self._due:
            self._due = now + _SAVED
            self._handle.update(self._bundle(view), raw=True)

    def _bundle(self, view: TopView) -> dict[str, str]:
        from kvmperf_widgets.top import render_html

        return {
            "text/plain": _text(view),
            "text/html": render_html(view, f"kvmp-top-{self._id}"),
        }


def watch(live: Live) -> None:
    """Show it in a terminal until it ends or Ctrl-C, then stop it; the last view stays there.
    Into a pipe or a file goes one view after the other."""
    if not sys.stdout.isatty():
        try:
            _each(live, lambda view: print(_text(view), flush=True))
        except BrokenPipeError:
            write_nowhere()
        return
    from rich.console import Console
    from rich.live import Live as Screen

    from kvmperf_widgets.top_terminal import rendered

    console = Console()
    with Screen(console=console, auto_refresh=False) as screen:
        _each(live, lambda view: screen.update(rendered(view, console.size), refresh=True))


def _each(live: Live, show: Callable[[TopView], None]) -> None:
    """Every view, and the last, which says how it ended."""
    seen = -1
    try:
        while not live.wait(_LOOK):
            if live.refreshes != seen:
                seen = live.refreshes
                show(live.view())
    except KeyboardInterrupt:
        pass
    finally:
        live.stop()
    show(live.view())


def _text(view: TopView) -> str:
    from kvmperf_widgets.top import render_text

    return render_text(view)
