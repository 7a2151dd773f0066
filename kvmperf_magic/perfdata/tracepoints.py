"""The fields of a tracepoint's samples as columns, decoded when first asked for.

What a sample's RAW field holds is described by the tracepoint's Format. libtraceevent reads it
field by field (event-parse.c: tep_read_number_field(), dynamic_offset_field()); here each field
is one gather over all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata import tracingdata
from kvmperf_magic.perfdata.abi import EventType, SampleType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.cursor import text
from kvmperf_magic.perfdata.printformat import Naming, namings
from kvmperf_magic.perfdata.strings import categorical, unique_rows
from kvmperf_magic.perfdata.tracingdata import Format, FormatField
from kvmperf_magic.table import Categorical, Column, Ragged

_Places = tuple[NDArray[np.int64], NDArray[np.int64]]  # start and length in bytes, a row each


def columns(format: Format, raw: Ragged) -> dict[str, Column]:
    """All fields of these samples: see TracepointFields."""
    fields = TracepointFields(format, lambda: raw)
    return {name: fields.column(name) for name in fields.names}


def fields_of(
    event: NDArray[np.int32],
    events: Sequence[Event],
    tracing: bytes | None,
    raw: Callable[[], Ragged],
) -> TracepointFields | None:
    """The fields of samples of these events (indices), where all are of one tracepoint and the
    recording holds its format; `raw` gives the samples' RAW fields."""
    if not tracing or not len(event) or (event != event[0]).any():
        return None
    attr = events[event[0]].attr
    if attr.type != EventType.TRACEPOINT or not attr.sample_type & SampleType.RAW:
        return None
    try:
        format = tracingdata.parse(tracing).events.get(attr.config)
    except ValueError:  # the file's damage tells of it
        return None
    return TracepointFields(format, raw) if format else None


