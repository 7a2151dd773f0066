"""Memory of this process that looks from outside as a VM's does."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_ram(size: int) -> Iterator[mmap.mmap]:
    """A mapping of its own file, as a VMM has it; of a size that no other mapping has."""
    fd = os.memfd_create("ram")
    os.ftruncate(fd, size)
    with mmap.mmap(fd, size, mmap.MAP_SHARED) as area:
        os.close(fd)
        yield area
