"""A report as people see it: its table with the pictures that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvmperf_magic.exporting import TABLE_FORMATS, format_of
from kvmperf_magic.files import written
from kvmperf_magic.flamegraphs import flamegraph
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.report import SURE
from kvmperf_magic.table import Table
from kvmperf_magic.views import Lines, TableAnswer

if TYPE_CHECKING:
    from kvmperf_magic.dashboard import Dashboard
    from kvmperf_magic.filters import Filter
    from kvmperf_magic.heatmap import RecordingHeatMap
    from kvmperf_magic.profile.profile import Profile
    from kvmperf_magic.profile.report import Report
    from kvmperf_magic.recording import Recording
    from kvmperf_widgets import FlameGraph


class ReportView(TableAnswer):
    """A report, its flame graph and, where asked for, a heat map of time. `.table`, `.flamegraph`
    and `.heatmap` are the things themselves.

    A live notebook shows a dashboard of them. `.filter` is what that shows and may be set (its
    time also by a range of the heat map), `.selection` the recording of it: of `whole`, which has
    all events.
    """

    def __init__(
        self,
        recording: Recording,
        reported: Callable[[Profile], Report],
        heatmap: RecordingHeatMap | None = None,
        whole: Recording | None = None,
        order: str = "self",
    ) -> None:
        self.recording = recording
        self.whole = whole or recording
        self._order = order
        self.heatmap = heatmap
        self.report = reported(recording.profile)

    @property
    def table(self) -> Table:
        return self.report.table

    @cached_property
    def flamegraph(self) -> FlameGraph:
        return flamegraph(self.recording)

    @cached_property
    def dashboard(self) -> Dashboard:
        from kvmperf_magic.dashboard import Dashboard

        events = self.recording.events
        first = events["name"][events["samples"] > 0][:1].tolist()
        return Dashboard(
            self.whole, self.report.sort, next(iter(first), None), self._order, self.heatmap
        )

    @property
    def filter(self) -> Filter:
        """What the dashboard shows. Setting it changes the page; QueryError for what cannot be."""
        return self.dashboard.filter

    @filter.setter
    def filter(self, wanted: Filter) -> None:
        self.dashboard.filter = wanted

    @property
    def selection(self) -> Recording:
        """The recording of what the dashboard shows."""
        return self.dashboard.selection

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained page: the dashboard, and without scripts flame graph and table."""
        from kvmperf_magic.export.html import page

        return written(page(self), path)

    def export(self, path: str | Path) -> None:
        """Writes it in the format that the name of `path` ends in: see `exporting.SUFFIXES`.
        Tables and the page are the report's own, all else is made of its samples."""
        form = format_of(path)
        if form in {*TABLE_FORMATS, "html"}:
            getattr(self, f"to_{form}")(path)
        elif form == "parquet":
            self.recording.to_parquet(path)
        else:  # all of this view: the modes were chosen for the report
            getattr(self.recording, f"to_{form}")(path, modes=MODES)

    def parts(self) -> Sequence[Any]:
        shown = [] if self.heatmap is None else [self.heatmap]
        return [*self._said(), *shown, self.flamegraph, self.report]

    def _said(self) -> list[Lines]:
        warnings = [f"warning: {w}" for w in self.recording.warnings]
        return [Lines(warnings)] if warnings else []

    def _ipython_display_(self) -> None:
        if not in_notebook():
            super()._ipython_display_()
            return
        from IPython.display import display

        live = self.dashboard.live(self.flamegraph)
        shown = [] if self.heatmap is None else [live.instead(self.heatmap)]
        # how sure guests' processes are is told by the report alone
        told = self.report if SURE in self.table else Beside(self.report, live.beside)
        for part in (*self._said(), *shown, live, told):
            display(part)


class Beside:
    """A report that a page knows by a class: it is hidden while a dashboard shows the same."""

    def __init__(self, report: Report, marked: str) -> None:
        self._report = report
        self._marked = marked

    def _repr_html_(self) -> str:
        return f'<div class="{self._marked}">{self._report._repr_html_()}</div>'

    def __repr__(self) -> str:
        return repr(self._report)
