"""The live table in a page: what it shows, and what it says when it is clicked and typed at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_page import write_live
from test_tables import HOSTILE
from test_top import a_view

from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, LIGHT, mode_colour
from kvmperf_widgets.top import TopView
from kvmperf_widgets.top_widget import TopWidget, colours, packed

pytestmark = pytest.mark.chromium


class Seen:
    """A view in a page of its own; what it says is only noted."""

    def __init__(self, page: Any, view: TopView, path: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(write_live(TopWidget, packed(view), path, look=colours()).as_uri())
        page.wait_for_function("document.title.endsWith('and ready')")

    def sent(self) -> list[Any]:
        """What the page has said, but for asking."""
        self.page.wait_for_timeout(200)
        said = self.page.evaluate("window.model.asked")
        return [one for one in said if one["type"] != "view"]

    def text(self, part: str) -> list[str]:
        return list(self.page.locator(part).all_text_contents())


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1100, "height": 600})
    yield page
    page.close()


def test_the_page_shows_header_tabs_modes_and_rows(page: Any, tmp_path: Path) -> None:
    seen = Seen(page, a_view(["lock", "copy"], note="noted"), tmp_path / "x.html")
    assert seen.text(".kvmp-l-head") == ["   PerfTop: 1 irqs/sec"]
    assert seen.text("[role=tab]") == ["all", "host 30.0 %", "lock 70.0 %"]
    keys = [key.split() for key in seen.text(".kvmp-x-key")]
    assert [(kind, round(float(share))) for kind, share, _ in keys] == [
        *(("host-kernel", 10), ("host-user", 20), ("guest-kernel", 45), ("guest-user", 25)),
    ]
    rows = [row.split() for row in seen.text("tbody tr")]
    assert [row[0][:5] for row in rows] == ["50.00", "25.00"]
    assert "noted" in " ".join(seen.text(".kvmp-x-about"))
    assert page.locator("th[aria-sort=descending]").text_content() == "overhead"
    pixel = """([x, y]) => [...document.querySelector("canvas").getContext("2d")
        .getImageData(x, y, 1, 1).data].slice(0, 3)"""
    width = page.locator("canvas").bounding_box()["width"]
    heights = {"host-kernel": 60, "host-user": 50, "guest-kernel": 30, "guest-user": 5}
    for kind, y in heights.items():
        drawn = page.evaluate(pixel, [int(width * 0.9), y])
        assert drawn == list(bytes.fromhex(mode_colour(kind, LIGHT)[1:])), kind
    page.locator("canvas").hover(position={"x": width - 3, "y": 20})
    assert page.locator(".kvmp-x-tip").text_content().startswith("now\nhost-kernel 10.0")
    trend = page.locator("td path").first.get_attribute("d")
    assert trend.count("L") == 30  # one buckets wide each, after 30 that are not known
    assert trend.startswith("M30 ")
    assert seen.sent() == seen.errors == []


def test_every_control_says_what_it_does(page: Any, tmp_path: Path) -> None:
    seen = Seen(page, a_view(["lock[1]", "copy"]), tmp_path / "x.html")
    page.get_by_role("tab", name="host").click()
    page.locator("input[type=search]").fill("lo")
    page.locator("input[type=number]").fill("7")  # at once: neither may be lost
    page.get_by_role("button", name="symbol").click()
    for name in ("freeze", "decay", "zero", "snapshot", "stop"):
        page.get_by_role("button", name=name).click()
    assert sorted(map(str, seen.sent())) == sorted(
        map(
            str,
            [
                {"type": "set", "name": "machine", "value": 0},
                {"type": "set", "name": "filter", "value": "lo"},
                {"type": "set", "name": "count_filter", "value": 7},
                {"type": "set", "name": "sort", "value": "symbol"},
                {"type": "do", "name": "pause"},
                {"type": "set", "name": "decay", "value": False},
                *({"type": "do", "name": name} for name in ("zero", "snapshot", "stop")),
            ],
        )
    )
    page.locator("tbody tr").first.dblclick()
    assert seen.sent()[-1] == {"type": "set", "name": "filter", "value": r"^lock\[1\]$"}
    assert seen.errors == []


def test_a_frozen_page_stands_still_before_the_kernel_knows(page: Any, tmp_path: Path) -> None:
    seen = Seen(page, a_view(["lock"]), tmp_path / "x.html")
    page.get_by_role("button", name="freeze").click()
    code = """([header, paused]) => { const model = window.model;
        model.emit("msg:custom", {...model.last, header, paused}, model.lastBuffers); }"""
    page.evaluate("""() => { const model = window.model; model.on("msg:custom", (told, buffers) => {
        if (told.type === "view") { model.last = told; model.lastBuffers = buffers; } });
        model.send({type: "view"}); }""")
    page.wait_for_timeout(100)
    page.evaluate(code, ["too late", False])
    assert seen.text(".kvmp-l-head") == ["   PerfTop: 1 irqs/sec"]
    page.evaluate(code, ["frozen", True])
    assert seen.text(".kvmp-l-head") == ["frozen"]
    page.get_by_role("button", name="freeze").click()
    page.evaluate(code, ["goes on", False])
    assert seen.text(".kvmp-l-head") == ["goes on"]
    assert [one["name"] for one in seen.sent()] == ["pause", "resume"]
    assert seen.errors == []


def test_the_keyboard_reaches_everything(page: Any, tmp_path: Path) -> None:
    seen = Seen(page, a_view(["lock", "copy", "search"]), tmp_path / "x.html")
    press = page.keyboard.press
    symbol = "document.activeElement.children[3]?.textContent"
    page.locator("tbody tr").first.focus()
    for key, wanted in (("ArrowDown", "copy"), ("End", "search"), ("ArrowUp", "copy")):
        press(key)
        assert page.evaluate(symbol) == wanted
    for key in ("f", "z", "d", "p", "q", "ArrowRight", " "):
        press(key)
    press("Enter")
    press("/")
    page.keyboard.type("fzq/ ")  # in a field they are letters
    press("Enter")
    assert page.evaluate(symbol) == "copy"  # back where it was
    press("Escape")
    said = seen.sent()
    assert [one.get("value", one["name"]) for one in said] == [
        *("pause", "zero", False, "snapshot", "stop", 0, "resume"),
        *("^copy$", "fzq/ ", ""),
    ]
    stops = page.evaluate("[...document.querySelectorAll('tbody tr')].map((row) => row.tabIndex)")
    assert stops == [-1, 0, -1]
    assert seen.errors == []


def test_the_focus_stays_when_its_row_goes(page: Any, tmp_path: Path) -> None:
    seen = Seen(page, a_view(["lock", "copy"]), tmp_path / "x.html")
    page.locator("tbody tr").nth(1).focus()
    code = """(view) => window.model.emit("msg:custom", {type: "view", ...view},
        [view.peaks.length * 60, 240].map((size) => new DataView(new ArrayBuffer(size))))"""
    page.evaluate(code, packed(a_view(["copy"]))[0])
    assert page.evaluate("document.activeElement.tagName") == "TR"
    page.evaluate(code, packed(replace(a_view(["x"]), values=[[]] * 6, trend=[]))[0])
    assert page.evaluate("document.activeElement.className") == "kvmp-x kvmp-l"
    page.keyboard.press("z")
    assert seen.sent() == [{"type": "do", "name": "zero"}]
    assert seen.errors == []


def test_it_follows_light_and_dark_and_can_be_closed(page: Any, tmp_path: Path) -> None:
    seen = Seen(page, a_view(["lock"]), tmp_path / "x.html")
    background = "getComputedStyle(document.querySelector('.kvmp-l')).backgroundColor"
    for theme, name in ((DARK, "dark"), (LIGHT, "light")):
        page.emulate_media(color_scheme=name)
        wanted = tuple(bytes.fromhex(theme.background[1:]))
        page.wait_for_function(f"{background} === 'rgb{wanted}'")
    page.evaluate("window.close_it()")
    assert page.locator(".kvmp-l").count() == 0
    assert seen.errors == []


def test_hostile_names_are_text_in_the_page(page: Any, tmp_path: Path) -> None:
    view = a_view(HOSTILE, header=HOSTILE[0], note=HOSTILE[1], filter=HOSTILE[2])
    seen = Seen(page, view, tmp_path / "x.html")
    shown = seen.text("tbody tr td:nth-child(4)")
    assert shown == [clean(name, 160) for name in HOSTILE]
    assert page.title() == "harmless and ready"
    assert page.locator("img, a, .kvmp-l script").count() == 0
    assert page.locator(".kvmp-l").bounding_box()["width"] <= 1100
    assert page.evaluate("document.documentElement.scrollWidth") <= 1100  # 4 KB are no page wide
    assert seen.errors == []
