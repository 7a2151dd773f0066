"""Heat maps of recordings: what they count, what their ranges are, and who follows them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guest import running_guest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from kvmperf_magic import demo
from kvmperf_magic.errors import FileError, QueryError
from kvmperf_magic.recorder import Recorder
from kvmperf_magic.recording import Recording, open_recording
from kvmperf_magic.reportview import ReportView
from kvmperf_widgets.picture import PLOTLY


@pytest.fixture(scope="module")
def both() -> Recording:
    """Four seconds of host and guest."""
    return demo.replay("both")


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_the_cells_hold_all_of_the_view(both: Recording) -> None:
    for view in (both, both.filter(modes="guest"), both.filter(time=(1.0, 1.5))):
        heat = view.heatmap()
        assert heat.samples.sum() == len(view)
        assert heat.weight.sum() == view.events["periods"].sum()
        assert view.heatmap(by="samples").weight.sum() == len(view)
    guest = both.heatmap(modes="guest")
    assert guest.samples.sum() == len(both.filter(modes="guest"))


def test_a_share_is_that_of_the_report_of_its_range(both: Recording) -> None:
    heat = both.heatmap("__ticket_spin_lock")
    cells = np.flatnonzero(heat.samples)[::97]
    for cell in cells.tolist():
        start = heat.start + cell * heat.cell
        table = heat.range(start, start + heat.cell).report(sort="symbol").table
        lock = table["overhead"][table["symbol"] == "__ticket_spin_lock"]
        expected = float(lock.sum())
        share = float(heat.values.reshape(-1)[cell])
        assert share == pytest.approx(expected)


def test_ranges_are_recordings_and_partition_it(both: Recording) -> None:
    heat = both.heatmap()
    edges = [heat.start + k * heat.column for k in range(heat.columns + 1)]
    counts = [len(heat.range(*pair)) for pair in pairwise(edges)]
    assert counts == heat.samples.sum(axis=1).tolist()
    assert len(heat.range(1, 2)) == len(both.filter(time=(1.0, 2.0)))  # seconds, though whole
    assert len(heat.range(None, 1.5)) + len(heat.range(1.5)) == len(both)
    with pytest.raises(QueryError):
        heat.range(float("nan"))


def test_seconds_are_those_of_the_filter_in_views_too(both: Recording) -> None:
    late = both.filter(time=(2.5, None)).heatmap()
    assert 2.5 - late.column < late.start <= 2.5
    assert len(late.range(2.5, 3.0)) == len(both.filter(time=(2.5, 3.0)))


def test_a_selection_is_told_to_listeners_and_the_widget(both: Recording) -> None:
    heat = both.heatmap()
    assert heat.selection is heat.recording
    told: list[int] = []
    heat.on_select(lambda view: told.append(len(view)))
    widget = heat.explore().widget
    widget.selected = [0.5, 1.5]  # what the page's side does
    heat.select(1.0, 1.5)
    heat.select(1.0, 1.5)  # nothing new
    assert widget.selected == [1.0, 1.5]
    assert heat.selected == (1.0, 1.5)
    assert len(heat.selection) == told[-1]
    heat.select()
    assert widget.selected == []
    expected = [len(both.filter(time=pair)) for pair in ((0.5, 1.5), (1.0, 1.5))]
    assert told == [*expected, len(both)]
    with pytest.raises(QueryError):
        heat.select(2.0, 1.0)


def test_linked_answers_are_shown_again_in_their_place(
    both: Recording, shell: InteractiveShell
) -> None:
    heat = both.heatmap()
    with capture_output() as first:
        linked = heat.link(lambda view: view.report(sort="symbol"))
    with capture_output() as second:
        heat.select(1.0, 1.5)
    with capture_output() as third:
        heat.select(50.0, 60.0)  # without samples
        linked.stop()
        heat.select()
    shown = first.outputs
    updates = [one for one in second.outputs if one.update]
    assert len(updates) == len(second.outputs)
    ids = [one.transient["display_id"] for one in shown]
    assert list(dict.fromkeys(one.transient["display_id"] for one in updates)) == ids
    # JupyterLab shows no second plotly figure in the place of a first
    flames = [PLOTLY in one.data for one in updates if "image/svg+xml" in one.data]
    assert flames == [False, True]
    samples = len(both.filter(time=(1.0, 1.5)))
    assert shown[0].data["text/plain"] == f"all of it: {len(both):,} samples"
    said = f"from second 1 until 1.5: {samples:,} samples"
    assert updates[0].data["text/plain"] == said
    assert f"{samples:,} samples" in updates[-1].data["text/plain"]
    assert {one.transient["display_id"] for one in third.outputs} == set(ids)
    assert len(third.outputs) == len(updates)  # not once more after the end


def test_the_magic_shows_it_above_the_flame_graph(
    shell: InteractiveShell, both: Recording, tmp_path: Path
) -> None:
    shell.run_line_magic("load_ext", "kvmperf_magic")
    shell.user_ns["rec"] = both
    report = shell.run_line_magic("kvm_report", "rec --modes guest --heatmap /lock/")
    assert isinstance(report, ReportView)
    assert report.heatmap is not None
    assert report.heatmap.samples.sum() == len(both.filter(modes="guest"))
    parts = [type(part).__name__ for part in report.parts()]
    assert parts.index("RecordingHeatMap") < parts.index("FlameGraph")
    plain = shell.run_line_magic("kvm_report", "rec --heatmap")
    assert plain.heatmap.part is None
    assert "kvmp-heat" in plain.to_html(tmp_path / "page.html")
    assert shell.run_line_magic("kvm_report", "rec").heatmap is None
    shell.run_line_magic("unload_ext", "kvmperf_magic")


@pytest.mark.fixtures
def test_the_unit_is_of_the_events_in_the_view(fixtures: Path) -> None:
    several = 0
    for path in sorted((fixtures / "recordings").glob("*.data*")):
        try:
            whole = open_recording(path, cache=False)
        except FileError:
            continue
        names = whole.events["name"][whole.events["samples"] > 0]
        several += len(names) > 1
        for name in names.tolist()[:3]:
            unit = whole.heatmap(event=name).unit
            assert unit.removesuffix(" ns") == re.sub(":[ukhGHpP]+$", "", name)
    assert several > 3


def test_views_without_and_with_one_sample(both: Recording) -> None:
    nothing = both.filter(time=(1000.0, None))
    for heat in (nothing.heatmap(), nothing.heatmap("lock"), nothing.heatmap(by="samples")):
        assert heat.samples.sum() == 0
        assert "no samples" in heat.to_svg()
        bundle: dict[str, Any] = heat._repr_mimebundle_()
        assert "no samples" in bundle["text/plain"]
        assert len(heat.range(0, 1)) == 0
    first = int(both.samples["time"][0])
    one = both.filter(time=(first, first + 1))
    assert one.heatmap().samples.sum() == len(one) >= 1


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
def test_a_guest_that_changes_its_mind_is_seen_in_that_second(tmp_path: Path) -> None:
    with running_guest(2, "moody", "copy") as vm:
        recorder = Recorder(
            tmp_path / "moody.data", guest=True, pid=vm.pid, frequency=500,
            guest_elf=str(demo.guest_elf()), say=lambda _: None,
        )  # fmt: skip
        with recorder:
            begun = time.monotonic()
            time.sleep(5.3)
            leap = time.monotonic() - begun  # in the sixth second, give or take a start
            vm.phase = "lock"
            time.sleep(5.0)
    heat = recorder.recording.heatmap("/lock/")
    assert heat.column == 1.0
    share = 100 * heat.part.reshape(-1) / np.maximum(heat.weight.reshape(-1), 1)
    starts = heat.start + np.arange(len(share)) * heat.cell
    filled = heat.samples.reshape(-1) > 0
    before = share[filled & (starts + heat.cell < leap - 0.3)]
    after = share[filled & (starts > leap + 0.3)]
    assert len(before) > 20
    assert len(after) > 20
    assert np.median(before) < 10
    assert np.median(after) > 60
    hot = heat.part.sum(axis=1) > 0.05 * heat.weight.sum(axis=1)
    assert np.flatnonzero(hot)[0] == int(leap)  # columns are seconds, and this is the one
    heat.select(0, int(leap))
    assert "__ticket_spin_lock" not in set(heat.selection.report(sort="symbol").table["symbol"][:3])
    heat.select(int(leap) + 1)
    assert heat.selection.report(sort="symbol").table["symbol"][0] == "__ticket_spin_lock"
