"""Attrs of every size, and the names of events that a file does not name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import written
from hypothesis import given
from hypothesis import strategies as st
from written import EVENTS

from kvmperf_magic.perfdata.abi import AttrFlag, EventType, PerfEventAttr
from kvmperf_magic.perfdata.attr import Attr
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.perfdata.writer import PerfDataWriter, WrittenEvent

KINDS = [(EventType.HARDWARE, n) for n in range(10)] + [(EventType.SOFTWARE, n) for n in range(10)]
KINDS += [
    (EventType.HW_CACHE, cache | op << 8 | result << 16)
    for cache in range(7)
    for op in range(3)
    for result in range(2)
    # perf names only operations that a cache has: evsel__hw_cache_stat
    if not (cache == 1 and op == 1) and not (cache == 4 and op) and not (cache == 5 and op)
]
KINDS += [(EventType.RAW, 0x1C2)]
FLAGS = [
    AttrFlag(0),
    AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV,
    AttrFlag.EXCLUDE_USER,
    AttrFlag.EXCLUDE_GUEST,
    AttrFlag.EXCLUDE_HOST,
    AttrFlag.EXCLUDE_HOST | AttrFlag.EXCLUDE_USER,
    AttrFlag.PRECISE_IP_HIGH,
    AttrFlag.PRECISE_IP_LOW | AttrFlag.EXCLUDE_GUEST | AttrFlag.EXCLUDE_KERNEL,
]


@pytest.mark.perf
def test_names_are_perfs(tmp_path: Path, perf: Callable[..., str]) -> None:
    """A file without EVENT_DESC: perf makes names of the attrs, and so do we."""
    events = []
    for i, (kind, config) in enumerate(KINDS):
        attr = PerfEventAttr.from_buffer_copy(EVENTS[0].attr)
        attr.type, attr.config = kind, config
        attr.flags |= FLAGS[i % len(FLAGS)]
        events.append(WrittenEvent("", attr, [i + 1]))
    path = tmp_path / "perf.data"
    PerfDataWriter(path, events).close()
    assert [e.name for e in read(path).events] == perf("evlist", "-i", path).splitlines()


@given(st.binary(min_size=160, max_size=160), st.sampled_from([*range(64, 145, 8), 160]))
def test_sizes(raw: bytes, size: int) -> None:
    """Fields behind an attr's size are 0, whatever follows it; fields newer than ours are left."""
    raw = raw[:4] + size.to_bytes(4, "little") + raw[8:]
    attr = Attr.decode(raw)
    known = PerfEventAttr.from_buffer_copy(raw[:size].ljust(128, b"\0")[:128])
    fields = [name for name, _ in PerfEventAttr._fields_ if not name.startswith("_")]
    assert {f: getattr(attr, f) for f in fields} == {f: getattr(known, f) for f in fields}
    assert attr.config3 == (int.from_bytes(raw[128:136], "little") if size >= 136 else 0)
    assert attr.config4 == (int.from_bytes(raw[136:144], "little") if size >= 144 else 0)
    assert attr.has(AttrFlag.FREQ) == attr.freq == bool(attr.flags >> 10 & 1)


def test_old_attr_without_a_size() -> None:
    """Before 2.6.32 size was 0 and meant the first version's 64 bytes."""
    attr = Attr.decode(bytes(EVENTS[0].attr)[:4] + bytes(4) + bytes(EVENTS[0].attr)[8:64])
    assert (attr.sample_type, attr.config2) == (written.SAMPLE_TYPE, 0)
    with pytest.raises(ValueError, match="40 bytes"):
        Attr.decode(bytes(40))
