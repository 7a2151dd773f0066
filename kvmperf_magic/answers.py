"""Answers as people see them: the tables of `profile` with the pictures that go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import kvmperf_widgets as pictures
from kvmperf_magic.errors import QueryError
from kvmperf_magic.exporting import TABLE_FORMATS, format_of
from kvmperf_magic.files import written
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.profile.tree import KINDS, build_tree
from kvmperf_magic.table import Table

if TYPE_CHECKING:
    from kvmperf_magic.heatmap import RecordingHeatMap
    from kvmperf_magic.profile.diff import Diff
    from kvmperf_magic.profile.difftree import DiffTree
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


def flamegraph(view: Recording, roots: Any = "auto", title: str = "", **options: Any) -> FlameGraph:
    """The samples of this view as a flame graph."""
    profile = view.profile
    tree = build_tree(profile, roots)
    picture = pictures.Tree(
        parent=tree.parent,
        name=tree.name.codes,
        names=tree.name.categories,
        self_value=tree.self,
        kind=tree.mode.astype(np.int32),
        kinds=list(KINDS),
        detail=tree.dso.codes,
        details=[short_dso(dso) for dso in tree.dso.categories],
    )
    return pictures.FlameGraph(
        picture,
        title=title or f"{view.name}: {' and '.join(view.sides)}",
        unit=profile.unit,
        subtitle=f"{len(profile):,} samples",
        **options,
    )


def diff_flamegraph(
    tree: DiffTree, names: tuple[str, str], width: str, **options: Any
) -> DiffFlameGraph:
    """A joined call tree as a picture whose frames have this width (of `WIDTHS`)."""
    own = (tree.baseline_self, tree.other_self)
    values, words = {
        "after": (own[1], f"the share of {names[1]}"),
        "before": (own[0], f"the share of {names[0]}"),
        "max": (np.maximum(*own), "the larger of both shares"),
        "common": (np.minimum(*own), "what both shares have in common"),
    }[width]
    picture = pictures.Tree(
        parent=tree.parent,
        name=tree.name.codes,
        names=tree.name.categories,
        self_value=values,
        kind=tree.mode.astype(np.int32),
        kinds=list(KINDS),
        detail=tree.dso.codes,
        details=[short_dso(dso) for dso in tree.dso.categories],
    )
    changes = pictures.Changes(
        tree.baseline,
        tree.other,
        tree.delta,
        tree.low,
        tree.high,
        tree.significant,
        tree.status,
        names,
        tree.confidence,
    )
    certain = f"{int(tree.significant.sum()):,} significant at {tree.confidence:.4g} together"
    only = "innermost frames only, as one side has no stacks" if tree.leaves else ""
    subtitle = " · ".join(filter(None, (certain, only)))
    return pictures.DiffFlameGraph(picture, changes, subtitle=subtitle, width=words, **options)


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
    return pictures.ShareLines(middles.tolist(), lines, title=f"{symbol}: share over time (s)")


class ReportView(TableAnswer):
    """A report, its flame graph and, where asked for, a heat map of time, whose selection both
    follow in a live notebook. `.table`, `.flamegraph` and `.heatmap` are the things themselves."""

    def __init__(
        self,
        recording: Recording,
        reported: Callable[[Profile], Report],
        heatmap: RecordingHeatMap | None = None,
    ) -> None:
        self.recording = recording
        self.heatmap = heatmap
        self.report = reported(recording.profile)
        self._reported = reported

    @property
    def table(self) -> Table:
        return self.report.table

    @cached_property
    def flamegraph(self) -> FlameGraph:
        return flamegraph(self.recording)

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained page: flame graph and table."""
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
        warnings = [f"warning: {w}" for w in self.recording.warnings]
        shown = [] if self.heatmap is None else [self.heatmap]
        said = [Lines(warnings)] if warnings else []
        return [*shown, *said, self.flamegraph, self.report]

    def _ipython_display_(self) -> None:
        if self.heatmap is None or not in_notebook():
            super()._ipython_display_()
            return
        from IPython.display import display

        display(self.heatmap.explore())
        self.heatmap.link(lambda selection: ReportView(selection, self._reported))


WIDTHS = ("after", "before", "max", "common")


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
    def tree(self) -> DiffTree:
        """Both call trees in one, of what the diff is of."""
        from kvmperf_magic.profile.difftree import diff_tree

        sides = [view.profile for view in (self.baseline, self.other)]
        if self.diff.total == "kernel":
            sides = [p.in_modes(["host-kernel", "hypervisor", "guest-kernel"]) for p in sides]
        return diff_tree(*sides, confidence=self.diff.confidence)

    def flamegraph(self, width: str | None = None, **options: Any) -> DiffFlameGraph:
        """Both call trees in one picture, blue where there is less, vermillion where more, grey
        where that is not certain.

        `width` of a frame: its share "after" (the default) or "before", the larger of both
        ("max") or what both have ("common").
        """
        width = width or self.width
        if width not in WIDTHS:
            raise QueryError(f"no width {width!r}", f"width: {', '.join(WIDTHS)}")
        return diff_flamegraph(self.tree, self.diff.names, width, **options)

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

    def export(self, path: str | Path) -> None:
        """Writes the table as the name of `path` ends: .csv, .csv.gz or .json."""
        getattr(self, f"to_{format_of(path, TABLE_FORMATS)}")(path)

    def parts(self) -> Sequence[Any]:
        warnings = {w: None for view in (self.baseline, self.other) for w in view.warnings}
        said = [Lines([f"warning: {w}" for w in warnings])] if warnings else []
        return [*said, self.bars, self.flamegraph(), self.diff]
