"""The live table in the page: filtered, sorted and switched there, while the kernel counts.

A message holds all that is shown, so that none need be the first to be understood. None is kept as
the widget's state: nothing of it is saved with a notebook.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import traitlets

from kvmperf_widgets.live import LiveWidget, source
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, KINDS, LIGHT, mode_colour
from kvmperf_widgets.top import Pool, TopView, peak

NONE = 255  # a level where nothing was sampled
_LEVELS = 250
_MOST_NAME = 160
_SET = ("sort", "filter", "machine", "decay", "count_filter")
_PARTS = ("top_table.js", "top_pool.js", "top.js")
_DO = ("pause", "resume", "stop", "zero", "snapshot")


class Live(Protocol):
    """What the page can do to a live view."""

    sort: str
    filter: str
    decay: bool
    count_filter: int | None

    @property
    def machine(self) -> str: ...
    @machine.setter
    def machine(self, wanted: str | int | None) -> None: ...
    def view(self, pool: bool = False) -> TopView: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...
    def zero(self) -> None: ...
    def snapshot(self) -> Any: ...


class TopWidget(LiveWidget):
    """The widget of one place where a live view is shown. `asked` says when its page was heard
    the last time (seconds of the monotonic clock), None if never.

    Keys: `/` filter, `f` or space freeze, `z` zero, `d` decay, `p` snapshot, `q` stop, arrows
    move between rows and machines, Enter filters for a row's symbol, Escape for nothing.
    """

    _esm = source("asked.js", "live.js", "pattern.js", *_PARTS)
    _css = source("explorer.css", "top.css")
    asked_for = "view"
    look = traitlets.Dict().tag(sync=True)

    def __init__(self, live: Live, picture: str = "") -> None:
        super().__init__(lambda: packed(self._view()), picture=picture, look=colours())
        self._live = live
        self._apart = True
        self._heard = copy_context()
        self.asked: float | None = None

    def show(self, view: TopView) -> None:
        """Sends this to the page."""
        header, buffers = packed(view if self._apart else self._view())
        self._tell({"type": self.asked_for, **header}, buffers)

    def _view(self) -> TopView:
        """What is shown now; to a page that is not heard beside other cells with all that it needs
        to filter, sort and switch by itself meanwhile."""
        return self._live.view(pool=not self._apart)

    def _tell(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        # as an answer to what the page said last: a kernel hears a page that has a thread of its
        # own there (a subshell) on the thread that told it something last, and the main one may
        # be busy with another cell
        self._heard.copy().run(self.send, content, buffers)

    def _on_message(self, widget: Any, content: Any, buffers: list[Any]) -> None:
        self.asked, self._heard = time.monotonic(), copy_context()
        self._apart = threading.current_thread() is not threading.main_thread()
        super()._on_message(widget, content, buffers)
        if not isinstance(content, dict):
            return
        name, said = content.get("name"), ""
        try:
            if content.get("type") == "set" and name in _SET:
                setattr(self._live, name, content.get("value"))
            elif content.get("type") == "do" and name in _DO:
                done = getattr(self._live, name)()
                said = f"saved as {done.path}" if name == "snapshot" else ""
            else:
                return
        except Exception as error:  # the page is the only place where it can be said
            self._tell({"type": "said", "about": name, "text": clean(error), "bad": True})
        else:
            self._tell({"type": "said", "about": name, "text": clean(said), "bad": False})


def colours() -> dict[str, Any]:
    """What the page paints with."""
    modes = {kind: [mode_colour(kind, LIGHT), mode_colour(kind, DARK)] for kind in KINDS}
    return {"themes": [asdict(LIGHT), asdict(DARK)], "modes": modes}


def packed(view: TopView) -> tuple[dict[str, Any], list[bytes]]:
    """A view for the page: words and numbers as JSON; as bytes (u1) the trends, [row][bucket] in
    250ths of the row's peak, and the strip, [kind][bucket] in 250ths of all. A pool has the trends
    of its rows and a strip of all kinds a tab behind them."""
    peaks = [peak(row) for row in view.trend]
    kinds = [i for i, row in enumerate(view.strip) if peak(row)]
    header = {
        "header": clean(view.header),
        "columns": list(view.columns),
        "values": [[_cell(value) for value in column] for column in view.values],
        "peaks": [round(one, 2) for one in peaks],
        "second": view.second,
        "buckets": len(view.strip[0]) if view.strip else 0,
        "kinds": [KINDS[i] for i in kinds],
        "tabs": [[tab.key, clean(tab.name, _MOST_NAME), _cell(tab.share)] for tab in view.tabs],
        "machine": view.machine,
        "sort": view.sort,
        "filter": view.filter,
        "matched": round(view.matched, 4),
        "found": view.found,
        "count_filter": view.count_filter,
        "decay": view.decay,
        "paused": view.paused,
        "running": view.running,
        "note": clean(view.note),
    }
    trend = [_levels(row, most) for row, most in zip(view.trend, peaks, strict=True)]
    buffers = [b"".join(trend), b"".join(_levels(view.strip[i], 100.0) for i in kinds)]
    if view.pool is not None:
        header["pool"] = _pooled(view.pool)
        most = [peak(row) for row in view.pool.trend]
        rows = zip(view.pool.trend, most, strict=True)
        buffers.append(b"".join(_levels(row, top) for row, top in rows))
        strips = (row for strip in view.pool.strips for row in strip)
        buffers.append(b"".join(_levels(row, 100.0) for row in strips))
    return header, buffers


def _pooled(pool: Pool) -> dict[str, Any]:
    return {
        "columns": list(pool.columns),
        "values": [[_cell(value) for value in column] for column in pool.values],
        "pid": list(pool.pid),
        "period": [round(one) for one in pool.period],
        "samples": [round(one, 3) for one in pool.samples],  # faded ones are no whole numbers
        "peaks": [round(peak(row)) for row in pool.trend],
        "totals": [[pid, round(total)] for pid, total in pool.totals.items()],
        "entries": pool.entries,
        "kinds": list(KINDS),
    }


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value if isinstance(value, int) else clean(value, _MOST_NAME)


def _levels(row: Sequence[float], most: float) -> bytes:
    values = np.asarray(row, np.float64) * (_LEVELS / (most or 1.0))
    known = np.isfinite(values)
    return (
        np.where(known, np.clip(np.rint(np.where(known, values, 0)), 0, _LEVELS), NONE)
        .astype(np.uint8)
        .tobytes()
    )
