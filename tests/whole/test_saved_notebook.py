"""Five pictures in a saved notebook: small, and shown without being run, wherever it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from browser import decode_png, driven, share_of
from labserver import show
from numpy.typing import NDArray

from kvmperf_magic.demo import notebook
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.theme import LIGHT, MORE

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(240)]
FRAMES = """
import numpy as np
from kvmperf_widgets import FlameGraph, Tree
random, count = np.random.default_rng(1), 50_000
back = np.minimum(random.geometric(0.001, count), np.arange(count).clip(1))
parent = (np.arange(count) - back).astype(np.int32)
parent[0] = -1
modes = ["", "host-kernel", "host-user", "hypervisor", "guest-kernel", "guest-user"]
names = [f"function_number_{i}" for i in range(5000)]
codes = [random.integers(0, n, count).astype(np.int32) for n in (5000, len(modes), 1)]
own = random.pareto(0.9, count) * 1e6
tree = Tree(parent, codes[0], names, own, codes[1], modes, codes[2], ["[kernel.kallsyms]"])
FlameGraph(tree, "fifty thousand frames", "cycles").explore()
"""
DIFF = """
%load_ext kvmperf_magic
import kvmperf_magic as kvm
from kvmperf_magic import demo
d = kvm.diff(demo.replay("host"), demo.replay("crowded"), width="max")
"""
CELLS = [
    DIFF,
    FRAMES,
    "d.flamegraph()",
    "d.bars",
    "demo.replay('both').heatmap()",
    "d.swing('__ticket_spin_lock')",
]
PICTURES = len(CELLS) - 1
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executed notebook."""
    folder = tmp_path_factory.mktemp("saved")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "x.ipynb")
    notebook.execute(folder / "x.ipynb", folder / "five.ipynb")
    return folder / "five.ipynb"


@pytest.fixture(scope="module")
def converted(saved: Path) -> Path:
    """What nbconvert makes of it."""
    notebook.convert(saved, saved.with_suffix(".html"))
    return saved.with_suffix(".html")


def test_it_is_small_and_every_picture_has_all_its_forms(saved: Path) -> None:
    assert saved.stat().st_size < 2_000_000
    book = nbformat.read(saved, as_version=4)
    shown = [cell.outputs[-1].data for cell in book.cells[1:]]
    assert [set(data) for data in shown] == [{PLOTLY, "image/svg+xml", "text/plain"}] * PICTURES
    assert "of 50,000 frames" in shown[0]["text/plain"]


def colours(pixels: NDArray[np.uint8]) -> int:
    """How many different colours there are in a picture."""
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


def seen(one: Any, name: str, folder: Path) -> NDArray[np.uint8]:
    """The upper part of a picture as it is painted: more than a few colours on a background."""
    one.scroll_into_view_if_needed()
    one.screenshot(path=folder / f"{name}.png")
    box = one.bounding_box()
    assert box["width"] > 700
    box["height"] = min(box["height"], 240)  # decoding takes its time
    pixels = decode_png(one.page.screenshot(clip=box))
    assert colours(pixels) > 30
    assert share_of(pixels, LIGHT.background) < 0.98
    return pixels


def test_reopened_in_jupyterlab_its_figures_are_alive(lab: str, page: Any, saved: Path) -> None:
    page.set_viewport_size({"width": 1300, "height": 4200})  # all of it at once
    show(lab, page, saved)
    plots = page.locator(".jp-Notebook .js-plotly-plot")
    plots.nth(PICTURES - 1).locator(".gtitle").wait_for()
    assert plots.count() == PICTURES
    assert page.locator(".jp-InputArea-prompt").all_text_contents() == [
        f"[{i}]:" for i in range(1, len(CELLS) + 1)
    ]
    for i in range(PICTURES):
        seen(plots.nth(i), f"lab-{i}", saved.parent)
    flame = plots.first
    box = flame.locator(".nsewdrag").bounding_box()
    low, middle = box["y"] + box["height"] - 10, box["x"] + box["width"] / 2
    page.mouse.move(middle, low - 1)
    page.mouse.move(middle, low)
    hover = flame.locator(".hoverlayer .hovertext")
    hover.wait_for()
    assert "100.00 % of all" in str(hover.text_content())
    ranged = "plot => plot._fullLayout.xaxis.range.map(Number)"
    assert flame.evaluate(ranged) == [0, 100]
    page.mouse.move(box["x"] + box["width"] * 0.25, low)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, low, steps=5)
    page.mouse.up()
    page.wait_for_function(
        f"() => ({ranged})(document.querySelector('.jp-Notebook .js-plotly-plot'))[0] > 20"
    )
    assert flame.evaluate(ranged) == pytest.approx([25, 75], abs=2)
    page.screenshot(path=saved.parent / "lab.png")


def opened(page: Any, document: Path) -> Any:
    """The pictures of a converted notebook, all there."""
    page.goto(document.as_uri())
    images = page.locator('[data-mime-type="image/svg+xml"] img')
    assert images.count() == PICTURES
    return images


def test_converted_to_html_every_picture_is_there(converted: Path) -> None:
    with driven(OFFLINE) as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        images = opened(page, converted)
        loaded = images.evaluate_all(
            "all => all.map((one) => one.complete && one.naturalWidth > 0 && one.clientWidth > 700)"
        )
        assert loaded == [True] * PICTURES
        told = images.evaluate_all("all => all.map((one) => one.alt)")
        assert told[0].startswith("Flame graph: fifty thousand frames. weight is cycles")
        assert all(len(words) > 20 and "No description" not in words for words in told)
        page.screenshot(path=converted.parent / "html.png", full_page=True)


def test_with_scripts_off_every_picture_is_painted(converted: Path) -> None:
    with driven(OFFLINE) as browser:
        context = browser.new_context(
            java_script_enabled=False, viewport={"width": 1100, "height": 900}
        )
        page = context.new_page()
        images = opened(page, converted)
        painted = [
            seen(images.nth(i), f"no-scripts-{i}", converted.parent) for i in range(PICTURES)
        ]
        page.screenshot(path=converted.parent / "no-scripts.png", full_page=True)
    assert share_of(painted[1], MORE) > 0.02  # the lock of the flame graph, then its bar
    assert share_of(painted[2], MORE) > 0.005
