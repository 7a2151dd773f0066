"""The layout core: what must hold of every tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import big_tree, tree_of, trees

from kvmperf_widgets.layout import ORDERS, Layout, Order, layout
from kvmperf_widgets.tree import Tree


def check(tree: Tree, root: int, laid: Layout, most: int) -> None:
    boxes = len(laid.node) - laid.above
    assert boxes <= most
    assert laid.node[laid.above] == root
    assert np.all(laid.parent[1:] < np.arange(1, len(laid.parent)))
    children = np.arange(laid.above + 1, len(laid.node))
    up = laid.parent[children]
    assert np.all(laid.row[children] == laid.row[up] + 1)
    # children fit in their parent, and do not overlap
    assert np.all(laid.x[children] >= laid.x[up] - 1e-9)
    right = laid.x + laid.width
    assert np.all(right[children] <= right[up] + 1e-9)
    same = np.flatnonzero(np.diff(laid.row) == 0)
    same = same[same >= laid.above]
    assert np.all(right[same] <= laid.x[same + 1] + 1e-9)
    # widths and weights sum: nothing is lost by pruning
    given_up = np.bincount(up, laid.total[children], len(laid.node))
    whole = laid.node >= 0
    whole[: laid.above] = False
    np.testing.assert_allclose(
        (given_up + laid.self_value)[whole], laid.total[whole], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        laid.total[whole], tree.total[laid.node[whole]], rtol=1e-9, atol=1e-9
    )
    assert laid.merged[laid.above :].sum() == laid.frames
    assert laid.shown == np.count_nonzero(laid.node[laid.above :] >= 0)
    dots = laid.node < 0
    dots[: laid.above] = False
    assert np.all(laid.merged[dots] > 1)
    deep = laid.deeper > 0
    assert laid.share == pytest.approx(
        100 - 100 * laid.width[dots & ~deep].sum() if tree.total[root] else 100, abs=1e-6
    )
    assert laid.beyond == pytest.approx(100 * laid.width[deep].sum(), abs=1e-6)


orders = st.sampled_from(ORDERS)


@given(trees(), st.data(), st.integers(2, 30), st.sampled_from([0.0, 0.01, 0.2]), orders)
def test_geometry_holds_whatever_is_pruned(
    tree: Tree, data: st.DataObject, most: int, least: float, order: Order
) -> None:
    root = data.draw(st.integers(0, len(tree) - 1))
    check(tree, root, layout(tree, root, most=most, least=least, order=order), most)


@given(trees(), st.data(), st.integers(2, 8), st.integers(1, 4), st.integers(2, 80), orders)
def test_rows_are_bounded_and_tell_how_deep_it_goes(
    tree: Tree, data: st.DataObject, rows: int, callers: int, most: int, order: Order
) -> None:
    root = data.draw(st.integers(0, len(tree) - 1))
    laid = layout(tree, root, rows=rows, callers=callers, most=most, order=order)
    check(tree, root, laid, most)
    above = tree.ancestors(root)
    assert laid.above == min(len(above), callers)
    assert laid.merged[: laid.above].sum() == len(above)
    assert int(laid.row.max()) < laid.above + rows
    full = layout(tree, root)
    ends = {  # of every frame: the last row that it or a frame beneath it has
        int(node): int(row) - full.above
        for node, row in zip(full.node[full.above :], full.row[full.above :], strict=True)
    }
    for node in sorted(ends, reverse=True):
        if node != root:
            ends[int(tree.parent[node])] = max(ends[int(tree.parent[node])], ends[node])
    if ends[root] < rows:
        assert not laid.deeper.any()
    for box in np.flatnonzero(laid.deeper):
        assert laid.row[box] - laid.above == rows - 1
        caller = int(laid.node[laid.parent[box]])
        end = max(ends[frame] for frame in np.flatnonzero(laid.box == box).tolist())
        assert laid.deeper[box] == end - rows + 2
        opened = layout(tree, caller, rows=rows, callers=callers)
        assert len(opened.node) > opened.above + 1  # the focus shows what was merged


def test_a_spire_does_not_take_the_boxes_of_the_wide() -> None:
    spire = [*range(300)]
    wide = [0] * 50
    names = ["all", *["eval"] * 300, *(f"leaf_{i}" for i in range(50))]
    tree = tree_of([-1, *spire, *wide], names, [0.0] * 300 + [100.0] + [1.0] * 50)
    laid = layout(tree, most=100, rows=45)
    assert laid.shown == 44 + 50
    assert int(laid.row.max()) == 44
    assert laid.deeper.tolist().count(0) == len(laid.deeper) - 1
    assert int(laid.deeper.max()) == 300 - 43
    assert laid.share == 100
    assert laid.beyond == pytest.approx(100 * 100 / 150)


@given(trees(), st.integers(2, 30))
def test_order_is_by_name_and_does_not_change_with_pruning(tree: Tree, most: int) -> None:
    full = layout(tree, most=10_000)
    pruned = layout(tree, most=most)
    for laid in (full, pruned):
        names = [tree.names[tree.name[n]] if n >= 0 else "\U0010ffff" for n in laid.node]
        for a in range(1, len(names)):
            for b in range(a + 1, len(names)):
                if laid.parent[a] == laid.parent[b]:
                    assert names[a] <= names[b]
    order = {int(node): i for i, node in enumerate(full.node)}
    assert [order[n] for n in pruned.node.tolist() if n >= 0] == sorted(
        order[n] for n in pruned.node.tolist() if n >= 0
    )


@given(trees(), st.integers(2, 30), orders)
def test_every_frame_is_in_the_box_that_is_said(tree: Tree, most: int, order: Order) -> None:
    laid = layout(tree, most=most, order=order)
    inside: dict[int, list[int]] = {box: [] for box in range(len(laid.node))}
    for frame, box in enumerate(laid.box.tolist()):
        if box >= 0:
            inside[box].append(frame)
    for box, frames in inside.items():
        if laid.node[box] >= 0:
            assert frames == [laid.node[box]]
        assert laid.total[box] == pytest.approx(tree.total[frames].sum())
        assert {int(tree.parent[f]) for f in frames[1:]} <= {int(tree.parent[frames[0]])}
        if order == "time":  # siblings from left to right as they stand in the tree
            beside = [b for b in inside if b > box and laid.parent[b] == laid.parent[box]]
            assert all(max(frames) < min(inside[b]) for b in beside if laid.width[b] > 0)


@given(trees(), st.integers(2, 30))
def test_left_heavy_has_the_heaviest_first_and_the_rest_last(tree: Tree, most: int) -> None:
    laid = layout(tree, most=most, order="heavy")
    for box in range(len(laid.node)):
        beneath = np.flatnonzero(laid.parent == box)
        frames = beneath[laid.node[beneath] >= 0]
        assert np.all(np.diff(laid.total[frames]) <= 0)
        assert beneath.tolist() == [*frames, *beneath[laid.node[beneath] < 0]]


def test_in_the_order_of_time_what_is_pruned_stays_where_it_was() -> None:
    names = ["all", "z", "b", "c", "a", "d", "e", "y"]
    tree = tree_of([-1, *[0] * 7], names, [0, 1, 2, 50, 3, 1, 1, 40])
    laid = layout(tree, most=5, order="time")
    assert laid.node.tolist() == [0, -1, 3, -1, 7]
    assert laid.total.tolist() == [98, 3, 50, 5, 40]
    assert laid.merged.tolist() == [1, 2, 1, 3, 1]
    assert laid.box.tolist() == [0, 1, 1, 2, 3, 3, 3, 4]


def test_the_widest_are_kept_and_the_rest_is_one_box() -> None:
    tree = tree_of([-1, 0, 0, 0, 0], ["all", "a", "b", "c", "d"], [0, 1, 50, 2, 40])
    laid = layout(tree, most=4)
    assert laid.node.tolist() == [0, 2, 4, -1]
    assert laid.total.tolist() == [93, 50, 40, 3]
    assert laid.x.tolist() == pytest.approx([0, 0, 50 / 93, 90 / 93])
    assert (laid.frames, laid.shown, laid.merged.tolist()) == (5, 3, [1, 1, 1, 2])


def test_a_big_tree_is_pruned_to_its_bounds() -> None:
    tree = big_tree()
    laid = layout(tree, most=800)
    assert 700 < len(laid.node) <= 800
    check(tree, 0, laid, 800)


def test_a_tree_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="before its child"):
        tree_of([-1, 2, 0], ["a", "b", "c"], [1, 1, 1])
    with pytest.raises(ValueError, match="not negative"):
        tree_of([-1], ["a"], [-1])
