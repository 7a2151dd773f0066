"""The events of a recording: their attrs, their ids, and which event a sample belongs to."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.perfdata.abi import AttrFlag, EventType, SampleType
from kvmperf_magic.perfdata.generic_events import CACHES, HARDWARE, OPERATIONS, SOFTWARE

ATTR_SIZE_VER0 = 64
# struct perf_event_attr up to config4 (144 bytes); shorter ones read as if zeros followed
_ATTR = struct.Struct("<IIQQQQQIIQQQQIiQIHHIIQQQ")


@dataclass(frozen=True)
class Attr:
    """perf_event_attr of a file, of whatever size it was written in: newer fields are 0 then."""

    type: int
    size: int
    config: int
    sample_period: int
    sample_type: int
    read_format: int
    flags: int
    wakeup_events: int
    bp_type: int
    config1: int
    config2: int
    branch_sample_type: int
    sample_regs_user: int
    sample_stack_user: int
    clockid: int
    sample_regs_intr: int
    aux_watermark: int
    sample_max_stack: int
    aux_sample_size: int
    sig_data: int
    config3: int
    config4: int

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """ValueError for fewer than 64 bytes; fields newer than we know are ignored."""
        if len(raw) < ATTR_SIZE_VER0:
            raise ValueError(f"an attr of {len(raw)} bytes: the smallest is {ATTR_SIZE_VER0}")
        size = int.from_bytes(raw[4:8], "little") or ATTR_SIZE_VER0
        values = list(_ATTR.unpack(raw[:size].ljust(_ATTR.size, b"\0")[: _ATTR.size]))
        del values[20], values[18]  # the reserved fields behind max_stack and aux_sample_size
        return cls(*values)

    def has(self, flag: AttrFlag) -> bool:
        return bool(self.flags & flag)

    @property
    def freq(self) -> bool:
        """sample_period is a frequency in Hz."""
        return self.has(AttrFlag.FREQ)

    @property
    def precise(self) -> int:
        """precise_ip: how many `p` the event's modifier has."""
        return (self.flags // AttrFlag.PRECISE_IP_LOW) & 3


@dataclass(frozen=True)
class Event:
    """One event of a file. `ids` are the kernel's ids of its counters, u64."""

    name: str
    attr: Attr
    ids: NDArray[np.uint64]


def event_name(attr: Attr, pmus: Mapping[int, str] | None = None) -> str:
    """The name perf makes up where a file gives none: tools/perf/util/evsel.c, evsel__name().

    `pmus`: names of PMUs by attr.type (PMU_MAPPINGS). perf calls the events of these, and
    tracepoints, "unknown": ours say what is known.
    """
    kind, config = attr.type, attr.config
    if kind == EventType.HARDWARE and config & 0xFFFFFFFF < len(HARDWARE):
        return HARDWARE[config & 0xFFFFFFFF][0] + _modifiers(attr)
    if kind == EventType.SOFTWARE and config < len(SOFTWARE):
        return SOFTWARE[config][0] + _modifiers(attr)
    if kind == EventType.HW_CACHE:
        cache, op, result = config & 0xFF, config >> 8 & 0xFF, config >> 16 & 0xFF
        if cache < len(CACHES) and op < len(OPERATIONS):
            plural, singular = OPERATIONS[op][:2]
            name = f"{singular}-misses" if result else plural
            return f"{CACHES[cache][0]}-{name}{_modifiers(attr)}"
    if kind == EventType.RAW:
        return f"raw {config:#x}{_modifiers(attr)}"
    if kind == EventType.TRACEPOINT:
        return f"tracepoint {config}"
    if kind == EventType.BREAKPOINT:
        access = "".join(c for c, bit in zip("rwx", (1, 2, 4), strict=True) if attr.bp_type & bit)
        return f"mem:{attr.config1:#x}:{access}{_modifiers(attr)}"
    if pmus and kind in pmus:
        terms = {"config": config, "config1": attr.config1, "config2": attr.config2}
        listed = ",".join(f"{term}={value:#x}" for term, value in terms.items() if value)
        return f"{pmus[kind]}/{listed}/{_modifiers(attr).removeprefix(':')}"
    return f"type {kind} config {config:#x}{_modifiers(attr)}"


def _modifiers(attr: Attr) -> str:
    """evsel__add_modifiers()."""
    text = ""
    privileges = (AttrFlag.EXCLUDE_KERNEL, AttrFlag.EXCLUDE_USER, AttrFlag.EXCLUDE_HV)
    restricted = any(attr.has(flag) for flag in privileges)
    if restricted:
        text += "".join(c for c, f in zip("kuh", privileges, strict=True) if not attr.has(f))
    text += "p" * attr.precise
    guest_excluded = attr.has(AttrFlag.EXCLUDE_GUEST)
    # perf leaves the guest out by default as soon as there is any other modifier
    if attr.has(AttrFlag.EXCLUDE_HOST) or guest_excluded == (restricted or attr.precise > 0):
        text += "" if attr.has(AttrFlag.EXCLUDE_HOST) else "H"
        text += "" if guest_excluded else "G"
    return f":{text}" if text else ""


class EventIds:
    """Which event an id belongs to: evlist__event2evsel() for whole columns."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)
        owner = np.repeat(np.arange(len(events)), [len(e.ids) for e in events]).astype(np.int32)
        ids = np.concatenate([e.ids for e in events] or [np.zeros(0, np.uint64)])
        order = np.argsort(ids, kind="stable")
        self._ids, self._owner = ids[order], owner[order]

    def of(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Indices of events; 0 for the id 0 (synthesised records), -1 for an unknown id."""
        if len(self.events) == 1:
            return np.zeros(len(ids), np.int32)
        return np.where(ids == 0, 0, self.owners(ids)).astype(np.int32)

    def owners(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Indices of the events that really have these ids, else -1: evlist__id2sid()."""
        if not len(self._ids):
            return np.full(len(ids), -1, np.int32)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._owner[at], -1).astype(np.int32)

    def sample_id_word(self) -> int | None:
        """Where the id stands in a SAMPLE record, in words from its header; None: nowhere.

        With several events all must agree on the place (perf_evsel__compute_id_pos()).
        """
        places = {_id_word(event.attr.sample_type) for event in self.events}
        return places.pop() if len(places) == 1 else None


def _id_word(sample_type: int) -> int | None:
    if sample_type & SampleType.IDENTIFIER:
        return 1
    if not sample_type & SampleType.ID:
        return None
    before = SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.ADDR
    return 1 + (sample_type & before).bit_count()
