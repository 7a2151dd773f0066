"""A difference as one self-contained HTML page, its pictures linked: a bar searches the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmperf_magic.profile.show import short_dso
from kvmperf_widgets.page import Page

if TYPE_CHECKING:
    from kvmperf_magic.diffview import DiffView

_ROWS = 60
_LINK = "diff"


def page(view: DiffView) -> str:
    """Delta bars and differential flame graph, what was compared, and the table."""
    before, after = view.diff.names
    built = Page(f"{before} → {after}: what changed")
    for warning in view.warnings:
        built.paragraph(f"warning: {warning}")
    if view.linked:
        built.paragraph("A click on a bar finds it in the flame graph beneath.")
    link = _LINK if view.linked else ""
    built.picture(view.bars, link).picture(view.flamegraph(), link)
    diff = view.diff
    head = diff.table[:_ROWS]
    shown = diff.shown
    built.paragraph(diff.headline)
    values = [[*map(short_dso, head[c])] if c == "dso" else head[c].tolist() for c in shown]
    built.table(shown, values, len(diff.table), bars=diff.bars)
    for name, recording in ((before, view.baseline), (after, view.other)):
        about = recording.summary()
        built.heading(name)
        built.table(about.columns, [about[c].tolist() for c in about.columns], len(about))
    return built.html()
