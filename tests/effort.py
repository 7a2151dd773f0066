"""What work costs in processor time, for tests that nothing grows faster than its input.

How fast something is belongs to the benches: on a machine that others use too, seconds on a clock
say nothing, and even processor time varies. Work that is quadratic by mistake is 100 times as long
for ten times the input, which no load hides.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def cost(work: Callable[[], object], times: int = 3) -> float:
    """The least processor seconds of a few runs, without what is collected of other tests."""
    found = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
    finally:
        gc.enable()
    return min(found)


def grows_no_faster(big: Callable[[], object], small: Callable[[], object]) -> bool:
    """Whether ten times the input costs far less than a hundred times the work."""
    return cost(big) < 40 * cost(small) + 0.05


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is done here takes no more processor time: without end is far more."""
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds
