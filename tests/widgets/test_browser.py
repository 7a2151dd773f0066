"""The pictures as a browser shows them: really painted, alive, and never running hostile names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from browser import dump_dom, screenshot, share_of
from nbconvert import HTMLExporter
from plotly.io import to_html
from test_flame import lock_tree, recursive_tree
from test_pictures import dbench, swing
from trees import tree_of

from kvmperf_widgets import FlameGraph, Page
from kvmperf_widgets.tables import html_table
from kvmperf_widgets.theme import DARK, LIGHT, MORE, mode_colour, tint_of

pytestmark = pytest.mark.chromium
LOCK = mode_colour("guest-kernel", LIGHT, tint_of("lock"))


def page() -> Page:
    made = Page("The lock").paragraph("What it costs.").picture(dbench()).picture(swing())
    return made.picture(FlameGraph(lock_tree(), "guest", "cycles"))


def test_a_page_shows_its_pictures_in_light_and_in_dark(tmp_path: Path) -> None:
    document = page().save(tmp_path / "page.html")
    light = screenshot(document, 700, 800)
    dark = screenshot(document, 700, 800, "--blink-settings=preferredColorScheme=0")
    assert share_of(light, LIGHT.background) > 0.6
    assert share_of(dark, DARK.background) > 0.6
    for pixels in (light, dark):
        assert share_of(pixels, LOCK) > 0.003  # the lock's frame
        assert share_of(pixels, MORE) > 0.003  # the bar of the largest delta
    assert share_of(dark, LIGHT.background) < 0.001


def test_nbconvert_without_a_network_shows_every_picture(tmp_path: Path) -> None:
    cells = []
    for picture in (dbench(), swing(), FlameGraph(lock_tree(), "guest", "cycles")):
        shown = nbformat.v4.new_output("display_data", data=picture._repr_mimebundle_())
        cells.append(nbformat.v4.new_code_cell("picture", outputs=[shown]))
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    assert html.count('data-mime-type="image/svg+xml"') == 3
    document = tmp_path / "notebook.html"
    document.write_text(html)
    pixels = screenshot(document, 1100, 1300, "--host-resolver-rules=MAP * ~NOTFOUND")
    assert share_of(pixels, LOCK) > 0.002
    assert share_of(pixels, MORE) > 0.002
    edge = pixels[:, -20:]  # nothing is cut off at the right
    assert share_of(edge, LIGHT.background) > 0.95


ALIGNED = """
document.addEventListener("DOMContentLoaded", function () {
  var cells = Array.from(document.querySelectorAll(".kvmp-table th, .kvmp-table td"));
  var box = document.querySelector(".kvmp-scroll");
  document.title = cells.map(function (c) { return getComputedStyle(c).textAlign; }).join(" ")
    + " " + getComputedStyle(box).overflowX + " " + (box.scrollWidth > box.clientWidth)
    + " " + (document.documentElement.scrollWidth > window.innerWidth);
});
"""


def test_the_style_of_a_notebook_leaves_tables_alone(tmp_path: Path) -> None:
    table = html_table(["symbol", "share"], [["lock " * 20] * 3, [28.0, 2.9, 1.0]], 3)
    shown = nbformat.v4.new_output("display_data", data={"text/html": table})
    cell = nbformat.v4.new_code_cell("table", outputs=[shown])
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    document = tmp_path / "notebook.html"
    document.write_text(f"<script>{ALIGNED}</script>{html}")
    dom = dump_dom(document, options=("--window-size=600,500",))
    wide = "auto true false"  # it scrolls in its own box, not the page
    assert f"<title>{'left right ' * 4}{wide}</title>" in dom


def classes(dom: str, name: str) -> set[str]:
    group = re.search(rf'<g class="([^"]*)"><title>{name}\n', dom)
    assert group is not None
    return set(group[1].split())


def geometry(dom: str, name: str) -> dict[str, str]:
    rect = re.search(rf"<title>{name}\n[^<]*</title><rect ([^>]*)>", dom)
    assert rect is not None
    return dict(re.findall(r'(\S+)="([^"]*)"', rect[1]))


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_the_script_searches_and_zooms(tmp_path: Path, suffix: str) -> None:
    document = FlameGraph(lock_tree(), "guest", "cycles").save(tmp_path / f"x.{suffix}")
    dom = dump_dom(document, "kvmp-search=lo%63k%7Crun&kvmp-zoom=ioctl")
    assert "75.00 % of what is shown matched" in dom
    assert {"hit"} < classes(dom, "lock")
    assert "hit" not in classes(dom, "alloc")
    whole = float(geometry(dom, "all")["width"])
    assert float(geometry(dom, "ioctl")["width"]) == whole
    assert float(geometry(dom, "run")["width"]) == pytest.approx(0.75 * whole, abs=1)
    assert {"up"} < classes(dom, "qemu")
    assert {"off"} < classes(dom, "vcpu")
    assert "off" not in classes(dom, "run")


DRIVER = """
function on(selector, kind) {
  document.querySelector(selector).dispatchEvent(new MouseEvent(kind, {bubbles: true}));
}
function frame(name) {
  return Array.from(document.querySelectorAll(".f")).findIndex(
    function (f) { return f.querySelector("title").textContent.startsWith(name); }) + 1;
}
document.addEventListener("DOMContentLoaded", function () {
on(".frames .f:nth-child(" + frame("ioctl") + ") rect", "click");
if (RESET) { on(".reset", "click"); }
window.prompt = function () { return "alloc"; };
on(".search", "click");
on(".frames .f:nth-child(" + frame("run") + ") rect", "mouseover");
});
"""


@pytest.mark.parametrize("reset", [False, True])
def test_clicks_zoom_and_search_and_the_pointer_shows_details(tmp_path: Path, reset: bool) -> None:
    plain = FlameGraph(lock_tree(), "guest", "cycles").to_svg()
    driver = DRIVER.replace("RESET", str(reset).lower())
    document = tmp_path / "driven.svg"
    document.write_text(plain.replace("</svg>", f"<script><![CDATA[{driver}]]></script></svg>"))
    dom = dump_dom(document)
    ET.fromstring(plain)
    assert "run   15 (15.00 % of all)   self 10 (10.00 %)" in dom
    assert {"hit"} < classes(dom, "alloc")
    found = f"{20.0 if reset else 0.0:.2f} % of what is shown matched"
    assert found in dom
    assert ("off" in classes(dom, "alloc")) is not reset
    whole = float(geometry(dom, "all")["width"])
    wide = 0.15 if reset else 0.75
    assert float(geometry(dom, "run")["width"]) == pytest.approx(wide * whole, abs=1)


HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    '"><svg onload="document.title=\'owned\'">',
    "]]></script><script>document.title='owned'</script>",
    "<a href=\"javascript:document.title='owned'\">click</a>",
    "$\\href{javascript:alert(1)}{x}$",
]


class Elements(HTMLParser):
    """The elements of a document: what its text became."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.active: list[str] = []  # what could run something
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").startswith("javascript:"):
                self.active.append(f"<{tag} {name}={value}>")


