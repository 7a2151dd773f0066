"""Symbol tables of every layout, decoded and found, against what they were written from."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kallsymsimage import BASE, Image, Layout, Symbol, build, encode, tokens

from kvmperf_magic.guests.kallfinder import Told, by_shape, by_vmcoreinfo
from kvmperf_magic.guests.kalltables import Tokens, decode_names
from kvmperf_magic.guests.vmcoreinfo import Vmcoreinfo

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.$"
names = st.lists(
    st.tuples(st.sampled_from("tTdDbBwWA"), st.text(LETTERS, min_size=1, max_size=300)), max_size=40
)


def kernel(seed: int, count: int, percpu: int = 0) -> list[Symbol]:
    """Symbols as a kernel has them, ascending; the first `percpu` are per CPU."""
    chance = random.Random(seed)
    found = []
    at = 0
    for i in range(count):
        at = at + chance.randrange(64) if i else 0
        if i == percpu:
            at = BASE
        name = "".join(chance.choices(LETTERS[:-2], k=chance.choice([3, 8, 14, 30, 140])))
        found.append((at, chance.choice("tTdDrRbB"), name))
    return found


def listed(told: Told | None) -> list[Symbol]:
    assert told is not None
    symbols = told.symbols
    columns = (symbols.address, symbols.types, symbols.name_at, symbols.name_length)
    return [
        (address, chr(kind), symbols.strings[at : at + length].decode())
        for address, kind, at, length in zip(*(c.tolist() for c in columns), strict=True)
    ]


def found(image: Image, end: int | None = None) -> Told | None:
    return by_shape(BASE, BASE + (len(image.data) if end is None else end), image.read)


@given(names)
def test_names_are_decoded_as_they_were_encoded(symbols: list[tuple[str, str]]) -> None:
    table = tokens()
    data = b"".join(encode(kind + name, table) for kind, name in symbols)
    index = np.cumsum([0, *(len(token) + 1 for token in table[:-1])]).astype("<u2").tobytes()
    known = Tokens.of(b"".join(token + b"\0" for token in table), index)
    assert known is not None
    decoded = decode_names(data, len(symbols), known)
    assert decoded is not None
    text, begin, length = decoded
    rows = zip(begin.tolist(), length.tolist(), strict=True)
    assert [text[at : at + n].decode() for at, n in rows] == [k + name for k, name in symbols]
    # one more than there are
    assert decode_names(data, len(symbols) + 1, known) is None
    if data:
        assert decode_names(data[:-1], len(symbols), known) is None


LAYOUTS = [
    Layout("absolute", marker_width=8),  # 4.5 and before
    Layout("relative", marker_width=8),  # 4.6 to 4.20, one CPU
    Layout("percpu", marker_width=8),
    Layout("percpu"),  # 5.x, 6.0
    Layout("absolute"),
    Layout("relative"),
    Layout("percpu", sequence=True),  # 6.1 as it is maintained
    Layout("percpu", newer=True, sequence=True),
    Layout("relative", newer=True),  # 6.15, without absolute symbols
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(520, 1800),
    before=st.integers(0, 9000),
    noise=st.booleans(),
)
def test_tables_of_every_layout_are_found_by_their_shape(
    layout: Layout, seed: int, count: int, before: int, noise: bool
) -> None:
    symbols = kernel(seed, count, percpu=60 if layout.offsets == "percpu" else 0)
    chance = random.Random(seed)
    fill = chance.randbytes if noise else bytes
    decoy = b"".join(b"%d\0" % digit for digit in range(10))
    image = build(symbols, layout, fill(before + 60_000) + decoy, fill(20_000))
    assert listed(found(image)) == symbols


@pytest.mark.parametrize("offsets", ["absolute", "relative", "percpu", "place"])
@pytest.mark.parametrize("newer", [False, True])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 700))
def test_tables_are_found_by_vmcoreinfo(offsets: str, newer: bool, seed: int, count: int) -> None:
    percpu = min(60, count // 2) if offsets == "percpu" else 0
    symbols = kernel(seed, count, percpu)
    image = build(symbols, Layout(offsets, newer=newer), b"", bytes(70_000))
    info = Vmcoreinfo(0, image.vmcoreinfo())
    assert listed(by_vmcoreinfo(info, image.read)) == symbols


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_damaged_tables_give_nothing_or_something_but_never_fail(
    seed: int, data: st.DataObject
) -> None:
    """The guest may write what it likes into its memory."""
    layout = data.draw(st.sampled_from(LAYOUTS))
    image = build(kernel(seed, 600), layout, b"", bytes(70_000))
    bad = bytearray(image.data)
    chance = random.Random(seed)
    places = list(image.places.values())
    for _ in range(data.draw(st.integers(1, 30))):
        at = chance.choice(places) - BASE + chance.randrange(600)
        bad[at : at + 4] = chance.choice([bytes(4), b"\xff" * 4, chance.randbytes(4)])
    hurt = Image(bytes(bad[: len(image.data)]), image.places)
    found(hurt)
    by_vmcoreinfo(Vmcoreinfo(0, hurt.vmcoreinfo()), hurt.read)


def test_nothing_is_found_where_nothing_is() -> None:
    assert found(Image(bytes(100_000), {})) is None
    assert found(Image(random.Random(0).randbytes(1 << 20), {})) is None
    assert by_vmcoreinfo(Vmcoreinfo(0, b"OSRELEASE=5.10\n"), lambda _at, _size: b"") is None
