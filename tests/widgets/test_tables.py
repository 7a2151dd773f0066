"""Tables of plain lists, as text and as HTML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from kvmperf_widgets.tables import html_table, text_table
from kvmperf_widgets.text import clean, columns_of, fit

HOSTILE = [
    "<script>alert(1)</script>",
    "a\"b'c&d",
    "]]><x/>",
    "\x1b[31mred\x00\x07",
    "\u202egnp.exe",
    "x" * 4096,
    "\udcff\ufffe",
    "</script><!--",
]


def test_text_table_aligns_and_rounds() -> None:
    drawn = text_table(
        ["symbol", "overhead", "ip", "pid"],
        [["lock", "漢字", "a"], [28.041, 2.9, float("nan")], [0xFFFF, 16, 0], [7, 123, None]],
        200,
    )
    assert drawn.splitlines() == [
        "symbol  overhead      ip  pid",
        "------  --------  ------  ---",
        "lock       28.04  0xffff    7",
        "漢字        2.90    0x10  123",
        "a                    0x0",
        "(the first 3 of 200 rows)",
    ]


def test_an_empty_table_says_so() -> None:
    assert text_table(["a"], [[]], 0) == "a\n-\n(no rows)"
    assert "no rows" in html_table(["a"], [[]], 0)
    assert text_table([], [], 0) == "(no rows)"


def test_html_table_holds_hostile_text_as_text() -> None:
    drawn = html_table(["<b>", "share"], [HOSTILE, [12.5] * len(HOSTILE)], 8, bars=["share"])
    table = ET.fromstring(f"<div>{drawn}</div>").find("div/table")
    assert table is not None
    assert table.findtext("thead/tr/th") == "<b>"
    rows = table.findall("tbody/tr/td[1]")
    assert [row.text for row in rows][:3] == HOSTILE[:3]
    assert {child.tag for row in rows for child in row.iter()} == {"td"}
    assert len(drawn) < 8000  # the long name is cut, in its tooltip too
    bar = table.find("tbody/tr/td[2]")
    assert bar is not None
    assert "12.5%" in bar.attrib["style"]


@given(st.text(st.characters(exclude_categories=[])))
def test_clean_text_is_valid_xml_and_one_line(text: str) -> None:
    shown = clean(text)
    assert ET.fromstring(f"<a>{html_table([text], [[text]], 1)}</a>") is not None
    assert len(shown.splitlines()) <= 1


@given(st.text(), st.integers(0, 30))
def test_fit_never_exceeds_its_columns(text: str, columns: int) -> None:
    text = clean(text)
    cut = fit(text, columns)
    assert columns_of(cut) <= columns
    assert cut == text or columns_of(text) > columns
