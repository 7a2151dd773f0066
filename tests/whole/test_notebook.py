"""The shipped notebook: executed here, converted, looked at; replayed where there is no KVM."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from browser import dump_dom, screenshot
from numpy.typing import NDArray

from kvmperf_magic.demo import notebook
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.theme import KINDS, LIGHT, MORE, diverging, mode_colour

SVG = "{http://www.w3.org/2000/svg}"
LIVE = [pytest.mark.kvm, pytest.mark.root, pytest.mark.alone, pytest.mark.timeout(240)]
SITE = """
import os
opened = os.open
def missing(path, *arguments, **more):
    if path == "/dev/kvm":
        raise FileNotFoundError(2, "No such file or directory", path)
    return opened(path, *arguments, **more)
os.open = missing
"""

Book = tuple[Any, Path]


@pytest.fixture(scope="module", params=[pytest.param("live", marks=LIVE), "replayed"])
def book(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The executed notebook and its page: recorded here, or where /dev/kvm is missing."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "replayed":
            (folder / "sitecustomize.py").write_text(SITE)
            patch.syspath_prepend(folder)  # the kernel and its children get this path too
        executed, page = folder / "executed.ipynb", folder / "page.html"
        notebook.execute(notebook.source(), executed)
        notebook.convert(executed, page)
    return nbformat.read(executed, as_version=4), page


def outputs(book: Any) -> list[Any]:
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(book: Any) -> str:
    return "".join(output.text for output in outputs(book) if output.output_type == "stream")


def pictures(book: Any) -> list[dict[str, Any]]:
    bundles = [output.data for output in outputs(book) if "data" in output]
    return [data for data in bundles if "image/svg+xml" in data]


def kind_of(picture: dict[str, Any]) -> str:
    found = re.search(r"kvmp-(flame|delta|lines)", picture["image/svg+xml"])
    assert found is not None
    return found[1]


def test_every_cell_runs_and_leaves_its_pictures(book: Book) -> None:
    executed, _ = book
    assert all(c.execution_count for c in executed.cells if c.cell_type == "code")
    assert not [o for o in outputs(executed) if o.output_type == "error"]
    assert "Traceback" not in printed(executed)
    shown = pictures(executed)
    assert [kind_of(p) for p in shown] == [
        *["flame"] * 2,
        "delta",
        "flame",
        "delta",
        "lines",
        "delta",
        "flame",
    ]
    for picture in shown:
        assert set(picture) == {PLOTLY, "image/svg+xml", "text/plain"}
        assert picture[PLOTLY]["data"]
        assert "__ticket_spin_lock" in picture["text/plain"]
    host_to_guest = shown[2]["text/plain"].splitlines()[2]
    assert re.match(r"__ticket_spin_lock .* \+\d+\.\d+ .*│", host_to_guest), host_to_guest


def test_it_says_whether_it_was_recorded_here(book: Book, request: pytest.FixtureRequest) -> None:
    replayed = "replayed" in request.node.callspec.id
    said = printed(book[0])
    assert ("the bundled recordings are replayed" in said) is replayed
    assert ("there is no /dev/kvm" in said) is replayed
    assert ("everything below is recorded live" in said) is not replayed
    assert ("after the change copy_user_generic_string" in said) is not replayed


LIVE_CELLS = [
    """%load_ext kvmperf_magic
