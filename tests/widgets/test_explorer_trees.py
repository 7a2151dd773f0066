"""The trees that the explorer makes in the page, against those of `regrow`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import driven
from live_page import write_live
from trees import Stack, paths, tree_of

from kvmperf_widgets import FlameGraph, Tree, regrow
from kvmperf_widgets.explorer import SCRIPTS, packed
from kvmperf_widgets.layout import ORDERS, layout
from kvmperf_widgets.live import LiveWidget, source

pytestmark = pytest.mark.chromium
FRAME = 17
OPENED = """
async function render({ model }) {
  const data = await asked(model, "tree", unpacked), { tree } = data, ids = data.ids();
  const plain = (one) => ({ parent: Array.from(one.parent), self: Array.from(one.self),
    frame: Array.from(one.frame) });
  window.made = { collapsed: plain(collapsed(tree, ids)), reversed: plain(reversed(tree, ids)),
    callees: plain(callees(tree, ids, FRAME)), callers: plain(callers(tree, ids, FRAME)) };
  for (const order of ["name", "heavy", "time"]) {
    const stands = placed({ ...tree }, order, data.rank);
    window.made[order] = { x: Array.from(stands.x), width: Array.from(stands.width) };
  }
  return () => {};
}
export default { render };
""".replace("FRAME", str(FRAME))


class Trees(LiveWidget):
    """A page that shows nothing: `made` is what the scripts make of the tree."""

    _esm = source("asked.js", "live.js", *SCRIPTS) + OPENED
    asked_for = "tree"


def recursive(seed: int, count: int = 400) -> Tree:
    """Few names, so that frames call themselves and meet in many places."""
    random = np.random.default_rng(seed)
    parent = [-1, *(int(random.integers(max(0, i - 6), i)) for i in range(1, count))]
    names = ["all", *(str(random.choice(list("abcd"))) for _ in range(1, count))]
    values = [float(random.choice([0.0, 1.0, 8.0])) for _ in range(count)]
    kinds = ["", *(str(random.choice(["host-user", "host-kernel"])) for _ in range(1, count))]
    return tree_of(parent, names, values, kinds)


def stacks(tree: Tree, made: dict[str, list[Any]]) -> dict[Stack, float]:
    """Weight by stack of what the page made: as `paths` of a tree."""
    frame = np.array(made["frame"])
    parent = np.array(made["parent"], dtype=np.int32)
    name, kind, detail = tree.name[frame], tree.kind[frame], tree.detail[frame]
    weight = np.array(made["self"], dtype=np.float64)
    return paths(Tree(parent, name, tree.names, weight, kind, tree.kinds, detail, tree.details))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_page_makes_the_trees_that_python_makes(tmp_path: Path, seed: int) -> None:
    tree = recursive(seed)
    document = write_live(Trees, packed(FlameGraph(tree, "x", "cycles")), tmp_path / "x.html")
    with driven() as browser:
        page = browser.new_page()
        page.goto(document.as_uri())
        page.wait_for_function("window.made")
        made = page.evaluate("made")
    same = tree.identity == tree.identity[FRAME]
    oracles: dict[str, Callable[[], Tree]] = {
        "collapsed": lambda: regrow.without_recursion(tree)[0],
        "reversed": lambda: regrow.reversed_tree(tree),
        "callees": lambda: regrow.merged(tree, same),
        "callers": lambda: regrow.callers(tree, same),
    }
    for name, oracle in oracles.items():
        found, wanted = stacks(tree, made[name]), paths(oracle())
        assert wanted
        assert found == pytest.approx(wanted), name
    for order in ORDERS:
        boxes = layout(tree, order=order, most=10_000)
        shown = boxes.width > 0
        frames = boxes.node[shown]
        for column, values in (("x", boxes.x), ("width", boxes.width)):
            drawn = np.array(made[order][column])[frames]
            np.testing.assert_allclose(drawn, values[shown], atol=1e-9)
