"""Compressed records: perf's own against perf, and made ones against what they were made of."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bigendian import BigEndian
from perfdump import dumped, ours

from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.stream import StreamReader

zstandard = pytest.importorskip("zstandard")

PLAIN = "google__perf_data_converter__perf.data.piped.target-3.8"
LOOP = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; ls / >/dev/null"
COMPRESSED, COMPRESSED2 = 81, 83
ROUND = {"little": struct.pack("<IHH", 68, 0, 8), "big": struct.pack(">IHH", 68, 0, 8)}


def compressed(data: bytes, kind: int, order: str, piece: int) -> Iterator[bytes]:
    """Records of one zstd stream of `data`, `piece` bytes of it in each; a round behind each."""
    stream = zstandard.ZstdCompressor().compressobj()
    mark = "<" if order == "little" else ">"
    for at in range(0, len(data), piece):
        body = stream.compress(data[at : at + piece])
        body += stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if kind == COMPRESSED2:
            body = struct.pack(mark + "Q", len(body)) + body + bytes(-len(body) % 8)
        yield struct.pack(mark + "IHH", kind, 0, 8 + len(body)) + body + ROUND[order]


def first_sample(data: bytes, order: str) -> int:
    at, mark = 16, "<IHH" if order == "little" else ">IHH"
    while True:
        kind, _, size = struct.unpack_from(mark, data, at)
        if kind == 9:
            return at
        at += size


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, perf: Callable[..., str]) -> Path:
    path = tmp_path_factory.mktemp("z") / "perf.data"
    options = ("-z", "-F", "4000", "-e", "cpu-clock", "--call-graph", "dwarf,4096")
    perf("record", "-q", *options, "-o", path, "--", "sh", "-c", LOOP)
    return path


@pytest.mark.perf
@pytest.mark.root
def test_as_perf_decodes_it(perf: Callable[..., str], recorded: Path) -> None:
    file = read(recorded)
    theirs = dumped(perf, recorded)
    assert file.counts[COMPRESSED] > 1
    assert len(theirs) > 50
    assert ours(file) == theirs
    assert file.damage == []


@pytest.mark.perf
@pytest.mark.root
def test_a_stream_of_perfs_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "perf.pipe"
    command = ["perf", "record", "-q", "-z", "-F", "4000", "-e", "cpu-clock", "-o", "-"]
    with path.open("wb") as out:
        subprocess.run(
            [*command, "--call-graph", "dwarf,4096", "--", "sh", "-c", LOOP],
            check=True,
            stdout=out,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    whole, data, reader = read(path), path.read_bytes(), StreamReader()
    batches = [reader.feed(data[at : at + 1009]) for at in range(0, len(data), 1009)]
    assert whole.counts[COMPRESSED] > 1
    joined = SampleColumns.joined([batch.samples for batch in batches])
    assert_samples(joined, whole.samples)
    assert reader.problems == []


def assert_samples(one: SampleColumns, other: SampleColumns) -> None:
    assert len(one) == len(other) > 10
    for name in ("time", "ip", "tid", "cpu", "period", "event", "misc"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.fixtures
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", [COMPRESSED, COMPRESSED2])
@pytest.mark.parametrize("piece", [101, 4096, 100_003])
def test_what_was_compressed(
    fixtures: Path, tmp_path: Path, order: str, kind: int, piece: int
) -> None:
    """Pieces are cut anywhere, and records cross their borders."""
    path = fixtures / "recordings" / PLAIN
    data = path.read_bytes()
    if order == "big":
        data = bytes(BigEndian(data).out)
    begin = first_sample(data, order)
    if piece < 1000:
        data = data[: begin + 20_001]
    made = tmp_path / "made"
    made.write_bytes(data[:begin] + b"".join(compressed(data[begin:], kind, order, piece)))
    (tmp_path / "plain").write_bytes(data)
    file, plain = read(made), read(tmp_path / "plain")
    assert_samples(file.samples, plain.samples)
    assert list(file.sideband.mmap.rows()) == [
        {**row, "order": order}
        for row, order in zip(plain.sideband.mmap.rows(), file.sideband.mmap["order"], strict=True)
    ]
    rounds = file.counts.pop(kind)
    assert rounds == -(-(len(data) - begin) // piece)
    assert file.counts.pop(68) == rounds + plain.counts.pop(68, 0)
    assert file.counts == plain.counts
    assert {d.message for d in file.damage} <= {"the compressed data ends within a record"}


def made(fixtures: Path, tmp_path: Path, pieces: list[bytes]) -> PerfFile:
    data = (fixtures / "recordings" / PLAIN).read_bytes()
    # a name of its own: recordings are read from the file when they are asked for
    path = tmp_path / f"made{len(list(tmp_path.iterdir()))}"
    path.write_bytes(data[: first_sample(data, "little")] + b"".join(pieces))
    return read(path)


@pytest.mark.fixtures
def test_damage_keeps_what_came_before(fixtures: Path, tmp_path: Path) -> None:
    data = (fixtures / "recordings" / PLAIN).read_bytes()
    begin = first_sample(data, "little")
    pieces = list(compressed(data[begin:], COMPRESSED, "little", 50_000))
    whole = made(fixtures, tmp_path, pieces)
    three = made(fixtures, tmp_path, pieces[:3])
    assert [d.message for d in three.damage] == ["the compressed data ends within a record"]
    pieces[3] = pieces[3][:8] + b"\xff" * (len(pieces[3]) - 16) + pieces[3][-8:]
    broken = made(fixtures, tmp_path, pieces)
    assert_samples(broken.samples, three.samples)
    assert 10 < len(broken.samples) < len(whole.samples)
    (damage,) = broken.damage
    assert damage.offset == begin + sum(map(len, pieces[:3]))
    assert "damaged" in damage.message
    assert broken.counts[68] == whole.counts[68]  # what is not compressed goes on


@pytest.mark.fixtures
@pytest.mark.parametrize("kind", [COMPRESSED, COMPRESSED2])
def test_a_bomb_is_refused(fixtures: Path, tmp_path: Path, kind: int) -> None:
    """2 GiB in some 70 KB: read up to a bound."""
    record = struct.pack("<IHH", 84, 0, 1 << 15) + bytes((1 << 15) - 8)
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    data = b"".join(compressor.compress(record * 32) for _ in range(2048)) + compressor.flush()
    pieces = []
    for at in range(0, len(data), 60_000):
        body = data[at : at + 60_000]
        told = struct.pack("<Q", len(body)) if kind == COMPRESSED2 else b""
        pad = bytes(-len(body) % 8) if kind == COMPRESSED2 else b""
        size = 8 + len(told + body + pad)
        pieces.append(struct.pack("<IHH", kind, 0, size) + told + body + pad)
    assert sum(map(len, pieces)) < 1 << 20
    file = made(fixtures, tmp_path, pieces)
    assert any("hold over" in d.message for d in file.damage)
    assert file.samples.words.nbytes < (64 << 20) + 1024 * len(data) + (64 << 20)
    assert file.samples.words.nbytes < 1 << 29


@pytest.mark.fixtures
def test_without_zstandard(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = list(compressed(bytes(8), COMPRESSED, "little", 8))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    file = made(fixtures, tmp_path, pieces)
    assert len(file.events) == 6
    with pytest.raises(FileError, match="zstandard is not installed") as caught:
        _ = file.samples
    assert caught.value.hint == "pip install 'kvmperf_magic[zstd]'"


@pytest.mark.fixtures
def test_several_frames(fixtures: Path, tmp_path: Path) -> None:
    """A stream may end, and another one begin, within a record."""
    data = (fixtures / "recordings" / PLAIN).read_bytes()
    begin = first_sample(data, "little")
    compressor = zstandard.ZstdCompressor()
    frames = b"".join(
        compressor.compress(data[at : at + 9_999]) for at in range(begin, begin + 90_000, 9_999)
    )
    pieces = [
        struct.pack("<IHH", COMPRESSED, 0, 8 + len(frames[at : at + 5_000]))
        + frames[at : at + 5_000]
        for at in range(0, len(frames), 5_000)
    ]
    file = made(fixtures, tmp_path, pieces)
    (tmp_path / "plain").write_bytes(
        data[: begin + 9_999 * len(range(begin, begin + 90_000, 9_999))]
    )
    assert_samples(file.samples, read(tmp_path / "plain").samples)
