"""The explorer as a part of another page: weighed anew, searched and closed from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_page import Seen, write_embedded
from test_flame import lock_tree

from kvmperf_widgets import FlameGraph

pytestmark = pytest.mark.chromium


@pytest.fixture
def lock(browser: Any, tmp_path: Path) -> Iterator[Seen]:
    """all (row 4) -> qemu (20), vm (80, row 3) -> vcpu -> alloc (20), lock (60, row 1); without
    a toolbar's search; what is selected stands in `window.selected`."""
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    graph = FlameGraph(lock_tree(), "guest", "cycles", "9 samples")
    seen = Seen(page, write_embedded(graph, tmp_path / "x.html"))
    yield seen
    assert seen.errors == []
    page.close()


def weigh(seen: Seen, weights: list[float]) -> None:
    seen.page.evaluate(f"explorer.weigh(Float64Array.from({json.dumps(weights)}))")
    seen.page.wait_for_timeout(50)


def own(**weights: float) -> list[float]:
    """Own weights of the frames of `lock_tree` by their name."""
    tree = lock_tree()
    return [weights.get(tree.names[name], 0.0) for name in tree.name.tolist()]


def test_another_weight_keeps_what_was_zoomed(lock: Seen) -> None:
    lock.click(0.6, 3)
    assert lock.tip(0.02, 3).startswith("vm\n80 cycles: 80.00 % of all")
    weigh(lock, own(alloc=30.0, qemu=10.0))
    assert "40 cycles" in lock.text("about")
    assert lock.tip(0.02, 2).startswith("vm\n30 cycles: 75.00 % of all, 100.00 % of the zoomed")
    assert lock.tip(0.98, 2).startswith("vm")
    weigh(lock, own(qemu=10.0))  # nothing is left of what was zoomed
    assert lock.tip(0.02, 0).startswith("qemu\n10 cycles: 100.00 % of all")
    assert "2 frames" in lock.text("about")
    weigh(lock, own())
    assert "0 frames" in lock.text("about")
    assert lock.tip(0.5, 0) == ""
    weigh(lock, lock_tree().self_value.tolist())
    assert "9 frames" in lock.text("about")
    assert lock.tip(0.1, 3).startswith("qemu\n20 cycles")


def test_search_and_sandwich_come_from_outside_and_selections_go_there(lock: Seen) -> None:
    assert lock.page.locator("input[type=search]").is_hidden()
    assert lock.page.locator(".kvmp-x-title").count() == 0
    lock.page.evaluate("explorer.search('lock|run')")
    assert lock.text("matched") == "75.00 % matched"
    lock.page.evaluate("explorer.search('(')")
    assert "not a regular expression" in lock.text("matched")
    lock.page.evaluate("explorer.search('')")
    assert lock.text("matched") == ""
    lock.click(0.9, 1)
    tree = lock_tree()
    (frame,) = lock.page.evaluate("selected")
    assert tree.names[tree.name[frame]] == "lock"
    lock.page.evaluate("explorer.sandwich(selected[0])")
    assert "lock: callers above" in lock.text("about")
    lock.page.evaluate("explorer.sandwich(-1)")
    assert "9 frames" in lock.text("about")
    lock.page.evaluate("explorer.close()")
    assert lock.page.locator(".kvmp-x").count() == 0
