"""Answers as one self-contained HTML page: what a colleague opens without Python or network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmperf_widgets.page import Page

if TYPE_CHECKING:
    from kvmperf_magic.reportview import ReportView

_ROWS = 60


def page(view: ReportView) -> str:
    """The dashboard and how complete the recording is; where no script runs flame graph and table
    in the place of the dashboard."""
    report, recording = view.report, view.recording
    about = view.whole.summary()
    head = report.table[:_ROWS]
    shown = report.shown
    title = f"{recording.name}: where the time went"
    still = Page(title, heading=False)
    if view.heatmap is not None and view.dashboard.with_heat:
        still.picture(view.heatmap)
    still.picture(view.flamegraph).paragraph(report.headline)
    still.table(shown, [head[c].tolist() for c in shown], len(report.table), bars=report.bars)
    built = Page(title)
    for warning in recording.warnings:
        built.paragraph(f"warning: {warning}")
    if view.heatmap is not None and not view.dashboard.with_heat:
        built.picture(view.heatmap)
    built.dashboard(view.dashboard.deflated(), still).heading("The recording")
    built.table(about.columns, [about[c].tolist() for c in about.columns], len(about))
    return built.html()
