"""The differential flame graph: what it says, and in which colours."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_flame import frames
from test_tables import HOSTILE
from trees import KINDS, tree_of

from kvmperf_widgets import DiffFlameGraph
from kvmperf_widgets.diff_flame import NEW, VANISHED, Changes
from kvmperf_widgets.theme import DARK, LESS, LIGHT, MORE, contrast, diverging, ink_on

NAMES = ["all", "lock", "search", "copy", "gone", "noise"]


def changes_of(before: list[float], after: list[float], certain: list[bool]) -> Changes:
    first, second = np.array(before), np.array(after)
    delta = second - first
    status = np.where(first == 0, NEW, np.where(second == 0, VANISHED, 0)).astype(np.int8)
    return Changes(
        first,
        second,
        delta,
        delta - 2,
        delta + 2,
        np.array(certain),
        status,
        ("host", "guest"),
        0.95,
    )


def dbench(width: str = "after") -> DiffFlameGraph:
    """all -> lock, search, copy (new), gone (vanished), noise"""
    before = [100.0, 2.9, 60.1, 0.0, 7.0, 30.0]
    after = [100.0, 28.0, 35.0, 6.5, 0.0, 30.5]
    chosen = np.array(after if width == "after" else np.maximum(before, after))
    chosen[0] = 0
    kinds = ["", *["guest-kernel"] * 5]
    tree = tree_of([-1, 0, 0, 0, 0, 0], NAMES, chosen.tolist(), kinds)
    changes = changes_of(before, after, [False, True, True, True, True, False])
    return DiffFlameGraph(tree, changes, width=f"the share {width}")


def test_colours_are_of_the_change_and_grey_where_it_is_not_certain() -> None:
    drawn = {f["name"]: f for f in frames(dbench("max").to_svg())}
    kinds = {name: frame["class"].split()[1] for name, frame in drawn.items()}
    assert kinds["lock"] == "dp6"
    assert kinds["search"] == "dm6"
    assert kinds["noise"] == kinds["all"] == "d0"
    assert kinds["copy"].startswith("dp")
    assert kinds["copy"] < "dp6"
    assert "new" in drawn["copy"]["class"].split()
    assert "vanished" in drawn["gone"]["class"].split()
    svg = dbench("max").to_svg()
    for words in (
        "more, +25.10 points",
        "less, -25.10 points",
        "not significant",
        "only in guest",
        "only in host",
    ):
        assert f">{words}</text>" in svg
    assert "vanished" not in {m for f in frames(dbench().to_svg()) for m in f["class"].split()}
    assert "only in host" not in dbench().to_svg()


def test_hover_has_both_shares_the_delta_and_its_interval() -> None:
    lock = next(f for f in frames(dbench().to_svg()) if f["name"] == "lock")
    assert lock["hover"].split("\n") == [
        "lock",
        "2.90 % → 28.00 % (+25.10 points, host → guest)",
        "95 % interval +23.10 … +27.10 points",
        "28.00 % of the width",
        "guest-kernel · [kernel.kallsyms]",
    ]
    text = dbench("max").to_text(100)
    assert "lock [g]  2.90 % → 28.00 %  +25.10" in text
    assert "noise [g]  30.00 % → 30.50 %  +0.50 ~" in text
    assert "gone [g]  7.00 % → —  -7.00" in text
    assert "width is the share max" in text


def test_focus_search_and_plotly_keep_the_changes() -> None:
    graph = dbench("max")
    assert graph.focus("lock").search("lock").matched == 100
    assert graph.search("lock|copy").matched == pytest.approx(100 * 34.5 / 132.1)
    assert graph.significant_share() == pytest.approx(100 * 4 / 6)
    spec = graph.to_spec()
    json.dumps(spec, allow_nan=False)
    bars = spec["data"][0]
    by_name = dict(
        zip([h.split("<br>")[0] for h in bars["hovertext"]], bars["marker"]["color"], strict=True)
    )
    assert by_name["lock"] == diverging(1, LIGHT) == MORE
    assert by_name["search"] == LESS
    assert by_name["noise"] == diverging(0, LIGHT)
    outlined = dict(zip(by_name, bars["marker"]["line"]["width"], strict=True))
    assert {name for name, width in outlined.items() if width} == {"copy", "gone"}
    assert all(trace["name"] for trace in spec["data"][1:])
    assert graph.icicle().reset().to_svg() == graph.to_svg()
    assert isinstance(graph.focus("lock"), DiffFlameGraph)


def test_every_shade_can_be_read_and_told_apart() -> None:
    for theme in (LIGHT, DARK):
        shades = [diverging(n / 6, theme) for n in range(-6, 7)]
        assert len(set(shades)) == 13
        assert all(contrast(shade, ink_on(shade)) >= 4.5 for shade in shades)


@given(st.data())
@settings(max_examples=30)
def test_every_renderer_draws_every_change(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    share = st.floats(0, 100)
    before, after = ([data.draw(share) for _ in range(count)] for _ in range(2))
    certain = [data.draw(st.booleans()) for _ in range(count)]
    names = [data.draw(st.sampled_from(HOSTILE)) for _ in range(count)]
    kinds = [data.draw(st.sampled_from(KINDS)) for _ in range(count)]
    tree = tree_of([-1, *[0] * (count - 1)], names, after, kinds)
    graph = DiffFlameGraph(tree, changes_of(before, after, certain), HOSTILE[0], width=HOSTILE[1])
    ET.fromstring(graph.to_svg())
    assert len(frames(graph.to_svg())) == len(graph.layout().node)
    json.dumps(graph.to_spec(), allow_nan=False)
    assert "\x1b" not in graph.to_text(60)
