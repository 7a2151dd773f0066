"""The heat map on a canvas: selected from by mouse and by keys, in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_page import write_live
from test_heat import heat_of, hostile_heat, made
from test_tables import HOSTILE

from kvmperf_widgets import HeatMap
from kvmperf_widgets.heat_explorer import HeatExplorer, HeatWidget, packed
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.text import clean

browsers = pytest.mark.chromium
LEFT, RIGHT, TOP, HEIGHT = 62, 14, 6, 320  # of the plot in the canvas, as heat.js has it


class Seen:
    """A heat map in a page, and what can be read and done there."""

    def __init__(self, page: Any, heat: HeatMap, path: Path, **state: Any) -> None:
        self.page, self.heat = page, heat
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        state = {"theme": heat.theme, "selected": [], **state}
        page.goto(write_live(HeatWidget, packed(heat), path, **state).as_uri())
        page.wait_for_function("document.title.endsWith('and ready')")
        self.canvas = page.locator(".kvmp-x canvas")

    def place(self, column: int, row: int) -> tuple[float, float]:
        """The middle of a cell in the page."""
        box = self.canvas.bounding_box()
        x = LEFT + (column + 0.5) * (box["width"] - LEFT - RIGHT) / self.heat.columns
        y = TOP + HEIGHT - (row + 0.5) * HEIGHT / self.heat.rows
        return box["x"] + x, box["y"] + y

    def drag(self, *cells: tuple[int, int]) -> None:
        self.page.mouse.move(*self.place(*cells[0]))
        self.page.mouse.down()
        for cell in cells[1:]:
            self.page.mouse.move(*self.place(*cell), steps=3)
        self.page.mouse.up()

    def saved(self) -> list[list[float]]:
        """The ranges that the kernel would have heard of."""
        # a timer of the page that is set now is due behind those that tell the kernel
        self.page.evaluate("new Promise((done) => setTimeout(done, 160))")
        return [one["selected"] for one in self.page.evaluate("window.model.saved")]

    def text(self, part: str) -> str:
        return str(self.page.locator(f".kvmp-x-{part}").first.text_content())

    def chosen(self) -> str:
        return str(self.page.locator(".kvmp-x-bar + div").text_content())

    def pixel(self, column: int, row: int) -> list[int]:
        """The colour in the middle of a cell."""
        self.page.wait_for_timeout(60)
        code = """([x, y]) => {
          const canvas = document.querySelector(".kvmp-x canvas");
          const box = canvas.getBoundingClientRect();
          const at = (v, side) => Math.round((v - box[side]) * window.devicePixelRatio);
          return [...canvas.getContext("2d").getImageData(at(x, "left"), at(y, "top"), 1, 1).data];
        }"""
        return list(self.page.evaluate(code, list(self.place(column, row))))[:3]


@pytest.fixture
def seen(browser: Any, tmp_path: Path) -> Iterator[Seen]:
    """20 columns of a second from second 3 on, 10 cells of 100 ms."""
    page = browser.new_page(viewport={"width": 1000, "height": 520})
    found = Seen(page, made(share=True), tmp_path / "x.html")
    yield found
    assert found.errors == []
    page.close()


@browsers
def test_the_tooltip_tells_time_samples_and_share(seen: Seen) -> None:
    seen.page.mouse.move(*seen.place(12, 4))
    assert seen.text("tip").split("\n") == seen.heat.cells_words(124, 125)
    seen.page.mouse.move(2, 2)
    assert not seen.page.locator(".kvmp-x-tip").is_visible()


@browsers
def test_cells_have_their_colours_and_what_is_not_selected_pales(seen: Seen) -> None:
    cold, hot = seen.pixel(2, 5), seen.pixel(15, 5)
    assert cold != hot
    assert sum(cold) > sum(hot)  # more is darker on white
    seen.drag((14, 0), (16, 9))
    seen.page.mouse.move(2, 2)
    assert seen.pixel(15, 5) == hot
    assert sum(seen.pixel(2, 5)) > sum(cold)


@browsers
def test_a_dragged_range_is_told_once_and_exactly(seen: Seen) -> None:
    seen.drag((4, 2), (5, 3), (7, 8))
    assert seen.saved() == [pytest.approx([7.2, 10.9])]
    assert seen.chosen() == " · ".join(seen.heat.cells_words(42, 79))
    seen.drag((7, 8), (4, 2))  # the other way round
    assert seen.saved()[1] == pytest.approx([7.2, 10.9])
    seen.page.mouse.click(*seen.place(10, 6))
    assert seen.saved()[2] == pytest.approx([13.0, 14.0])
    seen.page.keyboard.down("Shift")
    seen.page.mouse.click(*seen.place(12, 0))
    seen.page.keyboard.up("Shift")
    assert seen.saved()[3] == pytest.approx([13.6, 15.1])
    seen.page.get_by_role("button", name="all of it").click()
    assert seen.saved()[4] == []
    assert seen.chosen() == ""


@browsers
def test_a_drag_that_ends_outside_reaches_to_the_edge(seen: Seen) -> None:
    x, y = seen.place(18, 9)
    seen.page.mouse.move(x, y)
    seen.page.mouse.down()
    seen.page.mouse.move(x + 900, y - 300)
    seen.page.mouse.up()
    assert seen.saved() == [pytest.approx([21.9, 23.0])]


@browsers
def test_the_keyboard_moves_and_selects(seen: Seen) -> None:
    seen.canvas.focus()
    press = seen.page.keyboard.press
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        press(key)
    assert seen.text("said") == ", ".join(seen.heat.cells_words(11, 12))
    press("Shift+ArrowRight")
    press("Shift+ArrowUp")
    assert seen.saved() == [pytest.approx([4.1, 5.3])]  # keys that follow each other are one
    press("Enter")
    assert seen.saved()[1] == pytest.approx([5.0, 6.0])
    press("Control+a")
    assert seen.saved()[2] == pytest.approx([3.0, 23.0])
    press("Escape")
    assert seen.saved()[3] == []


@browsers
def test_what_the_kernel_selects_is_shown(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 520})
    found = Seen(page, made(), tmp_path / "x.html", selected=[5.0, 6.0])
    assert found.chosen() == " · ".join(found.heat.cells_words(20, 30))
    page.evaluate("window.model.set('selected', [7.05, 7.35])")
    assert found.chosen() == " · ".join(found.heat.cells_words(40, 44))
    page.evaluate("window.model.set('selected', [])")
    assert found.chosen() == ""
    assert found.saved() == []
    page.evaluate("window.close_it()")
    assert page.locator(".kvmp-x").count() == 0
    assert found.errors == []
    page.close()


@browsers
def test_hostile_names_are_text_on_the_canvas(browser: Any, tmp_path: Path) -> None:
    for name in HOSTILE:
        page = browser.new_page(viewport={"width": 1000, "height": 520})
        found = Seen(page, hostile_heat(name), tmp_path / "x.html")
        found.drag((1, 1), (3, 3))
        assert clean(name)[:40] in found.chosen()
        assert page.title() == "harmless and ready"
        assert page.locator("img, a, .kvmp-x script, svg").count() == 0
        assert found.errors == []
        page.close()


@browsers
def test_thousands_of_cells_and_none_at_all(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 520}, color_scheme="dark")
    samples = np.arange(300 * 50).reshape(300, 50)
    found = Seen(page, HeatMap(samples * 1e6, samples, cell=0.02), tmp_path / "x.html")
    found.drag((10, 0), (290, 49))
    drawn = float(page.evaluate("document.querySelector('.kvmp-x').dataset.drawn"))
    assert drawn < 16  # ms: 60 a second
    background = "getComputedStyle(document.querySelector('.kvmp-x')).backgroundColor"
    assert page.evaluate(background) == "rgb(22, 25, 29)"
    empty = Seen(page, heat_of([]), tmp_path / "y.html")
    empty.page.mouse.click(300, 200)
    empty.canvas.focus()
    page.keyboard.press("Shift+ArrowRight")
    assert empty.saved() == []
    assert found.errors == empty.errors == []
    page.close()


def test_what_is_saved_is_the_picture() -> None:
    heat = made(share=True)
    shown = heat.explore()
    assert isinstance(shown, HeatExplorer)
    bundle = shown._repr_mimebundle_()
    assert list(bundle) == [PLOTLY, "image/svg+xml", "text/plain"]
    assert bundle[PLOTLY]["layout"]["meta"] == {"kvmperf": shown.widget.picture}
    assert bundle["image/svg+xml"] == heat._repr_mimebundle_()["image/svg+xml"]
    state = {k: v for k, v in shown.widget.get_state().items() if not k.startswith("_")}
    assert len(json.dumps(state, default=str)) < 1000  # no cell is in it
    assert shown.widget.get_state()["selected"] == []


def test_the_cells_travel_as_columns() -> None:
    heat = made(share=True)
    header, columns = packed(heat)
    assert [len(column) for column in columns] == [200, 1600, 1600, 1600, 1600]
    assert np.frombuffer(columns[2]).tolist() == heat.samples.reshape(-1).tolist()
    json.dumps(header, allow_nan=False)
    assert len(packed(made())[1]) == 3
