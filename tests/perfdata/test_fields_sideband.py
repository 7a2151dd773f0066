"""The sideband's tables against perf's dump and quipper's goldens."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import quipper
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmperf_magic.perfdata.abi import (
    ATTR_SIZE,
    MISC_SWITCH_OUT,
    AttrFlag,
    PerfEventAttr,
    RecordType,
    SampleType,
)
from kvmperf_magic.perfdata.attr import Attr, Event, EventIds
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.sideband import Sideband, decode_sideband
from kvmperf_magic.perfdata.strings import strings, unique_rows
from kvmperf_magic.perfdata.walk import walk
from kvmperf_magic.recording import open_recording

GOOGLE = "google__perf_data_converter__perf.data."


def golden(fixtures: Path, name: str) -> tuple[PerfFile, list[tuple[str, quipper.Message]]]:
    path = next((fixtures / "golden").glob(f"{GOOGLE}{name}.p*pb_text.gz"))
    return read(fixtures / "recordings" / f"{GOOGLE}{name}"), list(quipper.events(path))


@pytest.mark.fixtures
@pytest.mark.parametrize(
    "name",
    ["ctx_switch_namespaces-4.14", "piped.ctx_switch_namespaces-4.14", "piped.intel_pt-4.14"],
)
def test_switches_and_namespaces_are_quippers(name: str, fixtures: Path) -> None:
    file, events = golden(fixtures, name)
    switches = [m for kind, m in events if kind == "context_switch_event"]
    table = file.sideband.switch
    assert len(table) == len(switches) > 0
    by_order = table[np.argsort(table["order"])]
    assert by_order["out"].tolist() == [m["is_out"][0] for m in switches]
    assert by_order["next_prev_pid"].tolist() == [m.get("next_prev_pid", [-1])[0] for m in switches]
    assert by_order["next_prev_tid"].tolist() == [m.get("next_prev_tid", [-1])[0] for m in switches]
    told = [m["sample_info"][0] for m in switches]
    assert by_order["tid"].tolist() == [m["tid"][0] for m in told]
    assert by_order["cpu"].tolist() == [m.get("cpu", [-1])[0] for m in told]

    spaces = [m for kind, m in events if kind == "namespaces_event"]
    table = file.sideband.namespaces
    assert len(table) == len(spaces)
    for row, message in zip(table.rows(), spaces, strict=True):
        told = [{"dev": m["dev"][0], "ino": m["ino"][0]} for m in message["link_info"]]
        assert row["namespaces"] == told
        assert (row["pid"], row["tid"]) == (message["pid"][0], message["tid"][0])
        assert row["net_ns"] == told[0]["ino"]


@pytest.mark.fixtures
def test_ksymbols_are_quippers(fixtures: Path) -> None:
    file, events = golden(fixtures, "branch_stack_spec")
    symbols = [m for kind, m in events if kind == "ksymbol_event"]
    table = file.sideband.ksymbol
    assert table["name"].tolist() == [m["name"][0] for m in symbols]
    assert table["len"].tolist() == [m["len"][0] for m in symbols]
    assert len(symbols) == 47


@pytest.mark.perf
@pytest.mark.fixtures
def test_bpf_events_are_perfs(fixtures: Path, perf: Callable[..., str]) -> None:
    path = fixtures / "recordings" / f"{GOOGLE}branch_stack_spec"
    dump = re.findall(
        r"BPF_EVENT type (\d+), flags (\d+), id (\d+)", perf("report", "-D", "-i", path)
    )
    rows = read(path).sideband.bpf.rows()
    assert [(str(row["type"]), str(row["flags"]), str(row["id"])) for row in rows] == dump
    assert len(dump) == 35


@pytest.mark.fixtures
def test_aux_and_itrace_starts_are_quippers(fixtures: Path) -> None:
    file, events = golden(fixtures, "piped.intel_pt-4.14")
    auxes = [m for kind, m in events if kind == "aux_event"]
    table = file.sideband.aux
    table = table[np.argsort(table["order"])]
    assert table["offset"].tolist() == [m["aux_offset"][0] for m in auxes]
    assert table["size"].tolist() == [m["aux_size"][0] for m in auxes]
    assert len(file.sideband.itrace_start) == 2


@pytest.mark.fixtures
def test_device_numbers_and_inodes_are_quippers(fixtures: Path) -> None:
    file, events = golden(fixtures, "branch-4.14")
    maps = [m for kind, m in events if kind == "mmap_event" and "ino" in m]
    table = file.sideband.mmap
    table = table[np.argsort(table["order"])]
    found = [row for row in table.rows() if row["ino"] or row["maj"] or row["flags"]]
    for name in ("maj", "min", "ino", "flags"):
        assert [row[name] for row in found] == [m[name][0] for m in maps]
    assert len(found) > 5


@pytest.mark.perf
@pytest.mark.root
def test_what_perf_dumps_is_in_the_tables(tmp_path: Path, perf: Callable[..., str]) -> None:
    path = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "-o", path, "-e", "cpu-clock", "-F", "200", "-a"]
    command += ["--switch-events", "--namespaces", "--all-cgroups", "-s"]
    subprocess.run([*command, "--", "sleep", "0.3"], check=True, capture_output=True, timeout=60)
    dump = perf("report", "-D", "-i", path)
    rec = open_recording(path)
    side = rec.sideband
    switches = re.findall(
        r"PERF_RECORD_SWITCH_CPU_WIDE (IN|OUT)( preempt)? +\S+ pid/tid: +(-?\d+)/(-?\d+)", dump
    )
    assert [(out, bool(preempt), pid, tid) for out, preempt, pid, tid in switches] == [
        (
            *("OUT" if row["out"] else "IN", row["preempt"]),
            *(str(row["next_prev_pid"]), str(row["next_prev_tid"])),
        )
        for row in side.switch.rows()
    ]
    assert len(switches) > 10
    cgroups = re.findall(r"PERF_RECORD_CGROUP cgroup: (\d+) (\S+)", dump)
    assert [(str(row["id"]), row["path"]) for row in side.cgroup.rows()] == cgroups
    assert len(re.findall(r"PERF_RECORD_NAMESPACES", dump)) == len(side.namespaces) > 0
    symbols = re.findall(
        r"PERF_RECORD_KSYMBOL addr (\w+) len (\d+) type \d+ flags \S+ name (\S+)", dump
    )
    assert [(f"{r['addr']:x}", str(r["len"]), r["name"]) for r in side.ksymbol.rows()] == symbols
    # the tables by name, and how many records each is of
    assert "switch" in repr(side)
    assert dict(zip(side.summary["table"], side.summary["rows"], strict=True))["switch"] == len(
        switches
    )
    records = {row["name"]: row for row in rec.records.rows()}
    assert records["SWITCH_CPU_WIDE"]["count"] == len(switches)
    assert sum(row["bytes"] for row in records.values()) <= path.stat().st_size
    assert records["SAMPLE"]["bytes"] > 8 * records["SAMPLE"]["count"]


@pytest.mark.perf
@pytest.mark.root
def test_without_times_forks_hand_names_on(tmp_path: Path, perf: Callable[..., str]) -> None:
    path = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "--no-timestamp", "-o", path, "-e", "cpu-clock", "-F", "500"]
    loop = "(n=0; while [ $n -lt 30000 ]; do n=$((n+1)); done) & wait"
    subprocess.run([*command, "--", "sh", "-c", loop], check=True, capture_output=True, timeout=60)
    lines = perf("script", "-i", path, "-G", "-F", "comm,tid").splitlines()
    samples = read(path).samples
    assert not samples.time.any()
    named = read(path).sideband.comm_of(samples.tid, samples.time).values().tolist()
    theirs = {tuple(line.split()) for line in lines if line.strip()}
    ours = {(name, str(tid)) for name, tid in zip(named, samples.tid.tolist(), strict=True)}
    # before its exec a thread has another name: which samples those are, only times could tell
    assert {tid for _, tid in ours} == {tid for _, tid in theirs}
    # perf goes by the order of the ring buffers: samples that stand before their thread's FORK
    # have no name there
    nameless = {("sh", tid) for name, tid in theirs if name == f":{tid}"}
    assert ours <= theirs | nameless
    assert "sh" in {name for name, _ in ours}


def record(kind: int, misc: int, body: bytes) -> bytes:
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


def test_records_that_no_recording_here_has() -> None:
    poke = struct.pack("<QHH", 0xFFFFFFFF81000000, 2, 5) + b"\x66\x90\xe8\1\2\3\4" + bytes(5)
    data = b"".join(
        [
            record(RecordType.TEXT_POKE, 0, poke),
            record(RecordType.AUX_OUTPUT_HW_ID, 0, struct.pack("<Q", 77)),
            record(RecordType.READ, 0, struct.pack("<IIQ", 5, 6, 99)),
            record(RecordType.SWITCH, MISC_SWITCH_OUT | 1 << 14, b""),
            record(RecordType.KSYMBOL, 0, b""),
            record(4242, 0, bytes(8)),
        ]
    )
    side, problems = decode_sideband(walk(data), EventIds([]), 0)
    assert isinstance(side, Sideband)
    poked = next(side.text_poke.rows())
    assert (poked["old"], poked["new"]) == (b"\x66\x90", b"\xe8\1\2\3\4")
    assert side["aux_output_hw_id"]["hw_id"].tolist() == [77]
    assert side.read["value"].tolist() == [99]
    assert (side.switch["out"].tolist(), side.switch["preempt"].tolist()) == ([True], [True])
    assert not problems
    assert len(side.ksymbol) == 0
    assert problems == ["1 records of type KSYMBOL are too short"]
    assert side.sizes[4242] == 16
    with pytest.raises(AttributeError, match="no table 'nothing'"):
        _ = side.nothing


def test_strings_are_those_before_the_first_nul() -> None:
    raw = [b"", b"a", b"abcdefg", b"abcdefgh", b"\x80\x01\x00zz", b"x" * 40, b"same", b"same\0ly"]
    parts = [one.ljust(48, b"\0") for one in raw]
    words = np.frombuffer(b"".join(parts), np.uint64)
    start = np.arange(0, len(words), 6)
    # with and without room behind the string, and cut before its NUL
    for length in (6, 5, 1):
        expected = [
            part[: 8 * length].split(b"\0")[0].decode("utf-8", "backslashreplace") for part in parts
        ]
        assert strings(words, start, start + length).values().tolist() == expected
    assert strings(words, start, start).values().tolist() == [""] * 8


def test_rows_of_one_hash_stay_two() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 3, (500, 3)).astype(np.uint64)
    unique, which = unique_rows(rows)
    assert np.array_equal(unique[which], rows)
    assert len(unique) == 27


KINDS = [kind for kind in RecordType if kind < 64 and kind != RecordType.SAMPLE]
BODIES = st.lists(st.sampled_from([0, 1, 8, 40, 2**16, 2**32 - 1, 2**63, 2**64 - 1]), max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**16 - 1), BODIES), max_size=20))
def test_any_records_are_tables(records: list[tuple[RecordType, int, list[int]]]) -> None:
    attr = PerfEventAttr()
    attr.size, attr.sample_type = ATTR_SIZE, SampleType.TID | SampleType.TIME | SampleType.CPU
    attr.flags, attr.read_format = AttrFlag.SAMPLE_ID_ALL, 31
    event = Event("cpu-clock", Attr.decode(bytes(attr)), np.zeros(0, np.uint64))
    data = b"".join(
        record(kind, misc, struct.pack(f"<{len(body)}Q", *body)) for kind, misc, body in records
    )
    side, problems = decode_sideband(walk(data), EventIds([event]), 5)
    rows = 0
    for name, table in side.items():
        assert np.all(table["time"][1:] >= table["time"][:-1]), name
        assert len(list(table.rows())) == len(table)
        rows += len(table)
    short = sum(int(line.split()[0]) for line in problems)
    assert rows + short == len(records)
    joined = Sideband.joined([side, side])
    assert {name: len(table) for name, table in joined.items()} == {
        name: 2 * len(table) for name, table in side.items()
    }
