"""Where the fields of a sample stand, in words from the record's header.

The order is that of include/uapi/linux/perf_event.h, PERF_RECORD_SAMPLE. Up to READ every field
has a fixed place for one attr; from there on the place depends on the record: `after_read` is
where that part begins, and each variable field tells its own length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import AttrFlag, ReadFormat, SampleType
from kvmperf_magic.perfdata.attr import Attr

# plain numbers: enum arithmetic is slow, and a stream asks often
FIXED = tuple(
    int(field)
    for field in (
        *(SampleType.IDENTIFIER, SampleType.IP, SampleType.TID, SampleType.TIME, SampleType.ADDR),
        *(SampleType.ID, SampleType.STREAM_ID, SampleType.CPU, SampleType.PERIOD),
    )
)
TRAILER = tuple(
    int(field)
    for field in (
        *(SampleType.TID, SampleType.TIME, SampleType.ID, SampleType.STREAM_ID, SampleType.CPU),
        SampleType.IDENTIFIER,
    )
)


@dataclass(frozen=True)
class SampleLayout:
    """The layout of the samples of attrs with this sample_type and read_format."""

    sample_type: int
    read_format: int

    @classmethod
    def of(cls, attr: Attr) -> SampleLayout:
        return cls(attr.sample_type, attr.read_format if attr.sample_type & SampleType.READ else 0)

    def word(self, field: SampleType) -> int | None:
        """Where a field of fixed place stands, or None if it is not there."""
        if not self.sample_type & int(field):
            return None
        before = FIXED[: FIXED.index(field)]
        return 1 + sum(bool(self.sample_type & f) for f in before)

    @property
    def fixed(self) -> int:
        """Words up to the end of the fields of fixed place, the header counted."""
        return 1 + sum(bool(self.sample_type & f) for f in FIXED)

    def after_read(
        self, words: NDArray[np.uint64], position: NDArray[np.int64], size: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Per record: where the field behind READ begins; never behind the record's end."""
        begin = np.full(len(position), self.fixed, np.int64)
        if not self.sample_type & SampleType.READ:
            return begin
        form = self.read_format
        times = ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING
        per_value = 1 + (form & (ReadFormat.ID | ReadFormat.LOST)).bit_count()
        begin += (form & times).bit_count()
        if not form & ReadFormat.GROUP:
            return np.asarray(np.minimum(begin + per_value, size))
        at = np.minimum(position + self.fixed, len(words) - 1)
        members = np.minimum(words[at], np.uint64(1 << 16)).astype(np.int64)
        return np.asarray(np.minimum(begin + 1 + members * per_value, size))


def trailer_word(attr: Attr, field: SampleType) -> int | None:
    """Where a field of sample_id_all stands, in words back from the record's end; None: nowhere."""
    if not attr.has(AttrFlag.SAMPLE_ID_ALL) or not attr.sample_type & int(field):
        return None
    behind = TRAILER[TRAILER.index(field) :]
    return sum(bool(attr.sample_type & f) for f in behind)
