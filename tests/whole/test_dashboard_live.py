"""The dashboard and its kernel: what one side sets the other shows; what a notebook saves of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import driven
from dashboard_page import Seen, shares
from labserver import run, save, start
from live_kernel import Answering
from live_page import write_live
from nbconvert import HTMLExporter

from kvmperf_magic import Filter, demo
from kvmperf_magic.demo import notebook
from kvmperf_magic.errors import QueryError
from kvmperf_magic.recording import Recording
from kvmperf_magic.reportview import ReportView
from kvmperf_widgets.dashboard import DashboardWidget
from kvmperf_widgets.picture import PLOTLY

browsers = pytest.mark.chromium
CELL = """%load_ext kvmperf_magic
from kvmperf_magic import Filter, demo
both = demo.replay("both")
view = both.report()
view"""


@pytest.fixture(scope="module")
def both() -> Recording:
    return demo.replay("both")


@pytest.fixture
def view(both: Recording) -> ReportView:
    return both.report(sort="symbol")


@pytest.fixture
def seen(view: ReportView, tmp_path: Path) -> Iterator[Seen]:
    """The widget in a page of its own; `window.model` is what it has of the kernel."""
    answers: dict[str, Any] = {"script": ({"script": DashboardWidget.script}, [])}
    path = write_live(
        DashboardWidget, ({}, [view.dashboard.packed()]), tmp_path / "x.html", answers,
        theme="light", filter=view.dashboard.state,
    )  # fmt: skip
    with driven() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        found = Seen(page, path, "document.title.endsWith('and ready')")
        yield found
        assert found.errors == []


@browsers
def test_what_the_page_sets_is_the_filter_and_the_other_way_round(
    seen: Seen, view: ReportView, both: Recording
) -> None:
    widget = view.dashboard.live(view.flamegraph).widget
    another = view.dashboard.live(view.flamegraph).widget

    def told() -> None:
        """What the page has saved last reaches the kernel's side."""
        seen.page.wait_for_timeout(250)
        widget.filter = seen.page.evaluate("window.model.saved.at(-1).filter")

    assert seen.samples() == len(view.selection) == len(both)
    seen.tick("mode", "guest-user")
    seen.tick("vCPU", "0", "1")
    seen.tick("command", "CPU 1/KVM")
    seen.symbol("lock")
    seen.drag(0.3, 0.5)
    told()
    start, end = seen.range()
    assert view.filter == Filter(
        modes="guest-user", vcpu=(0, 1), comm="CPU 1/KVM", symbol="lock", time=(start, end)
    )
    assert another.filter == widget.filter
    assert seen.samples() == len(view.selection) < 200
    seen.clear()
    told()
    assert view.filter == Filter()
    assert len(view.selection) == len(both)

    view.filter = Filter(modes="host", comm=["micro-host"], time=(None, 1.999))
    assert widget.filter == another.filter
    saved = seen.page.evaluate("window.model.saved.length")
    seen.page.evaluate("(state) => window.model.set('filter', state)", dict(widget.filter))
    assert seen.samples() == len(view.selection) < len(both)
    assert seen.range() == (0.0, 2.0)
    assert shares(view.selection, "symbol,mode") <= {tuple(row) for row in seen.rows()}
    seen.page.wait_for_timeout(250)
    assert seen.page.evaluate("window.model.saved.length") == saved  # no echo
    seen.page.evaluate("window.close_it()")
    assert seen.page.locator(".kvmp-d").count() == 0


@browsers
def test_a_heat_map_sets_the_time_and_frames_stand_in_the_order_of_time(
    both: Recording, tmp_path: Path
) -> None:
    with driven() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        ranged_and_timed(page, both, tmp_path / "x.html")


def ranged_and_timed(page: Any, both: Recording, path: Path) -> None:
    view = both.report(sort="symbol", heatmap="/lock/")
    assert view.heatmap is not None
    kernel = Answering(view.dashboard.live(view.flamegraph).widget)
    page.expose_function("kernel", kernel)
    write_live(DashboardWidget, ({}, []), path, theme="light", filter=view.dashboard.state)
    seen = Seen(page, path, "document.title.endsWith('and ready')")
    about = page.locator(".kvmp-d-flame .kvmp-x-about").first

    def heard() -> None:
        # a timer of the page that is set now is due behind those that tell the kernel
        page.evaluate("new Promise((done) => setTimeout(done, 400))")
        kernel.widget.filter = page.evaluate("window.model.state.filter")

    box = page.locator(".kvmp-h canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 100, steps=4)
    page.mouse.up()
    heard()
    assert view.filter.time == view.heatmap.selected == seen.range()
    assert seen.samples() == len(view.selection) < len(both)
    said = page.locator(".kvmp-h .kvmp-x-bar + div")
    assert f"{seen.samples():,} samples" in said.text_content()

    page.get_by_label("order of siblings").select_option("over time")
    about.get_by_text(f"{seen.samples():,} samples \u00b7 over time").wait_for()
    lane = "web1 vCPU 1 (guest)"
    page.get_by_label("thread or vCPU").select_option(lane)
    guest = view.selection.filter(vcpu=1, modes="guest")
    about.get_by_text(f"{len(guest):,} samples \u00b7 over time: {lane}").wait_for()
    seen.tick("mode", "guest-user")  # the order stays, of what is left
    view.heatmap.select(1.0, 3.0)
    page.evaluate("(state) => window.model.set('filter', state)", dict(kernel.widget.filter))
    wanted = both.filter(time=(1.0, 3.0), vcpu=1, modes="guest-user")
    about.get_by_text(f"{len(wanted):,} samples \u00b7 over time: {lane}").wait_for()
    assert seen.range() == (1.0, 3.0) == view.filter.time
    seen.clear()
    about.get_by_text(f"{len(both.filter(vcpu=1, modes='guest')):,} samples").wait_for()
    heard()
    assert view.heatmap.selected is None
    seen.table.get_by_text("__ticket_spin_lock").first.dblclick()  # of all, not of a lane
    about.get_by_text("__ticket_spin_lock: callers above, callees beneath").wait_for()
    assert page.get_by_label("order of siblings").input_value() == "by name"
    assert seen.errors == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Filter(modes="none"), "no mode 'none'"),
        (Filter(vm="none"), "no vm 'none'"),
        (Filter(vcpu=7), "no vcpu 7"),
        (Filter(comm=("sh",)), "no comm 'sh'"),
        (Filter(event="cycles"), "no event 'cycles'"),
        (Filter(symbol="("), "'(' is no regular expression"),
        (Filter(time=(2.0, 1.0)), "no time from second 2 to second 1"),
        (Filter(time=(float("nan"), None)), "no time from second nan"),
    ],
)
def test_a_filter_that_cannot_be_is_said_and_changes_nothing(
    view: ReportView, wrong: Filter, said: str
) -> None:
    view.filter = Filter(modes="guest")
    with pytest.raises(QueryError) as caught:
        view.filter = wrong
    assert said in str(caught.value)
    assert view.filter == Filter(modes="guest")


