"""NAME.kvmperf: what is damaged or hostile is refused, with the place and what to do."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmperf_magic import demo
from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata import packed
from kvmperf_magic.recording import open_recording

RECORDING = Path(demo.__file__).parent / "recordings/crowded.data"
HEAD = 32


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "crowded.kvmperf"
    open_recording(RECORDING, cache=False, guest_elf=demo.guest_elf()).save(path)
    return path.read_bytes()


def refused(path: Path, data: bytes) -> FileError:
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        open_recording(path, cache=False)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return caught.value


def with_directory(data: bytes, change: dict[str, Any]) -> bytes:
    """With another directory, whose digest is right."""
    end = HEAD + int.from_bytes(data[8:16], "little")
    text = json.dumps({**json.loads(data[HEAD:end]), **change}).encode()
    digest = blake2b(text, digest_size=16).digest()
    return data[:8] + len(text).to_bytes(8, "little") + digest + text + data[end:]


def directory(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data[HEAD : HEAD + int.from_bytes(data[8:16], "little")])
    return found


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 9))
def test_what_is_packed_comes_out(parts: Sequence[bytes], times: int) -> None:
    members = {f"data.{i}": part * times for i, part in enumerate(parts)} | {"data": b"d"}
    whole = b"".join(packed.pack("name", members))
    found = packed.unpack("", whole)
    assert found.name == "name"
    assert {name: bytes(data) for name, data in found.members.items()} == members


def test_large_members_are_packed_in_blocks() -> None:
    """Also what hardly shrinks, and what shrinks so much that it would be taken for a bomb."""
    noise = random.Random(1).randbytes(5 << 20)
    nothing = bytes(66 << 20)
    found = packed.unpack("", b"".join(packed.pack("", {"data": noise, "symbols": b"s"})))
    assert bytes(found.members["data"]) == noise
    whole = b"".join(packed.pack("", {"data": nothing}))
    assert len(whole) > len(nothing)
    assert bytes(packed.unpack("", whole).members["data"]) == nothing


def test_no_byte_can_be_changed_unseen(saved: bytes, tmp_path: Path) -> None:
    rng = random.Random("packed")
    places = {*range(40), *range(len(saved) - 20, len(saved)), *rng.sample(range(len(saved)), 150)}
    for at in sorted(places):
        data = bytearray(saved)
        data[at] ^= 1 << rng.randrange(8)
        error = refused(tmp_path / "damaged.kvmperf", bytes(data))
        # but for the magic itself, behind which it is no such file
        assert (error.offset is not None) == (at >= 8)


def test_what_is_cut_off_says_how_much_is_missing(saved: bytes, tmp_path: Path) -> None:
    for size in (9, 31, 40, len(saved) // 2, len(saved) - 1):
        error = refused(tmp_path / "cut.kvmperf", saved[:size])
        assert error.offset is not None
        assert error.offset <= len(saved)
    assert "1 bytes of 'symbols' miss" in error.message
    error = refused(tmp_path / "long.kvmperf", saved + b"more")
    assert "4 bytes follow" in error.message


def test_a_bomb_is_refused_before_it_is_unpacked(saved: bytes, tmp_path: Path) -> None:
    block = zlib.compress(bytes(1 << 21), 9)
    count = 512  # a gigabyte in a megabyte
    member = {
        "name": "data",
        "size": count << 21,
        "blocks": [[len(block), 1 << 21, zlib.crc32(block)]] * count,
    }
    end = HEAD + int.from_bytes(saved[8:16], "little")
    bomb = with_directory(saved[:end] + block * count, {"members": [member]})
    error = refused(tmp_path / "bomb.kvmperf", bomb)
    assert f"unpack to {1 << 30}" in error.message
    assert "do not trust" in error.hint
    # a block that is more than it says is one, too
    told = {**member, "size": 9000, "blocks": [[len(block), 9000, zlib.crc32(block)]]}
    error = refused(
        tmp_path / "bomb.kvmperf", with_directory(saved[:end] + block, {"members": [told]})
    )
    assert error.offset is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2, format 1 is known"),
        ({"members": 5}, "not as it should be"),
        ({"members": [{"name": "data"}]}, "not as it should be"),
        ({"members": []}, "bytes follow"),
        (
            {"members": [{"name": "data", "size": 1 << 62, "blocks": []}]},
            "0 of 4611686018427387904",
        ),
        ({"members": [{"name": "data", "size": 9, "blocks": [[1, 1 << 60, 0]]}]}, "a block of"),
        ({"members": [{"name": "data", "size": 9, "blocks": [[-5, 9, 0]]}]}, "a block of"),
        ({"members": [{"name": "data", "size": 9, "blocks": [[9.0, 9.0, 0]]}]}, "a block of"),
        ({"members": [{"name": "../data", "size": 0, "blocks": []}]}, "no member is called"),
        ({"members": [{"name": "data", "size": 1e400, "blocks": []}]}, "not as it should be"),
    ],
)
def test_directories_that_lie(
    change: dict[str, Any], said: str, saved: bytes, tmp_path: Path
) -> None:
    assert said in refused(tmp_path / "lies.kvmperf", with_directory(saved, change)).message


def test_symbols_that_lie(saved: bytes, tmp_path: Path) -> None:
    """All checks of the file are right: only what it says of symbols is not."""
    members = packed.unpack("", saved).members
    sound = bytes(members["symbols"])
    size = int.from_bytes(sound[8:16], "little")
    lies = [
        b"",
        b"no blob",
        sound[:40],
        sound.replace(b'"symbols": ', b'"symbols": 9', 1),
        sound.replace(b'"kind": "user"', b'"kind": "evil"').replace(b'"program"', b'"program_"'),
        sound[:16] + b"[" * size + sound[16 + size :],
        sound[: 16 + size] + b"\xff" * (len(sound) - 16 - size),
    ]
    for lie in lies:
        whole = b"".join(packed.pack("crowded", {"data": members["data"], "symbols": lie}))
        path = tmp_path / "lies.kvmperf"
        if not lie:  # none at all: a recording without names
            path.write_bytes(whole)
            assert len(open_recording(path, cache=False))
            continue
        assert "its symbols" in refused(path, whole).message
