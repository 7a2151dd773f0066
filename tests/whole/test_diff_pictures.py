"""The differential flame graph of real recordings: grey but where something changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import driven
from guest import running_guest
from IPython.core.interactiveshell import InteractiveShell

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.diffflames import WIDTHS
from kvmperf_magic.errors import QueryError
from kvmperf_magic.recording import Recording
from kvmperf_widgets import DiffFlameGraph
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
    tmp_path: Path, shell: InteractiveShell
) -> None:
    sides = {"host": demo.replay("host"), "crowded": demo.replay("crowded")}
    shell.push(sides)
    shell.run_line_magic("kvm_diff", "host crowded --width max --export page.html")
    by_dso = kvm.diff(*sides.values(), pair="dso")
    assert not by_dso.linked
    assert "<figure data-link=" not in by_dso.to_html()
    with driven() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        page.get_by_role("button", name=LOCK).click()
        hits = page.locator(".f.hit > title").all_text_contents()
        assert [title.split("\n")[0] for title in hits] == [LOCK]
        assert page.locator(".found").text_content() == "52.48 % of what is shown matched"
        assert errors == []
    assert (tmp_path / "page.html").stat().st_size < 100_000


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
