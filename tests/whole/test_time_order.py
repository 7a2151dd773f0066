"""The flame graph of recordings in the order of time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from guest import running_guest

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.errors import QueryError


def test_a_bundled_recording_over_time() -> None:
    both = demo.replay("both")
    plain, timed = both.flamegraph(), both.flamegraph(order="time")
    assert (plain.ordered, timed.ordered) == ("name", "time")
    assert plain.over_time().tree.names == timed.tree.names
    assert timed.tree.total[0] == plain.tree.total[0] == both.profile.total
    assert len(timed.tree) > 10 * len(plain.tree)
    assert "over time" in timed.to_text(100)
    assert plain.lanes[0].endswith("(host)")
    assert both.flamegraph(order="heavy").ordered == "heavy"
    assert not plain.drop("lock").lanes  # of what is left nobody knows when it was
    with pytest.raises(QueryError, match="no order 'left'"):
        both.flamegraph(order="left")


def test_a_lane_is_what_the_filter_gives() -> None:
    both = demo.replay("both")
    lane = list(both.flamegraph().lanes).index("web1 vCPU 1 (guest)")
    chosen = both.flamegraph().over_time(lane)
    filtered = both.filter(modes="guest", vcpu=1).flamegraph(order="time")
    assert np.array_equal(chosen.tree.parent, filtered.tree.parent)
    assert np.array_equal(chosen.tree.self_value, filtered.tree.self_value)
    about = f"{len(both.filter(modes='guest', vcpu=1)):,} samples · over time: web1 vCPU 1 (guest)"
    assert about in chosen.to_text(120)


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
def test_what_a_guest_did_first_stands_left(tmp_path: Path) -> None:
    output = tmp_path / "x"
    with running_guest(1, "turns", phase="search") as vm:

        def turn() -> None:
            while not output.exists():  # it records
                time.sleep(0.02)
            time.sleep(0.75)
            vm.phase = "copy"

        turning = threading.Thread(target=turn)
        turning.start()
        recording = kvm.record(
            vm="turns",
            duration=1.5,
            frequency=1000,
            output=output,
            progress=False,
            guest_elf=demo.guest_elf(),
        )
        turning.join()
    tree = recording.flamegraph(order="time").tree
    names = np.array(tree.names)[tree.name]
    copies = np.flatnonzero(names == "copy_user_generic_string")
    searches = np.flatnonzero(names == "ext3_test_allocatable")
    assert len(copies)
    assert len(searches) > 1  # the search goes to and fro between functions
    caller = tree.parent[copies[0]]
    beside = np.flatnonzero(tree.parent == caller)
    before = tree.total[beside[beside < copies[0]]].sum()
    assert 0.02 < before / tree.total[caller] < 0.98
    assert searches.max() < copies[np.argmax(tree.total[copies])]
