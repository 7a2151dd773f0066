"""Samples that carry the values of counters (READ): one sample a counter that has moved.

tools/perf/util/session.c: evlist__deliver_sample(), deliver_sample_group() and
deliver_sample_value(). The leader of a group samples for all its members; the period of each is
how much its counter grew since it was last read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import AttrFlag, ReadFormat, SampleType
from kvmperf_magic.perfdata.attr import Attr, EventIds
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.samples import SampleColumns


class GroupReads:
    """Remembers the last value of every counter, so that samples can come in batches."""

    def __init__(self) -> None:
        # by (id, tid): tid -1 where threads share the counter
        self._last: dict[tuple[int, int], int] = {}

    def deliver(self, samples: SampleColumns, events: EventIds) -> SampleColumns:
        """The samples with those that carry values replaced by one a value, in their order.

        A value that did not grow gives no sample, nor does one of a counter that no event has.
        Where no event records values, `samples` itself is returned.
        """
        carries = np.array([_carries_values(event.attr) for event in events.events], np.bool_)
        if not carries.any() or not len(samples):
            return samples
        reading = carries[samples.event]
        read = Fields(samples, events.events).read
        count = np.where(reading, read.length, 1)
        row = np.repeat(np.arange(len(samples)), count)
        event, period = samples.event[row], samples.period[row]
        of_value = np.flatnonzero(reading[row])
        values = read.take(np.flatnonzero(reading)).values
        event[of_value] = events.owners(values["id"])
        inherit = np.array([event.attr.has(AttrFlag.INHERIT) for event in events.events])
        tid = np.where(inherit[event[of_value]], samples.tid[row[of_value]], -1)
        period[of_value] = self._growth(values["id"], tid, values["value"])
        kept = np.ones(len(row), np.bool_)
        kept[of_value] = (event[of_value] >= 0) & (period[of_value] > 0)
        return replace(samples.take(row[kept]), event=event[kept], period=period[kept])

    def _growth(
        self, id: NDArray[np.uint64], tid: NDArray[np.int32], value: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """By how much each value is more than the one before it of the same counter."""
        if not len(id):
            return value
        order = np.lexsort((tid, id))
        id, tid, value = id[order], tid[order], value[order]
        first = np.ones(len(id), np.bool_)
        first[1:] = (id[1:] != id[:-1]) | (tid[1:] != tid[:-1])
        before = np.zeros(len(id), np.uint64)
        before[1:] = value[:-1]
        starts = np.flatnonzero(first)
        keys = list(zip(id[starts].tolist(), tid[starts].tolist(), strict=True))
        before[starts] = [self._last.get(key, 0) for key in keys]
        ends = np.append(starts[1:], len(id)) - 1
        self._last.update(zip(keys, value[ends].tolist(), strict=True))
        grown = np.empty(len(id), np.uint64)
        grown[order] = value - before
        return grown


def _carries_values(attr: Attr) -> bool:
    """Without ids (which perf always asks for) nobody can tell whose value it is: the sample
    stays as it is then."""
    return bool(attr.sample_type & SampleType.READ and attr.read_format & ReadFormat.ID)
