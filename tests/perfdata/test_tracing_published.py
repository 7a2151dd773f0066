"""Published recordings with tracepoints: fields as perf has them, names where only ids are told."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from readable import Layout, with_short_attrs, without_own_records
from tracepoint_rows import our_rows, perf_rows, perf_with_python

import kvmperf_magic as kvm
from kvmperf_magic.perfdata.reader import read

pytestmark = pytest.mark.fixtures

MAGIC = b"\x17\x08\x44tracing"
SIMPLEPERF = "GrapheneOS__platform_system_extras__"


def with_tracing_section(raw: bytes) -> bytes:
    """simpleperf's tracing data as the feature section that perf wants, the only one."""
    at = raw.index(MAGIC)
    payload = raw[at : at + struct.unpack_from("<I", raw, at - 4)[0]]
    changed = without_own_records(raw)
    end = sum(Layout.of(changed).data)
    out = bytearray(changed[:end])
    out[72:104] = (1 << 1).to_bytes(32, "little")
    return bytes(out) + struct.pack("<QQ", end + 16, len(payload)) + payload


READABLE: dict[str, tuple[int, Callable[[bytes], bytes] | None]] = {
    # tracepoint samples, and what perf 6.1 needs to read them
    "KDAB__perfparser__probe.data.file": (1, None),
    "KDAB__perfparser__probe.data.stream": (1, None),
    "microsoft__LinuxTracepoints__perf.data": (539, with_short_attrs),
    f"{SIMPLEPERF}perf_with_tracepoint_event.data": (31, with_tracing_section),
    f"{SIMPLEPERF}perf_with_tracepoint_event_dynamic_field.data": (10, with_tracing_section),
}


@pytest.mark.perf
@pytest.mark.parametrize("name", READABLE)
def test_fields_are_those_of_perf(
    perf: Callable[..., str], fixtures: Path, tmp_path: Path, name: str
) -> None:
    perf_with_python(perf)
    path = fixtures / "recordings" / name
    count, change = READABLE[name]
    theirs = path
    if change:
        theirs = tmp_path / name
        theirs.write_bytes(change(path.read_bytes()))
    ours = our_rows(read(path))
    assert len(ours) == count
    assert ours == perf_rows(perf, tmp_path, theirs)


@pytest.mark.parametrize(
    ("name", "events"),
    [
        # a stream and simpleperf's files tell ids only
        ("KDAB__perfparser__probe.data.stream", ["probe_untitled1:main"]),
        (f"{SIMPLEPERF}perf_with_tracepoint_event.data", ["sched:sched_switch", "cycles:HG"]),
        (f"{SIMPLEPERF}perf_with_tracepoint_event_dynamic_field.data", ["kprobes:myopen"]),
        # no tracing data: its META_INFO has the name
        (f"{SIMPLEPERF}perf_with_trace_offcpu.data", ["cycles:HG", "sched:sched_switch"]),
    ],
)
def test_names_of_events(fixtures: Path, name: str, events: list[str]) -> None:
    assert [event.name for event in read(fixtures / "recordings" / name).events] == events


def test_tracing_data_in_pieces(fixtures: Path) -> None:
    """137 KiB, longer than a record can be: simpleperf cuts it up."""
    file = read(fixtures / "recordings" / f"{SIMPLEPERF}perf_with_big_trace_data.data")
    names = [event.name for event in file.events]
    assert len(names) == 200
    assert names[0] == "asoc:snd_soc_bias_level_done"
    assert not any(name.startswith("tracepoint") for name in names)


def test_columns_of_a_view(fixtures: Path) -> None:
    recording = kvm.open(
        fixtures / "recordings" / f"{SIMPLEPERF}perf_with_tracepoint_event_dynamic_field.data"
    )
    samples = recording.samples
    assert samples["name"].tolist()[:2] == [
        "perf.data",
        "/sys/kernel/debug/tracing/events/header_page",
    ]
    assert samples["dfd"].tolist()[0] == -100  # AT_FDCWD
    two = kvm.open(fixtures / "recordings" / f"{SIMPLEPERF}perf_with_tracepoint_event.data")
    switches = two.filter(event="sched:sched_switch").samples
    assert "prev_comm" not in two.samples
    assert len(switches) == 31
    # 130: TASK_UNINTERRUPTIBLE (2) and, on this kernel, TASK_WAKEKILL (128)
    assert switches["prev_state_name"][0] == "D|K"
    assert len(switches[:5]["next_comm"]) == 5
