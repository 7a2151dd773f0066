"""Attrs and feature sections of a big-endian machine as a little-endian one would write them.

tools/perf/util/session.c: perf_event__attr_swap(); tools/perf/util/header.c: the do_read_*() of
each process_*().
"""

from __future__ import annotations

import numpy as np

from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.cursor import Cursor

# sizes of the fields of perf_event_attr up to config4; what is newer counts as u64
_ATTR = (4, 4, 8, 8, 8, 8, 8, 4, 4, 8, 8, 8, 8, 4, 4, 8, 4, 2, 2, 4, 4)
_FLAGS = 40  # where the bit fields are: u64, of which each bit has its own place
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# I u32, Q u64, S a string {u32 length; bytes}; a tuple is a list {u32 count; items}
_Form = tuple["str | _Form", ...]
_STRING: _Form = ("S",)
_FORMS: dict[int, _Form] = {
    Feature.HOSTNAME: _STRING,
    Feature.OSRELEASE: _STRING,
    Feature.VERSION: _STRING,
    Feature.ARCH: _STRING,
    Feature.NRCPUS: ("I", "I"),
    Feature.CPUDESC: _STRING,
    Feature.CPUID: _STRING,
    Feature.TOTAL_MEM: ("Q",),
    Feature.CMDLINE: (_STRING,),
    Feature.NUMA_TOPOLOGY: (("I", "Q", "Q", "S"),),
    Feature.PMU_MAPPINGS: (("I", "S"),),
    Feature.GROUP_DESC: (("S", "I", "I"),),
    Feature.CACHE: ("I", ("I", "I", "I", "I", "S", "S", "S")),
    Feature.SAMPLE_TIME: ("Q", "Q"),
    Feature.CLOCKID: ("Q",),
    Feature.DIR_FORMAT: ("Q",),
    Feature.COMPRESSED: ("I", "I", "I", "I", "I"),
    Feature.CPU_PMU_CAPS: (("S", "S"),),
    Feature.CLOCK_DATA: ("I", "I", "Q", "Q"),
    Feature.HYBRID_TOPOLOGY: (("S", "S"),),
    Feature.PMU_CAPS: ((("S", "S"), "S"),),
    Feature.E_MACHINE: ("I", "I"),
    Feature.CLN_SIZE: ("I",),
}


def words(raw: bytes) -> bytes:
    """Numbers of 64 bits; what is left behind the last whole one stays."""
    whole = len(raw) // 8 * 8
    return np.frombuffer(raw[:whole], ">u8").astype("<u8").tobytes() + raw[whole:]


def attr(raw: bytes) -> bytes:
    """perf_event_attr of any size."""
    parts, at = [], 0
    for size in (*_ATTR, *(8,) * (len(raw) // 8)):
        part = raw[at : at + size]
        parts.append(part.translate(_REVERSED) if at == _FLAGS else part[::-1])
        at += size
    return b"".join(parts)


def section(feature: int, data: bytes, cpus: int) -> bytes:
    """A feature section; those that are bytes for us stay. `cpus`: the number that NRCPUS tells.

    ValueError where it is damaged.
    """
    reader = _Turner(data)
    if feature in _FORMS:
        reader.items(_FORMS[feature])
    elif feature == Feature.EVENT_DESC:
        reader.event_desc()
    elif feature == Feature.BUILD_ID:
        reader.build_ids()
    elif feature == Feature.CPU_TOPOLOGY:
        reader.cpu_topology(cpus)
    elif feature == Feature.MEM_TOPOLOGY:
        return words(data)  # its bitmaps are u64 too
    elif feature == Feature.AUXTRACE:
        return words(data)
    return bytes(reader.out) + data[reader.at :]


class _Turner(Cursor):
    """Reads theirs, writes ours."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.out = bytearray()

    def number(self, size: int) -> int:
        raw = self.take(size)
        self.out += raw[::-1]
        return int.from_bytes(raw, "big")

    def raw(self, size: int) -> None:
        self.out += self.take(size)

    def items(self, form: _Form) -> None:
        for item in form:
            if isinstance(item, tuple):
                for _ in range(self.number(4)):
                    self.items(item)
            elif item == "S":
                self.raw(self.number(4))
            else:
                self.number(4 if item == "I" else 8)

    def event_desc(self) -> None:
        """{u32 count, size of an attr; {attr; u32 ids; string; u64 id ...}}"""
        count, size = self.number(4), self.number(4)
        for _ in range(count):
            self.out += attr(self.take(size))
            ids = self.number(4)
            self.items(_STRING)
            self.out += words(self.take(8 * ids))

    def build_ids(self) -> None:
        """Records: {u32 type; u16 misc, size; u32 pid; u8 build_id[24]; filename}"""
        while len(self.data) - self.at >= 36:
            self.number(4)
            self.number(2)
            size = self.number(2)
            if size < 12:
                raise ValueError(f"an entry of {size} bytes")
            self.number(4)
            self.raw(size - 12)

    def cpu_topology(self, cpus: int) -> None:
        """Two lists of strings, {u32 core, package} a CPU, a list of strings, u32 die a CPU."""
        self.items((_STRING, _STRING))
        if len(self.data) - self.at < 8 * cpus:
            return
        for _ in range(2 * cpus):
            self.number(4)
        if len(self.data) - self.at >= 4:
            self.items((_STRING,))
        while len(self.data) - self.at >= 4:
            self.number(4)
