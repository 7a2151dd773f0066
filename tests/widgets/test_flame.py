"""The flame graph: what it shows, in every renderer, of small trees, big ones and hostile ones."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from effort import grows_no_faster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tables import HOSTILE
from trees import big_tree, tree_of, trees

from kvmperf_widgets import FlameGraph
from kvmperf_widgets.paint import COLOURS
from kvmperf_widgets.picture import PLOTLY
from kvmperf_widgets.svg import CHARACTER
from kvmperf_widgets.text import columns_of
from kvmperf_widgets.theme import (
    DARK,
    KINDS,
    LABEL,
    LIGHT,
    MATCH,
    TINTS,
    contrast,
    ink_on,
    mode_colour,
)
from kvmperf_widgets.tree import Tree

SVG = "{http://www.w3.org/2000/svg}"


def lock_tree() -> Tree:
    """all -> (vm -> vcpu -> lock, alloc), (qemu -> ioctl -> run -> lock)"""
    return tree_of(
        [-1, 0, 1, 2, 2, 0, 5, 6, 7],
        ["all", "vm", "vcpu", "lock", "alloc", "qemu", "ioctl", "run", "lock"],
        [0, 0, 0, 60, 20, 0, 5, 10, 5],
        ["", "", "", "guest-kernel", "guest-kernel", "", "host-user", *["host-kernel"] * 2],
    )


def frames(svg: str) -> list[dict[str, str]]:
    """Name, class, label and geometry of each frame of the picture."""
    found = []
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        if "f" not in group.get("class", "").split():
            continue
        rect, title, text = (group.find(f"{SVG}{tag}") for tag in ("rect", "title", "text"))
        assert rect is not None
        assert title is not None
        found.append(
            {
                "name": (title.text or "").split("\n")[0],
                "hover": title.text or "",
                "label": (text.text or "") if text is not None else "",
                "class": group.get("class", ""),
                **rect.attrib,
            }
        )
    return found


def test_svg_boxes_stand_on_their_callers() -> None:
    drawn = frames(FlameGraph(lock_tree(), "title", "cycles").to_svg())
    by_name = {frame["name"]: frame for frame in drawn}
    assert len(drawn) == 9
    left, width = float(by_name["all"]["x"]), float(by_name["all"]["width"])
    for callee, caller in (("vcpu", "vm"), ("alloc", "vcpu"), ("run", "ioctl"), ("qemu", "all")):
        low, high = by_name[caller], by_name[callee]
        assert float(high["y"]) == float(low["y"]) - 18
        assert float(high["x"]) >= float(low["x"]) - 0.01
    assert float(by_name["alloc"]["width"]) == pytest.approx(width * 0.2, abs=1)
    assert float(by_name["qemu"]["x"]) == left  # by name: qemu before vm
    assert "60 (60.00 % of all)" in "".join(f["hover"] for f in drawn)
    icicle = {f["name"]: f for f in frames(FlameGraph(lock_tree()).icicle().to_svg())}
    assert float(icicle["vm"]["y"]) == float(icicle["all"]["y"]) + 18


def test_search_counts_a_frame_beneath_a_match_once() -> None:
    graph = FlameGraph(lock_tree())
    assert graph.search("lock").matched == 65
    assert graph.search("lock|run").matched == 75  # run holds one of the locks
    assert graph.search("^nothing$").matched == 0
    assert graph.search("lock").focus("run").matched == pytest.approx(100 * 5 / 15)
    svg = graph.search("lock|run").to_svg()
    assert "75.00 % matched" in svg
    assert [f["name"] for f in frames(svg) if "hit" in f["class"].split()].count("lock") == 2
    with pytest.raises(re.error):
        graph.search("(")


def test_a_search_lights_up_the_box_that_hides_the_match() -> None:
    names = ["all", "wide", "narrow_a", "narrow_lock"]
    graph = FlameGraph(tree_of([-1, 0, 0, 0], names, [0, 1e6, 1, 1])).search("narrow_lock")
    hit = [f for f in frames(graph.to_svg()) if "hit" in f["class"].split()]
    assert [f["hover"].split("\n")[0] for f in hit] == ["… 2 narrow frames"]


def test_focus_prunes_again_from_the_full_tree() -> None:
    tree = big_tree(20_000)
    whole = FlameGraph(tree, unit="cycles")
    shown = {int(n) for n in whole.layout().node}
    size = tree.sum_up((tree.total > 0).astype(float))
    hidden = next(int(n) for n in np.flatnonzero(size > 9) if int(n) not in shown)
    graph = whole.focus(hidden)
    assert len(graph.layout().node) - graph.layout().above > 9
    assert graph.layout().total[graph.layout().above] == tree.total[hidden]
    assert graph.reset().layout().frames == whole.layout().frames
    assert "% of the focused frame" in graph.to_svg()


def test_focus_by_name_lays_all_places_over_each_other() -> None:
    graph = FlameGraph(lock_tree()).focus("lock")
    assert graph.layout().total[0] == 65
    assert "2 places merged" in graph.to_text()
    assert FlameGraph(lock_tree()).focus("run").layout().above == 3
    with pytest.raises(LookupError, match="near it: alloc"):
        FlameGraph(lock_tree()).focus("aloc")


def test_reverse_starts_where_the_weight_ended() -> None:
    laid = FlameGraph(lock_tree()).reverse()
    tree = laid.tree
    first = {tree.names[tree.name[i]]: tree.total[i] for i in np.flatnonzero(tree.parent == 0)}
    # the guest's lock and the host's differ in mode: two frames of one name
    locks = [t for t, n in zip(tree.total, tree.name, strict=True) if tree.names[n] == "lock"]
    assert sorted(locks) == [5, 60]
    assert first["alloc"] == 20


@given(trees(most=25))
@settings(max_examples=30)
def test_every_renderer_draws_every_tree(tree: Tree) -> None:
    graph = FlameGraph(tree, unit="cpu-clock ns")
    assert len(frames(graph.to_svg())) == len(graph.layout().node)
    spec = graph.to_spec()
    json.dumps(spec, allow_nan=False)
    assert len(spec["data"][0]["x"]) == len(graph.layout().node)
    assert all(columns_of(line) <= 60 for line in graph.to_text(60).splitlines())


def test_plotly_accepts_the_figure_and_it_keeps_its_bounds() -> None:
    graph = FlameGraph(big_tree(20_000), "big", "cycles")
    figure = graph.to_plotly()
    bars = figure.data[0]
    assert (bars.type, bars.orientation) == ("bar", "h")
    assert 700 < len(bars.x) <= 800
    assert sum(map(bool, bars.text)) <= 150
    for text, width in zip(bars.text, bars.x, strict=True):
        assert len(re.sub("&[a-z]+;", "&", text)) * 6.7 <= width / 100 * 880
    assert "20,000 frames" in figure.layout.title.subtitle.text
    assert {trace.name for trace in figure.data[1:]} <= set(KINDS)
    assert len(figure.to_json()) < 300_000


def test_text_is_a_readable_tree() -> None:
    drawn = FlameGraph(lock_tree(), "demo", "cycles").search("lock").to_text(60)
    assert drawn.splitlines() == [
        "demo",
        "weight is cycles: 100 in all · showing 9 of 9 frames, 100.0…",
        "65.00 % matched",
        "100.00% ████████████ all",
        " 80.00% █████████▋   ├─vm",
        " 80.00% █████████▋   │ vcpu",
        " 60.00% ███████▎     │ ├─▶ lock [g]",
        " 20.00% ██▍          │ └─alloc [g]",
        " 20.00% ██▍          └─qemu",
        " 20.00% ██▍            ioctl [.]",
        " 15.00% █▊             run [k]",
        "  5.00% ▋              ▶ lock [k]",
    ]


def test_recursion_takes_one_line_of_text() -> None:
    names = ["all", *["eval"] * 200, "leaf"]
    parents = [-1, *range(201)]
    tree = tree_of(parents, names, [0.0] * 201 + [10], ["", *["host-user"] * 201])
    drawn = FlameGraph(tree).to_text(80).splitlines()
    assert drawn[-2:] == [
        "100.00% ████████████ eval [.] × 158",
        "100.00% ████████████ … 43 narrow frames",
    ]
    deep = FlameGraph(tree).focus(150).to_text(80).splitlines()
    assert deep[-2:] == ["100.00% ████████████ eval [.] × 51", "100.00% ████████████ leaf [.]"]


def test_a_deep_stack_is_a_picture_of_bounded_height() -> None:
    names = ["all", *(f"f{i}" for i in range(200))]
    tree = tree_of([-1, *range(200)], names, [0.0] * 200 + [10], ["", *["host-user"] * 200])
    graph = FlameGraph(tree, unit="cycles")
    svg = graph.to_svg()
    assert float(ET.fromstring(svg).attrib["height"]) < 1000
    last = frames(svg)[-1]
    assert (last["name"], last["label"]) == ("… 157 rows deeper, 157 frames",) * 2
    assert float(last["width"]) > 1000  # as wide as what it hides
    assert "100.00 % goes up to 157 rows deeper" in svg
    assert len(graph.to_spec()["data"][0]["x"]) == 45
    assert graph.to_text(80).count("\n") < 45
    opened = graph.focus("f43")
    drawn = [frame["name"] for frame in frames(opened.to_svg())]
    assert drawn[:6] == ["all", "f0", "f1", "f2", "… 37 callers", "f40"]
    assert drawn[8:10] == ["f43", "f44"]
    assert drawn[-1] == "… 113 rows deeper, 113 frames"
    assert frames(graph.focus("f199").to_svg())[-1]["name"] == "f199"
    assert len(frames(FlameGraph(tree, rows=300).to_svg())) == 201


def test_hostile_names_stay_text_in_every_renderer() -> None:
    names = ["all", *HOSTILE]
    count = len(HOSTILE)
    graph = FlameGraph(
        tree_of([-1, *[0] * count], names, [0, *[10] * count]), HOSTILE[0], HOSTILE[1], HOSTILE[2]
    ).search("script")
    svg = graph.to_svg()
    drawn = ET.fromstring(svg)
    assert [e.tag for e in drawn.iter(f"{SVG}script")] == [f"{SVG}script"]  # its own
    assert {f["name"] for f in frames(svg)} >= {HOSTILE[0], HOSTILE[1], HOSTILE[2]}
    assert "\x1b" not in graph.to_text()
    assert "\u202e" not in svg
    spec = graph.to_spec()
    shown = [*spec["data"][0]["text"], *spec["data"][0]["hovertext"]]
    shown += [spec["layout"]["title"]["text"], spec["layout"]["title"]["subtitle"]["text"]]
    assert not any(re.search("<(?!br>)", text) for text in shown)
    assert len(svg) < 30_000  # the name of 4 KB is cut


def test_labels_are_cut_to_their_boxes() -> None:
    for frame in frames(FlameGraph(big_tree(5000)).to_svg()):
        assert len(frame["label"]) * CHARACTER <= float(frame["width"]) or len(frame["label"]) == 1


def test_the_bundle_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = FlameGraph(lock_tree())
    assert list(graph._repr_mimebundle_()) == [PLOTLY, "image/svg+xml", "text/plain"]
    assert list(graph._repr_mimebundle_(include=["text/plain"])) == ["text/plain"]
    assert "image/svg+xml" not in graph._repr_mimebundle_(exclude={"image/svg+xml"})
    assert "<script" not in graph._repr_mimebundle_()["image/svg+xml"]
    monkeypatch.setattr("kvmperf_widgets.picture.find_spec", lambda name: None)
    assert PLOTLY not in graph._repr_mimebundle_()


def test_save_by_suffix(tmp_path: Path) -> None:
    graph = FlameGraph(lock_tree())
    assert ET.parse(graph.save(tmp_path / "x.svg")).getroot().tag == f"{SVG}svg"
    assert "<svg" in graph.save(tmp_path / "x.html").read_text()
    with pytest.raises(ValueError, match=r"use \.svg"):
        graph.save(tmp_path / "x.png")


def test_ink_can_be_read_on_every_mode_colour() -> None:
    for theme in (LIGHT, DARK):
        fills = [mode_colour(k, theme, t) for k in (*KINDS, LABEL) for t in range(TINTS)]
        assert all(contrast(fill, ink_on(fill)) >= 4.5 for fill in (*fills, MATCH))
        assert contrast(theme.ink, theme.background) >= 7
        assert contrast(theme.muted, theme.background) >= 4.5


def test_drawing_grows_no_faster_than_the_tree() -> None:
    def drawn(count: int) -> str:
        return FlameGraph(big_tree(count)).to_svg()

    assert grows_no_faster(partial(drawn, 200_000), partial(drawn, 20_000))


@given(st.integers(-5, 30))
def test_a_frame_that_is_not_there_is_refused(frame: int) -> None:
    graph = FlameGraph(lock_tree())
    if 0 <= frame < 9:
        assert graph.focus(frame).layout().node[graph.focus(frame).layout().above] == frame
    else:
        with pytest.raises(LookupError):
            graph.focus(frame)


def recursive_tree() -> Tree:
    """all -> main -> eval -> eval -> (lock -> spin, eval -> lock), main -> lock"""
    return tree_of(
        [-1, 0, 1, 2, 3, 4, 3, 6, 1],
        ["all", "main", "eval", "eval", "lock", "spin", "eval", "lock", "lock"],
        [0, 1, 2, 4, 8, 16, 32, 64, 128],
        ["", *["host-user"] * 8],
    )


def test_sandwich_has_callers_above_and_callees_beneath() -> None:
    made = FlameGraph(recursive_tree(), "demo", "cycles").sandwich("eval")
    assert made.callers.total[0] == made.callees.total[0] == 126
    drawn = frames(made.to_svg())
    root = drawn[0]
    assert root["name"] == "eval"
    assert "49.41 % of all" in root["hover"]
    up = {f["name"] for f in drawn if float(f["y"]) < float(root["y"])}
    down = {f["name"] for f in drawn if float(f["y"]) > float(root["y"])}
    assert (up, down) == ({"main"}, {"eval", "lock", "spin"})
    text = made.search("spin|main").to_text(80)
    assert "100.00 % of callers, 12.70 % of callees matched" in text
    assert "eval: called by" in text
    assert "eval: calls" in text
    assert len(made.to_spec()["data"][0]["x"]) == len(drawn)
    assert made.self_share == pytest.approx(100 * 2 / 126)
    locks = FlameGraph(recursive_tree()).sandwich("lock")
    assert locks.callers.total[0] == 8 + 16 + 64 + 128
    assert "in 3 places" in locks.to_text(100)
    with pytest.raises(LookupError):
        FlameGraph(recursive_tree()).sandwich("nothing")


def test_each_change_is_a_new_picture_of_the_full_tree() -> None:
    graph = FlameGraph(recursive_tree(), unit="cycles")
    before = graph.to_svg()
    once = graph.collapse_recursion()
    names = [once.tree.names[i] for i in once.tree.name]
    assert sorted(names) == ["all", "eval", "lock", "lock", "main", "spin"]
    assert once.tree.total[0] == 255
    assert "recursion collapsed" in once.to_text(80)
    merged = graph.merge("^eval$")
    assert "eval" not in [merged.tree.names[i] for i in merged.tree.name]
    assert merged.focus("lock").layout().total[merged.focus("lock").layout().above] == 216
    left = graph.drop("spin")
    assert left.tree.total[0] == 255 - 16
    assert "left out: spin, 6.27 %" in left.to_svg()
    assert graph.drop(2).tree.total[0] == 255 - 126
    assert graph.drop(2).reset().tree is graph.tree
    assert graph.focus("spin").collapse_recursion().layout().total[-1] == 16
    with pytest.raises(re.error):
        graph.merge("(")
    with pytest.raises(LookupError):
        graph.drop(9)
    assert graph.to_svg() == before


def test_colours_by_dso_vm_and_hash_have_a_legend_and_can_be_read() -> None:
    tree = big_tree(3000)
    for by in COLOURS:
        graph = FlameGraph(tree).colour(by)
        paint = graph._paint(tree.total > 0)
        for theme in (LIGHT, DARK):
            fills = [shade.colour(theme) for shade in paint.shades]
            assert all(contrast(fill, ink_on(fill)) >= 4.5 for fill in fills)
        assert len(paint.of) == len(tree)
        used = {frame["class"].split()[1] for frame in frames(graph.to_svg())}
        assert len(used) > 2 or by == "vm"
        colours = set(graph.to_spec()["data"][0]["marker"]["color"])
        assert len(colours) == len(used)
    by_dso = FlameGraph(tree).colour("dso").to_svg()
    assert ">qemu-system-x86_64<" in by_dso or ">/usr/bin/qemu-system-x86_64<" in by_dso
    by_vm = FlameGraph(lock_tree()).colour("vm")
    shades = [f["class"].split()[1] for f in frames(by_vm.to_svg())]
    names = [f["name"] for f in frames(by_vm.to_svg())]
    assert shades[names.index("vm")] == shades[names.index("vcpu")]
    assert shades[names.index("vm")] != shades[names.index("qemu")] != shades[names.index("all")]
    assert [words for words, _ in by_vm._paint(by_vm.tree.total > 0).legend] == ["vm", "host"]
    with pytest.raises(ValueError, match="no colours by"):
        FlameGraph(tree).colour("taste")  # type: ignore[arg-type]


def test_five_pictures_of_big_trees_make_a_notebook_of_under_two_megabytes() -> None:
    bundles = [
        FlameGraph(big_tree(50_000, seed), unit="cycles")._repr_mimebundle_() for seed in range(5)
    ]
    saved = json.dumps(bundles, indent=1, ensure_ascii=False)  # as notebooks are
    assert len(saved.encode()) < 1_600_000  # JupyterLab adds an image of its own


def test_a_legend_ends_before_the_tools() -> None:
    names = [f"/usr/lib/x86_64-linux-gnu/a-library-with-a-long-name-{i}.so" for i in range(9)]
    tree = tree_of([-1, *[0] * 9], ["all", *names], [0, *[10.0] * 9], ["", *["host-user"] * 9])
    by_dso = replace(tree, detail=np.arange(10, dtype=np.int32), details=["", *names])
    drawn = ET.fromstring(FlameGraph(by_dso).colour("dso").to_svg())
    words = [t for t in drawn.iter(f"{SVG}text") if t.get("y") == "63" and t.get("class") == "mu"]
    assert 2 < len(words) < 9
    assert words[-1].text == "…"
    assert all(float(t.attrib["x"]) + len(t.text or "") * CHARACTER < 900 for t in words)