def test_what_no_page_sends_is_left_out(view: ReportView) -> None:
    widget = view.dashboard.live(view.flamegraph).widget
    widget.filter = {
        "modes": ["guest-user", "x", 3], "vcpu": [1, 99, -1, True, "0"], "comm": "sh",
        "event": 12, "symbol": 5, "time": [3], "else": None,
    }  # fmt: skip
    assert view.filter == Filter(modes="guest-user", vcpu=0)
    widget.filter = {"time": [9, 2], "symbol": ""}
    assert view.filter == Filter(time=(0.04, 0.2))
    typed = view.dashboard._over_time({"symbol": "("})  # in the middle of typing
    assert typed.tree.total[0] == view.flamegraph.tree.total[0]


def test_the_filter_of_a_view_is_within_it(both: Recording) -> None:
    view = both.filter(time=(1.0, 2.0)).report(modes="guest")
    assert len(view.selection) == len(both.filter(time=(1.0, 2.0), modes="guest"))
    view.filter = Filter(time=(1.5, None))
    assert len(view.selection) == len(both.filter(time=(1.5, 2.0), modes="guest"))


def test_a_saved_report_is_a_picture_and_a_table(tmp_path: Path) -> None:
    cells = ["%load_ext kvmperf_magic\nfrom kvmperf_magic import demo\nboth = demo.replay('both')"]
    cells += ["%kvm_report both", "r = %kvm_report both --sort symbol\nr"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(book, tmp_path / "x.ipynb")
    notebook.execute(tmp_path / "x.ipynb", tmp_path / "done.ipynb")
    executed = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    for cell in executed.cells[1:]:
        flame, table = (output.data for output in cell.outputs[-2:])
        assert set(flame) == {PLOTLY, "image/svg+xml", "text/plain"}
        assert set(table) == {"text/html", "text/plain"}
        assert "__ticket_spin_lock" in table["text/html"]
        assert len(json.dumps(cell.outputs)) < 300_000
    # of two reports, with what is saved of their widgets
    assert (tmp_path / "done.ipynb").stat().st_size < 200_000
    html, _ = HTMLExporter().from_notebook_node(executed)
    assert html.count('data-mime-type="image/svg+xml"') == 2
    assert html.count("kvmp-table") >= 2


@browsers
@pytest.mark.timeout(240)
def test_in_jupyterlab_it_takes_the_place_of_picture_and_table(
    lab: str, page: Any, tmp_path: Path
) -> None:
    run(lab, page, tmp_path / "live.ipynb", CELL)
    words = page.locator(".kvmp-d-words")
    words.wait_for()
    page.wait_for_timeout(1000)
    assert page.locator(".kvmp-d").count() == 1
    assert page.locator(".js-plotly-plot:visible, .kvmp-table:visible").count() == 0
    page.locator("summary", has_text="mode: all").click()
    page.get_by_role("checkbox").nth(1).click()
    words.get_by_text("1,482 of 3,180 samples").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_timeout(400)
    outputs = save(page, tmp_path / "live.ipynb")
    assert {PLOTLY, "image/svg+xml"} <= set(outputs[-2].data)
    assert "kvmp-table" in outputs[-1].data["text/html"]
    assert "widget-view" not in str(outputs)
    assert (tmp_path / "live.ipynb").stat().st_size < 300_000

    page.get_by_role("button", name="Insert a cell below").first.click()
    page.locator(".jp-Cell .cm-content").nth(1).click()
    page.wait_for_timeout(500)
    page.keyboard.insert_text(
        "print(view.filter.modes, len(view.selection))\nview.filter = Filter(symbol='lock')"
    )
    start(page, 1)
    page.get_by_text("('host-user',) 1482").wait_for()
    samples = len(demo.replay("both").filter(symbol="lock"))
    words.get_by_text(f"{samples:,} of 3,180 samples").wait_for()
