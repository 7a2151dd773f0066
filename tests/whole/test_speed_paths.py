"""The quick ways give what the plain ones give: blocks on all cores, merged stacks, no sorts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvmperf_magic as kvm
from kvmperf_magic import parallel
from kvmperf_magic.export.folded import folded
from kvmperf_magic.numbering import hash_rows
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.profile.groups import group
from kvmperf_magic.profile.profile import Profile, Sample, profile_of
from kvmperf_magic.profile.report import report
from kvmperf_magic.profile.tree import build_tree
from kvmperf_magic.stacks import chain_hashes

ROWS = st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=30)
FRAME = st.tuples(
    st.sampled_from(["a", "b", "a b", "a;b", "a\nb"]),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["host-user", "host-kernel"]),
)
SAMPLES = st.lists(
    st.builds(
        Sample,
        st.lists(FRAME, min_size=1, max_size=4),
        period=st.integers(0, 5),
        comm=st.sampled_from(["p", "q"]),
    ),
    max_size=25,
)


@pytest.fixture(params=[1, 3, 1 << 20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows of a block: of one or few rows, several are worked on at a time."""
    size: int = request.param
    monkeypatch.setattr(parallel.blocks, "__defaults__", (size,))
    return size


def flat(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, rows)])
    return offsets, np.array([item for row in rows for item in row], np.int64)


def test_blocks_are_in_order(block: int) -> None:
    parts = parallel.blocks(lambda rows: list(range(rows.start, rows.stop)), 10)
    assert [one for part in parts for one in part] == list(range(10))
    assert all(len(part) <= block for part in parts)
    assert parallel.blocks(lambda _: pytest.fail("no rows"), 0) == []


def test_what_a_block_raises_is_raised(block: int) -> None:
    def work(rows: slice) -> None:
        if rows.start <= 7 < rows.stop:
            raise ValueError("row 7")

    with pytest.raises(ValueError, match="row 7"):
        parallel.blocks(work, 10)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@given(ROWS)
def test_hashes_tell_rows_apart(size: int, rows: list[list[int]]) -> None:
    """Equal rows have equal hashes, others others; wherever the blocks are cut."""
    offsets, values = flat(rows)
    defaults = parallel.blocks.__defaults__
    parallel.blocks.__defaults__ = (size,)
    try:
        by_row = hash_rows(offsets, values.astype(np.int32)).tolist()
        chains = Chains.of(offsets, values.astype(np.uint64))
        by_chain = chain_hashes(chains).tolist()
        turned = chain_hashes(chains.take(np.arange(len(rows))[::-1])).tolist()
    finally:
        parallel.blocks.__defaults__ = defaults
    distinct = {tuple(row) for row in rows}
    for hashes in (by_row, by_chain):
        assert len({*zip(map(tuple, rows), hashes, strict=True)}) == len(distinct)
        assert len({*hashes}) == len(distinct)
    assert turned == by_chain[::-1]


@given(st.lists(st.integers(0, 5) | st.integers(0, 2**62), max_size=60))
def test_groups_are_those_of_a_sort(codes: list[int]) -> None:
    array = np.array(codes, np.int64)
    values, ids = np.unique(array, return_inverse=True)
    found = group(array)
    assert found.ids.tolist() == ids.tolist()
    assert array[found.row].tolist() == values.tolist()


@given(SAMPLES)
def test_merged_stacks(samples: list[Sample]) -> None:
    """Stacks of the same frames are one, others stay apart."""
    stacks = profile_of(samples).stacks
    # every stack twice, as if its addresses were others
    lengths = np.diff(stacks.offsets)
    double = type(stacks)(
        np.concatenate([[0], np.cumsum(np.concatenate([lengths, lengths]))]),
        np.concatenate([stacks.frames, stacks.frames]),
    )
    ids, merged = double.merged
    assert ids.tolist() == [*range(len(stacks)), *range(len(stacks))]
    assert merged.frames.tolist() == stacks.frames.tolist()
    assert merged.offsets.tolist() == stacks.offsets.tolist()


def shown(name: str) -> str:
    return name.replace(";", ":").replace("\n", " ")


@given(SAMPLES)
def test_folded_is_the_sum_by_names(samples: list[Sample]) -> None:
    expected: Counter[str] = Counter()
    for one in samples:
        path = ";".join([one.comm, *(shown(symbol) for symbol, _, _ in one.frames)])
        expected[path] += one.period
    lines = folded(profile_of(samples)).splitlines()
    assert len({*lines}) == len(lines)
    found = {path: int(weight) for path, _, weight in (x.rpartition(" ") for x in lines)}
    assert found == {path: weight for path, weight in expected.items() if weight}
    paths = [[name + ";" for name in path.split(";")] for path in found]
    assert paths == sorted(paths)


@given(SAMPLES)
def test_flat_report_is_the_self_of_the_full_one(samples: list[Sample]) -> None:
    profile = profile_of(samples)

    def rows(children: bool) -> set[tuple[object, ...]]:
        table = report(profile, children=children).table
        names = ("comm", "dso", "symbol", "self", "samples")
        columns = [table[name].tolist() for name in names]
        return {row for row in zip(*columns, strict=True) if row[-1]}

    assert rows(children=False) == rows(children=True)


def exact(profile: Profile) -> list[object]:
    stacks, frames = profile.stacks, profile.frames
    named = zip(frames.symbol.values(), frames.dso.values(), frames.mode.tolist(), strict=True)
    names = list(named)
    bounds, flat = stacks.offsets.tolist(), stacks.frames.tolist()
    paths = [[names[i] for i in flat[bounds[s] : bounds[s + 1]]] for s in profile.stack.tolist()]
    columns = [profile.comm, profile.symbol, profile.dso, profile.machine]
    return [paths, *(list(c.values()) for c in columns), profile.vcpu.tolist()]


@pytest.mark.fixtures
@pytest.mark.parametrize(
    "name",
    [
        "GrapheneOS__platform_system_extras__perf_g_fp.data",
        "google__perf_data_converter__perf.data.branch_stack_spec",
    ],
)
def test_recordings_in_any_blocks(
    fixtures: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever the blocks, and whether stacks are asked for first or last, a recording decodes
    to the same."""
    path = fixtures / "recordings" / name
    expected = exact(kvm.open(path, cache=False).profile)
    monkeypatch.setattr(parallel.blocks, "__defaults__", (7,))
    in_blocks = kvm.open(path, cache=False).profile
    tree = build_tree(in_blocks)
    assert exact(in_blocks) == expected
    assert tree.total[0] == in_blocks.total
    chosen = np.arange(len(in_blocks))[::2]
    half = kvm.open(path, cache=False).profile.select(chosen)
    assert exact(half)[0] == expected[0][::2]  # type: ignore[index]
