"""The explorer in a page of its own."""

from __future__ import annotations

from pathlib import Path

from live_page import write_live

from kvmperf_widgets import FlameGraph
from kvmperf_widgets.explorer import ExplorerWidget, packed


def write_page(graph: FlameGraph, path: Path) -> Path:
    return write_live(ExplorerWidget, packed(graph), path, theme=graph.theme)