class TracepointFields:
    """The fields of n samples of one tracepoint; `raw` gives their n rows of bytes.

    Numbers, enums and pointers are integers of their size, `bool` is bool, char arrays and
    dynamic strings are a Categorical, all other arrays a Ragged. A field whose number the
    tracepoint prints by name has a second column `<field>_name` with that text: `exit_reason` is
    48 and `exit_reason_name` "EPT_VIOLATION". A field that a record is too short for is 0 or
    empty there, and `problems` tells how many were, of the columns decoded so far.
    """

    def __init__(self, format: Format, raw: Callable[[], Ragged]) -> None:
        self.format = format
        self._raw_of = raw
        self._short: dict[str, int] = {}
        self._fields = {field.name: field for field in format.fields}
        numbers = {field.name for field in format.fields if field.is_integer}
        self._namings: dict[str, Naming] = {}
        for naming in namings(format.print_format):
            column = f"{naming.field}_name"
            if column not in self._fields and numbers.issuperset(naming.needs):
                self._namings[column] = naming

    @property
    def names(self) -> list[str]:
        """Columns in the order of the format, a field's name behind the field."""
        found = []
        for name in self._fields:
            found.append(name)
            if f"{name}_name" in self._namings:
                found.append(f"{name}_name")
        return found

    def column(self, name: str) -> Column:
        """KeyError for a name that is none of `names`."""
        if name in self._namings:
            return self._named(self._namings[name])
        field = self._fields[name]
        if field.is_integer:
            numbers = self._integers(field)
            return numbers.astype(np.bool_) if field.type == "bool" else numbers
        start, length = self._places(field)
        if field.is_string:
            return self._strings(start, length)
        dtype = self._dtype(field, field.element_size)
        items = Ragged.view(
            start, length // dtype.itemsize, self._unaligned(dtype), step=dtype.itemsize
        )
        if dtype.isnative:
            return items
        return Ragged(items.offsets, items.values.astype(dtype.newbyteorder("=")))

    def lazy(self, taken: Container[str]) -> dict[str, Callable[[], Column]]:
        """The columns of a Table that has `taken` already: `pid` becomes `sched_wakeup.pid`."""
        return {
            f"{self.format.name}.{name}" if name in taken else name: self._decoder(name)
            for name in self.names
        }

    def _decoder(self, name: str) -> Callable[[], Column]:
        return lambda: self.column(name)

    @property
    def problems(self) -> list[str]:
        """One line for each field that records were too short for."""
        return [
            f"{count} samples of {self.format.event} are too short for their {name}"
            for name, count in self._short.items()
        ]

    @cached_property
    def _raw(self) -> Ragged:
        raw = self._raw_of()
        # windows that lie anywhere in the pool need it in one piece
        if raw.step == 1 and raw.pool.flags.c_contiguous:
            return raw
        return Ragged(raw.offsets, np.ascontiguousarray(raw.values))

    def _dtype(self, field: FormatField, size: int) -> np.dtype[np.integer]:
        return np.dtype(f"{self.format.endian}{'i' if field.signed else 'u'}{size}")

    def _unaligned(self, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """Item i is what begins at byte i of the pool."""
        pool = self._raw.pool
        count = max(len(pool) - dtype.itemsize + 1, 0)
        return np.ndarray(count, dtype, pool.data, strides=(1,))

    def _whole(self, field: FormatField) -> NDArray[np.bool_]:
        """Rows that hold this field to its end; the others are counted."""
        whole = self._raw.length >= field.offset + field.size
        self._count_short(field, ~whole)
        return np.asarray(whole)

    def _count_short(self, field: FormatField, short: NDArray[np.bool_]) -> None:
        if count := int(np.count_nonzero(short)):
            self._short[field.name] = count

    def _integers(self, field: FormatField) -> NDArray[np.integer]:
        dtype = self._dtype(field, field.size)
        whole = self._whole(field)
        at = self._raw.start + field.offset
        if whole.all():
            return np.asarray(self._unaligned(dtype)[at], dtype.newbyteorder("="))
        column = np.zeros(len(whole), dtype.newbyteorder("="))
        column[whole] = self._unaligned(dtype)[at[whole]]
        return column

    def _places(self, field: FormatField) -> _Places:
        """Where the bytes of an array stand in the pool; nothing where they are not all there."""
        if not field.dynamic:
            whole = self._whole(field)
            return self._raw.start + field.offset, np.where(whole, field.size, 0).astype(np.int64)
        told = self._integers(field).astype(np.int64)
        begin, length = told & 0xFFFF, told >> 16 & 0xFFFF
        if field.dynamic == "__rel_loc":
            begin += field.offset + field.size
        bad = (self._raw.length < field.offset + field.size) | (begin + length > self._raw.length)
        self._count_short(field, bad)
        return self._raw.start + begin, np.where(bad, 0, length)

    def _strings(self, start: NDArray[np.int64], length: NDArray[np.int64]) -> Categorical:
        """Bytes up to the first NUL, all of one length at a time."""
        codes = np.zeros(len(start), np.int32)
        found: list[bytes] = []
        lengths, which = np.unique(length, return_inverse=True)
        for i, size in enumerate(lengths.tolist()):
            rows = slice(None) if len(lengths) == 1 else np.flatnonzero(which == i)
            some, code = [b""], np.zeros(1, np.intp)
            if size:
                some, code = _distinct(self._unaligned(np.dtype(f"V{size}"))[start[rows]])
            codes[rows] = code + len(found)
            found += some
        return categorical(codes, [text(one) for one in found])

    def _named(self, naming: Naming) -> Categorical:
        """The names, worked out once for each combination of the numbers they depend on."""
        combined = np.zeros(len(self._raw), np.int64)
        known: list[tuple[int, ...]] = [()]
        for name in naming.needs:
            values, which = np.unique(self._integers(self._fields[name]), return_inverse=True)
            pairs, combined = np.unique(combined * len(values) + which, return_inverse=True)
            numbers = values.tolist()
            known = [
                (*known[pair // len(numbers)], numbers[pair % len(numbers)])
                for pair in pairs.tolist()
            ]
        names = [naming.name(dict(zip(naming.needs, numbers, strict=True))) for numbers in known]
        return categorical(combined.astype(np.int32), names)


def _distinct(rows: NDArray[np.generic]) -> tuple[list[bytes], NDArray[np.intp]]:
    """The distinct ones among rows of bytes (V dtype), and which of them each row is."""
    size = rows.dtype.itemsize
    words = np.zeros((len(rows), -(-size // 8)), np.uint64)
    words.view(np.uint8).reshape(len(rows), -1)[:, :size] = rows.view(np.uint8).reshape(-1, size)
    found, which = unique_rows(words)
    return [one.tobytes() for one in found], which
