"""Live pictures in a real JupyterLab: alive in the page, pictures in the saved notebook."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import driven
from nbformat.reader import NotJSONError

from kvmperf_widgets.picture import PLOTLY

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(240)]
CELL = """%load_ext kvmperf_magic
from kvmperf_magic import demo
demo.replay("both").flamegraph().explore()"""
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
WAIT = 40_000  # ms


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab of this environment, of one test."""
    pytest.importorskip("jupyterlab")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folders = {
        f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    paths = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, **folders, "HOME": str(tmp_path), "PYTHONPATH": paths}
    options = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.token="]
    options += ["--ServerApp.password=", f"--ServerApp.root_dir={tmp_path}"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (
        (tmp_path / "lab.log").open("w") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        ) as server,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/api", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)


@pytest.fixture
def page() -> Iterator[Any]:
    with driven() as browser:
        made = browser.new_page(viewport={"width": 1300, "height": 900})
        made.set_default_timeout(WAIT)
        yield made


def run(lab: str, page: Any, path: Path, *cells: str) -> None:
    """Opens a notebook of these cells and runs the first."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    page.goto(f"{lab}/lab/tree/{path.name}")
    page.get_by_text("| Idle").wait_for()
    page.locator(".jp-Cell .cm-content").first.click()
    page.wait_for_timeout(1000)  # a key right after the click may be lost
    page.keyboard.press("Control+Enter")


def save(page: Any, path: Path) -> list[Any]:
    """Saves the notebook; the outputs of its first cell."""
    page.keyboard.press("Control+s")
    for _ in range(60):
        with suppress(NotJSONError):  # read while the server is writing it
            outputs = nbformat.read(path, as_version=4).cells[0].get("outputs")
            if outputs:
                return list(outputs)
        page.wait_for_timeout(500)
    raise AssertionError("the notebook is saved without outputs")


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
    assert "% matched" in str(page.locator(".kvmp-x-found").text_content())

    data = save(page, tmp_path / "live.ipynb")[-1].data
    assert {PLOTLY, "image/svg+xml", "text/plain"} <= set(data)
    assert "widget-view" not in str(data)
    assert (tmp_path / "live.ipynb").stat().st_size < 400_000


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
@pytest.mark.root
def test_a_live_view_goes_on_beside_a_busy_cell(lab: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / "top.ipynb"
    run(lab, page, path, *TOP_CELLS)
    rows = page.locator(".kvmp-l tbody tr")
    rows.first.wait_for()
    page.wait_for_timeout(2000)
    assert not page.locator(".kvmp-top").is_visible()  # its place is taken
    page.locator(".jp-Cell .cm-content").nth(1).click()
    page.keyboard.press("Control+Enter")
    busy = page.get_by_text("| Busy")
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
    page.locator(".jp-Cell .cm-content").nth(2).click()
    page.keyboard.press("Control+Enter")
    page.locator(".kvmp-l", has_text="stopped").wait_for()
    page.wait_for_timeout(500)
    data = save(page, path)[-1].data
    assert set(data) == {"text/html", "text/plain"}
    for text in data.values():
        assert all(word in text for word in ("PerfTop:", "only web1", "ext3_test", "stopped"))
    assert "<svg" in data["text/html"]
    assert "widget" not in path.read_text()
    assert path.stat().st_size < 40_000
