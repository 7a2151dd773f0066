"""Delta bars, shares over time, the live table and the page."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tables import HOSTILE
from trees import big_tree

from kvmperf_widgets import DeltaBars, FlameGraph, Page, ShareLine, ShareLines
from kvmperf_widgets.axis import ticks
from kvmperf_widgets.text import columns_of
from kvmperf_widgets.theme import LIGHT, diverging

SVG = "{http://www.w3.org/2000/svg}"
NAN = math.nan
ROWS = [
    ("copy_user", 2.2, 2.3, 0.1, -0.3, 0.5, False, "", "guest-kernel"),
    ("lock", 2.9, 68.0, 65.1, 64.2, 66.0, True, "", "guest-kernel"),
    ("ext3", 40.5, 11.2, -29.3, -30.4, -28.2, True, "", "guest-kernel"),
    ("flush_tlb", 0.0, 2.2, 2.2, 1.8, 2.6, True, "new", "guest-kernel"),
    ("handle", 1.5, 0.0, -1.5, -1.9, -1.1, True, "vanished", "host-kernel"),
    ("loop", 0.4, 0.5, 0.1, NAN, NAN, False, "", ""),
]


def dbench(most: int = 20) -> DeltaBars:
    columns = [list(column) for column in zip(*ROWS, strict=True)]
    return DeltaBars(*columns, title="dbench", names=("host", "guest"), most=most)


def swing() -> ShareLines:
    share = [28.0, 20.0, NAN, 9.0, 12.0]
    low, high = [v - 2 for v in share], [v + 2 for v in share]
    return ShareLines([0.5, 1.5, 2.5, 3.5, 4.5], [ShareLine("lock", share, low, high)])


def groups(svg: str, kind: str) -> list[ET.Element]:
    return [g for g in ET.fromstring(svg).iter(f"{SVG}g") if g.get("class") == kind]


def test_delta_bars_are_sorted_and_reach_from_zero_to_the_delta() -> None:
    rows = groups(dbench().to_svg(), "row")
    names = ["lock", "ext3", "flush_tlb", "handle", "copy_user", "loop"]
    assert [(row.findtext(f"{SVG}title") or "").split("\n")[0] for row in rows] == names
    bars = []
    for row in rows:
        bar = next(r for r in row.iter(f"{SVG}rect") if r.get("class") != "hot")
        bars.append((float(bar.attrib["x"]), float(bar.attrib["width"]), bar.attrib["class"]))
    zero = bars[0][0]
    scale = bars[0][1] / 65.1
    assert bars[1][0] + bars[1][1] == pytest.approx(zero, abs=0.02)
    assert bars[1][1] == pytest.approx(29.3 * scale, abs=0.05)
    assert [kind for *_, kind in bars] == ["dp6", "dm5", "dp3", "dm3", "d0", "d0"]
    # whiskers: a line from low to high with two caps, none where there is no interval
    whiskers = [[e for e in row.iter(f"{SVG}line") if e.get("class") == "ink"] for row in rows]
    assert [len(lines) for lines in whiskers] == [3, 3, 3, 3, 3, 0]
    low, high = (float(whiskers[0][0].attrib[end]) for end in ("x1", "x2"))
    assert low == pytest.approx(zero + 64.2 * scale, abs=0.05)
    assert high == pytest.approx(zero + 66.0 * scale, abs=0.05)


def test_delta_bars_say_both_percentages_and_what_is_new() -> None:
    svg, text = dbench().to_svg(), dbench().to_text(100)
    for drawn in (svg, text):
        for words in ("2.90 % → 68.00 %", "— → 2.20 %", "1.50 % → —", "new", "vanished", "-29.30"):
            assert words in drawn
    assert "the 2 largest of 6 deltas" in dbench(most=2).to_text()
    assert all(columns_of(line) <= 100 for line in text.splitlines())
    assert [line.rstrip().endswith("░") for line in text.splitlines()[2:8]] == [False] * 4 + [
        True
    ] * 2


def test_a_whisker_ends_where_no_delta_can_be() -> None:
    row = (["few"], [0.0], [50.0], [50.0], [-20.0], [180.0], [False], ["new"], [""])
    bars = DeltaBars(*row, confidence=0.99)
    drawn = groups(bars.to_svg(), "row")[0]
    whisker, *caps = (e for e in drawn.iter(f"{SVG}line") if e.get("class") == "ink")
    assert len(caps) == 1  # the other end goes on
    assert float(whisker.attrib["x2"]) < 1040 - 12 - 14 * 6
    assert bars.to_spec()["layout"]["xaxis"]["range"][1] < 110
    assert "99 % interval -20.00 … +180.00 points" in (drawn.findtext(f"{SVG}title") or "")


def test_pairs_draw_both_sides() -> None:
    lock = groups(dbench().pairs().to_svg(), "row")[0]
    widths = {r.attrib["class"]: float(r.attrib["width"]) for r in lock.iter(f"{SVG}rect")}
    assert widths["base"] / widths["dp6"] == pytest.approx(2.9 / 68, abs=0.001)


def test_plotly_accepts_delta_bars_and_lines() -> None:
    bars = dbench().to_plotly()
    assert list(bars.data[0].x) == [65.1, -29.3, 2.2, -1.5, 0.1, 0.1]
    assert bars.data[0].error_x.array[0] == pytest.approx(0.9)
    assert bars.data[0].marker.color[4] == diverging(0, LIGHT)
    pairs = dbench().pairs().to_plotly().data
    assert [trace.name for trace in pairs[2:]][-1] == "host"
    lines = swing().to_plotly()
    assert [trace.fill for trace in lines.data] == ["toself", "toself", None]
    for picture in (dbench(), swing()):
        json.dumps(picture.to_spec(), allow_nan=False)


def test_nothing_to_draw_is_drawn_too() -> None:
    empty: list[list[float]] = [[] for _ in range(5)]
    bars = DeltaBars([], *empty, [], [], [])
    assert "no rows" in bars.to_svg()
    assert "no rows" in bars.to_text()
    bars.to_plotly()
    lines = ShareLines([1.0, 2.0], [ShareLine("x", [NAN, NAN])])
    assert "no samples" in lines.to_svg()
    ET.fromstring(ShareLines([], []).to_svg())
    lines.to_plotly()
    with pytest.raises(ValueError, match="one length"):
        DeltaBars(["a"], *empty, [], [], [])


def test_lines_break_at_gaps_and_mark_the_extremes() -> None:
    drawn = ET.fromstring(swing().to_svg())
    lines = [len((e.get("points") or "").split()) for e in drawn.iter(f"{SVG}polyline")]
    bands = [len((e.get("points") or "").split()) for e in drawn.iter(f"{SVG}polygon")]
    assert (lines, bands) == ([2, 2], [4, 4])
    spots = [float(e.attrib["cy"]) for e in drawn.iter(f"{SVG}circle")]
    assert spots[0] > spots[1]  # the least is lower on the page than the largest
    texts = {e.text for e in drawn.iter(f"{SVG}text")}
    assert {"9.00 %", "28.00 %"} <= texts
    assert "9.00 % … 28.00 %" in swing().to_text(80)
    assert all(columns_of(line) <= 80 for line in swing().to_text(80).splitlines())


def labels_of_extremes(lines: list[ShareLine]) -> list[tuple[float, float, float, float]]:
    """Where they stand: left, top, right, bottom."""
    svg = ET.fromstring(ShareLines(range(len(lines[0].share)), lines).to_svg())
    boxes = []
    for text in svg.iter(f"{SVG}text"):
        if text.get("class") == "halo":
            left, base = float(text.attrib["x"]), float(text.attrib["y"])
            boxes.append((left, base - 9.5, left + len(text.text or "") * 6.75, base + 2.5))
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 58 - 0.01
        assert right <= 1040
        assert top >= 68
        assert bottom <= 320
        for other in boxes[:i]:
            aside = right <= other[0] or other[2] <= left
            assert aside or bottom <= other[1] or other[3] <= top
    return boxes


@given(
    st.lists(st.one_of(st.just(NAN), st.floats(0, 100)), min_size=1, max_size=40),
    st.sampled_from([1, 5, 20]),
)
def test_labels_of_the_extremes_are_inside_and_apart(share: list[float], pad: int) -> None:
    line = ShareLine("lock", [*share, *[NAN] * pad])
    ends = set(line.extremes() or ())
    found = len(labels_of_extremes([line]))
    assert found <= len(ends)
    # one of two may go without its label where they are as near as a label is wide
    step = (1016 - 58) / max(len(share) + pad - 1, 1)
    near = len(ends) == 2 and abs(max(ends) - min(ends)) * step < 9 * 6.75
    assert found >= len(ends) - near


def test_labels_of_two_lines_make_room_for_each_other() -> None:
    host = [90.0, 95.0, 98.0, 100.0, *[40.0] * 90, 0.0, *[40.0] * 5]
    guest = [100.0, 99.0, 97.6, *[99.5] * 97]
    assert len(labels_of_extremes([ShareLine("host", host), ShareLine("guest", guest)])) == 4


def test_hostile_labels_are_text() -> None:
    count = len(HOSTILE)
    numbers = [[1.0] * count for _ in range(5)]
    bars = DeltaBars(HOSTILE, *numbers, [True] * count, HOSTILE, HOSTILE, title=HOSTILE[0])
    lines = ShareLines([1.0], [ShareLine(name, [5.0]) for name in HOSTILE[:6]], title=HOSTILE[3])
    for picture in (bars, bars.pairs(), lines):
        svg = ET.fromstring(picture.to_svg())
        assert not list(svg.iter(f"{SVG}script"))
        assert "\x1b" not in picture.to_text()
        assert "<script" not in json.dumps(picture.to_spec())


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_within(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= t <= low + span + slack for t in found)
    assert 0 < len(found) <= 10


def test_a_page_is_one_file_without_network(tmp_path: Path) -> None:
    page = Page("five").table(["a"], [[1.5]], 1)
    for seed in range(4):
        page.picture(FlameGraph(big_tree(20_000, seed), unit="cycles"))
    text = page.picture(dbench()).save(tmp_path / "x.html").read_text()
    assert len(text) < 2_000_000
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert text.count("<script>") == 1
