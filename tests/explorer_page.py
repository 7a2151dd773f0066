"""The explorer in a page of its own, and within another page; what can be done and read there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from live_page import write_live

from kvmperf_widgets import FlameGraph
from kvmperf_widgets.explorer import SCRIPTS, ExplorerWidget, packed
from kvmperf_widgets.live import LiveWidget, source
from kvmperf_widgets.tree_picture import TreePicture

_EMBEDDED = """
async function render({ model, el }) {
  const data = await asked(model, "tree", unpacked);
  window.selected = [];
  const onSelect = (frame) => { window.selected = [frame]; };
  window.explorer = explore(data, el, model.get("theme"), { bare: true, onSelect });
  return window.explorer.close;
}
export default { render };
"""


class Embedding(LiveWidget):
    """A page that has the explorer as a part of it: `explorer` is its handle."""

    _esm = source("asked.js", "live.js", *SCRIPTS) + _EMBEDDED
    _css = source("explorer.css")
    asked_for = "tree"


def write_page(graph: TreePicture, path: Path, timed: TreePicture | None = None) -> Path:
    """`timed` is what comes when the page asks for the order of time."""
    answers = {"over time": packed(timed)} if timed else {}
    return write_live(ExplorerWidget, packed(graph), path, answers, theme=graph.theme)


def write_embedded(graph: FlameGraph, path: Path) -> Path:
    return write_live(Embedding, packed(graph), path, theme=graph.theme)


class Seen:
    """An explorer in a page, and what can be read and done there."""

    def __init__(self, page: Any, document: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(document.as_uri())
        page.wait_for_function("document.title.endsWith('and ready')")
        self.canvas = page.locator(".kvmp-x canvas")

    def text(self, part: str) -> str:
        return str(self.page.locator(f".kvmp-x-{part}").first.text_content())

    def at(self, x: float, row: int) -> tuple[float, float]:
        """A share (0..1) of the width on a row counted from the top, in pixels of the page."""
        box = self.canvas.bounding_box()
        return box["x"] + x * box["width"], box["y"] + 18 * row + 9

    def point(self, x: float, row: int) -> None:
        self.page.mouse.move(*self.at(x, row))

    def tip(self, x: float, row: int) -> str:
        self.point(x, row)
        tip = self.page.locator(".kvmp-x-tip")
        return str(tip.text_content()) if tip.is_visible() else ""

    def click(self, x: float, row: int, key: str = "") -> None:
        self.point(x, row)
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.down()
        self.page.mouse.up()
        if key:
            self.page.keyboard.up(key)
        self.page.wait_for_timeout(220)

    def button(self, words: str) -> None:
        self.page.get_by_role("button", name=words).click()

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
