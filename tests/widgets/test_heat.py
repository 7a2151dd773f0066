"""Heat maps: values, scale, words, and what each renderer makes of them."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from browser import dump_dom, screenshot, share_of
from hypothesis import given
from hypothesis import strategies as st
from plotly.io import to_html
from test_tables import HOSTILE

from kvmperf_widgets import HeatMap, Page
from kvmperf_widgets.heat import LEVELS, NONE, decimals, shades, span_words
from kvmperf_widgets.text import clean, columns_of
from kvmperf_widgets.theme import DARK, LIGHT, contrast, luminance, sequential

SVG = "{http://www.w3.org/2000/svg}"


def heat_of(samples: list[list[int]], **options: object) -> HeatMap:
    """Samples of 4 units each, in cells of a quarter of a second."""
    cells = np.array(samples, np.int64).reshape(len(samples), -1 if samples else 20)
    return HeatMap(4.0 * cells, cells, **{"cell": 0.25, "unit": "cycles", **options})


def made(share: bool = False, name: str = "lock") -> HeatMap:
    """20 s from second 3 on; the share leaps from a tenth to six tenths at second 13."""
    samples = np.full((20, 10), 40)
    samples[5, 2:5] = 0
    part = (samples * np.where(np.arange(20) < 10, 0.1, 0.6)[:, None]).astype(np.int64)
    parts = {"part": part * 250_000.0, "part_samples": part, "name": name} if share else {}
    return HeatMap(samples * 250_000.0, samples, cell=0.1, start=3.0, unit="cpu-clock ns", **parts)


def hostile_heat(name: str) -> HeatMap:
    cells = np.arange(1, 41).reshape(5, 8)
    return HeatMap(
        cells * 3.0, cells, part=cells * 1.0, part_samples=cells // 2, name=name, cell=0.1,
        unit=name, title=name, subtitle=name,
    )  # fmt: skip


def test_the_scale_is_read_without_hue() -> None:
    for theme in (LIGHT, DARK):
        lights = [luminance(colour) for colour in shades(theme)]
        ordered = sorted(lights, reverse=theme is LIGHT)
        assert lights == ordered
        steps = [contrast(a, b) for a, b in zip(shades(theme), shades(theme)[1:], strict=False)]
        assert min(steps) > 1.1
        assert contrast(shades(theme)[-1], theme.background) > 10
        assert contrast(shades(theme)[0], theme.background) > 1.15  # not what no sample has
        assert sequential(-1, theme) == shades(theme)[0]
        assert sequential(2, theme) == shades(theme)[-1]


cells = st.integers(1, 12).flatmap(
    lambda rows: st.lists(
        st.lists(st.integers(0, 10**6), min_size=rows, max_size=rows), min_size=1, max_size=30
    )
)


@given(cells)
def test_levels_follow_the_values(samples: list[list[int]]) -> None:
    heat = heat_of(samples)
    values, levels = heat.values.reshape(-1), heat.levels.reshape(-1).astype(int)
    assert ((levels == NONE) == (heat.samples.reshape(-1) == 0)).all()
    known = levels[levels != NONE]
    order = np.argsort(values[levels != NONE])
    assert (np.diff(known[order]) >= 0).all()
    assert known.size == 0 or known.max() == LEVELS - 1
    top, more = heat.scale
    assert more == bool((values[levels != NONE] > top).any())


@given(cells)
def test_the_svg_paints_every_cell_in_its_colour(samples: list[list[int]]) -> None:
    heat = heat_of(samples)
    root = ET.fromstring(heat.to_svg())
    grid = next(g for g in root.iter(f"{SVG}g") if g.get("class") == "cells")
    painted: dict[tuple[int, int], int] = {}
    for path in grid:
        for x, y, reach in re.findall(r"M(\d+) (\d+)v(\d+)", path.attrib["d"]):
            for row in range(int(y), int(y) + int(reach)):
                assert (int(x), row) not in painted
                painted[int(x), row] = int(path.attrib["class"][1:])
    for (column, row), level in np.ndenumerate(heat.levels):
        assert painted.get((column, row), NONE) == level
    hover = [r.findtext(f"{SVG}title") or "" for r in root.iter(f"{SVG}rect")
             if r.get("class") == "hot"]  # fmt: skip
    assert len(hover) == heat.columns
    told = sum(int(re.search(r"([\d,]+) sample", text)[1].replace(",", "")) for text in hover)
    assert told == heat.samples.sum()


def test_words_tell_time_samples_weight_and_share() -> None:
    heat = made(share=True)
    assert heat.cells_words(100, 101) == [
        "13.0 s to 13.1 s",
        "40 samples, 10 ms cpu-clock",
        "lock: 60.00 %, 24 of the samples",
    ]
    assert heat.cells_words(52, 55)[1:] == ["0 samples, 0 ns cpu-clock"]
    assert heat.scale_words() == "0 to 60.00 % of cpu-clock in 100 ms"
    assert made().scale_words() == "0 to 10 ms cpu-clock in 100 ms"
    assert heat.head() == (
        "lock: share over time",
        "columns of 1 s, cells of 100 ms · most: 60.00 % at 13.0 s",
    )
    assert [span_words(s) for s in (1e-6, 0.02, 1, 90, 120, 7200, 86_400)] == [
        "1 us", "20 ms", "1 s", "90 s", "2 min", "2 h", "1 d",
    ]  # fmt: skip
    assert [decimals(s) for s in (1, 30, 0.5, 0.02, 0.025, 1e-9)] == [0, 0, 1, 2, 3, 9]


def test_few_hot_cells_do_not_take_the_scale() -> None:
    samples = [[10] * 20 for _ in range(20)]
    samples[3][3] = 5000
    heat = heat_of(samples)
    assert heat.scale == (40.0, True)
    assert heat.scale_words() == "0 to 40 cycles and more in 250 ms"
    assert heat_of([[1, 2], [3, 4]]).scale == (16.0, False)


def test_the_plotly_figure_holds_every_cell() -> None:
    heat = made(share=True)
    figure = go.Figure(heat.to_spec())  # plotly checks the names and values of properties
    trace = figure.data[0]
    assert np.array(trace.z, float).T.reshape(-1) == pytest.approx(
        heat.values.reshape(-1), nan_ok=True
    )
    assert (len(trace.x), len(trace.y)) == (20, 10)
    assert (trace.x[0], trace.y[1]) == ("3 s", "100 ms to 200 ms")
    assert list(trace.customdata[4][12]) == [24, 40]
    assert len(json.dumps(heat.to_spec())) < 10_000
    weights = go.Figure(made().to_spec()).data[0]
    assert weights.z[0][0] == 0.01  # seconds
    assert weights.zmax == 0.01


def test_the_text_fits_its_terminal() -> None:
    for width in (40, 80, 200):
        lines = made(share=True).to_text(width).splitlines()
        assert max(columns_of(line) for line in lines) <= width
        assert len(lines) == 14
    text = made(share=True).to_text(80)
    row = next(line for line in text.splitlines() if "300 ms" in line).split("  ", 1)[1]
    assert Counter(row.strip()) == {"·": 27, " ": 3, "█": 30}


def test_no_cell_at_all() -> None:
    heat = heat_of([], title="nothing")
    assert heat.scale == (1.0, False)
    assert "no samples" in heat.to_svg()
    assert heat.to_text(60).splitlines() == ["nothing", "no samples"]
    assert go.Figure(heat.to_spec()).layout.annotations[0].text == "no samples"
    idle = HeatMap(np.zeros((1, 4)), np.zeros((1, 4), int), cell=1.0)
    assert (idle.levels == NONE).all()
    ET.fromstring(idle.to_svg())


def test_cells_of_other_shapes_are_refused() -> None:
    for wrong in (
        {"samples": np.ones((2, 3))},
        {"part": np.ones((2, 2))},
        {"part": np.ones((1, 2)), "part_samples": np.ones((2, 2))},
        {"cell": 0.0},
        {"cell": math.nan},
    ):
        with pytest.raises(ValueError):
            HeatMap(**{"weight": np.ones((2, 2)), "samples": np.ones((2, 2)), "cell": 1.0, **wrong})


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name: str) -> None:
    heat = hostile_heat(name)
    root = ET.fromstring(heat.to_svg())
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "style", "rect", "text", "line", "g", "path", "title"}
    assert any(clean(name)[:40] in (title.text or "") for title in root.iter(f"{SVG}title"))
    assert "\x1b" not in heat.to_text(80)
    assert "<" not in re.sub(
        r"<br>|<extra></extra>", "", heat.to_spec()["data"][0]["hovertemplate"]
    )


@pytest.mark.chromium
def test_a_page_and_plotly_paint_the_leap(tmp_path: Path) -> None:
    least, most = shades(LIGHT)[1], shades(LIGHT)[-1]
    document = Page("heat").picture(made(share=True)).save(tmp_path / "page.html")
    drawn = to_html(made(share=True).to_spec(), include_plotlyjs=True)
    figure = tmp_path / "plotly.html"
    figure.write_text(drawn)
    for path in (document, figure):
        pixels = screenshot(path, 1000, 560)
        assert share_of(pixels, least) > 0.15
        assert share_of(pixels, most) > 0.15
        left, right = pixels[:, :450], pixels[:, 600:]
        assert share_of(left, most) < 0.02  # the legend
        assert share_of(right, least) < 0.02
    dark = screenshot(document, 1000, 560, "--blink-settings=preferredColorScheme=0")
    assert share_of(dark, shades(DARK)[-1]) > 0.15


@pytest.mark.chromium
def test_hostile_names_do_not_run(tmp_path: Path) -> None:
    page = Page("harmless")
    for name in HOSTILE:
        page.picture(hostile_heat(name))
    dom = dump_dom(page.save(tmp_path / "page.html"))
    assert "<title>harmless</title>" in dom
    assert not re.search(r"<(img|script)", dom)
