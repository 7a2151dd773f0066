"""Where the parts of a sample behind its fixed fields stand, for all records of one layout.

Each part tells its own length, so that each record's parts have places of their own. They are
found one after the other in the order of include/uapi/linux/perf_event.h, PERF_RECORD_SAMPLE,
only as far as they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import ReadFormat, SampleType
from kvmperf_magic.perfdata.attr import Attr
from kvmperf_magic.perfdata.layout import SampleLayout

# PERF_SAMPLE_BRANCH_HW_INDEX and _COUNTERS of attr.branch_sample_type
_HW_INDEX, _COUNTERS = 1 << 17, 1 << 19
WEIGHTS = int(SampleType.WEIGHT | SampleType.WEIGHT_STRUCT)  # one or the other, in one place
# plain numbers, in their order in a record
ORDER = tuple(
    int(part)
    for part in (
        *(SampleType.READ, SampleType.CALLCHAIN, SampleType.RAW, SampleType.BRANCH_STACK),
        *(SampleType.REGS_USER, SampleType.STACK_USER, WEIGHTS, SampleType.DATA_SRC),
        *(SampleType.TRANSACTION, SampleType.REGS_INTR, SampleType.PHYS_ADDR, SampleType.CGROUP),
        *(SampleType.DATA_PAGE_SIZE, SampleType.CODE_PAGE_SIZE, SampleType.AUX),
    )
)
BRANCH = np.dtype([("from", np.uint64), ("to", np.uint64), ("flags", np.uint64)])
READ_VALUE = np.dtype([("value", np.uint64), ("id", np.uint64), ("lost", np.uint64)])
_MOST = np.uint64(1 << 32)  # a count behind this is none; bounded, no sum of counts overflows


@dataclass(frozen=True)
class Shape:
    """What of an attr decides where the parts of its samples stand."""

    layout: SampleLayout
    hw_idx: bool
    counters: bool
    regs_user: int  # masks: a bit a register
    regs_intr: int

    @classmethod
    def of(cls, attr: Attr) -> Shape:
        branches = attr.branch_sample_type if attr.sample_type & SampleType.BRANCH_STACK else 0
        return cls(
            SampleLayout.of(attr),
            bool(branches & _HW_INDEX),
            bool(branches & _COUNTERS),
            attr.sample_regs_user if attr.sample_type & SampleType.REGS_USER else 0,
            attr.sample_regs_intr if attr.sample_type & SampleType.REGS_INTR else 0,
        )

    @property
    def times(self) -> int:
        """How many of time_enabled and time_running READ has."""
        both = ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING
        return (self.layout.read_format & both).bit_count()


class Parts:
    """The parts of records of one shape. `record` and `end`: their first words, and behind them."""

    def __init__(
        self,
        shape: Shape,
        words: NDArray[np.uint64],
        record: NDArray[np.int64],
        end: NDArray[np.int64],
    ) -> None:
        self.shape, self.words, self.record, self.end = shape, words, record, end
        self.short: dict[int, int] = {}  # part -> records that end within it
        self._begin: dict[int, NDArray[np.int64]] = {}
        self._todo = [part for part in ORDER if shape.layout.sample_type & part]
        self._next = np.minimum(record + shape.layout.fixed, end)
        self._whole = np.ones(len(record), np.bool_)

    def has(self, part: int) -> bool:
        return bool(self.shape.layout.sample_type & part)

    def begin(self, part: int) -> NDArray[np.int64]:
        """Where this part begins in each record; at the record's end if it is not there."""
        while part not in self._begin:
            self._step(self._todo.pop(0))
        return self._begin[part]

    def word(self, part: int, at: NDArray[np.int64] | int = 0) -> NDArray[np.uint64]:
        """The word `at` behind the beginning of a part; 0 where the record ends before it."""
        return self._at(self.begin(part) + at)

    def _at(self, place: NDArray[np.int64]) -> NDArray[np.uint64]:
        inside = place < self.end
        if inside.all():
            return self.words[place]
        return np.where(inside, self.words[np.where(inside, place, 0)], np.uint64(0))

    def count(self, part: int) -> NDArray[np.int64]:
        """The first word of a part, which is a count."""
        return np.minimum(self.word(part), _MOST).astype(np.int64)

    def _step(self, part: int) -> None:
        """Note where the next part begins, and find the one behind it."""
        begin = self._begin[part] = self._next
        behind = begin + self._length(part)
        cut = behind > self.end
        if cut.any():
            behind = np.where(cut, self.end, behind)
            if count := int(np.count_nonzero(cut & self._whole)):
                self.short[part] = count
            self._whole &= ~cut
        self._next = behind

    def _length(self, part: int) -> NDArray[np.int64] | int:
        """Words of a part whose beginning is known."""
        shape = self.shape
        if part == SampleType.READ:
            if shape.layout.read_format & ReadFormat.GROUP:
                return 1 + shape.times + self.count(part) * self.read_stride
            return shape.times + self.read_stride
        if part == SampleType.CALLCHAIN:
            return 1 + self.count(part)
        if part == SampleType.RAW:
            return 1 + (self.raw_size + 3) // 8
        if part == SampleType.BRANCH_STACK:
            return 1 + shape.hw_idx + self.count(part) * (3 + shape.counters)
        if part in (SampleType.REGS_USER, SampleType.REGS_INTR):
            user = part == SampleType.REGS_USER
            mask = shape.regs_user if user else shape.regs_intr
            return 1 + np.where(self.word(part) != 0, mask.bit_count(), 0)
        if part == SampleType.STACK_USER:
            size = self.count(part)
            return 1 + (size + 7) // 8 + (size > 0)
        if part == SampleType.AUX:
            return 1 + (self.count(part) + 7) // 8
        return 1

    @property
    def raw_size(self) -> NDArray[np.int64]:
        """Bytes of RAW: a u32, the bytes right behind it."""
        return (self.word(SampleType.RAW) & np.uint64(0xFFFFFFFF)).astype(np.int64)

    @property
    def read_stride(self) -> int:
        return len(self.read_names)

    @property
    def read_names(self) -> list[str]:
        """The words of one value of READ."""
        form = self.shape.layout.read_format
        named = {"id": ReadFormat.ID, "lost": ReadFormat.LOST}
        return ["value", *(name for name, bit in named.items() if form & bit)]

    def read_values(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per record: where its values begin, and how many there are. In a group the times stand
        before all values, else behind the one: see `read_places`."""
        begin = self.begin(SampleType.READ)
        if self.shape.layout.read_format & ReadFormat.GROUP:
            start = begin + 1 + self.shape.times
            return start, self._room(start, self.count(SampleType.READ), self.read_stride)
        whole = begin + self.shape.times + self.read_stride <= self.end
        return begin, whole.astype(np.int64)

    @property
    def read_places(self) -> dict[str, int]:
        """Where the words of a value stand, from where it begins."""
        times = 0 if self.shape.layout.read_format & ReadFormat.GROUP else self.shape.times
        return {name: at + times * (at > 0) for at, name in enumerate(self.read_names)}

    def raw(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Place and number of bytes, counted from the first byte of the words."""
        start = 8 * self.begin(SampleType.RAW) + 4
        return start, np.clip(8 * self.end - start, 0, self.raw_size)

    def branches(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start = self.begin(SampleType.BRANCH_STACK) + 1 + self.shape.hw_idx
        return start, self._room(start, self.count(SampleType.BRANCH_STACK), 3)

    def counters(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start, count = self.branches()
        start = start + 3 * count
        return start, self._room(start, count * self.shape.counters, 1)

    def registers(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        user = part == SampleType.REGS_USER
        mask = self.shape.regs_user if user else self.shape.regs_intr
        start = self.begin(part) + 1
        count = (self.word(part) != 0) * np.int64(mask.bit_count())
        return start, self._room(start, count, 1)

    def stack(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Place and bytes: of those that the kernel reserved, dyn_size are filled."""
        start = 8 * (self.begin(SampleType.STACK_USER) + 1)
        size = self.count(SampleType.STACK_USER)
        filled = np.minimum(self.word(SampleType.STACK_USER, 1 + (size + 7) // 8), _MOST)
        return start, np.clip(8 * self.end - start, 0, np.minimum(filled.astype(np.int64), size))

    def aux(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start = 8 * (self.begin(SampleType.AUX) + 1)
        return start, np.clip(8 * self.end - start, 0, self.count(SampleType.AUX))

    def _room(
        self, start: NDArray[np.int64], count: NDArray[np.int64], step: int
    ) -> NDArray[np.int64]:
        """As many whole items as the record has room for."""
        return np.asarray(np.clip((self.end - start) // step, 0, count), np.int64)
