"""Pictures and tables of plain arrays: for notebooks, terminals, files and pages.

Nothing here knows where the numbers come from. Names are hostile text: every renderer cleans
and escapes them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "Changes": "diff_flame",
    "DeltaBars": "delta",
    "DiffFlameGraph": "diff_flame",
    "FlameGraph": "flame",
    "HeatMap": "heat",
    "Page": "page",
    "Picture": "picture",
    "Sandwich": "sandwich",
    "ShareLine": "timeline",
    "ShareLines": "timeline",
    "Tree": "tree",
}


def __getattr__(name: str) -> Any:
    """A picture's module is imported with the first picture of its kind."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
