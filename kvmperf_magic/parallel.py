"""Blocks of rows worked on by all cores: numpy lets go of the interpreter while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

BLOCK = 32768  # rows: the temporaries of a block then stay in the cache

_Result = TypeVar("_Result")


def blocks(work: Callable[[slice], _Result], rows: int, size: int = BLOCK) -> list[_Result]:
    """work(slice) for each block of `rows`, in order; an exception of any is raised."""
    slices = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    cores = min(os.cpu_count() or 1, len(slices))
    if cores <= 1:
        return [work(one) for one in slices]
    with ThreadPoolExecutor(cores) as pool:
        try:
            results = pool.map(work, slices)
        except RuntimeError:  # the interpreter ends, and starts no thread any more
            return [work(one) for one in slices]
        return list(results)
