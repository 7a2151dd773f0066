"""The ring that the kernel writes records into: struct perf_event_mmap_page and what follows."""

from __future__ import annotations

import contextlib
import ctypes as ct
import mmap

PAGE = mmap.PAGESIZE
_DATA_HEAD, _DATA_TAIL = 1024, 1032  # offsets in struct perf_event_mmap_page


class Ring:
    """The ring of one CPU. `fds` are the counters that write into it, the first maps it.

    OSError of mmap where the kernel refuses `pages` (a power of two).
    """

    def __init__(self, fd: int, cpu: int, pages: int) -> None:
        self.fds = [fd]
        self.cpu = cpu
        self.size = pages * PAGE
        self._map = mmap.mmap(fd, PAGE + self.size)
        self._head = ct.c_uint64.from_buffer(self._map, _DATA_HEAD)
        self._tail = ct.c_uint64.from_buffer(self._map, _DATA_TAIL)
        self._data = memoryview(self._map)[PAGE:]
        self._read = self._tail.value

    def chunks(self) -> list[memoryview]:
        """What the kernel has written and nobody has released: whole records, in 0 to 2 parts.

        A record may lie across the two. They are views of the ring itself: use, then `release()`.
        """
        # one aligned 64-bit load; the data it announces is complete (the kernel's barrier pairs
        # with the dependency on this value and the calls between)
        self._read = self._head.value
        tail = self._tail.value
        if self._read == tail:
            return []
        start = tail % self.size
        end = start + self._read - tail
        if end <= self.size:
            return [self._data[start:end]]
        return [self._data[start:], self._data[: end - self.size]]

    def release(self) -> None:
        """Give the space that `chunks()` showed back to the kernel."""
        self._tail.value = self._read

    def close(self) -> None:
        del self._head, self._tail
        # an error on its way up still holds views of what could not be written
        with contextlib.suppress(BufferError):
            self._data.release()
            self._map.close()
