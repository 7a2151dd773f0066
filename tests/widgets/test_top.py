"""The live table: as text, as HTML, in a terminal, and in a page that a kernel talks to."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browser import driven
from hypothesis import given
from hypothesis import strategies as st
from live_page import write_live
from rich.console import Console
from test_tables import HOSTILE

from kvmperf_widgets.text import clean, columns_of
from kvmperf_widgets.theme import DARK, KINDS, LIGHT, mode_colour
from kvmperf_widgets.top import Tab, TopView, header_line, render_html, render_text
from kvmperf_widgets.top_terminal import rendered
from kvmperf_widgets.top_widget import NONE, TopWidget, colours, packed

browsers = pytest.mark.chromium
COLUMNS = ["overhead", "samples", "symbol", "dso", "mode", "machine"]
NAN = math.nan


def a_view(symbols: list[str], **more: Any) -> TopView:
    """These symbols, each half of what was left, over 60 buckets of which 30 have passed."""
    count = len(symbols)
    shares = [50.0 / 2**i for i in range(count)]
    trend = [[NAN] * 30 + [share * (k % 10) / 9 for k in range(30)] for share in shares]
    strip = [[NAN] * 30 + [share] * 30 for share in (10.0, 20.0, 0.0, 45.0, 25.0, 0.0)]
    values = [shares, [*range(count, 0, -1)], symbols, symbols, ["guest-kernel"] * count, symbols]
    told = {
        "header": "   PerfTop: 1 irqs/sec",
        "columns": COLUMNS,
        "values": values,
        "trend": trend,
        "strip": strip,
        "tabs": [Tab(None, "all"), Tab(0, "host", 30.0), Tab(17, symbols[0], 70.0)],
        "found": count,
    }
    return TopView(**(told | more))


def test_header_line_is_that_of_perf() -> None:
    modes = {"host-kernel": 12.0, "hypervisor": 0.5, "guest-kernel": 70.25, "guest-user": 9.0}
    assert header_line(irqs=827.4, modes=modes, event="cycles", frequency=1000, cpus=16) == (
        "   PerfTop:     827 irqs/sec  kernel:12.5% us: 0.0% guest kernel:70.2% guest us: 9.0%"
        " [1000Hz cycles],  (all, 16 CPUs)"
    )
    assert header_line(irqs=1, modes={}, event="x", target="target_pid: 7").endswith(
        "[x],  (target_pid: 7, 1 CPU)"
    )


def test_the_text_shows_bars_trends_and_what_is_chosen() -> None:
    view = a_view(["lock", HOSTILE[3]], filter="lo", matched=12.5, machine=17, note="paused")
    text = render_text(view, 140).splitlines()
    rule = "-" * 140
    assert text[:5] == [rule, view.header, "only lock, /lo/ matches 12.50 %", "paused", rule]
    assert text[5].split()[:4] == ["overhead", "trend", "samples", "symbol"]
    cells = re.split(r"  +", text[7].strip())
    assert cells[:5] == ["50.00", "█" * 6, "▃▆▃▆▃▆", "2", "lock"]  # each the mean of 5 buckets
    assert "\x1b" not in "".join(text)
    assert all(columns_of(line) <= 60 for line in render_text(view, 60).splitlines()[:1])
    assert "by -symbol" in render_text(a_view(["x"], sort="-symbol"))
    assert render_text(TopView("waiting"), 60).splitlines()[1] == "waiting"


def test_the_html_shows_bars_and_the_modes_now_and_over_time() -> None:
    html = render_html(a_view(["lock", HOSTILE[0]]), "kvmp-top-0a1b")
    root = ET.fromstring(html)
    assert root.get("class") == "kvmp-top kvmp-top-0a1b"
    cells = [cell.get("style") or "" for cell in root.iter("td")]
    assert "background-size:50.0% 80%" in cells[0]
    strip = [e.get("style") or "" for e in root.iter("div") if e.get("title")]
    assert [style.split(";")[0] for style in strip] == [
        *("width:10.00%", "width:20.00%", "width:45.00%", "width:25.00%"),
    ]
    (curve,) = root.iter("svg")
    assert [path.get("fill") for path in curve] == [
        mode_colour(KINDS[i], LIGHT)
        for i in (4, 3, 1, 0)  # the highest behind the others
    ]
    assert not list(root.iter("script"))
    trends = [cell.text for cell in root.iter("td")][1::7]
    assert trends == ["\u00a0" * 6 + "▃▆▃▆▃▆"] * 2
    assert len(html) < 8000


PERCENTS = st.lists(st.one_of(st.just(NAN), st.floats(0, 100)), min_size=1, max_size=40)


@given(PERCENTS)
def test_the_curve_is_as_high_as_its_values(values: list[float]) -> None:
    nothing = [NAN if math.isnan(v) else 0.0 for v in values]
    html = render_html(TopView("", strip=[values, *[nothing] * 5]))
    paths = list(next(ET.fromstring(html).iter("svg")))
    wanted = [round(v) if math.isfinite(v) else 0 for v in values]
    drawn = [0] * len(values)
    x, up = 0, 0
    for kind, step in re.findall(r"([hv])(-?\d+)", paths[0].get("d") or "" if paths else ""):
        if kind == "h":
            drawn[x : x + int(step)] = [up] * int(step)
            x += int(step)
        else:
            up -= int(step)
    assert drawn == wanted
    assert up == 0


def lines_of(view: TopView, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as caught:
        console.print(rendered(view, console.size))
    return caught.get().splitlines()


def test_a_terminal_gets_what_fits() -> None:
    symbols = [f"symbol_{i}" for i in range(40)]
    lines = lines_of(a_view(symbols), 120, 24)
    assert len(lines) == 23  # the cursor has a line of its own
    assert lines[1].split() == ["all", "host", "30.0", "%", "symbol_0", "70.0", "%"]
    shares = [line.split() for line in lines if line.startswith(KINDS)]
    assert [(share[0], share[-2]) for share in shares] == [
        *(("host-kernel", "10.00"), ("host-user", "20.00")),
        *(("guest-kernel", "45.00"), ("guest-user", "25.00")),
    ]
    assert lines[7].split()[1:5] == ["█" * 5, ("▁▂▃▃▄▅▆▆▇█" * 2)[-16:], "40", "symbol_0"]
    for width in (80, 120, 200):
        assert max(map(columns_of, lines_of(a_view(symbols), width, 24))) <= width


def test_names_are_no_markup_in_a_terminal() -> None:
    names = [*(clean(name) for name in HOSTILE), "[bold]x[/bold]", ":smile:", "[/]"]
    text = "\n".join(lines_of(a_view(names, note="[red]note[/red]"), 300, 60))
    for name in names:
        assert name[:50] in text or columns_of(name) > 50
    assert "[red]note[/red]" in text
    assert "\x1b" not in text


def test_a_message_is_small_and_its_levels_are_the_trends() -> None:
    view = a_view([f"{HOSTILE[5]}{i}" for i in range(20)])
    header, (trend, strip) = packed(view)
    size = len(json.dumps(header, allow_nan=False)) + len(trend) + len(strip)
    assert size < 14_000  # names of 4 KB
    plain = packed(a_view([f"ext3_test_allocatable_{i}" for i in range(20)]))
    assert len(json.dumps(plain[0])) + sum(map(len, plain[1])) < 5000
    levels = np.frombuffer(trend, np.uint8).reshape(20, 60)
    assert (levels[:, :30] == NONE).all()
    assert np.allclose(levels[3, 30:] / 250 * header["peaks"][3], view.trend[3][30:], atol=0.05)
    assert header["kinds"] == ["host-kernel", "host-user", "guest-kernel", "guest-user"]
    assert np.frombuffer(strip, np.uint8).reshape(4, 60)[:, -1].tolist() == [25, 50, 112, 62]
    json.dumps(packed(TopView("waiting"))[0], allow_nan=False)


class Live:
    """A live view that notes what is done to it."""

    decay, sort, filter, machine = True, "overhead", "", "all"
    count_filter = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.full = False

    def view(self) -> TopView:
        return a_view(["lock"], filter=self.filter)

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def stop(self) -> None:
        self.calls.append("stop")

    def zero(self) -> None:
        self.calls.append("zero")

    def snapshot(self) -> Any:
        if self.full:
            raise OSError(28, "No space left on device")
        return SimpleNamespace(path="perf.data.top")


def test_what_the_page_says_is_done_and_nothing_else() -> None:
    live = Live()
    widget = TopWidget(live)
    sent: list[Any] = []
    widget.send = lambda content, buffers=None: sent.append(content)
    say = lambda content: widget._on_message(widget, content, [])  # noqa: E731
    assert widget.asked is None
    say({"type": "view"})
    assert widget.asked is not None
    assert sent.pop()["values"][2] == ["lock"]
    for name in ("pause", "resume", "zero", "stop"):
        say({"type": "do", "name": name})
    assert live.calls == ["pause", "resume", "zero", "stop"]
    for name, value in (("filter", "lo"), ("machine", 17), ("decay", False), ("count_filter", 3)):
        say({"type": "set", "name": name, "value": value})
        assert getattr(live, name) == value
    sent.clear()
    say({"type": "do", "name": "snapshot"})
    live.full = True
    say({"type": "do", "name": "snapshot"})
    assert [one["text"] for one in sent] == [
        "saved as perf.data.top",
        "[Errno 28] No space left on device",
    ]
    sent.clear()
    others: list[Any] = [{"type": "set", "name": "calls", "value": 1}, "x", {"type": "do"}, None]
    for one in [*others, {"type": "do", "name": "view"}, {"type": "set", "name": "__class__"}]:
        say(one)
    assert not sent
    assert len(live.calls) == 4


def test_nothing_of_a_view_is_state_of_the_widget() -> None:
    widget = TopWidget(Live(), "0a1b")
    widget.show(a_view(["secret"]))
    state = {k: v for k, v in widget.get_state().items() if not k.startswith("_")}
    assert "secret" not in str(state)
    assert len(json.dumps(state, default=str)) < 2000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with driven() as found:
        yield found


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


@browsers
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


@browsers
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


@browsers
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


@browsers
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


@browsers
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


@browsers
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


@browsers
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
