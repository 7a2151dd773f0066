"""The fast walk finds what a plain walk finds, whatever the records hold."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata import walk as module
from kvmperf_magic.perfdata.abi import RecordType
from kvmperf_magic.perfdata.walk import walk


def plainly(data: bytes) -> list[tuple[int, int, int]]:
    """(offset, type, size) of every record: the definition."""
    found, at = [], 0
    while at < len(data):
        kind, _, size = struct.unpack_from("<IHH", data, at)
        found.append((at, kind, size))
        at += size
        if kind == RecordType.AUXTRACE:
            at += struct.unpack_from("<Q", data, found[-1][0] + 8)[0]
    return found


def body(random: np.random.Generator, liar: float) -> bytes:
    """Words; some look like the header of a short record."""
    words = random.integers(0, 2**64, int(random.integers(0, 40)), np.uint64)
    lies = random.random(len(words)) < liar
    words[lies] = (
        (random.integers(1, 6, lies.sum()).astype(np.uint64) * np.uint64(8)) << np.uint64(48)
    ) | np.uint64(9)
    return words.tobytes()


def run(random: np.random.Generator, count: int, liar: float, extra: Sequence[bytes] = ()) -> bytes:
    kinds = random.integers(1, 90, count)
    kinds[np.isin(kinds, [RecordType.AUXTRACE, RecordType.HEADER_TRACING_DATA])] = 9
    pieces = [r.record(int(kind), 0, body(random, liar)) for kind in kinds]
    for piece in extra:
        pieces.insert(int(random.integers(0, len(pieces))), piece)
    return b"".join(pieces)


AUXTRACE = r.record(RecordType.AUXTRACE, 0, struct.pack("<Q", 4096) + bytes(32)) + b"\xff" * 4096
ODD = struct.pack("<IHH", RecordType.HEADER_BUILD_ID, 0, 100) + b"x" * 92  # as perf's streams have


@pytest.mark.parametrize("liar", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("extra", [(), (AUXTRACE,), (ODD,), (ODD, AUXTRACE, ODD)])
def test_as_plain(liar: float, extra: Sequence[bytes]) -> None:
    data = run(np.random.default_rng(len(extra)), 12_000, liar, extra)
    found = walk(b"12345" + data, 5)
    expected = plainly(data)
    assert (found.problem, found.end) == ("", len(data) + 5)
    assert found.type.tolist() == [kind for _, kind, _ in expected]
    assert (found.size * 8).tolist() == [-(-size // 8) * 8 for _, _, size in expected]
    for row in (0, len(expected) // 2, len(expected) - 1):
        at, _, size = expected[row]
        assert found.body(row)[: size - 8] == data[at + 8 : at + size]


def test_fast_path_is_taken() -> None:
    """An ordinary file is walked by many chains, not record by record."""
    data = run(np.random.default_rng(1), 12_000, 0.0)
    position, reached = module._many_chains(np.frombuffer(data, "<u8"))
    assert reached == len(data) // 8
    assert len(position) == 12_000


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_damage(where: float) -> None:
    """Everything before a header that says 0 bytes is found, and where it stands."""
    data = run(np.random.default_rng(2), 12_000, 0.1)
    at = plainly(data)[int(where * 12_000)][0]
    broken = data[:at] + bytes(8) + data[at + 8 :]
    found = walk(broken)
    assert found.end == at
    assert len(found.position) == int(where * 12_000)
    assert "0 bytes" in found.problem
    assert not found.incomplete


def test_cut() -> None:
    """A cut record is left out and told, wherever the cut is."""
    data = run(np.random.default_rng(3), 12_000, 0.1)
    ends = [at + size for at, _, size in plainly(data)]
    for size in [*range(1, 60), *range(len(data) // 2, len(data) // 2 + 60)]:
        found = walk(data[:size])
        whole = [end for end in ends if end <= size]
        assert len(found.position) == len(whole)
        assert found.end == (whole[-1] if whole else 0)
        assert found.incomplete == (found.end != size)
