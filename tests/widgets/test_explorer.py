"""The canvas explorer: driven in a browser as people do, and what a notebook saves of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import decode_png, share_of
from explorer_page import Seen, write_page
from test_browser import HOSTILE, hostile_graph
from test_diff_flame import dbench
from test_flame import lock_tree, recursive_tree
from trees import big_tree, tree_of

from kvmperf_widgets import FlameGraph, Tree
from kvmperf_widgets.explorer import Explorer, packed
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import LESS, MORE

browsers = pytest.mark.chromium


@pytest.fixture
def lock(browser: Any, tmp_path: Path) -> Iterator[Seen]:
    """all (row 4) -> qemu (20), vm (80, row 3) -> vcpu -> alloc (20), lock (60, row 1)"""
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    seen = Seen(
        page,
        write_page(FlameGraph(lock_tree(), "guest", "cycles", "9 samples"), tmp_path / "x.html"),
    )
    yield seen
    assert seen.errors == []
    page.close()


@browsers
def test_the_tooltip_tells_self_total_and_where(lock: Seen) -> None:
    assert lock.tip(0.9, 1).split("\n") == [
        "lock",
        "60 cycles: 60.00 % of all, 60.00 % of the zoomed frame",
        "self 60 cycles (60.00 %)",
        "guest-kernel · [kernel.kallsyms]",
        "in vm › vcpu",
    ]
    assert lock.tip(0.5, 4).startswith("all\n100 cycles")
    assert lock.tip(0.9, 0) == ""
    assert "100 cycles (100.00 % of all) · 9 frames" in lock.text("about")


@browsers
def test_wheel_drag_click_and_keys_move_about(lock: Seen) -> None:
    assert lock.tip(0.1, 3).startswith("qemu")
    lock.point(0.1, 3)
    lock.page.mouse.wheel(0, -600)
    lock.page.wait_for_timeout(100)
    assert lock.tip(0.25, 3).startswith("qemu")  # it is wider now
    lock.point(0.9, 3)
    lock.page.mouse.down()
    lock.point(0.1, 3)
    lock.page.mouse.up()
    assert lock.tip(0.6, 3).startswith("vm")
    lock.click(0.6, 3)
    assert "75.00 % of the zoomed frame" in lock.tip(0.9, 1)
    assert lock.tip(0.02, 3).startswith("vm")
    lock.key("r")
    assert lock.tip(0.1, 3).startswith("qemu")
    lock.key("ArrowUp", "ArrowUp", "ArrowUp")
    assert lock.text("said").startswith("lock, 60 cycles")
    lock.key("ArrowLeft")
    assert lock.text("said").startswith("alloc, 20 cycles")
    lock.key("ArrowDown")
    assert lock.text("said").startswith("vcpu")
    lock.key("Enter")
    lock.page.wait_for_timeout(220)
    assert lock.tip(0.02, 2).startswith("vcpu")
    lock.key("+")
    assert lock.tip(0.02, 1).startswith("alloc")


@browsers
def test_search_by_keyboard_and_matched_percent(lock: Seen) -> None:
    lock.canvas.focus()
    lock.key("/")
    lock.page.keyboard.type("lock|run")
    assert lock.text("matched") == "75.00 % matched"  # run holds one of the locks: once
    lock.key("Escape")
    lock.click(0.1, 3)
    assert lock.text("matched") == "75.00 % matched"  # 15 of qemu's 20
    lock.key("/")
    lock.page.keyboard.type("(")
    assert "not a regular expression" in lock.text("matched")
    lock.key("Escape", "r")
    assert lock.text("matched") == ""
    assert lock.page.locator("input[type=search]").input_value() == ""


@browsers
def test_sandwich_reverse_icicle_and_order(lock: Seen) -> None:
    lock.click(0.9, 1, "Shift")
    assert "lock: callers above, callees beneath" in lock.text("about")
    assert "60 cycles (60.00 % of all)" in lock.text("about")
    assert [lock.tip(0.5, row).split("\n")[0] for row in range(3)] == ["vm", "vcpu", "lock"]
    lock.key("s")
    assert "9 frames" in lock.text("about")
    lock.button("reverse")
    assert lock.tip(0.5, 0).startswith("all")
    assert [lock.tip(x, 1).split("\n")[0] for x in (0.1, 0.22, 0.6, 0.95)] == ENDS
    lock.button("reverse")
    lock.button("icicle")
    assert lock.tip(0.5, 0).startswith("all")
    assert lock.tip(0.1, 1).startswith("qemu")
    lock.page.get_by_label("order of siblings").select_option("left heavy")
    assert lock.tip(0.1, 1).startswith("vm")
    assert lock.page.get_by_role("button", name="icicle").get_attribute("aria-pressed") == "true"


@browsers
def test_recursion_collapses_and_colours_change(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 600}, color_scheme="dark")
    graph = FlameGraph(recursive_tree(), "demo", "cycles").colour("dso")
    seen = Seen(page, write_page(graph, tmp_path / "x.html"))
    assert "9 frames" in seen.text("about")
    seen.button("collapse recursion")
    assert "6 frames" in seen.text("about")
    legend = page.locator(".kvmp-x-about").nth(1)
    assert legend.text_content() == "[kernel.kallsyms]"
    page.get_by_label("colours").select_option("colour by mode")
    assert legend.text_content() == "host-user"
    background = "getComputedStyle(document.querySelector('.kvmp-x')).backgroundColor"
    assert page.evaluate(background) == "rgb(22, 25, 29)"
    assert seen.errors == []
    page.close()


@browsers
def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 600})
    seen = Seen(page, write_page(hostile_graph(), tmp_path / "x.html"))
    tips = {seen.tip((i + 0.5) / len(HOSTILE), 0).split("\n")[0] for i in range(len(HOSTILE))}
    assert tips == set(HOSTILE)
    seen.click(0.1, 0, "Shift")
    assert page.title() == "harmless and ready"
    assert page.locator("img, a, .kvmp-x script, svg").count() == 0
    assert seen.errors == []
    page.close()


@browsers
def test_names_turned_round_and_without_end_are_bounded_text(browser: Any, tmp_path: Path) -> None:
    names = ["\u202egnp.exe", "x" * 4096, "\x1b[31mred\x07", "a\nb", "\U0001f600" * 40]
    tree = tree_of([-1, *[0] * 5], ["all", *names], [0, *[10.0] * 5])
    page = browser.new_page(viewport={"width": 1000, "height": 600})
    seen = Seen(page, write_page(FlameGraph(tree, "x" * 4096, "cycles"), tmp_path / "x.html"))
    tips = set()
    for i in range(len(names)):
        tips.add(seen.tip((i + 0.5) / len(names), 0).split("\n")[0])
        assert page.locator(".kvmp-x-tip").bounding_box()["height"] < 300
    assert tips == {clean(name, 300) for name in names}
    page.mouse.click(*seen.at(0.1, 0), button="right")
    assert page.get_by_role("menu").bounding_box()["width"] < 400
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.errors == []
    page.close()


ENDS = ["alloc", "ioctl", "lock", "run"]
ZOOMING = """async () => {
  const canvas = document.querySelector(".kvmp-x canvas"), box = canvas.getBoundingClientRect();
  const root = document.querySelector(".kvmp-x");
  for (let n = 0; n < 60; n++) {
    const deltaY = n % 40 < 20 ? -60 : 60, clientX = box.left + 300, clientY = box.top + 200;
    delete root.dataset.drawn;
    canvas.dispatchEvent(new WheelEvent("wheel", {deltaY, clientX, clientY, cancelable: true}));
    await new Promise(requestAnimationFrame);
    if (!root.dataset.drawn) { return false; }
  }
  return true;
}"""


@browsers
def test_two_hundred_thousand_frames_open_and_zoom(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    seen = Seen(
        page, write_page(FlameGraph(big_tree(200_000), "big", "cycles"), tmp_path / "x.html")
    )
    assert page.evaluate(ZOOMING)
    assert "200,000 frames" in seen.text("about")
    assert seen.errors == []
    page.close()


def test_what_is_saved_is_the_picture() -> None:
    graph = FlameGraph(big_tree(20_000), "big", "cycles")
    shown = graph.explore()
    assert isinstance(shown, Explorer)
    bundle = shown._repr_mimebundle_()
    assert list(bundle) == [PLOTLY, "image/svg+xml", "text/plain"]
    assert re.fullmatch("[0-9a-f]{32}", bundle[PLOTLY]["layout"]["meta"]["kvmperf"])
    assert bundle["image/svg+xml"] == graph._repr_mimebundle_()["image/svg+xml"]
    state = {k: v for k, v in shown.widget.get_state().items() if not k.startswith("_")}
    assert len(json.dumps(state, default=str)) < 1000  # no frame is in it
    assert repr(shown) == repr(graph)


def test_the_tree_travels_as_columns() -> None:
    tree = big_tree(50_000)
    header, columns = packed(FlameGraph(tree, "big", "cycles").focus(7))
    assert [len(column) // len(tree) for column in columns] == [4, 8, 4, 1, 4, 1, 1, 1, 1]
    names = np.frombuffer(columns[2], dtype="<i4")
    assert [header["names"][i] for i in names[:50]] == [tree.names[i] for i in tree.name[:50]]
    assert header["focus"] == 7
    assert [palette["by"] for palette in header["palettes"]] == ["mode", "dso", "vm", "hash"]
    json.dumps(header, allow_nan=False)


class Telling:
    """A clock whose trees are told apart by their names."""

    lanes = ("qemu 1/2 (host)", "web1 vCPU 0 (guest)")

    def about(self, lane: int | None) -> str:
        return f"all of {lane}"

    def tree(self, lane: int | None) -> Tree:
        tree = lock_tree()
        return replace(tree, names=[f"{lane} {name}" for name in tree.names])


def test_the_widget_answers_the_page_only() -> None:
    shown = FlameGraph(lock_tree(), "guest", "cycles", clock=Telling()).explore()
    sent: list[tuple[Any, Any]] = []
    shown.widget.send = lambda content, buffers=None: sent.append((content, buffers))
    for content in ("tree", {"type": "other"}, None, {"type": "over time", "lane": "1"}):
        shown.widget._on_message(shown.widget, content, [])
    assert not sent
    shown.widget._on_message(shown.widget, {"type": "tree"}, [])
    assert sent[0][0]["type"] == "tree"
    assert len(sent[0][1]) == 9
    for lane in (-1, 1):
        shown.widget._on_message(shown.widget, {"type": "over time", "lane": lane}, [])
    kinds = [(header["type"], header["order"]) for header, _ in sent]
    assert kinds == [("tree", "name"), ("over time", "time"), ("over time", "time")]
    assert sent[1][0]["names"][0].startswith("None ")
    assert sent[2][0]["names"][0].startswith("1 ")
    assert sent[2][0]["lanes"] == list(Telling.lanes)
    assert sent[2][0]["subtitle"] == "all of 1 · over time: web1 vCPU 0 (guest)"
    with pytest.raises(LookupError, match="no lane 2"):
        FlameGraph(lock_tree(), clock=Telling()).over_time(2)
    with pytest.raises(LookupError, match="not known when"):
        FlameGraph(lock_tree()).over_time()


@browsers
def test_the_order_of_time_is_asked_for_and_the_lane_too(browser: Any, tmp_path: Path) -> None:
    """all -> late (60), early (40) -> b (10), a (30); in the order of the tree from the left"""
    tree = tree_of([-1, 0, 0, 2, 2], ["all", "late", "early", "b", "a"], [0, 60, 0, 10, 30])
    graph = FlameGraph(tree, "x", "cycles", clock=Telling())
    timed = FlameGraph(tree, "x", "cycles", clock=Telling(), order="time")
    page = browser.new_page(viewport={"width": 1000, "height": 500})
    seen = Seen(page, write_page(graph, tmp_path / "x.html", timed))
    lanes, order = page.get_by_label("thread or vCPU"), page.get_by_label("order of siblings")
    assert [seen.tip(x, 0).split("\n")[0] for x in (0.05, 0.35, 0.7)] == ["a", "b", ""]
    assert lanes.is_hidden()
    order.select_option("over time")
    page.wait_for_timeout(100)
    assert [seen.tip(x, 1).split("\n")[0] for x in (0.3, 0.9)] == ["late", "early"]
    assert [seen.tip(x, 0).split("\n")[0] for x in (0.65, 0.9)] == ["b", "a"]
    lanes.select_option("web1 vCPU 0 (guest)")
    page.wait_for_timeout(100)
    assert page.evaluate("model.asked") == [
        {"type": "tree"},
        {"type": "over time", "lane": -1},
        {"type": "over time", "lane": 1},
    ]
    order.select_option("left heavy")
    assert lanes.is_hidden()
    assert [seen.tip(x, 1).split("\n")[0] for x in (0.3, 0.9)] == ["late", "early"]
    assert [seen.tip(x, 0).split("\n")[0] for x in (0.65, 0.95)] == ["a", "b"]
    seen.button("reset")
    assert seen.tip(0.05, 1).startswith("early")
    assert seen.errors == []
    page.close()


@browsers
def test_a_menu_offers_what_can_be_done_with_a_frame(lock: Seen) -> None:
    menu = lock.page.get_by_role("menu")
    lock.point(0.9, 1)
    lock.page.mouse.click(*lock.at(0.9, 1), button="right")
    assert menu.get_attribute("aria-label") == "lock"
    lock.page.get_by_role("menuitem", name="find all of this name").click()
    assert lock.text("matched") == "65.00 % matched"
    assert lock.page.locator("input[type=search]").input_value() == "^lock$"
    lock.key("r", "ArrowUp", "ArrowUp", "ArrowUp", "m")
    assert menu.get_attribute("aria-label") == "lock"
    lock.key("Escape")
    assert menu.count() == 0
    lock.key("m", "ArrowDown", "Enter")
    assert "lock: callers above, callees beneath" in lock.text("about")
    lock.key("s", "ArrowUp", "m", "Enter")
    lock.page.wait_for_timeout(220)
    assert lock.tip(0.02, 3).startswith("vm")
    lock.key("m")
    lock.click(0.5, 4)  # elsewhere: it goes, and this is zoomed to
    assert menu.count() == 0
    assert lock.tip(0.1, 3).startswith("qemu")


@browsers
def test_keys_turn_everything(lock: Seen) -> None:
    lock.canvas.focus()
    lock.key("i")
    assert lock.tip(0.5, 0).startswith("all")
    lock.key("i", "v")
    assert [lock.tip(x, 1).split("\n")[0] for x in (0.1, 0.22, 0.6, 0.95)] == ENDS
    lock.key("v", "c")
    collapse = lock.page.get_by_role("button", name="collapse recursion")
    assert collapse.get_attribute("aria-pressed") == "true"
    lock.key("r", "-", "Tab")
    assert lock.tip(0.1, 3).startswith("qemu")
    assert collapse.get_attribute("aria-pressed") == "false"


@browsers
def test_a_differential_graph_tells_both_shares_and_how_certain(
    browser: Any, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 400})
    seen = Seen(page, write_page(dbench("max"), tmp_path / "x.html"))
    names = [seen.tip(x, 0).split("\n")[0] for x in (0.01, 0.1, 0.3, 0.5, 0.8)]
    assert names == ["copy", "gone", "lock", "noise", "search"]
    assert seen.tip(0.3, 0).split("\n")[1:] == [
        "2.90 % → 28.00 % (+25.10 points, host → guest)",
        "95 % interval +23.10 … +27.10 points",
        "width: 21.20 % of all, 21.20 % of the zoomed frame",
        "guest-kernel · [kernel.kallsyms]",
    ]
    assert "only in host" in seen.tip(0.1, 0)
    assert "not significant" in seen.tip(0.5, 0)
    words = page.locator(".kvmp-x-about").nth(1).inner_text()
    assert "more, +25.10 points" in words
    assert page.locator(".kvmp-x-key i.vanished, .kvmp-x-key i.new").count() == 2
    assert page.get_by_role("button", name="reverse").count() == 0
    seen.click(0.3, 0, "Shift")  # what changed where frames become one nobody knows
    assert "callers" not in seen.text("about")
    pixels = decode_png(page.screenshot())
    assert share_of(pixels, MORE) > 0.005
    assert share_of(pixels, LESS) > 0.005
    assert seen.errors == []
    page.close()
