"""Looks into guests are timed by CLOCK_MONOTONIC_RAW, samples by perf's clock, as fast."""

from __future__ import annotations


def ahead(begin: int, end: int, first: int, last: int) -> int:
    """How far, in ns, perf's clock is ahead of CLOCK_MONOTONIC_RAW.

    All samples, the `first` and the `last` of them by perf's clock, lie between the recording's
    `begin` and its `end` by the other, which says how far it can be; the smallest such offset is
    taken.
    """
    least, most = last - end, first - begin
    return 0 if least <= 0 <= most else min(least, most, key=abs)
