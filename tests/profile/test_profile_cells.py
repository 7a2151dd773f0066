"""Samples summed by stack, facet and time, and cut: against a plain loop over the samples."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_profile_properties import labels_of, profiles

from kvmperf_magic.modes import GUEST_MODES
from kvmperf_magic.profile.cells import Cells, Gathering, Steps, beneath, parents_of
from kvmperf_magic.profile.cutting import CUT, RARE, cut
from kvmperf_magic.profile.profile import Sample, profile_of
from kvmperf_magic.profile.tree import KINDS, LABEL
from kvmperf_magic.table import Categorical

Path = tuple[str, ...]
Key = tuple[Path, str, tuple[object, ...], int]


def path_of(sample: Sample) -> Path:
    """The labels and the frames of a sample as the flame graph has them."""
    mode = sample.frames[-1][2]
    if mode not in GUEST_MODES:
        return (*labels_of(sample), *(symbol for symbol, _, _ in sample.frames))
    inside = (symbol for symbol, _, kind in sample.frames if kind in GUEST_MODES)
    return (*labels_of(sample), *inside)


def paths_of(cells: Cells) -> list[Path]:
    names, found = cells.frames.symbol.values(), list[Path]()
    for node, parent in enumerate(parents_of(cells.depth).tolist()):
        found.append((*found[parent], names[cells.frame[node]]) if parent >= 0 else ())
    return found


def told(cells: Cells, *, leaf_only: bool = False) -> tuple[Counter[Key], Counter[Key]]:
    """Weight and samples by path (or the last of it), mode, facet and step."""
    weight, samples = Counter[Key](), Counter[Key]()
    paths = paths_of(cells)
    facets = [
        (column.values() if isinstance(column, Categorical) else column).tolist()
        for column in cells.facets.values()
    ]
    for row in range(len(cells)):
        node = int(cells.node[row])
        key = (
            paths[node][-1:] if leaf_only else paths[node],
            KINDS[cells.frames.mode[cells.frame[node]]],
            tuple(column[cells.facet[row]] for column in facets),
            int(cells.step[row]),
        )
        weight[key] += cells.weight[row]
        samples[key] += int(cells.samples[row])
    return weight, samples


@settings(deadline=None)
@given(
    profiles,
    st.sampled_from([1, 3, 50, 5000]),
    st.sampled_from([(), ("pid", "cpu"), ("guest_comm",)]),
)
def test_cells_are_the_sums_of_a_plain_loop(
    drawn: list[Sample], most: int, more: tuple[str, ...]
) -> None:
    drawn = sorted(drawn, key=lambda sample: sample.time)
    profile = profile_of(drawn)
    steps = Steps.of(profile.time, 0, most)
    assert steps.count <= most
    weight, samples = Counter[Key](), Counter[Key]()
    for sample in drawn:
        facet = (sample.comm, sample.machine, sample.vcpu, sample.event)
        facet += tuple(getattr(sample, key) for key in more)
        step = (sample.time - steps.start) // steps.width
        assert 0 <= step < steps.count
        key = (path_of(sample), sample.frames[-1][2], facet, step)
        weight[key] += sample.period
        samples[key] += 1
    assert told(Gathering(profile, more).cells(steps)) == (weight, samples)


@settings(deadline=None)
@given(profiles)
def test_nodes_stand_depth_first(drawn: list[Sample]) -> None:
    profile = profile_of(drawn)
    cells = Gathering(profile).cells(Steps.of(profile.time, 0, 10))
    paths, ends = paths_of(cells), beneath(cells.depth, parents_of(cells.depth))
    for node, path in enumerate(paths):
        inside = [i for i, other in enumerate(paths) if i >= node and i < ends[node]]
        assert all(paths[i][: len(path)] == path for i in inside)
        assert len(path) == cells.depth[node]


@settings(deadline=None)
@given(profiles, st.integers(1, 12), st.integers(0, 6))
def test_what_is_cut_keeps_all_weight_and_where_it_ended(
    drawn: list[Sample], least: int, rare: int
) -> None:
    profile = profile_of(drawn)
    cells = Gathering(profile).cells(Steps.of(profile.time, 0, 5))
    made = cut(cells, least, rare)
    assert (np.diff(made.cells.depth) <= 1).all()
    ended = Counter(sample.frames[-1] for sample in drawn)
    exact = {
        symbol
        for symbol, _, _ in ended
        if all(count >= rare for frame, count in ended.items() if frame[0] == symbol)
    }
    for was, now in zip(told(cells, leaf_only=True), told(made.cells, leaf_only=True), strict=True):
        assert whole(was) == whole(now)
        for key, value in was.items():
            assert now[key] == value if key[0][0] in exact else now[key] <= value
        assert {key[0] for key in now} <= {key[0] for key in was} | {(RARE,)}
    counts = told(made.cells)[1]
    assert made.renamed == sum(n for (path, *_), n in counts.items() if path[-1] == RARE)
    assert made.shortened == sum(n for (path, *_), n in counts.items() if CUT in path)
    names, modes = made.cells.frames.symbol.values(), made.cells.frames.mode
    assert all(modes[f] == LABEL for f in made.cells.frame.tolist() if names[f] == CUT)


def whole(sums: Counter[Key]) -> Counter[tuple[object, ...]]:
    """The sums of all functions, by mode, facet and step."""
    found = Counter[tuple[object, ...]]()
    for (_, *rest), value in sums.items():
        found[tuple(rest)] += value
    return found


@settings(deadline=None)
@given(profiles)
def test_kept_stacks_stay_as_they_are(drawn: list[Sample]) -> None:
    profile = profile_of(drawn)
    cells = Gathering(profile).cells(Steps.of(profile.time, 0, 5))
    whole = Counter(path_of(sample) for sample in drawn)
    made = cut(cells, 3, 0).cells
    kept, paths = Counter[Path](), paths_of(made)
    for node, count in zip(made.node.tolist(), made.samples.tolist(), strict=True):
        kept[paths[node]] += count
    for path, count in whole.items():
        if count >= 3:
            assert kept[path] >= count
    assert cut(cells, 1, 0).cells.depth.tolist() == cells.depth.tolist()


def test_steps_are_round_and_counted_from_the_origin() -> None:
    time = np.array([1_234_567_890, 5_234_567_890], np.uint64)
    steps = Steps.of(time, 1_000_000_000, 300)
    assert steps.width == 20_000_000
    assert (steps.start - 1_000_000_000) % steps.width == 0
    assert steps.second(0) == 0.22
    assert steps.around(0.0, 0.3) == (0, 3)
    assert steps.around(0.26, 0.28) == (2, 2)
    assert steps.around(90.0, 99.0) == (steps.count - 1, steps.count - 1)
    huge = Steps.of(np.array([0, 2**64 - 1], np.uint64), 0, 100)
    assert huge.count <= 100
    assert Steps.of(np.zeros(0, np.uint64), 7, 100).count == 1
