"""Feature sections come back as they were written, and damaged ones are ValueErrors."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import written
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.perfdata import features as fe
from kvmperf_magic.perfdata.abi import Feature

# perf ends strings with NUL; lone surrogates are not text
strings = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=99)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
hexes = st.binary(min_size=1, max_size=20).map(bytes.hex)


@st.composite
def topologies(draw: st.DrawFn) -> fe.CpuTopology:
    cpus = draw(st.integers(1, 5))
    ids = st.lists(u32, min_size=cpus, max_size=cpus)
    some = st.lists(strings, max_size=4)
    dies = draw(some)
    die_ids = draw(ids) if dies else []
    return fe.CpuTopology(draw(some), draw(some), draw(ids), draw(ids), dies, die_ids)


@given(strings)
def test_string(value: str) -> None:
    data = fe.encode_string(value)
    assert len(data) % fe.STRING_ALIGN == 4  # perf's padding, behind the length
    assert fe.decode_string(data) == value


@given(st.lists(strings, max_size=6))
def test_cmdline(value: list[str]) -> None:
    assert fe.decode_cmdline(fe.encode_cmdline(value)) == value


@given(
    st.integers(64, 144).flatmap(
        lambda size: st.lists(
            st.builds(
                fe.EventDesc,
                strings,
                st.binary(min_size=size, max_size=size),
                st.lists(u64, max_size=5).map(tuple),
            ),
            max_size=4,
        )
    )
)
def test_event_desc(value: list[fe.EventDesc]) -> None:
    assert fe.decode_event_desc(fe.encode_event_desc(value)) == value


@given(topologies())
def test_cpu_topology(value: fe.CpuTopology) -> None:
    data = fe.encode_cpu_topology(value)
    assert fe.decode_cpu_topology(data, len(value.core_ids)) == value
    # before perf 5.1 the section ended before the dies, before 3.19 before the ids
    old = fe.decode_cpu_topology(data[: len(data) - (len(data) % 4)], 10**6)
    assert (old.packages, old.cores, old.core_ids) == (value.packages, value.cores, [])


@given(
    st.lists(st.builds(fe.NumaNode, u32, u64, u64, strings), max_size=4),
    st.dictionaries(u32, strings, max_size=4),
    st.lists(st.tuples(strings, u32, u32), max_size=4),
)
def test_lists(nodes: list[fe.NumaNode], pmus: dict[int, str], groups: list[Any]) -> None:
    assert fe.decode_numa_topology(fe.encode_numa_topology(nodes)) == nodes
    assert fe.decode_pmu_mappings(fe.encode_pmu_mappings(pmus)) == pmus
    assert fe.decode_group_desc(fe.encode_group_desc(groups)) == groups


@given(u32, u32, u64, u64)
def test_numbers(a: int, b: int, c: int, d: int) -> None:
    assert fe.decode_nrcpus(fe.encode_nrcpus(a, b)) == (a, b)
    assert fe.decode_total_mem(fe.encode_total_mem(c)) == c
    assert fe.decode_sample_time(fe.encode_sample_time(c, d)) == (c, d)
    assert fe.decode_clockid(fe.encode_clockid(c)) == c
    clocks = fe.ClockData(a, c, d)
    assert fe.decode_clock_data(fe.encode_clock_data(clocks)) == clocks


@given(
    st.lists(
        st.builds(fe.BuildId, st.integers(-1, 2**31 - 1), st.integers(0, 7), hexes, strings),
        max_size=5,
    )
)
def test_build_ids(value: list[fe.BuildId]) -> None:
    assert fe.decode_build_ids(fe.encode_build_ids(value)) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.text(max_size=5), json_values))
def test_kvmperf(value: dict[str, Any]) -> None:
    assert fe.decode_kvmperf(fe.encode_kvmperf(value)) == value


@given(st.sampled_from([*Feature]), st.binary(max_size=120))
def test_any_bytes(feature: Feature, data: bytes) -> None:
    """Whatever stands in a section: a value, or a ValueError, never anything else."""
    with suppress(ValueError):
        fe.decode(feature, data, {Feature.NRCPUS: (2, 2)})


@pytest.mark.parametrize("feature", [*written.FEATURES])
def test_cut_sections(feature: Feature) -> None:
    """A section that is cut anywhere is a ValueError, or less of the same."""
    data = written.FEATURES[feature]
    known = {Feature.NRCPUS: (2, 2)}
    whole = fe.decode(feature, data, known)
    for size in range(len(data)):
        try:
            cut = fe.decode(feature, data[:size], known)
        except ValueError:
            continue
        assert feature in (Feature.BUILD_ID, Feature.CPU_TOPOLOGY)
        assert cut != whole or feature == Feature.BUILD_ID


def test_json_bomb() -> None:
    with pytest.raises(ValueError, match="nested"):
        fe.decode_kvmperf(b"[" * 10**6)
