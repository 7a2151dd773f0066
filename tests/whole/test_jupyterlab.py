"""Live pictures in a real JupyterLab: alive in the page, pictures in the saved notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from labserver import run, save, start

from kvmperf_widgets.picture import PLOTLY

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(240)]
CELL = """%load_ext kvmperf_magic
from kvmperf_magic import demo
demo.replay("both").flamegraph().explore()"""
DIFF_CELL = """import kvmperf_magic as kvm
from kvmperf_magic import demo
kvm.diff(demo.replay("host"), demo.replay("crowded"), width="max")"""
HEAT_CELL = """%load_ext kvmperf_magic
from kvmperf_magic import demo
rec = demo.replay("both")
%kvm_report rec --heatmap /lock/ --sort symbol"""
TOP_CELLS = (
    """%load_ext kvmperf_magic
from kvmperf_magic import demo
vm = demo.MicroGuest(vcpus=1, name="web1", phase="search").__enter__()
top = %kvm_top -F 500 -d 0.25 --guest-elf {demo.guest_elf()}
top""",
    """import pathlib, time
end = time.time() + 40
while time.time() < end and not pathlib.Path("enough").exists():
    sum(range(10_000))
print("no longer", "busy")""",
    "top.stop(); vm.__exit__(None, None, None)",
)


def test_the_explorer_lives_in_the_page_and_the_picture_in_the_file(
    lab: str, page: Any, tmp_path: Path
) -> None:
    run(lab, page, tmp_path / "live.ipynb", CELL)
    canvas = page.locator(".kvmp-x canvas")
    canvas.first.wait_for()
    page.wait_for_timeout(2000)  # whatever else the front end makes of the figure
    assert canvas.count() == 1
    assert not page.locator(".js-plotly-plot").is_visible()  # its place is taken
    assert "guest-user" in str(page.locator(".kvmp-x").text_content())
    page.locator(".kvmp-x input").fill("ticket_spin_lock")
    assert "% matched" in str(page.locator(".kvmp-x-matched").text_content())
    about = page.locator(".kvmp-x-about").first
    page.get_by_label("order of siblings").select_option("over time")
    about.get_by_text("over time").wait_for()
    assert "2,710 frames" in str(about.text_content())  # the tree without time has 94
    page.get_by_label("thread or vCPU").select_option("web1 vCPU 1 (guest)")
    about.get_by_text("over time: web1 vCPU 1 (guest)").wait_for()

    data = save(page, tmp_path / "live.ipynb")[-1].data
    assert {PLOTLY, "image/svg+xml", "text/plain"} <= set(data)
    assert "widget-view" not in str(data)
    assert (tmp_path / "live.ipynb").stat().st_size < 400_000


def test_a_bar_of_a_diff_searches_its_flame_graph(lab: str, page: Any, tmp_path: Path) -> None:
    run(lab, page, tmp_path / "diff.ipynb", DIFF_CELL)
    bar, matched = (
        page.locator(".row[data-name=find_revoke_record]"),
        page.locator(".kvmp-x-matched"),
    )
    bar.wait_for()
    page.locator(".kvmp-x canvas").wait_for()
    bar.click()
    matched.get_by_text("3.55 % matched").wait_for()
    assert page.locator(".kvmp-x input").input_value() == "^find_revoke_record$"
    page.keyboard.press("Enter")
    assert matched.text_content() == ""
    page.locator(".kvmp-table").wait_for()
    assert page.locator(".js-plotly-plot:visible").count() == 0

    kinds = [set(one.data) for one in save(page, tmp_path / "diff.ipynb") if "data" in one]
    assert sum(PLOTLY in kind and "image/svg+xml" in kind for kind in kinds) == 2
    assert (tmp_path / "diff.ipynb").stat().st_size < 300_000


# as if every script took longer to load than anywidget waits for it
TOO_LATE = """AbortSignal.timeout = () => {
  const late = new AbortController();
  setTimeout(() => late.abort());
  return late.signal;
};"""


def test_a_page_too_busy_to_load_scripts_in_time_is_alive(
    lab: str, page: Any, tmp_path: Path
) -> None:
    page.add_init_script(TOO_LATE)
    run(lab, page, tmp_path / "late.ipynb", DIFF_CELL)
    page.locator(".row[data-name=find_revoke_record]").click()
    page.locator(".kvmp-x-matched", has_text="3.55 % matched").wait_for()


def test_a_range_dragged_over_the_heat_map_is_what_the_rest_shows(
    lab: str, page: Any, tmp_path: Path
) -> None:
    run(lab, page, tmp_path / "heat.ipynb", HEAT_CELL)
    canvas = page.locator(".kvmp-x canvas")
    canvas.wait_for()
    flame, table = page.locator(".js-plotly-plot .gtitle-subtitle"), page.locator(".kvmp-table")
    table.wait_for()
    shown = page.locator(".jp-OutputArea-output")
    before = shown.count()
    assert "3,180 samples" in str(flame.last.text_content())
    box = canvas.bounding_box()
    assert box["width"] > 700  # all of the room there is
    page.mouse.move(box["x"] + 160, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 360, box["y"] + 150, steps=5)
    page.mouse.up()
    words = str(page.locator(".kvmp-x-bar + div").text_content())
    (samples,) = re.findall(r" (\d+ samples),", words)
    page.locator(".js-plotly-plot").get_by_text(f"{samples} \u00b7").last.wait_for()
    page.locator("p", has_text=f"{samples}, 100 %").wait_for()
    assert shown.count() == before  # in the place of what was there

    outputs = save(page, tmp_path / "heat.ipynb")
    kinds = [PLOTLY in one.get("data", {}) for one in outputs]
    assert kinds.count(True) == 2
    assert samples in str(outputs[-1].data["text/plain"])
    assert "widget-view" not in str(outputs)


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
def test_a_live_view_goes_on_beside_a_busy_cell(lab: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / "top.ipynb"
    run(lab, page, path, *TOP_CELLS)
    rows = page.locator(".kvmp-l tbody tr")
    rows.first.wait_for()
    page.wait_for_timeout(2000)
    assert not page.locator(".kvmp-top").is_visible()  # its place is taken
    start(page, 1)
    busy = page.locator(".jp-InputPrompt", has_text="[*]:")
    busy.wait_for()

    seen = set()
    for _ in range(40):
        seen.add(page.locator(".kvmp-l").text_content())
        if len(seen) > 3:
            break
        page.wait_for_timeout(250)
    assert len(seen) > 3
    page.get_by_role("tab", name="web1").click()
    page.locator(".kvmp-l [aria-selected=true]", has_text="web1").wait_for()
    rows.first.focus()
    for key in "ddzf":  # in the notebook's own keys the first two would delete the cell
        page.keyboard.press(key)
    page.locator(".kvmp-l button[aria-pressed=true]", has_text="freeze").wait_for()
    page.keyboard.press("f")
    page.locator(".kvmp-l tbody", has_text="ext3_test_allocatable").wait_for()
    assert busy.count()  # all of it was heard beside the other cell
    assert page.locator(".jp-CodeCell").count() == len(TOP_CELLS)
    (tmp_path / "enough").touch()

    page.locator(".jp-OutputArea-output", has_text="no longer busy").wait_for()
    start(page, 2)
    page.locator(".kvmp-l", has_text="stopped").wait_for()
    for _ in range(10):  # the saved output follows the page
        page.wait_for_timeout(500)
        data = save(page, path)[-1].data
        if "stopped" in data["text/html"]:
            break
    assert set(data) == {"text/html", "text/plain"}
    for text in data.values():
        assert all(word in text for word in ("PerfTop:", "only web1", "ext3_test", "stopped"))
    assert "<svg" in data["text/html"]
    assert "widget" not in path.read_text()
    assert path.stat().st_size < 40_000
