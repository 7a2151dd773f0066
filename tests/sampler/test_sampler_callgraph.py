"""--call-graph as perf spells it."""

from __future__ import annotations

import pytest

from kvmperf_magic.errors import QueryError
from kvmperf_magic.perfdata.abi import AttrFlag, BranchType, SampleType
from kvmperf_magic.sampler.events import parse_events
from kvmperf_magic.sampler.openevent import make_attr
from kvmperf_magic.sampler.options import SamplerOptions, call_graph

CHAIN, DUMPS = SampleType.CALLCHAIN, SampleType.REGS_USER | SampleType.STACK_USER


@pytest.mark.parametrize(
    ("told", "fields", "stack"),
    [
        (False, SampleType(0), 0),
        (True, CHAIN, 0),
        ("fp", CHAIN, 0),
        ("dwarf", CHAIN | DUMPS, 8192),
        ("dwarf,1001", CHAIN | DUMPS, 1008),
        ("dwarf,65528", CHAIN | DUMPS, 65528),
        ("lbr", CHAIN | SampleType.BRANCH_STACK, 0),
    ],
)
def test_what_is_asked_of_the_kernel(told: str | bool, fields: SampleType, stack: int) -> None:
    options = SamplerOptions(["cpu-clock"], **call_graph(told))
    attr = make_attr(parse_events(["cpu-clock"], host=True, guest=False)[0], options)
    asked = SampleType(attr.sample_type) & (CHAIN | DUMPS | SampleType.BRANCH_STACK)
    assert asked == fields
    assert attr.sample_stack_user == stack
    assert bool(AttrFlag(attr.flags) & AttrFlag.EXCLUDE_CALLCHAIN_USER) == bool(stack)
    assert bool(attr.branch_sample_type & BranchType.CALL_STACK) == (told == "lbr")


@pytest.mark.parametrize(
    "told", ["", "orc", "fp,8192", "dwarf,", "dwarf,x", "dwarf,0", "dwarf,65536"]
)
def test_what_is_no_call_graph(told: str) -> None:
    with pytest.raises(QueryError):
        call_graph(told)
