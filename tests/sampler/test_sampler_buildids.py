"""Build ids: readelf is the oracle, damaged files are no event."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.sampler import buildids


@pytest.mark.compiler  # binutils come with it
def test_build_ids_are_readelfs() -> None:
    readelf = shutil.which("readelf")
    assert readelf is not None
    programs = sorted(p for p in Path("/usr/bin").iterdir() if p.is_file() and not p.is_symlink())
    libraries = sorted(Path("/usr/lib").glob("*/lib*.so.*"))
    files = [str(p) for p in [*programs[::20], *libraries[::20]]]
    listed = subprocess.run([readelf, "-n", *files], check=False, capture_output=True, text=True)
    expected: dict[str, str] = {}
    for part in listed.stdout.split("\nFile: ")[1:]:
        met = re.search(r"Build ID: (\w+)", part)
        if met:
            expected[part.splitlines()[0]] = met[1]
    assert len(expected) > 20
    ids = buildids.BuildIds()
    for name in files:
        assert ids.of_map(0, name, own_root=False).hex() == expected.get(name, ""), name


@given(st.integers(1, 20), st.integers(0, 3), st.sampled_from([4, 8]), st.binary(max_size=64))
def test_the_note_is_found_among_others(size: int, before: int, align: int, junk: bytes) -> None:
    def note(kind: int, name: bytes, body: bytes) -> bytes:
        head = struct.pack("<III", len(name), len(body), kind) + name
        head += bytes(-len(head) % align)
        return head + body + bytes(-len(body) % align)

    wanted = bytes(range(1, size + 1))
    notes = b"".join(note(i, b"GNU\0", bytes(i * 3)) for i in range(before) if i != 3)
    assert buildids.from_notes(notes + note(3, b"GNU\0", wanted) + junk, align) == wanted
    assert buildids.from_notes(notes, align) == b""


@given(st.binary(max_size=58) | st.binary(min_size=58, max_size=58), st.binary(max_size=200))
def test_damaged_files_have_none(header: bytes, rest: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\x7fELF\x02\x01" + header + rest)
        file.flush()
        assert buildids.BuildIds().of_map(0, file.name, own_root=False) == b""
