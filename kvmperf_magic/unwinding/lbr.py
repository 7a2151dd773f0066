"""User frames from the processor's last branch records, kept as a call stack.

tools/perf/util/machine.c: resolve_lbr_callchain_sample(), lbr_callchain_add_kernel_ip() and
lbr_callchain_add_lbr_ip(): the kernel's part of the chain up to PERF_CONTEXT_USER, then where the
newest call went to, then where each call came from. (Joining several samples, which perf does
with --stitch-lbr, is not done.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvmperf_magic.perfdata.abi import CONTEXT_USER, BranchType, SampleType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.samples import SampleColumns


def _has_call_stack(event: Event) -> bool:
    """evsel__has_branch_callstack()."""
    attr = event.attr
    return bool(
        attr.sample_type & SampleType.BRANCH_STACK
        and attr.branch_sample_type & BranchType.CALL_STACK
    )


def recorded(events: Sequence[Event]) -> bool:
    """Whether any event's branches are a call stack."""
    return any(_has_call_stack(event) for event in events)


def stitched(
    samples: SampleColumns, events: Sequence[Event], fields: Fields, chains: Chains
) -> Chains:
    """The chains, their user part from the branches where there are any.

    As in perf, a chain without PERF_CONTEXT_USER stays as it is.
    """
    of_event = np.array([_has_call_stack(event) for event in events], np.bool_)
    branches = fields.branch_stack
    rows = np.flatnonzero(of_event[samples.event] & (branches.length > 0))
    offsets, words = chains.take(rows).compact()
    # the kernel's part: up to the first marker of user code, with it
    row = np.repeat(np.arange(len(rows)), np.diff(offsets))
    marker = np.flatnonzero(words == np.uint64(CONTEXT_USER))
    with_user, first = np.unique(row[marker], return_index=True)
    rows, kernel = rows[with_user], offsets[:-1][with_user]
    kept = marker[first] + 1 - kernel
    calls = branches.take(rows)
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(kept + 1 + calls.length, out=bounds[1:])
    made = np.empty(bounds[-1], np.uint64)
    made[Chains(made, bounds[:-1], kept).places()] = words[Chains(words, kernel, kept).places()]
    to = bounds[:-1] + kept
    made[to] = calls.pool[calls.start]["to"]
    made[Chains(made, to + 1, calls.length).places()] = calls.values["from"]
    return chains.replaced(rows, bounds, made)
