"""Recording: one perf.data opened for analysis, and the answers that it and its views give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvmperf_magic.contents import Contents
from kvmperf_magic.describing import summary_table, summary_text
from kvmperf_magic.errors import FileError
from kvmperf_magic.exporting import Exporting
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.source import Source
from kvmperf_magic.symbols.options import SymbolOptions

# where a recording of (guest, host) goes when nobody says
DEFAULT_OUTPUTS = {
    (True, False): "perf.data.guest",
    (False, True): "perf.data.host",
    (True, True): "perf.data.kvm",
}

if TYPE_CHECKING:
    from kvmperf_magic.heatmap import RecordingHeatMap
    from kvmperf_magic.profile.timeline import Timeline
    from kvmperf_magic.reportview import ReportView
    from kvmperf_magic.table import Table
    from kvmperf_widgets.flame import FlameGraph
    from kvmperf_widgets.layout import Order


def open_recording(path: str | Path, *, cache: bool = True, **symbol_options: Any) -> Recording:
    """Open a perf.data, perf's or ours, or what `Recording.save()` wrote.

    `cache`: what takes more than half a second to decode is kept beside the file
    (`.NAME.kvmperf-names`, `-stacks`), and used again as long as nothing it came from has changed.

    Symbol options: `kallsyms`, `vmlinux`, `symfs`, `guest_kallsyms`, `guest_modules`,
    `guest_vmlinux`, `guest_mount`, `guest_elf` (a path, or {VM name or pid: path}),
    `guest_symbols="host"` or `"none"`, `debuginfod` (True, or URLs). Files that were named when it
    was recorded need not be named again. Raises FileError for what is no recording, SymbolError for
    an option that cannot be; a damaged perf.data opens up to the damage, which `.lost` then tells.
    """
    options = SymbolOptions.of(symbol_options)
    options.check()
    return Recording(Source(read(path), options, cache=cache))


def newest() -> Path:
    """The newest recording of this folder: what a report is of when nothing is named."""
    found = [Path(name) for name in DEFAULT_OUTPUTS.values() if Path(name).exists()]
    found += [Path("perf.data")] if Path("perf.data").exists() else []
    if not found:
        raise FileError("perf.data*", "no recording in this folder", hint="%kvm_record makes one")
    return max(found, key=lambda path: path.stat().st_mtime)


class Recording(Contents, Exporting):
    """One perf.data opened for analysis. `filter()` gives a view; nothing is decoded again."""

    def with_symbols(self, *, cache: bool = True, **symbol_options: Any) -> Recording:
        """This view with its names worked out anew: by these options of `open()`, and those that
        it was opened with."""
        given = SymbolOptions.of(symbol_options)
        given.check()
        options = replace(self._source.options, **symbol_options)
        return Recording(Source(self._source.file, options, cache=cache), self._mask, self._inline)

    def report(
        self,
        sort: Sequence[str] | str = ("comm", "dso", "symbol"),
        modes: str | Iterable[str] | None = None,
        event: str | None = None,
        heatmap: str | bool = False,
        inline: bool = False,
        **options: Any,
    ) -> ReportView:
        """Overhead by any of comm pid tid cpu dso symbol mode machine vcpu event srcline and, of
        guests, guest_comm guest_pid, self and with children. Options: `order` ("self" or
        "children"), `percent_limit` (rows below are left out), `children` (False: self alone); see
        `profile.report.report`. Displays with a flame graph, and with a heat map of all samples
        (`heatmap=True`) or of a symbol's share. `inline`: see `with_lines()`."""
        from kvmperf_magic.profile.report import report
        from kvmperf_magic.reportview import ReportView

        keys = tuple(k.strip() for k in sort.split(",")) if isinstance(sort, str) else tuple(sort)
        lined = inline or ("srcline" in keys and self._inline is None)
        base = self.with_lines(inline=inline) if lined else self
        view = base.answerable(modes, event)
        symbol = None if heatmap is True else heatmap
        shown = self.heatmap(symbol, modes, event) if symbol is not False else None
        whole = base.of_sides(modes) if event is None else view
        made = partial(report, sort=keys, **options)
        return ReportView(view, made, shown, whole, options.get("order", "self"))

    def flamegraph(
        self,
        modes: str | Iterable[str] | None = None,
        event: str | None = None,
        order: Order = "name",
        inline: bool = False,
        **options: Any,
    ) -> FlameGraph:
        """The call tree as a picture: guests as VM -> vCPU -> [guest kernel] -> frames. Siblings
        stand by "name", the heaviest first ("heavy"), or as they came in "time"; best seen so is
        one thread or vCPU: `rec.filter(vcpu=0).flamegraph(order="time")`. `inline`: see
        `with_lines()`."""
        from kvmperf_magic.flamegraphs import flamegraph

        view = self.answerable(modes, event)
        shown = view.with_lines(inline=True) if inline else view
        return flamegraph(shown, order=order, **options)

    def lines(self, symbol: str, **options: Any) -> ReportView:
        """Which lines of a function (its exact name) the time went to."""
        view = self.filter(symbol=f"^{re.escape(symbol)}$")
        return view.report(sort="srcline", children=False, **options)

    def timeline(
        self,
        symbol: str,
        modes: str | Iterable[str] | None = None,
        event: str | None = None,
        **options: Any,
    ) -> Timeline:
        """The share of one symbol (exact name, or a regular expression between slashes) in
        buckets of time: how it swings."""
        from kvmperf_magic.profile.timeline import timeline

        return timeline(self.answerable(modes, event).profile, symbol, **options)

    def heatmap(
        self,
        symbol: str | None = None,
        modes: str | Iterable[str] | None = None,
        event: str | None = None,
        **options: Any,
    ) -> RecordingHeatMap:
        """When the samples fell, or with `symbol` (as `timeline()` takes it) what share of them
        is its: a column a second, a cell a slice of it. A range of it is a recording: `.range(
        from, until)`, or dragged over with `.explore()`. `options`: see `heatmap.heatmap`."""
        from kvmperf_magic.heatmap import heatmap

        return heatmap(self.answerable(modes, event), symbol, self.origin, **options)

    def summary(self) -> Table:
        """What is in it, a line each."""
        return summary_table(self)

    def __repr__(self) -> str:
        return summary_text(self)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
