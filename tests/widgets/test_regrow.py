"""The trees made of a tree: what becomes of every stack, against plain Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby

import numpy as np
import pytest
from effort import grows_no_faster
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from trees import Stack, big_tree, deep_tree, paths, summed, tree_of, trees

from kvmperf_widgets.regrow import (
    BEYOND,
    callers,
    dropped,
    merged,
    reversed_tree,
    without,
    without_recursion,
)
from kvmperf_widgets.tree import Tree

NAMES = st.sampled_from("abcdefgh")


def is_trie(tree: Tree) -> bool:
    """Whether no frame has two callees that are the same."""
    seen = set(zip(tree.parent.tolist(), tree.identity.tolist(), strict=True))
    return len(seen) == len(tree)


def called(tree: Tree, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([tree.names[i] == name for i in tree.name])


@given(trees())
def test_reversed_tree_holds_the_same_stacks_backwards(tree: Tree) -> None:
    turned = {stack[::-1]: weight for stack, weight in paths(reversed_tree(tree)).items()}
    assert turned == pytest.approx(paths(tree))


@given(trees(), NAMES)
def test_merged_tree_holds_all_that_a_name_calls(tree: Tree, name: str) -> None:
    chosen = called(tree, name)
    if not chosen.any():
        return
    root = ((tree.names[tree.name[0]], tree.kinds[tree.kind[0]]),)
    beneath = []
    for stack, weight in paths(tree).items():
        whole = root + stack
        at = next((i for i, frame in enumerate(whole) if frame[0] == name), None)
        if at is not None:
            beneath.append((whole[at + 1 :], weight))
    assert paths(merged(tree, chosen)) == pytest.approx(summed(beneath))


@given(trees(), NAMES)
def test_callers_are_the_ways_to_a_name(tree: Tree, name: str) -> None:
    chosen = called(tree, name)
    if not chosen.any() or not tree.total[chosen].any():
        return

    def way(stack: Stack) -> Stack | None:
        at = next((i for i, frame in enumerate(stack) if frame[0] == name), None)
        return None if at is None else stack[:at][::-1]

    if tree.names[tree.name[0]] == name:
        wanted = {(): float(tree.total[0])}
    else:
        ways = ((way(stack), weight) for stack, weight in paths(tree).items())
        wanted = summed((stack, weight) for stack, weight in ways if stack is not None)
    found = callers(tree, chosen)
    assert paths(found) == pytest.approx(wanted)
    assert found.total[0] == pytest.approx(merged(tree, chosen).total[0])
    assert is_trie(found)


@given(trees(), NAMES)
def test_frames_taken_out_leave_their_weight_to_their_callers(tree: Tree, name: str) -> None:
    left, new = without(tree, called(tree, name))
    wanted = summed(
        (tuple(frame for frame in stack if frame[0] != name), weight)
        for stack, weight in paths(tree).items()
    )
    assert paths(left) == pytest.approx(wanted)
    assert is_trie(left)
    assert np.all(left.depth[new] <= tree.depth)
    for frame in np.flatnonzero(~called(tree, name)).tolist():
        assert left.names[left.name[new[frame]]] == tree.names[tree.name[frame]]


@given(trees())
def test_direct_recursion_becomes_one_frame(tree: Tree) -> None:
    root = ((tree.names[tree.name[0]], tree.kinds[tree.kind[0]]),)
    wanted = summed(
        (tuple(frame for frame, _ in groupby(root + stack))[1:], weight)
        for stack, weight in paths(tree).items()
    )
    left, _ = without_recursion(tree)
    assert paths(left) == pytest.approx(wanted)
    again, new = without_recursion(left)
    assert len(again) == len(left) == len(set(new.tolist()))


@given(trees(), NAMES)
def test_dropped_stacks_are_those_that_hold_the_name(tree: Tree, name: str) -> None:
    left = dropped(tree, called(tree, name))
    kept = {s: w for s, w in paths(tree).items() if name not in {frame[0] for frame in s}}
    assert paths(left) == (kept if tree.names[tree.name[0]] != name else {})
    assert len(left) == len(tree)


@pytest.mark.parametrize("recursive", [False, True])
def test_deep_trees_take_no_longer_and_lose_no_weight(recursive: bool) -> None:
    tree = deep_tree(recursive=recursive)
    assert int(tree.depth.max()) >= 1000 - (not recursive)
    some = called(tree, tree.names[7])
    small = deep_tree(len(tree) // 10, recursive=recursive)
    few = called(small, small.names[7])
    make: Callable[[Tree, NDArray[np.bool_]], object]
    for make in (
        lambda of, _: reversed_tree(of),
        callers,
        merged,
        without,
        lambda of, _: without_recursion(of),
        dropped,
    ):
        assert grows_no_faster(partial(make, tree, some), partial(make, small, few))
    turned = reversed_tree(tree)
    assert turned.total[0] == pytest.approx(tree.total[0])
    # callers that are not grown on are told, and are narrow or far away
    cut = np.flatnonzero(turned.name == turned.names.index(BEYOND))
    assert len(cut)
    narrow = turned.total[cut] < 0.0003 * turned.total[0]
    assert np.all(narrow | (turned.depth[cut] > 40))


def test_the_callers_of_a_real_profile_are_all_there() -> None:
    turned = reversed_tree(big_tree(20_000))
    assert BEYOND not in turned.names


def test_a_tree_of_one_frame_stays_one() -> None:
    tree = tree_of([-1], ["all"], [7])
    everything = np.ones(1, dtype=np.bool_)
    for made in (
        reversed_tree(tree),
        callers(tree, everything),
        merged(tree, everything),
        without(tree, everything)[0],
        without_recursion(tree)[0],
    ):
        assert len(made) == 1
        assert made.total[0] == 7
