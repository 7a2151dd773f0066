"""Something to sample: one busy process a CPU, calling through a few functions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_BUSY = """
def leaf(n):
    return sum(i * i for i in range(n))
def middle(n):
    return leaf(n) + leaf(n // 2)
while True:
    middle(2000); sorted(range(1000), key=lambda i: -i); open('/dev/null').close()
"""


@contextmanager
def busy_cpus() -> Iterator[None]:
    """Every CPU busy inside the block."""
    command = [sys.executable, "-S", "-c", _BUSY]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
