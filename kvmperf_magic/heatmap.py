"""A recording's heat map: a range of time is selected from it, for all other answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvmperf_magic.errors import KvmperfError, QueryError
from kvmperf_magic.profile.heat import Heat, heat
from kvmperf_widgets.heat import HeatMap
from kvmperf_widgets.picture import PLOTLY, Picture

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

    from kvmperf_magic.recording import Recording
    from kvmperf_widgets.heat_explorer import HeatExplorer

BY = ("weight", "samples")


def heatmap(
    view: Recording,
    symbol: str | None = None,
    origin: int | None = None,
    *,
    by: str = "weight",
    column: float | None = None,
    cell: float | None = None,
    **options: Any,
) -> RecordingHeatMap:
    """When the samples of this view fell; seconds are counted from `origin` (ns).

    `column` and `cell` are lengths in seconds, chosen by that of the recording where they are not
    given. `by`: the "weight" of samples or their number, "samples". `options` are of `HeatMap`:
    title, subtitle, theme.
    """
    cells = heat(view.profile, symbol, origin=origin, column=column, cell=cell)
    what = f"{symbol}: share over time" if symbol else "samples over time"
    words = {"title": f"{view.name}: {what}", "subtitle": f"{len(view):,} samples"}
    return RecordingHeatMap(view, cells, by, **{**words, **options})


class RecordingHeatMap(HeatMap):
    """The samples of `recording` by second and by offset within it, as `cells` counts them.

    Seconds are those of `Recording.filter(time=...)`: since the first sample of the file.
    `range()` gives the recording of some of them. `explore()` shows the map where they can be
    dragged over; `selection` is then the recording of what is selected, `link()` shows an answer
    beside the map that follows it.
    """

    def __init__(
        self, recording: Recording, cells: Heat, by: str = "weight", **options: Any
    ) -> None:
        if by not in BY:
            raise QueryError(f"no heat map by {by!r}", f"by: {', '.join(BY)}")
        counted = by == "samples"
        super().__init__(
            cells.samples if counted else cells.weight,
            cells.samples,
            part=cells.part_samples if counted else cells.part,
            part_samples=cells.part_samples,
            unit="samples" if counted else cells.unit,
            name=cells.symbol,
            start=(cells.start - cells.origin) / 1e9,
            cell=cells.cell / 1e9,
            **options,
        )
        self.recording = recording
        self.cells = cells
        self._selected: tuple[float, float] | None = None
        self._listeners: list[Callable[[Recording], object]] = []
        self._live: HeatExplorer | None = None

    def range(self, start: float | None = None, end: float | None = None) -> Recording:
        """The samples from second `start` on until before second `end`; None: no bound."""
        bounds = [None if at is None else self._clock(at) for at in (start, end)]
        return self.recording.filter(time=(bounds[0], bounds[1]))

    def _clock(self, seconds: float) -> int:
        if not math.isfinite(seconds):
            raise QueryError(f"{seconds} is no second of a recording")
        return self.cells.origin + round(seconds * 1e9)

    @property
    def selected(self) -> tuple[float, float] | None:
        """What is selected, in seconds: (from, until before); None where all is."""
        return self._selected

    @property
    def selection(self) -> Recording:
        """The recording of what is selected; of the whole map where nothing is."""
        return self.recording if self._selected is None else self.range(*self._selected)

    def selected_words(self) -> str:
        """What is selected, as a line."""
        counted = f"{len(self.selection):,} samples"
        if self._selected is None:
            return f"all of it: {counted}"
        start, end = (f"{at:.9f}".rstrip("0").rstrip(".") for at in self._selected)
        return f"from second {start} until {end}: {counted}"

    def select(self, start: float | None = None, end: float | None = None) -> None:
        """Selects a range as if it were dragged over; without any, all of it."""
        if start is None and end is None:
            found = None
        else:
            whole = (self.start, self.start + self.columns * self.column)
            found = (
                whole[0] if start is None else float(start),
                whole[1] if end is None else float(end),
            )
            if not self._clock(found[0]) < self._clock(found[1]):
                raise QueryError(f"no time from second {found[0]:g} to second {found[1]:g}")
        if found == self._selected:
            return
        self._selected = found
        if self._live is not None:
            self._live.widget.selected = list(found or ())
        view = self.selection
        for listener in list(self._listeners):
            listener(view)

    def on_select(self, listener: Callable[[Recording], object]) -> None:
        """Calls `listener` with the recording of each new selection."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[Recording], object]) -> None:
        """Calls it no more."""
        self._listeners.remove(listener)

    def explore(self) -> HeatExplorer:
        """The map on a canvas of a live notebook: drag, or shift and arrows, selects a range."""
        if self._live is None:
            self._live = super().explore()
            self._live.widget.selected = list(self._selected or ())
            self._live.widget.observe(self._on_widget, "selected")
        return self._live

    def _on_widget(self, change: dict[str, Any]) -> None:
        chosen = change["new"]
        self.select(*(chosen if len(chosen) == 2 else ()))

    def link(self, answer: Callable[[Recording], Any]) -> Linked:
        """Shows `answer(recording)` here, and again in its place for every new selection:
        `heat.link(lambda rec: rec.flamegraph())`."""
        return Linked(self, answer)


class Linked:
    """An answer on display that follows the selection of a heat map, until `stop()`."""

    def __init__(self, heat: RecordingHeatMap, answer: Callable[[Recording], Any]) -> None:
        from IPython.display import display

        self._heat = heat
        self._answer = answer
        shown = self._parts(heat.selection)
        self._handles = [display(part, display_id=True) for part in shown]
        heat.on_select(self._show)

    def stop(self) -> None:
        """What is shown stays as it is."""
        self._heat.forget(self._show)

    def _show(self, view: Recording) -> None:
        parts = self._parts(view)
        # an answer may begin with more or fewer lines of warnings than before
        parts = [Blank()] * (len(self._handles) - len(parts)) + parts[-len(self._handles) :]
        for handle, part in zip(self._handles, parts, strict=True):
            if handle is not None:  # plain Python has shown it and cannot change it
                _renew(handle, part)

    def _parts(self, view: Recording) -> list[Any]:
        from kvmperf_magic.views import Lines, View

        said = Lines([self._heat.selected_words()])  # a saved notebook tells it nowhere else
        try:
            found = self._answer(view)
        except KvmperfError as error:  # of a range without samples, say
            return [said, Lines([str(error)])]
        return [said, *(found.parts() if isinstance(found, View) else [found])]


def _renew(handle: DisplayHandle, part: Any) -> None:
    """Shows `part` in the place of what was there. JupyterLab's renderer of plotly keeps the
    figure it has: only another kind of output in between makes room for a new one."""
    if isinstance(part, Picture):
        bundle = part._repr_mimebundle_()
        still = {mime: shown for mime, shown in bundle.items() if mime != PLOTLY}
        handle.update(still, raw=True)
        handle.update(bundle, raw=True)
    else:
        handle.update(part)


class Blank:
    """Shows nothing, in the place of what was there."""

    def __repr__(self) -> str:
        return ""
