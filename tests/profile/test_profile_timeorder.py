"""The call tree over time against a plain loop, and against the tree without time."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.profile.profile import Sample, profile_of
from kvmperf_magic.profile.timeorder import time_tree
from kvmperf_magic.profile.tree import LABEL, CallTree, build_tree

Path = tuple[str, ...]
Node = tuple[str, float, tuple["Node", ...]]  # name, own weight, callees in order

names = st.sampled_from(["main", "lock", "read"])
samples = st.lists(
    st.builds(
        Sample,
        frames=st.lists(
            st.tuples(names, st.just("a.out"), st.just("host-user")), min_size=1, max_size=4
        ),
        period=st.integers(1, 1 << 20),
        comm=st.sampled_from(["sh", "lock"]),
    ),
    min_size=1,
    max_size=30,
)


def nodes(tree: CallTree, frame: int = 0) -> Node:
    children = np.flatnonzero(tree.parent == frame).tolist()
    name = tree.name.categories[tree.name.codes[frame]]
    return name, float(tree.self[frame]), tuple(nodes(tree, child) for child in children)


def plain(name: str, entries: list[tuple[int, Path, float]], labels: int) -> Node:
    """The tree of these (slice, stack, weight), the outermost `labels` frames never cut."""
    own = sum(weight for _, stack, weight in entries if not stack)
    turn = {at: i for i, at in enumerate(sorted({at for at, _, _ in entries}))}
    runs: list[tuple[int, str, list[tuple[int, Path, float]]]] = []
    going = sorted((stack[0], at, stack, weight) for at, stack, weight in entries if stack)
    for callee, group in groupby(going, key=lambda entry: entry[0]):
        last = None
        for _, at, stack, weight in group:
            if last is None or (turn[at] - last > 1 and labels < 1):
                runs.append((at, callee, []))
            runs[-1][2].append((at, stack[1:], weight))
            last = turn[at]
    runs.sort(key=lambda run: run[0])
    return name, float(own), tuple(plain(n, found, labels - 1) for _, n, found in runs)


def alike(one: Node, other: Node) -> bool:
    """Equal but for the order of callees that begin in one slice."""
    if one[:2] != other[:2] or len(one[2]) != len(other[2]):
        return False
    left = list(other[2])
    for callee in one[2]:
        same = next((k for k in left if alike(callee, k)), None)
        if same is None:
            return False
        left.remove(same)
    return True


@given(drawn=samples, slices=st.integers(1, 40))
def test_a_frame_is_one_as_long_as_no_slice_is_without_it(drawn: list[Sample], slices: int) -> None:
    count = len(drawn)
    cut = [i * min(slices, count) // count for i in range(count)]
    entries = [
        (at, (s.comm, *(symbol for symbol, _, _ in s.frames)), float(s.period))
        for at, s in zip(cut, drawn, strict=True)
    ]
    found = nodes(time_tree(profile_of(drawn), slices=slices))
    assert alike(found, plain("all", entries, 1))
    if slices >= count:  # no two begin in one slice
        labels = plain("all", entries, 1)[2]
        assert sorted(found[2]) == sorted(labels)


def paths(tree: CallTree) -> Counter[Path]:
    weights: Counter[Path] = Counter()
    stacks: list[Path] = []
    for i, above in enumerate(tree.parent.tolist()):
        name = tree.name.categories[tree.name.codes[i]]
        stacks.append((*stacks[above], name) if above >= 0 else ())
        weights[stacks[-1]] += tree.self[i]
    return +weights


@given(drawn=samples, most=st.integers(1, 40))
def test_it_has_the_weight_of_the_tree_without_time_and_no_more_nodes_than_wished(
    drawn: list[Sample], most: int
) -> None:
    profile = profile_of(drawn)
    plain_tree, tree = build_tree(profile), time_tree(profile, most=most)
    assert paths(tree) == paths(plain_tree)
    assert len(tree) <= max(most, len(plain_tree))
    assert tree.samples.sum() == len(drawn)
    assert (tree.total[0], tree.unit) == (plain_tree.total[0], plain_tree.unit)


def test_time_goes_from_left_to_right_in_every_vcpu() -> None:
    def sample(vcpu: int, *symbols: str) -> Sample:
        frames = [(symbol, "[guest.kernel.kallsyms]", "guest-kernel") for symbol in symbols]
        return Sample(frames, machine="vm", vcpu=vcpu)

    told = [
        sample(0, "idle"),
        sample(1, "idle"),
        sample(0, "work", "lock"),
        sample(1, "idle"),
        sample(0, "idle"),
    ]
    tree = time_tree(profile_of(told))
    (vm,) = nodes(tree)[2]
    first, second = vm[2]
    assert [name for name, _, _ in first[2][0][2]] == ["idle", "work", "idle"]
    assert [(name, own) for name, own, _ in second[2][0][2]] == [("idle", 2)]
    assert first[2][0][0] == "[guest kernel]"
    assert set(tree.mode[:4].tolist()) == {LABEL}


@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_or_one(count: int) -> None:
    drawn = [Sample([("main", "a.out", "host-user")])] * 1
    profile = profile_of(drawn).select(np.arange(count))
    assert len(time_tree(profile)) == 1 + 2 * count
