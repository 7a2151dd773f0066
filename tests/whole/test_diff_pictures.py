"""The differential flame graph of real recordings: grey but where something changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_page import Seen
from guest import running_guest
from IPython.core.interactiveshell import InteractiveShell
from live_kernel import Answering
from live_page import write_live

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.diffflames import WIDTHS
from kvmperf_magic.errors import QueryError
from kvmperf_magic.recording import Recording
from kvmperf_widgets import DiffFlameGraph
from kvmperf_widgets.explorer import ExplorerWidget, packed
from kvmperf_widgets.theme import MORE

LOCK = "__ticket_spin_lock"


def classes(graph: DiffFlameGraph) -> dict[str, list[str]]:
    """Of every drawn frame its shade and marks."""
    view = graph._view(graph.layout())
    return {box.name: [box.shade.css, box.mark] for box in view.boxes}


def test_the_demo_shows_the_lock_in_strong_colour_without_scrolling() -> None:
    host, crowded = demo.replay("host"), demo.replay("crowded")
    answer = kvm.diff(host, crowded)
    graph = answer.flamegraph()
    assert classes(graph)[LOCK] == ["dp6", ""]
    assert any(isinstance(part, DiffFlameGraph) for part in answer.parts())
    assert MORE in graph.to_spec()["data"][0]["marker"]["color"]
    assert graph.to_spec()["layout"]["height"] < 700
    both = classes(answer.flamegraph("max"))
    assert both["ext3_test_allocatable"][0].startswith("dm")  # less of it, or none at all
    for width in WIDTHS:
        assert answer.flamegraph(width).tree.total[0] > 0
        assert kvm.diff(host, crowded, width=width).width == width
    with pytest.raises(QueryError, match="no width"):
        answer.flamegraph("wide")
    # the widths of common are those that neither side lacks
    common, before = answer.flamegraph("common"), answer.flamegraph("before")
    assert (common.tree.total <= before.tree.total + 1e-9).all()


def test_two_bundled_recordings_of_one_guest_are_grey() -> None:
    same = kvm.diff(demo.replay("crowded"), demo.replay("again")).flamegraph("max")
    assert same.significant_share() <= 5


@pytest.mark.chromium
def test_a_bar_of_the_page_searches_its_flame_graph(
    browser: Any, tmp_path: Path, shell: InteractiveShell
) -> None:
    sides = {"host": demo.replay("host"), "crowded": demo.replay("crowded")}
    shell.push(sides)
    shell.run_line_magic("kvm_diff", "host crowded --width max --export page.html")
    by_dso = kvm.diff(*sides.values(), pair="dso")
    assert not by_dso.linked
    assert "<figure data-link=" not in by_dso.to_html()
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.get_by_role("button", name=LOCK).click()
    hits = page.locator(".f.hit > title").all_text_contents()
    assert [title.split("\n")[0] for title in hits] == [LOCK]
    assert page.locator(".found").text_content() == "52.48 % of what is shown matched"
    assert errors == []
    page.close()
    assert (tmp_path / "page.html").stat().st_size < 100_000


@pytest.mark.chromium
def test_the_explorer_asks_for_other_trees_of_the_same_stacks(browser: Any, tmp_path: Path) -> None:
    baseline, other = demo.replay("host"), demo.replay("both")
    answer = kvm.diff(baseline.filter(time=(0.0, 2.0)), other.filter(modes="host"), width="max")
    graph = answer.flamegraph()
    page = browser.new_page(viewport={"width": 1100, "height": 760})
    page.expose_function("kernel", Answering(ExplorerWidget(graph)))
    seen = Seen(page, write_live(ExplorerWidget, packed(graph), tmp_path / "x.html", theme="light"))
    about = lambda words: page.locator(".kvmp-x-about", has_text=words).first.wait_for()  # noqa: E731

    def agrees(tip: str, of: DiffFlameGraph, frame: int) -> None:
        lines = of._words().frame(frame, 1.0, 0.0, None)
        assert tip.split("\n")[1:3] == lines[:2]

    seen.button("reverse")
    about("callers beneath callees")
    reverse = graph.reverse()
    tip = seen.tip(0.5, 1)
    (frame,) = np.flatnonzero(
        (reverse.tree.depth == 1) & reverse.tree.named(re.compile(f"^{tip.splitlines()[0]}$"))
    ).tolist()
    agrees(tip, reverse, frame)
    seen.click(0.5, 1, "Shift")
    about(f"{tip.splitlines()[0]}: callers above, callees beneath")
    sandwich = reverse.sandwich(tip.splitlines()[0])
    rows = int(sandwich.callers.depth.max())
    agrees(seen.tip(0.5, rows), sandwich._below, 0)
    seen.button("sandwich")
    about("callers beneath callees")
    seen.button("collapse recursion")
    about("recursion collapsed")
    seen.button("reset")
    page.wait_for_function(
        "document.querySelector('.kvmp-x-about').textContent.split('\u00b7').length === 3"
    )
    assert f"{int((graph.tree.total > 0).sum())} frames" in seen.text("about")
    assert seen.errors == []
    page.close()


def test_a_sandwich_is_as_certain_as_its_samples() -> None:
    host, both = demo.replay("host"), demo.replay("both")
    answer = kvm.diff(host.filter(time=(0.0, 2.0)), both.filter(modes="host"), width="max")
    rows = {row["symbol"]: row for row in answer.table.rows()}
    sandwich = answer.flamegraph().sandwich("ext3_free_blocks_sb")  # it calls nothing
    row = rows["ext3_free_blocks_sb"]
    assert sandwich._below.changes.delta[0] == pytest.approx(row["delta"], abs=0.02)
    assert sandwich._below.changes.significant[0] == sandwich._above.changes.significant[0]
    assert "ext3_free_blocks_sb" in sandwich.to_text(100)
    with pytest.raises(LookupError, match="no frame is named"):
        answer.flamegraph().sandwich("nothing")
    plain = answer.flamegraph()
    turned = plain.collapse_recursion().reverse()
    assert "callers beneath callees" in turned.about
    assert "recursion collapsed" in turned.about
    assert turned.reset().to_svg() == plain.to_svg()


def record(path: Path, **wishes: object) -> Recording:
    return kvm.record(
        duration=1.5,
        output=path,
        progress=False,
        frequency=1000,
        guest_elf=demo.guest_elf(),
        **wishes,
    )


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
@pytest.mark.parametrize("vcpus", [1, 4])
def test_a_guest_recorded_twice_is_grey(tmp_path: Path, vcpus: int) -> None:
    # with two vCPUs a busy machine tips it from work into waiting: no longer the same workload
    with running_guest(vcpus, "twice"):
        sides = [record(tmp_path / name, vm="twice") for name in ("a", "b")]
    graph = kvm.diff(*sides).flamegraph("max")
    assert len(graph.tree) >= (10 if vcpus == 1 else 4)
    assert graph.significant_share() <= 5


@pytest.mark.root
def test_a_host_program_recorded_twice_with_stacks_is_grey(tmp_path: Path) -> None:
    with demo.HostBaseline(threads=1) as workload:
        sides = [
            record(tmp_path / name, guest=False, host=True, pid=[workload.pid], callchain=True)
            for name in ("a", "b")
        ]
    answer = kvm.diff(*sides)
    graph = answer.flamegraph("max")
    assert int(graph.tree.depth.max()) > 3
    assert not answer.tree.leaves
    assert graph.significant_share() <= 5


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
def test_one_vcpu_against_three_shows_the_lock(tmp_path: Path) -> None:
    sides = []
    for vcpus in (1, 3):
        with running_guest(vcpus, f"n{vcpus}"):
            sides.append(record(tmp_path / f"{vcpus}", vm=f"n{vcpus}"))
    answer = kvm.diff(*sides)
    graph = answer.flamegraph()
    assert classes(graph)[LOCK][0] == "dp6"  # alone a vCPU waits for it rarely, or never
    assert "[guest user]" in classes(graph)  # the VMs meet although their names differ
    assert LOCK in graph.to_text(100)
