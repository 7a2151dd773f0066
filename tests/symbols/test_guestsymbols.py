"""Guest symbols as bytes and back, and bytes that are none."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.symbols import kallsyms
from kvmperf_magic.symbols.guestsymbols import GuestSymbols

names = st.text(st.characters(exclude_characters="\0\n\r\t []\x85", codec="utf-8"), min_size=1)
rows = st.lists(
    st.tuples(
        st.integers(1, 2**64 - 2**20), st.sampled_from("tTdDbBwW"), names,
        st.sampled_from(["", "kvm", "<script>"]),
    ),
    max_size=30,
)  # fmt: skip


def symbols(text: str) -> GuestSymbols:
    table = kallsyms.parse(text + "ffffffff81000000 T _text\nffffffff81000800 T _etext\n")
    return GuestSymbols(7, "web1", table, "guest memory", "", "6.1.0", "abc", 12)


@given(rows)
def test_what_was_packed_comes_back(drawn: list[tuple[int, str, str, str]]) -> None:
    text = "".join(
        f"{at:016x} {kind} {name}" + (f"\t[{module}]" if module else "") + "\n"
        for at, kind, name, module in drawn
        if not name.startswith("$")
    )
    before = symbols(text)
    after = GuestSymbols.unpack(before.pack())
    assert replace(after, table=None) == replace(before, table=None)
    assert before.table is not None
    assert after.table is not None
    for column in ("start", "end", "types"):
        assert (getattr(after.table, column) == getattr(before.table, column)).all()
    assert after.table.names == before.table.names
    assert after.table.modules.values().tolist() == before.table.modules.values().tolist()
    assert after.table.marks == before.table.marks


def test_what_was_not_found_is_kept_too() -> None:
    nothing = GuestSymbols(7, "web1", note="its memory is encrypted")
    assert GuestSymbols.unpack(nothing.pack()) == nothing


@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_damage_is_told_or_harmless(noise: bytes, at: int, cut: bool) -> None:
    good = symbols("ffffffff82000000 T one\nffffffff82000010 t two\t[kvm]\n").pack()
    bad = good[:at] if cut else good[:at] + noise + good[at + len(noise) :]
    try:
        found = GuestSymbols.unpack(bad)
    except ValueError:
        return
    if found.table is not None:
        assert len(found.table.names) == len(found.table)
        found.table.find(np.array([0, 2**63], np.uint64))


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        (b'{"symbols":1000000000000,"bytes":12}', b""),
        (b'{"symbols":-1,"bytes":0}', b""),
        (b'{"symbols":2,"bytes":1e99}', b""),
        (b'{"symbols":1,"bytes":11}', bytes(8) + b"\1\0" + b"t"),  # a module there is not
        (b'{"symbols":0,"bytes":1000000000}', bytes(1 << 20)),
        (b'{"symbols":1,"bytes":17}', bytes(10) + b"tname\0x\0"),  # two names
        (b'{"symbols":true,"bytes":12}', bytes(12)),
        (b'{"symbols":1,"bytes":13,"ends":[[7],[1]]}', bytes(10) + b"tx\0"),
        (b'{"symbols":1,"bytes":13,"ends":[[0],[-1]]}', bytes(10) + b"tx\0"),
        (b'{"symbols":1,"bytes":13,"ends":[[0],["x"]]}', bytes(10) + b"tx\0"),
        (b'{"symbols":1,"bytes":13,"ends":5}', bytes(10) + b"tx\0"),
    ],
)
def test_sizes_are_checked_before_anything_is_made(line: bytes, columns: bytes) -> None:
    told = b'{"format":1,"pid":1,"name":"","source":"","note":"","release":"","build_id":"",'
    data = (
        told
        + b'"since":0,"modules":[""],"ends":[[],[]],'
        + line[1:]
        + b"\n"
        + zlib.compress(columns)
    )
    with pytest.raises(ValueError, match="guest symbols"):
        GuestSymbols.unpack(data)
