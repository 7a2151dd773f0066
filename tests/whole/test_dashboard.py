"""The dashboard in a static page: filtered, dragged, sorted and searched as people do it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import decode_png, share_of
from dashboard_page import ROWS, Seen, shares
from guest import running_guest

from kvmperf_magic import demo
from kvmperf_magic.filters import Filter
from kvmperf_magic.recorder import Recorder
from kvmperf_magic.recording import Recording, open_recording
from kvmperf_magic.reportview import ReportView
from kvmperf_widgets.theme import DARK, LIGHT, mode_colour

pytestmark = pytest.mark.chromium
READY = "document.documentElement.dataset.ready"
BAD = "<img src=x onerror=\"document.title='bad'\">"


@pytest.fixture(scope="module")
def both() -> Recording:
    return demo.replay("both")


@pytest.fixture(scope="module")
def document(both: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("dashboard") / "both.html"
    both.report(sort="symbol").to_html(path)
    return path


def opened(browser: Any, path: Path, **options: Any) -> Seen:
    page = browser.new_page(viewport={"width": 1280, "height": 1250}, **options)
    return Seen(page, path, READY)


@pytest.fixture
def seen(browser: Any, document: Path) -> Iterator[Seen]:
    """Four seconds of host and guest, by symbol (and mode)."""
    found = opened(browser, document)
    yield found
    assert found.errors == []
    assert [url for url in found.asked if not url.startswith(("file:", "blob:"))] == []
    found.page.close()


def agrees(seen: Seen, view: Recording) -> None:
    """What is shown is this recording."""
    assert seen.samples() == len(view)
    expected = shares(view, "symbol,mode")
    assert expected <= {tuple(row) for row in seen.rows()}
    assert f"{100 * view.profile.total / demo.replay('both').profile.total:.2f} %" in seen.words()


def test_every_control_filters_as_the_recording_does(seen: Seen, both: Recording) -> None:
    agrees(seen, both)
    seen.tick("mode", "guest-user")
    agrees(seen, both.filter(modes="guest-user"))
    assert "(100.00 % of all)" in seen.flame()
    seen.tick("vCPU", "1")
    agrees(seen, both.filter(modes="guest-user", vcpu=1))
    seen.symbol("(?i)SPIN_(un)?lock")
    agrees(seen, both.filter(modes="guest-user", vcpu=1, symbol="(?i)SPIN_(un)?lock"))
    seen.clear()
    agrees(seen, both)
    seen.tick("command", "micro-host", "CPU 0/KVM")
    agrees(seen, both.filter(comm=["micro-host", "CPU 0/KVM"]))
    assert seen.page.get_by_text("command: 2 of 3").is_visible()
    seen.tick("command", "micro-host")
    agrees(seen, both.filter(comm=["CPU 0/KVM"]))
    seen.symbol("(")
    assert "the symbol is no regular expression: not used" in seen.words()
    seen.symbol("no such symbol")
    assert seen.words().startswith("0 of 3,180 samples, 0.00 % of the weight")
    assert seen.rows() == []
    assert "0 frames" in seen.flame()
    assert seen.page.get_by_text("VM: ").count() == 0  # there is one only


def test_a_range_dragged_over_time_filters_everything(seen: Seen, both: Recording) -> None:
    seen.drag(0.25, 0.6)
    start, end = seen.range()
    assert 0.9 < start < 1.1
    assert 2.3 < end < 2.5
    agrees(seen, both.filter(time=(start, end)))
    seen.tick("mode", "host-user")
    agrees(seen, both.filter(time=(start, end), modes="host-user"))
    seen.drag(0.9, 0.8)  # the other way round
    assert seen.range() > (end, end)
    seen.clear()
    agrees(seen, both)
    seen.drag(0.1, -0.01)  # beyond the edge
    assert seen.range()[0] == 0.0
    seen.strip.click(position={"x": 400, "y": 30})  # a click ends it
    agrees(seen, both)


def test_all_of_it_by_keyboard(seen: Seen, both: Recording) -> None:
    keyboard = seen.page.keyboard
    seen.strip.focus()
    for key in ("Home", "ArrowRight", "PageDown", "Shift+PageDown", "Shift+ArrowRight"):
        keyboard.press(key)
    start, end = seen.range()
    assert (start, end) == (pytest.approx(0.22), pytest.approx(0.46))
    agrees(seen, both.filter(time=(start, end)))
    said = seen.page.locator(".kvmp-x-said").first
    assert said.text_content() == "0.22 s to 0.46 s"
    keyboard.press("Escape")
    agrees(seen, both)
    seen.page.locator("summary").first.focus()
    for key in ("Enter", "Tab", "Tab", "Space", "Escape"):
        keyboard.press(key)
    agrees(seen, both.filter(modes="host-user"))
    assert seen.page.evaluate("document.activeElement.tagName") == "SUMMARY"
    seen.table.focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        keyboard.press(key)
    name = seen.rows()[1][3]
    active = seen.table.get_attribute("aria-activedescendant")
    assert name in seen.page.locator(f"#{active}").inner_text()
    assert "% matched" in seen.flame()
    keyboard.press("s")
    assert f"{name}: callers above, callees beneath" in seen.flame()
    keyboard.press("Escape")
    assert "callers above" not in seen.flame()
    assert "matched" not in seen.flame()


def test_the_table_is_sorted_searched_and_by_other_columns(seen: Seen, both: Recording) -> None:
    def column(i: int) -> list[str]:
        return [row[i] for row in seen.rows()]

    header = seen.table.get_by_role("columnheader")
    assert header.all_inner_texts()[:5] == ["self %", "children %", "samples", "symbol", "mode"]
    children = header.get_by_role("button", name="children %")
    children.click()
    assert header.nth(1).get_attribute("aria-sort") == "descending"
    assert header.nth(0).get_attribute("aria-sort") == "none"
    shown = [float(value[:-2]) for value in column(1)]
    assert shown == sorted(shown, reverse=True)
    assert column(3)[0] in {"start_thread", "cpu_main"}
    children.click()
    shown = [float(value[:-2]) for value in column(1)]
    assert shown == sorted(shown)
    header.get_by_role("button", name="symbol").click()
    assert column(3) == sorted(column(3))
    seen.page.get_by_placeholder("find in the table").fill("TICKET")
    assert set(column(3)) == {"__ticket_spin_lock", "__ticket_spin_unlock"}
    assert seen.page.get_by_text("rows with it").is_visible()
    seen.page.get_by_placeholder("find in the table").fill("")
    header.get_by_role("button", name="self %").click()
    seen.page.get_by_role("button", name="machine").click()
    seen.page.get_by_role("button", name="vcpu").click()
    expected = shares(both, "symbol,mode,machine,vcpu")
    assert expected <= {tuple(row) for row in seen.rows()}
    seen.page.locator(".kvmp-d-rows .kvmp-x-bar button", has_text="symbol").click()
    assert {row[3] for row in seen.rows()} == {"host-kernel", "host-user", "guest-user"}


def test_a_row_is_found_in_the_flame_graph_and_the_other_way_round(
    seen: Seen, both: Recording
) -> None:
    row = seen.page.locator(ROWS, has_text="bitmap_search_next_usable_block").first
    row.click()
    # both VM's and the host's, as a search of the flame graph has it
    matched = both.flamegraph().search("^bitmap_search_next_usable_block$").matched
    assert f"{matched:.2f} % matched" in seen.flame()
    assert row.get_attribute("aria-selected") == "true"
    row.click()
    assert "matched" not in seen.flame()
    row.dblclick()
    assert "bitmap_search_next_usable_block: callers above" in seen.flame()
    row.click(modifiers=["Shift"])
    seen.page.keyboard.press("Escape")
    canvas = seen.page.locator(".kvmp-d-flame canvas")
    box = canvas.bounding_box()
    seen.page.get_by_role("button", name="reset").click()
    seen.page.wait_for_timeout(60)
    box = canvas.bounding_box()
    # the root is the lowest row, 18 pixels high; above the host's labels stands start_thread
    seen.page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] - 18 * 2.5)
    seen.page.wait_for_timeout(250)
    active = seen.table.get_attribute("aria-activedescendant")
    assert "start_thread" in seen.page.locator(f"#{active}").inner_text()


def test_it_opens_with_the_filter_that_was_set(
    browser: Any, both: Recording, tmp_path: Path
) -> None:
    view = both.report(sort="symbol")
    view.filter = Filter(modes="guest", vcpu=1, symbol="lock", time=(0.5, 1.111))
    assert view.filter.time == (0.5, 1.12)  # whole steps
    view.to_html(tmp_path / "x.html")
    seen = opened(browser, tmp_path / "x.html")
    agrees(seen, view.selection)
    assert seen.range() == (0.5, 1.12)
    assert seen.page.get_by_text("vCPU: 1").is_visible()
    assert seen.page.get_by_placeholder("symbol: regex").input_value() == "lock"
    assert seen.errors == []
    seen.page.close()


def test_the_table_begins_as_the_report_does(browser: Any, both: Recording, tmp_path: Path) -> None:
    view = both.report(sort="dso,comm", order="children")
    view.to_html(tmp_path / "x.html")
    seen = opened(browser, tmp_path / "x.html")
    header = seen.table.get_by_role("columnheader")
    assert header.all_inner_texts() == ["self %", "children %", "samples", "dso", "comm"]
    assert header.nth(1).get_attribute("aria-sort") == "descending"
    expected = [view.table[key].tolist() for key in ("dso", "comm")]
    rows = seen.rows()
    assert len(rows) == len(view.table)
    assert {tuple(row[3:]) for row in rows} == {
        (dso.rsplit("/", 1)[-1], comm) for dso, comm in zip(*expected, strict=True)
    }
    assert rows[0][1] == f"{view.table['children_overhead'][0]:.2f} %"
    seen.page.close()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> ReportView:
    """Two VMs, one with a hostile name, and two events, recorded here."""
    path = tmp_path_factory.mktemp("machines") / "two.data"
    with running_guest(2, "web1", "lock") as one, running_guest(1, BAD, "search") as other:
        recorder = Recorder(
            path, guest=True, host=True, pid=[one.pid, other.pid], frequency=1500,
            events=["cpu-clock", "task-clock"], guest_elf=str(demo.guest_elf()),
            say=lambda _: None,
        )  # fmt: skip
        with recorder:
            time.sleep(1.0)
    return recorder.recording.report(sort="symbol,machine")


@pytest.mark.kvm
@pytest.mark.root
def test_machines_and_events_of_a_real_recording(
    browser: Any, machines: ReportView, tmp_path: Path
) -> None:
    machines.to_html(tmp_path / "x.html")
    seen = opened(browser, tmp_path / "x.html", color_scheme="dark")
    whole = machines.whole

    def check(**arguments: Any) -> None:
        view = whole.filter(**arguments)
        assert seen.samples() == len(view)
        assert shares(view, "symbol,mode,machine") <= {tuple(row) for row in seen.rows()}

    check(event="cpu-clock")
    seen.tick("VM", BAD)
    check(event="cpu-clock", vm=[BAD])
    select = seen.page.get_by_label("event")
    select.select_option("task-clock")
    check(event="task-clock", vm=[BAD])
    assert "task-clock)" in seen.words()
    assert "task-clock (100.00 % of all)" in seen.flame()
    seen.clear()  # the event stays
    check(event="task-clock")
    seen.tick("VM", "web1")
    seen.tick("vCPU", "1")
    check(event="task-clock", vm=["web1"], vcpu=1)
    select.select_option("cpu-clock")
    check(event="cpu-clock", vm=["web1"], vcpu=1)
    assert seen.page.title() == "two.data: where the time went"
    assert seen.page.locator("img").count() == 0
    assert seen.errors == []
    seen.page.close()


@pytest.mark.fixtures
def test_periods_of_different_events_are_never_added(
    browser: Any, fixtures: Path, tmp_path: Path
) -> None:
    path = fixtures / "recordings" / "google__perf_data_converter__perf.data.systemwide.1-3.4"
    recording = open_recording(path, cache=False)
    recording.report(sort="symbol").to_html(tmp_path / "x.html")
    seen = opened(browser, tmp_path / "x.html")
    select = seen.page.get_by_label("event")
    names = select.locator("option").all_inner_texts()
    events = recording.events
    assert names == events["name"][events["samples"] > 0].tolist()
    assert len(names) > 3
    for name in names:
        select.select_option(name)
        view = recording.filter(event=name)
        assert seen.samples() == len(view)
        assert f" {view.profile.unit})" in seen.words()
        assert shares(view, "symbol,mode") <= {tuple(row) for row in seen.rows()}
    seen.page.close()


def test_light_and_dark_have_their_colours(browser: Any, document: Path) -> None:
    for scheme, theme in (("light", LIGHT), ("dark", DARK)):
        seen = opened(browser, document, color_scheme=scheme)
        seen.page.mouse.move(3, 3)
        pixels = decode_png(seen.strip.screenshot())
        assert share_of(pixels, theme.background) > 0.2
        assert share_of(pixels, mode_colour("guest-user", theme)) > 0.2
        ink = "getComputedStyle(document.querySelector('.kvmp-d-words')).color"
        assert seen.page.evaluate(ink) == f"rgb{tuple(bytes.fromhex(theme.ink[1:]))}"
        seen.page.close()


def test_without_scripts_it_is_the_picture_and_the_table(browser: Any, document: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(document.as_uri())
    assert page.locator("#kvmp-still svg").is_visible()
    assert page.locator("#kvmp-still text", has_text="__ticket_spin_lock").first.is_visible()
    assert page.locator("#kvmp-still table").is_visible()
    page.close()
    policy = document.read_text().split('Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-"
    )
    assert policy.count("'sha256-") == 2


def test_a_range_of_the_pages_heat_map_is_its_time(
    browser: Any, both: Recording, tmp_path: Path
) -> None:
    both.report(sort="symbol", heatmap="/lock/").to_html(tmp_path / "x.html")
    seen = opened(browser, tmp_path / "x.html")
    box = seen.page.locator(".kvmp-h canvas").bounding_box()
    seen.page.mouse.move(box["x"] + 300, box["y"] + 250)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 700, box["y"] + 60, steps=4)
    seen.page.mouse.up()
    seen.page.locator(".kvmp-d-words", has_text=" from ").wait_for()
    start, end = seen.range()
    agrees(seen, both.filter(time=(start, end)))
    cells = (end - start) / 0.008  # of the map
    assert cells == pytest.approx(round(cells))
    seen.clear()
    assert seen.samples() == len(both)
    assert seen.page.locator(".kvmp-h button").is_disabled()
    assert seen.errors == []
    seen.page.close()
