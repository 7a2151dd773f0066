"""Answers as one self-contained HTML page: what a colleague opens without Python or network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmperf_widgets.page import Page

if TYPE_CHECKING:
    from kvmperf_magic.answers import ReportView

_ROWS = 60


def page(view: ReportView) -> str:
    """The pictures, the table and how complete the recording is."""
    report, recording = view.report, view.recording
    about = recording.summary()
    head = report.table[:_ROWS]
    shown = report.shown
    built = Page(f"{recording.name}: where the time went")
    built.table(about.columns, [about[c].tolist() for c in about.columns], len(about))
    if view.heatmap is not None:
        built.picture(view.heatmap)
    built.picture(view.flamegraph).paragraph(report.headline)
    built.table(shown, [head[c].tolist() for c in shown], len(report.table), bars=report.bars)
    return built.html()
