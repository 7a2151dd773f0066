"""The rarer fields as columns of a recording's samples, and on its views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.recording import open_recording
from kvmperf_magic.table import Ragged

pytestmark = pytest.mark.fixtures


def test_samples_have_the_fields_of_their_events_behind_the_others(fixtures: Path) -> None:
    rec = open_recording(fixtures / "recordings" / "KDAB__hotspot__cpp-recursion_perf.data")
    table = rec.samples
    assert table.columns[:5] == ["time", "event", "cpu", "pid", "tid"]
    assert {"addr", "data_src", "regs_user", "stack_user"} <= set(table.columns)
    assert "branch_stack" not in table
    stacks = table.column("stack_user")
    assert isinstance(stacks, Ragged)
    assert len(stacks) == len(table)
    assert stacks.length.max() > 1000
    frame = table[:3].to_arrow().to_pydict()
    assert len(frame["regs_user"][0]) == int(rec.fields.regs_user_mask[0]).bit_count()
    assert isinstance(frame["stack_user"][0], bytes)


def test_a_view_has_the_fields_of_its_samples(fixtures: Path) -> None:
    rec = open_recording(fixtures / "recordings" / "KDAB__hotspot__cpp-recursion_perf.data")
    whole = rec.samples
    mask = whole["time"] > np.median(whole["time"])
    middle = int(np.median(whole["time"])) + 1
    view = rec.filter(time=(middle, int(whole["time"][-1]) + 1)).samples
    assert len(view) == np.count_nonzero(mask) > 0
    assert view["addr"].tolist() == whole["addr"][mask].tolist()
    part = whole[mask]
    for name in ("regs_user", "stack_user"):
        assert view.column(name).tolist() == part.column(name).tolist()


def test_nothing_is_decoded_before_it_is_asked_for(
    fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = open_recording(fixtures / "recordings" / "KDAB__hotspot__cpp-recursion_perf.data")

    def fail(self: Fields, name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(Fields, "column", fail)
    assert rec.samples["period"].sum() > 0
    assert len(rec.samples[:4]["ip"]) == 4
    with pytest.raises(AssertionError, match="addr"):
        rec.samples["addr"]
