"""What changed between two recordings, as people see it: bars, flame graph, table, swings."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import kvmperf_widgets as pictures
from kvmperf_magic.errors import QueryError
from kvmperf_magic.exporting import DIFF_FORMATS, format_of
from kvmperf_magic.files import written
from kvmperf_magic.flamegraphs import diff_flamegraph
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.table import Table
from kvmperf_magic.views import Lines, TableAnswer

if TYPE_CHECKING:
    from kvmperf_magic.profile.diff import Diff
    from kvmperf_magic.profile.difftree import DiffTree
    from kvmperf_magic.recording import Recording
    from kvmperf_widgets import DeltaBars, DiffFlameGraph, ShareLines

WIDTHS = ("after", "before", "max", "common")
_BARS = ("baseline", "other", "delta", "ci_low", "ci_high", "significant", "status")


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

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained page: a click on a bar searches the flame graph; and the table."""
        from kvmperf_magic.export.diff_html import page

        return written(page(self), path)

    def export(self, path: str | Path) -> None:
        """Writes the page (.html) or the table (.csv, .csv.gz, .json), as `path` ends."""
        getattr(self, f"to_{format_of(path, DIFF_FORMATS)}")(path)

    @property
    def warnings(self) -> list[str]:
        """Those of both sides, each once; first of all, where they weigh samples by different
        events."""
        views = (self.baseline, self.other)
        units = [view.profile.unit for view in views]
        found = [w for view in views for w in view.warnings]
        if units[0] != units[1]:
            found.insert(0, f"shares of {units[0]} are compared with shares of {units[1]}")
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
