"""jit-PID.dump: generations of code against a model, damaged dumps, another clock."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfrecord import mmap_table

from kvmperf_magic.symbols import jitdump

HEADER = struct.pack("<IIIIIIQQ", 0x4A695444, 1, 40, 62, 0, 9, 5, 0)
Load = tuple[int, int, int]  # time, start, length; its name is its place in the list


def load(time: int, start: int, length: int, name: bytes, index: int = 0) -> bytes:
    body = struct.pack("<IIQQQQ", 9, 9, start, start, length, index) + name + b"\0\xc3"
    return struct.pack("<IIQ", 0, 16 + len(body), time) + body


def dump(*records: bytes) -> bytes:
    return HEADER + b"".join(records)


def name_at(jit: jitdump.Jit, time: int, address: int) -> str:
    table = jit.table(int(jit.generation(np.array([time], np.uint64))[0]))
    row = int(table.find(np.array([address], np.uint64))[0])
    return table.name(row) if row >= 0 else ""


@settings(deadline=None, max_examples=60)
@given(
    loads=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(1, 4)), max_size=8),
    cuts=st.lists(st.integers(0, 600), max_size=6),
)
def test_a_dump_that_grows_is_read_on(
    loads: list[Load], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """At any size it says what a dump of that size says to who opens it then."""
    whole = dump(*(load(t, 0x1000 + 16 * at, 16 * n, b"f%d" % t) for t, at, n in loads))
    path = tmp_path_factory.mktemp("dump") / f"jit-{os.getpid()}.dump"
    growing = jitdump.Dump(str(path), os.getpid(), timed=True)
    for cut in [*sorted(cuts), len(whole)]:
        path.write_bytes(whole[:cut])
        jit = growing.read(alive=False)
        assert growing.read(alive=False) is jit or cut < len(HEADER)
        fresh = jitdump.Dump(str(path), os.getpid(), timed=True).read(alive=False)
        assert (jit.count, jit.note, jit.starts.tolist()) == (
            fresh.count,
            fresh.note,
            fresh.starts.tolist(),
        )
        asked = [(time, 0x1000 + 16 * at) for time in (0, 5, 10) for at in range(13)]
        assert [name_at(jit, *one) for one in asked] == [name_at(fresh, *one) for one in asked]
    path.unlink()
    assert growing.read(alive=False) is jit, "what was read of one that is gone stays"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30), st.integers(1, 8)), max_size=25))
def test_code_is_what_was_loaded_last(loads: list[Load]) -> None:
    """At any time an address is of the last load until then, unless one that came later in the
    same generation hides it: never of one that was replaced."""
    loads.sort(key=lambda one: one[0])
    parts = [
        load(t, 0x1000 + 16 * at, 16 * n, f"f{i}".encode()) for i, (t, at, n) in enumerate(loads)
    ]
    jit = jitdump.parse(dump(*parts))
    assert jit.count == len(loads)
    assert (np.diff(jit.starts) > 0).all()
    for time in (0, 15, 30, 45, 61):
        for place in range(39):
            there = [i for i, (t, at, n) in enumerate(loads) if t <= time and at <= place < at + n]
            live = [
                i
                for i in there
                if not any(
                    j > i and loads[j][0] <= time and _overlap(loads[i], loads[j])
                    for j in range(len(loads))
                )
            ]
            found = name_at(jit, time, 0x1000 + 16 * place)
            if live:
                assert found == f"f{live[0]}"
            elif found:
                # not yet loaded, where nothing else was
                assert loads[int(found[1:])][0] > time


def _overlap(one: Load, other: Load) -> bool:
    return one[1] < other[1] + other[2] and other[1] < one[1] + one[2]


def test_moves_close_and_what_is_unknown() -> None:
    move = struct.pack("<IIQIIQQQQQ", 1, 16 + 48, 30, 9, 9, 0x3000, 0x1000, 0x3000, 16, 7)
    unknown = struct.pack("<IIQQ", 2, 24, 20, 0)
    close = struct.pack("<IIQ", 3, 16, 40)
    data = dump(load(10, 0x1000, 16, b"moved", 7), unknown, move, close, load(50, 0, 9, b"behind"))
    jit = jitdump.parse(data)
    assert jit.count == 2
    assert name_at(jit, 35, 0x3004) == "moved"
    assert name_at(jit, 60, 4) == ""


def test_another_clock_is_said() -> None:
    """Then nobody knows what came first: one generation, in which the last counts."""
    data = dump(load(10, 0x1000, 16, b"one"), load(20, 0x1000, 16, b"two"))
    timed, untimed = jitdump.parse(data), jitdump.parse(data, timed=False)
    assert (len(timed.starts), timed.note) == (2, "")
    assert name_at(untimed, 15, 0x1000) == "two"
    assert "another clock" in untimed.note


def test_damaged_dumps() -> None:
    """A dump that is being written, or hostile, gives what is whole of it."""
    whole = dump(*(load(i, 0x1000 + 64 * i, 32, b"function %d" % i, i) for i in range(40)))
    counts = {jitdump.parse(whole[:cut]).count for cut in range(40, len(whole))}
    assert counts == set(range(40))
    rng = random.Random("jitdump")
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(len(data))
            data[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))
        try:
            jit = jitdump.parse(bytes(data))
        except ValueError:
            continue
        for one in range(len(jit.starts)):
            assert len(jit.table(one)) <= jit.count
    with pytest.raises(ValueError, match="begins with"):
        jitdump.parse(b"\x7fELF" + bytes(60))


def test_a_dump_that_is_cut_off_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may do that at any time: the pages of a mapping would be gone."""
    path = tmp_path / "jit-9.dump"
    path.write_bytes(dump(*(load(i, 64 * i, 32, b"x" * 1000, i) for i in range(1000))))

    plain = jitdump._Pieces.__call__

    def cut(pieces: jitdump._Pieces, at: int, size: int) -> bytes:
        if at > 1 << 16:
            os.truncate(path, 0)
        return plain(pieces, at, size)

    monkeypatch.setattr(jitdump._Pieces, "__call__", cut)
    assert 1 <= jitdump.Dump(str(path), 9, timed=True).read(alive=False).count < 1000


def test_only_own_dumps_of_files_that_can_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "jit-9.dump"
    other = tmp_path / "jit-8.dump"
    maps = mmap_table([(0, 9, 0x1000, 64, 0, str(path), 2), (0, 9, 0x9000, 64, 0, str(other), 2)])
    path.write_bytes(dump(load(1, 0x1000, 16, b"code")))
    other.write_bytes(dump(load(1, 0x1000, 16, b"of another process")))

    def found() -> tuple[int, str]:
        (jit,) = jitdump.of_recording(maps, alive=False, timed=True).values()
        assert jit.path == str(path)
        assert len(jit.table(0)) == jit.count
        return jit.count, jit.note

    assert found() == (1, "")
    path.unlink()
    assert found() == (0, "the dump is not here")
    os.mkfifo(path)
    assert found() == (0, "the dump is no file of its process's user")
    path.unlink()
    path.symlink_to(other)
    assert "cannot be read" in found()[1]
    path.unlink()
    path.write_bytes(b"no dump")
    assert "begins with" in found()[1]
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        assert "no file of its process's user" in found()[1]