def hostile_graph() -> FlameGraph:
    count = len(HOSTILE)
    tree = tree_of([-1, *[0] * count], ["all", *HOSTILE], [0, *[10.0] * count])
    return FlameGraph(tree, HOSTILE[0], "cycles", HOSTILE[3])


def test_hostile_names_run_nothing_in_a_page(tmp_path: Path) -> None:
    made = Page("harmless").picture(hostile_graph()).paragraph(HOSTILE[1]).heading(HOSTILE[2])
    made.table([HOSTILE[0], "n"], [HOSTILE, [1.0] * len(HOSTILE)], len(HOSTILE), bars=["n"])
    dom = dump_dom(made.save(tmp_path / "x.html"))
    assert "<title>harmless</title>" in dom
    alone = dump_dom(hostile_graph().save(tmp_path / "x.svg"), "kvmp-search=owned")
    for shown in (Elements(dom), Elements(alone)):
        assert shown.tags.count("script") == 1  # our own
        assert not {"img", "a"} & set(shown.tags)
        assert not shown.active


def test_hostile_names_run_nothing_in_plotly(tmp_path: Path) -> None:
    document = tmp_path / "plotly.html"
    figure = to_html(hostile_graph().search("svg").to_plotly())
    document.write_text(f"<title>harmless</title>{figure}")
    dom = dump_dom(document)
    shown = Elements(dom)
    assert "<title>harmless</title>" in dom
    assert dom.count('<g class="point">') == len(HOSTILE) + 1
    assert "img" not in shown.tags
    assert not shown.active
    assert "fill: rgb(204, 121, 167)" in dom  # what the search found


def test_a_sandwich_zooms_on_the_side_that_was_chosen(tmp_path: Path) -> None:
    sandwich = FlameGraph(recursive_tree(), "demo", "cycles").sandwich("lock")
    document = sandwich.save(tmp_path / "x.svg")
    plain = dump_dom(document)
    whole = float(geometry(plain, "lock")["width"])
    dom = dump_dom(document, "kvmp-zoom=main&kvmp-search=main")
    assert float(geometry(dom, "main")["width"]) > 0.5 * whole
    assert "off" in classes(dom, "spin")  # what it calls is on the other side
    assert "off" not in classes(dom, "lock")
    back = dump_dom(document, "kvmp-zoom=spin")
    assert "off" in classes(back, "main")
    assert float(geometry(back, "spin")["width"]) == pytest.approx(whole, abs=1)
