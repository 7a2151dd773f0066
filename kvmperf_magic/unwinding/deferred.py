"""User callchains that the kernel walked later, when the thread went back to user code.

Such a sample's chain ends in PERF_CONTEXT_USER_DEFERRED and a cookie; CALLCHAIN_DEFERRED records
of the same thread and cookie bring the rest, for every sample since the thread entered the
kernel (tools/perf/util/callchain.c: sample__merge_deferred_callchain(), Linux 6.19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import CONTEXT_USER_DEFERRED
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.table import Ragged, Table


def joined(samples: SampleColumns, deferred: Table, chains: Chains) -> Chains:
    """The chains with their user part in place of the cookie, where the record for it came.

    `deferred` is the sideband's table. A chain whose record was lost stays as it is.
    """
    rows, cookie = _waiting(chains)
    part = deferred.column("chain")
    assert isinstance(part, Ragged)
    record = _match(samples.tid[rows], cookie, deferred["tid"], deferred["cookie"])
    rows, record = rows[record >= 0], record[record >= 0]
    user = part.take(record)
    kept = chains.length[rows] - 2
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(kept + user.length, out=bounds[1:])
    made = np.empty(bounds[-1], np.uint64)
    kernel = Chains(chains.words, chains.start[rows], kept)
    made[Chains(made, bounds[:-1], kept).places()] = chains.words[kernel.places()]
    made[Chains(made, bounds[:-1] + kept, user.length).places()] = user.values
    return chains.replaced(rows, bounds, made)


def _waiting(chains: Chains) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """The rows whose chains end in a cookie, and their cookies."""
    rows = np.flatnonzero(chains.length >= 2)
    last = chains.start[rows] + chains.length[rows] - 1
    waits = chains.words[last - 1] == np.uint64(CONTEXT_USER_DEFERRED)
    return rows[waits], chains.words[last[waits]]


def _match(
    tid: NDArray[np.int32],
    cookie: NDArray[np.uint64],
    tids: NDArray[np.int32],
    cookies: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Which of the records has each (tid, cookie), -1 where none has: the first of several."""
    if not len(tids):
        return np.full(len(tid), -1, np.int64)
    order = np.lexsort((cookies, tids))
    known = np.empty(len(tids), [("tid", np.int32), ("cookie", np.uint64)])
    known["tid"], known["cookie"] = tids[order], cookies[order]
    wanted = np.empty(len(tid), known.dtype)
    wanted["tid"], wanted["cookie"] = tid, cookie
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, order[at], -1)
