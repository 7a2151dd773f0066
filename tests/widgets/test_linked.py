"""Delta bars and flame graphs as linked pictures, by pointer and by keys, in a driven browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live_page import write_live
from test_browser import HOSTILE, Elements, hostile_graph
from test_diff_flame import dbench as dbench_flame
from test_flame import lock_tree
from test_pictures import dbench

from kvmperf_widgets import DeltaBars, FlameGraph, Page
from kvmperf_widgets.delta_explorer import DeltaWidget, packed
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.theme import DARK

pytestmark = pytest.mark.chromium


class Shown:
    """A document, and the errors of its scripts."""

    def __init__(self, browser: Any, document: Path, **context: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1100, "height": 900}, **context)
        self.page.set_default_timeout(10_000)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.goto(document.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert not self.errors


def hits(page: Any) -> list[str]:
    titles = page.locator(".f.hit > title").all_text_contents()
    return [title.split("\n")[0] for title in titles]


def test_a_bar_searches_the_flame_graph_of_its_page(browser: Any, tmp_path: Path) -> None:
    bars = dbench()
    graph = dbench_flame("max")
    other = FlameGraph(lock_tree(), "guest", "cycles")
    made = Page("x").picture(bars, "diff").picture(graph, "diff").picture(other)
    with Shown(browser, made.save(tmp_path / "x.html")) as page:
        row = page.get_by_role("button", name="lock")
        row.click()
        assert hits(page) == ["lock"]  # one: the other graph has no link
        assert row.get_attribute("aria-pressed") == "true"
        assert "% of what is shown matched" in page.locator(".found").first.text_content()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert hits(page) == []  # it is not in the flame graph
        assert page.locator(".row.picked").count() == 1
        page.keyboard.press("Enter")  # a second time ends it
        assert page.locator(".frames.dim, .row.picked").count() == 0


def test_frames_of_the_svg_are_reached_by_keys(browser: Any, tmp_path: Path) -> None:
    """all -> qemu (20), vm (80) -> vcpu -> alloc (20), lock (60)"""
    document = FlameGraph(lock_tree(), "guest", "cycles").save(tmp_path / "x.svg")
    with Shown(browser, document) as page:
        assert page.title() == "guest"
        detail = page.locator(".detail")

        def press(*keys: str) -> str:
            for key in keys:
                page.keyboard.press(key)
            return str(detail.text_content()).split("   ")[0]

        assert press("Tab") == "all"
        assert press("ArrowUp") == "vm"
        assert press("ArrowLeft") == "qemu"
        assert press("ArrowLeft") == "qemu"  # there is nothing
        assert press("ArrowRight", "ArrowUp", "ArrowUp") == "lock"
        assert press("ArrowLeft") == "alloc"
        assert press("Enter", "ArrowDown") == "vcpu"
        assert page.locator(".f:not(.off)").count() == 4  # alloc and its callers
        assert press("ArrowUp", "Escape") == "all"
        assert page.locator(".f:not(.off)").count() == 9
        page.on("dialog", lambda dialog: dialog.accept("alloc"))
        press("/")
        assert hits(page) == ["alloc"]
        press("/")
        assert hits(page) == []
        press("Tab", " ")  # the word that says so
        assert page.get_by_role("button", name="end search").is_visible()
        assert hits(page) == ["alloc"]


def test_what_a_picture_tells_those_who_cannot_see_it(browser: Any, tmp_path: Path) -> None:
    page = Page("x").picture(FlameGraph(lock_tree(), "guest", "cycles")).picture(dbench())
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(page.save(tmp_path / "x.html").as_uri())
    flame, bars = shown.get_by_role("img").all()
    assert str(flame.get_attribute("aria-label")).startswith("Flame graph: guest. weight is cycles")
    assert "vm 80.00 %, vcpu 80.00 %, lock 60.00 %" in flame.locator("> desc").text_content()
    told = str(bars.locator("> desc").text_content())
    assert told.startswith("The largest changes: lock 2.90 % → 68.00 % (+65.10), ")
    assert shown.locator(".off").count() == 2  # search and reset: nothing would serve them
    context.close()


def test_live_bars_tell_what_was_clicked_and_follow_the_theme(browser: Any, tmp_path: Path) -> None:
    document = write_live(
        DeltaWidget, packed(dbench()), tmp_path / "x.html", theme="auto", link="a"
    )
    with Shown(browser, document, color_scheme="dark") as page:
        page.wait_for_function("document.title.endsWith('and ready')")
        page.evaluate("""() => {
          window.heard = [];
          document.addEventListener("kvmperf-search", (event) => window.heard.push(event.detail));
        }""")
        page.get_by_role("button", name="lock").click()
        page.keyboard.press("Enter")
        assert page.evaluate("heard") == [
            {"link": "a", "pattern": "^lock$"},
            {"link": "a", "pattern": ""},
        ]
        background = "getComputedStyle(document.querySelector('.kvmp-delta .bg')).fill"
        assert page.evaluate(background) == f"rgb{tuple(bytes.fromhex(DARK.background[1:]))}"
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"{background} === 'rgb(255, 255, 255)'")
        page.evaluate("close_it()")
        assert page.locator("svg").count() == 0


def test_hostile_names_are_found_as_text(browser: Any, tmp_path: Path) -> None:
    count = len(HOSTILE)
    numbers = [[1.0] * count] * 5
    bars = DeltaBars(
        HOSTILE, *numbers, [True] * count, [""] * count, [""] * count, title="harmless"
    )
    made = Page("harmless").picture(bars, HOSTILE[2]).picture(hostile_graph(), HOSTILE[2])
    live = write_live(DeltaWidget, packed(bars), tmp_path / "live.html", theme="light", link="a")
    with Shown(browser, made.save(tmp_path / "x.html")) as page:
        for i, row in enumerate(page.locator(".row").all()):
            row.click()
            assert hits(page) == [HOSTILE[i]]
        assert page.title() == "harmless"
    with Shown(browser, live) as page:
        page.wait_for_function("document.title.endsWith('and ready')")
        page.locator(".row").first.click()
        drawn = Elements(page.locator(".kvmp-x-bars").inner_html())
        assert page.title() == "harmless and ready"
    assert not {"script", "img", "a"} & set(drawn.tags)
    assert not drawn.active


def test_what_is_saved_of_live_bars_is_the_picture() -> None:
    shown = dbench().explore("a")
    bundle = shown._repr_mimebundle_()
    assert list(bundle) == [PLOTLY, "image/svg+xml", "text/plain"]
    assert len(str(shown.widget.get_state()["link"])) == 1
    assert shown.widget.picture == bundle[PLOTLY]["layout"]["meta"]["kvmperf"]
