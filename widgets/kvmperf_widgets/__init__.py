"""Pictures and tables of plain arrays: for notebooks, terminals, files and pages.

Nothing here knows where the numbers come from. Names are hostile text: every renderer cleans
and escapes them.
"""

from __future__ import annotations

from kvmperf_widgets.delta import DeltaBars
from kvmperf_widgets.diff_flame import Changes, DiffFlameGraph
from kvmperf_widgets.flame import FlameGraph
from kvmperf_widgets.heat import HeatMap
from kvmperf_widgets.page import Page
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.sandwich import Sandwich
from kvmperf_widgets.timeline import ShareLine, ShareLines
from kvmperf_widgets.tree import Tree

__all__ = [
    "Changes",
    "DeltaBars",
    "DiffFlameGraph",
    "FlameGraph",
    "HeatMap",
    "Page",
    "Picture",
    "Sandwich",
    "ShareLine",
    "ShareLines",
    "Tree",
]
