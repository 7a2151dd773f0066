"""Files that are cut, changed or of another kind: nothing before the damage is lost."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written import EVENTS, SAMPLES

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, RecordType
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.perfdata.stream import StreamReader
from kvmperf_magic.perfdata.writer import PerfDataWriter, PipeWriter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def file(folder: Path) -> bytes:
    with PerfDataWriter(folder / "whole", EVENTS) as writer:
        written.write(writer)
    return (folder / "whole").read_bytes()


@pytest.fixture(scope="module")
def stream(folder: Path) -> bytes:
    with (folder / "stream").open("wb") as out:
        written.write(PipeWriter(out.fileno(), EVENTS))
    return (folder / "stream").read_bytes()


@pytest.fixture(scope="module")
def whole(folder: Path, file: bytes, stream: bytes) -> dict[str, Path]:
    return {"file": folder / "whole", "stream": folder / "stream"}


def sample_ends(data: bytes) -> list[int]:
    """Where each sample's record ends in the file."""
    ends, at = [], 0
    for one in (s for cpu in (1, 0) for s in SAMPLES if s.cpu == cpu):
        record = written.sample(one)
        at = data.index(record, at) + len(record)
        ends.append(at)
    return ends


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_every_cut(kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
    data: bytes = request.getfixturevalue(kind)
    ends = sample_ends(data)
    cut = folder / "cut"
    whole = len(read(folder / {"file": "whole"}.get(kind, kind)).samples)
    assert whole == len(SAMPLES)
    refused = []
    for size in [*range(0, 1200, 7), *range(1200, len(data), 41), len(data) - 1]:
        cut.write_bytes(data[:size])
        try:
            found = read(cut)
        except FileError:
            refused.append(size)
            continue
        # in a file the events stand before the samples, in a stream too
        assert len(found.samples) == sum(end <= size for end in ends), size
        if kind == "file":
            assert found.damage, size
        assert all(0 <= d.offset <= len(data) for d in found.damage)
    assert max(refused) < (FILE_HEADER_SIZE if kind == "file" else 16)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=9))),
    kind=st.sampled_from(["file", "stream"]),
)
def test_any_change(
    changes: list[tuple[int, bytes]], kind: str, whole: dict[str, Path], folder: Path
) -> None:
    """Bytes that are wrong anywhere: a recording or a FileError, nothing else."""
    data = bytearray(whole[kind].read_bytes())
    for place, new in changes:
        at = place % len(data)
        data[at : at + len(new)] = new
    path = folder / "changed"
    path.write_bytes(data)
    try:
        found = read(path)
    except FileError:
        return
    s = found.samples
    n = len(s)
    assert all(len(c) == n for c in (s.ip, s.pid, s.tid, s.cpu, s.period, s.event, s.misc))
    assert len(s.chains) == n
    assert np.all(s.chains.length >= 0)
    assert np.all(s.chains.start + s.chains.length <= len(s.chains.words))
    assert np.all((s.event >= 0) & (s.event < max(len(found.events), 1)))
    assert len(found.sideband.comm_of(s.tid, s.time)) == n
    assert found.counts.get(RecordType.SAMPLE, 0) >= n


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 6000), max_size=30))
def test_stream_cut_anywhere(cuts: list[int], whole: dict[str, Path]) -> None:
    """However a stream is cut, its batches hold what it holds whole."""
    stream = whole["stream"].read_bytes()
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    reader = StreamReader()
    batches = [reader.feed(stream[a:b]) for a, b in pairwise(places)]
    joined = type(batches[0].samples).joined([b.samples for b in batches])
    uncut = StreamReader().feed(stream)
    for name in ("time", "ip", "period", "tid", "event"):
        # samples of one time: both orders are the stream's
        assert getattr(joined, name).tolist() == getattr(uncut.samples, name).tolist(), name
    for ours, theirs in zip(joined.chains.compact(), uncut.samples.chains.compact(), strict=True):
        assert ours.tolist() == theirs.tolist()
    header = joined.words[joined.record] & np.uint64(0xFFFFFFFF)
    assert np.all(header == RecordType.SAMPLE)
    sideband = type(uncut.sideband).joined([b.sideband for b in batches])
    for name in ("mmap", "comm", "lost", "throttle"):
        ours, theirs = getattr(sideband, name), getattr(uncut.sideband, name)
        assert list(ours.rows()) == list(theirs.rows())
    assert reader.kvmperf == written.NOTE
    assert reader.pending == 0


def test_stream_damage(stream: bytes) -> None:
    """What came before the damage is handed out first."""
    end = sample_ends(stream)[9]
    reader = StreamReader()
    batch = reader.feed(stream[:end] + bytes(64))
    assert len(batch.samples) == 10
    with pytest.raises(FileError, match="0 bytes") as caught:
        reader.feed(b"")
    assert caught.value.offset == end


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x7fELF" + bytes(200), "is no perf.data"),
        (b"2ELIFREP" + bytes(200), "cut off in its header"),
        (b"PERFFILE" + bytes(200), "cut off in its header"),
        (b"PERFILE2" + (88).to_bytes(8, "little") + bytes(200), "header of 88 bytes"),
        (b"PERFI", "cut off in its header"),
    ],
)
def test_other_kinds(folder: Path, data: bytes, message: str) -> None:
    path = folder / "other"
    path.write_bytes(data)
    with pytest.raises(FileError, match=message) as caught:
        read(path)
    assert caught.value.hint
    assert str(path) in str(caught.value)


def test_no_file(folder: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read(folder / "none")
    with pytest.raises(FileError, match="is a directory and no recording"):
        read(folder)
