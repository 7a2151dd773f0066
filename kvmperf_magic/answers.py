"""Answers as people see them: the tables of `profile` with the pictures that go with them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import kvmperf_widgets as pictures
from kvmperf_magic.diffflames import WIDTHS, DiffedStacks
from kvmperf_magic.errors import QueryError
from kvmperf_magic.exporting import DIFF_FORMATS, TABLE_FORMATS, format_of
from kvmperf_magic.files import written
from kvmperf_magic.flames import flamegraph
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.modes import MODES
from kvmperf_magic.table import Table

if TYPE_CHECKING:
    from kvmperf_magic.dashboard import Dashboard
    from kvmperf_magic.filters import Filter
    from kvmperf_magic.heatmap import RecordingHeatMap
    from kvmperf_magic.profile.diff import Diff
    from kvmperf_magic.profile.difftree import DiffStacks, DiffTree
    from kvmperf_magic.profile.profile import Profile
    from kvmperf_magic.profile.report import Report
    from kvmperf_magic.recording import Recording
    from kvmperf_widgets import DeltaBars, DiffFlameGraph, FlameGraph, ShareLines


_BARS = ("baseline", "other", "delta", "ci_low", "ci_high", "significant", "status")


class View:
    """Several outputs as one result: in a notebook one under the other, else as text."""

    def parts(self) -> Sequence[Any]:
        """What is shown, in order."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for part in self.parts():
            display(part)

    def __repr__(self) -> str:
        return "\n\n".join(repr(part) for part in self.parts())


class TableAnswer(View):
    """A View whose substance is a table, which can be written."""

    @property
    def table(self) -> Table:
        raise NotImplementedError

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as CSV."""
        return self.table.to_csv(path)

    def to_json(self, path: str | Path | None = None) -> str:
        """The table as JSON."""
        return self.table.to_json(path)


class Lines:
    """Plain lines of text among pictures."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._text = "\n".join(lines)

    def __repr__(self) -> str:
        return self._text


def swing(views: Mapping[str, Recording], symbol: str, buckets: int = 60) -> ShareLines:
    """The share of one symbol over time, a line a recording, in buckets of one width."""
    longest = max(view.duration for view in views.values()) or 1.0
    width = longest / buckets
    lines = []
    for name, view in views.items():
        found = view.timeline(symbol, buckets=max(1, round(view.duration / width))).table
        room = (0, buckets - len(found))
        share, low, high = (
            np.pad(found[column], room, constant_values=np.nan)
            for column in ("share", "low", "high")
        )
        lines.append(pictures.ShareLine(name, share.tolist(), low.tolist(), high.tolist()))
    middles = (np.arange(buckets) + 0.5) * width
    return pictures.ShareLines(middles.tolist(), lines, title=f"{symbol}: share over time")


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
        for part in (*self._said(), *shown, live, Beside(self.report, live.beside)):
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


class DiffView(TableAnswer):
    """What changed, as delta bars, a differential flame graph and a table: `.table`, `.bars`,
    `.flamegraph()`, `.swing(symbol)`. `width` is that of the flame graph that is shown."""

    def __init__(
        self, baseline: Recording, other: Recording, diff: Diff, *, width: str = "after"
    ) -> None:
        if width not in WIDTHS:
            raise QueryError(f"no width {width!r}", f"width: {', '.join(WIDTHS)}")
        self.baseline, self.other = baseline, other
        self.diff = diff
        self.width = width

    @cached_property
    def stacks(self) -> DiffStacks:
        """The stacks of both sides, of what the diff is of."""
        from kvmperf_magic.profile.difftree import DiffStacks

        sides = [view.profile for view in (self.baseline, self.other)]
        if self.diff.total == "kernel":
            sides = [p.in_modes(["host-kernel", "hypervisor", "guest-kernel"]) for p in sides]
        return DiffStacks(*sides, confidence=self.diff.confidence)

    @cached_property
    def tree(self) -> DiffTree:
        """Both call trees in one."""
        return self.stacks.tree()

    def flamegraph(self, width: str | None = None, **options: Any) -> DiffFlameGraph:
        """Both call trees in one picture, blue where there is less, vermillion where more, grey
        where that is not certain.

        `width` of a frame: its share "after" (the default) or "before", the larger of both
        ("max") or what both have ("common").
        """
        width = width or self.width
        if width not in WIDTHS:
            raise QueryError(f"no width {width!r}", f"width: {', '.join(WIDTHS)}")
        return DiffedStacks(self.stacks, self.tree, self.diff.names, width).picture(**options)

    @property
    def table(self) -> Table:
        return self.diff.table

    @cached_property
    def bars(self) -> DeltaBars:
        table, keys = self.table, self.diff.keys
        shown = ("symbol",) if "symbol" in keys else keys
        labels = zip(*(table[key].tolist() for key in shown), strict=True)
        return pictures.DeltaBars(
            label=[" ".join(map(str, label)) for label in labels],
            **{name: table[name].tolist() for name in _BARS},
            kind=table["mode"].tolist() if "mode" in table else [""] * len(table),
            names=self.diff.names,
            subtitle=f"share of {self.other.profile.unit}",
        )

    def swing(self, symbol: str, **options: Any) -> ShareLines:
        """The share of one symbol over time on both sides, each from its own start."""
        sides = zip(self.diff.names, (self.baseline, self.other), strict=True)
        return swing(dict(sides), symbol, **options)

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained page: a click on a bar searches the flame graph; and the table."""
        from kvmperf_magic.export.diff_html import page

        return written(page(self), path)

    def export(self, path: str | Path) -> None:
        """Writes the page (.html) or the table (.csv, .csv.gz, .json), as `path` ends."""
        getattr(self, f"to_{format_of(path, DIFF_FORMATS)}")(path)

    @property
    def warnings(self) -> list[str]:
        """Those of both sides, each once."""
        found = [w for view in (self.baseline, self.other) for w in view.warnings]
        return list(dict.fromkeys(found))

    @property
    def linked(self) -> bool:
        """Whether bars are of symbols, which the frames of the flame graph are too."""
        return "symbol" in self.diff.keys

    def parts(self) -> Sequence[Any]:
        return [*self._said(), self.bars, self.flamegraph(), self.diff]

    def _said(self) -> list[Lines]:
        return [Lines([f"warning: {w}" for w in self.warnings])] if self.warnings else []

    def _ipython_display_(self) -> None:
        if not self.linked or not in_notebook():
            super()._ipython_display_()
            return
        from IPython.display import display

        link = uuid.uuid4().hex
        linked = (self.bars.explore(link), self.flamegraph().explore(link))
        for part in (*self._said(), *linked, self.diff):
            display(part)
