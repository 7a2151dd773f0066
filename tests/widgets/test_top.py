"""The live table: as text, as HTML, in a terminal, and as messages to a page."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_tables import HOSTILE

from kvmperf_widgets.text import clean, columns_of
from kvmperf_widgets.theme import KINDS, LIGHT, mode_colour
from kvmperf_widgets.top import Tab, TopView, header_line, render_html, render_text
from kvmperf_widgets.top_terminal import rendered
from kvmperf_widgets.top_widget import NONE, TopWidget, packed

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
    # bars and trends go before a column does
    fitting = render_text(view, 80).splitlines()
    heads = next(line for line in fitting if line.startswith("overhead")).split()
    assert {"symbol", "mode"} <= set(heads), fitting
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
