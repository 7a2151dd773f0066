"""The gallery: every cell runs, every picture is there, on its page with and without scripts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import driven

from kvmperf_magic.demo import notebook
from kvmperf_widgets.picture import PLOTLY

SHIPPED = Path(__file__).parents[2] / "notebooks" / "gallery.ipynb"
SVG = "image/svg+xml"
Book = tuple[Any, Path]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """Executed here, with its page and the pages that it writes itself."""
    folder = tmp_path_factory.mktemp("gallery")
    executed, page = folder / "gallery.ipynb", folder / "gallery.html"
    notebook.execute(SHIPPED, executed)
    notebook.convert(executed, page)
    return nbformat.read(executed, as_version=4), page


def bundles(book: Any) -> list[dict[str, Any]]:
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    return [o.data for o in outputs if SVG in o.get("data", {})]


def kinds(shown: list[dict[str, Any]]) -> list[str]:
    return [str(re.findall(r"kvmp-(flame|delta|lines|heat)\b", data[SVG])[0]) for data in shown]


def test_every_picture_is_there(book: Book) -> None:
    executed, page = book
    shown = bundles(executed)
    counts = {kind: kinds(shown).count(kind) for kind in ("flame", "delta", "heat", "lines")}
    assert counts == {"flame": 18, "delta": 1, "heat": 2, "lines": 1}
    assert all(data[PLOTLY]["data"] and data["text/plain"] for data in shown)
    assert len({data[SVG] for data in shown}) >= 18  # the report's and the explorer's are alike
    for name in ("flame.svg", "flame.html", "report.html", "diff.html"):
        assert "__ticket_spin_lock" in (page.parent / name).read_text()


def test_the_shipped_one_holds_what_it_shows(book: Book) -> None:
    shipped = nbformat.read(SHIPPED, as_version=4)
    sources = [cell.source for cell in book[0].cells]
    assert [cell.source for cell in shipped.cells] == sources
    assert kinds(bundles(shipped)) == kinds(bundles(book[0]))
    assert SHIPPED.stat().st_size < 1 << 20


@pytest.mark.chromium
@pytest.mark.parametrize("scripts", [True, False])
def test_its_page_shows_them_all(book: Book, scripts: bool) -> None:
    with driven() as browser:
        page = browser.new_page(java_script_enabled=scripts, offline=True)
        page.goto(book[1].as_uri())
        images = page.locator('img[src^="data:image/svg+xml"]')
        assert images.count() == len(bundles(book[0]))
        for image in images.all():
            box = image.bounding_box()
            assert box["width"] > 600
            assert box["height"] > 80