import time
from kvmperf_magic import demo
vm = demo.MicroGuest(vcpus=1, name="notebook", phase="search")
vm.__enter__()""",
    "top = %kvm_top --guest --vm {vm.pid} --guest-elf {demo.guest_elf()} -d 0.5\ntop",
    "time.sleep(2.5)",
    "top.stop(); vm.__exit__(None, None, None)",
    "g = %kvm_record --host --duration 0.5",
]


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
def test_a_finished_live_view_can_be_read_in_the_saved_notebook(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in LIVE_CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "live.ipynb")
    notebook.execute(tmp_path / "live.ipynb", tmp_path / "done.ipynb")
    executed = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    shown = [output.data for output in executed.cells[1].outputs if "data" in output]
    view = shown[-1]["text/html"]
    assert "PerfTop:" in view
    assert "ext3_test_allocatable" in view
    assert "stopped" in view
    # widgets do not outlive their kernel: what a reader would find is an error message
    assert not [data for data in outputs(executed) if "widget-view" in str(data)]
    assert "recording perf.data.host" in printed(executed)


class References(HTMLParser):
    """What a page would load, and what it links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (
                name in {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
                and value
            ):
                (self.links if (tag, name) == ("a", "href") else self.loads).append(value)


def test_the_page_loads_nothing_from_anywhere(book: Book) -> None:
    page = book[1].read_text()
    references = References(page)
    assert len(references.loads) >= 7  # the pictures
    assert all(one.startswith("data:") for one in references.loads)
    assert any(one.startswith("#") for one in references.links)  # the headings: links are seen
    styles = re.findall(r"(?:@import|url\()\s*[\"']?([^\"')\s]+)", page)
    assert not [one for one in styles if not one.startswith("data:")]
    # the only addresses in scripts are those of a diagram library, asked for by diagrams alone
    assert "jp-Mermaid" in page
    assert not re.search(r'class="[^"]*jp-Mermaid', page)


SHOW = """
window.addEventListener("load", function () {
  var picture = document.querySelectorAll('[data-mime-type="image/svg+xml"] img')[NUMBER];
  document.body.style.marginTop = 20 - picture.getBoundingClientRect().top + "px";
  var box = picture.getBoundingClientRect();
  document.body.dataset.box = [box.x, box.y, box.width, box.height].join(" ");
});
"""


class Shown:
    """One picture of the page as Chromium paints it."""

    def __init__(self, book: Book, number: int) -> None:
        executed, page = book
        self.svg = ET.fromstring(pictures(executed)[number]["image/svg+xml"])
        script = SHOW.replace("NUMBER", str(number))
        document = page.with_name(f"show{number}.html")
        document.write_text(
            page.read_text().replace("</head>", f"<script>{script}</script></head>", 1)
        )
        size = (1000, 1000)
        offline = "--host-resolver-rules=MAP * ~NOTFOUND"
        dom = dump_dom(document, options=(offline, f"--window-size={size[0]},{size[1]}"))
        box = re.search(r'data-box="([^"]*)"', dom)
        assert box is not None
        self.left, self.top, width, height = map(float, box[1].split())
        assert width > 800
        assert self.left + width <= size[0]  # nothing is cut off at the right
        view = [float(v) for v in self.svg.attrib["viewBox"].split()]
        self.scale = width / view[2]
        assert height == pytest.approx(view[3] * self.scale, abs=2)
        self.pixels: NDArray[np.uint8] = screenshot(document, *size, offline)

    def colour(self, x: float, y: float) -> str | None:
        """The colour at this place of the picture; None below the window."""
        row, column = round(self.top + y * self.scale), round(self.left + x * self.scale)
        if row >= len(self.pixels):
            return None
        return "#" + bytes(self.pixels[row, column]).hex()


def geometry(rect: ET.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return x, y, width, height


@pytest.mark.chromium
def test_the_flame_graph_of_both_sides_is_painted(book: Book) -> None:
    shown = Shown(book, 7)
    fills = {
        f"k{n}t{tint}": mode_colour(kind, LIGHT, tint)
        for n, kind in enumerate(KINDS)
        for tint in range(3)
    }
    painted: dict[str, float] = {}
    for group in shown.svg.iter(f"{SVG}g"):
        kind = next((c for c in group.get("class", "").split() if c in fills), None)
        rect = group.find(f"{SVG}rect")
        if kind is None or rect is None or not group.get("class", "").startswith("f "):
            continue
        x, y, width, height = geometry(rect)
        # labels keep clear of the end of their box
        colour = shown.colour(x + width - min(3, width / 2), y + height / 2)
        if width >= 4 and colour is not None:
            assert colour == fills[kind], ET.tostring(group)
            side = KINDS[int(kind[1])].split("-")[0]
            painted[side] = painted.get(side, 0.0) + width
    assert painted["guest"] > 100
    assert painted["host"] > 4  # a replayed one has little of the host


@pytest.mark.chromium
def test_the_differential_flame_graph_shows_the_lock_without_scrolling(book: Book) -> None:
    shown = Shown(book, 3)
    groups = [g for g in shown.svg.iter(f"{SVG}g") if g.get("class", "").startswith("f ")]
    lock = next(g for g in groups if "__ticket_spin_lock" in str(g.findtext(f"{SVG}title")))
    assert lock.attrib["class"].split()[1] == "dp6"
    rect = lock.find(f"{SVG}rect")
    assert rect is not None
    x, y, width, height = geometry(rect)
    assert width > 500
    assert shown.colour(x + width - 3, y + height / 2) == MORE
    assert float(shown.svg.attrib["viewBox"].split()[3]) < 900


@pytest.mark.chromium
def test_the_delta_bars_are_painted(book: Book) -> None:
    shown = Shown(book, 2)
    shades = {"d0": diverging(0, LIGHT)}
    for step in range(1, 7):
        shades[f"dp{step}"] = diverging(step / 6, LIGHT)
        shades[f"dm{step}"] = diverging(-step / 6, LIGHT)
    rows = [g for g in shown.svg.iter(f"{SVG}g") if g.get("class") == "row"]
    seen = []
    for row in rows:
        bar = next(r for r in row.iter(f"{SVG}rect") if r.get("class") in shades)
        x, y, width, _ = geometry(bar)
        if width >= 6:
            shade = bar.attrib["class"]
            assert shown.colour(x + width / 2, y + 1.5) == shades[shade]  # above the whisker
            seen.append(shade[:2])
    assert seen[0] == "dp"  # the lock took more in the guest, the work less
    assert "dm" in seen
