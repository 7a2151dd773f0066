"""Symbol tables written as scripts/kallsyms.c writes them, for every layout there was."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

Symbol = tuple[int, str, str]  # address, type, name
BASE = 0xFFFFFFFF9B000000
_GROUP = 256
# pairs of letters that stand for bytes no name has
_PAIRS = ["_s", "in", "er", "re", "__", "at", "st", "en", "te", "le", "on", "or", "pa", "ge"]


@dataclass(frozen=True)
class Layout:
    """How a kernel was built: its version's order, its options."""

    offsets: str = "relative"  # "absolute", "percpu", "place"
    marker_width: int = 4
    newer: bool = False  # the addresses behind the tokens
    sequence: bool = False  # seqs_of_names in front of the tokens


@dataclass(frozen=True)
class Image:
    """The bytes of an image at BASE, and where its tables are."""

    data: bytes
    places: dict[str, int]

    def read(self, virtual: int, size: int) -> bytes:
        at = virtual - BASE
        return self.data[at : at + size] if at >= 0 and at + size <= len(self.data) else b""

    def vmcoreinfo(self) -> bytes:
        """The page that tells where they are."""
        lines = [f"SYMBOL(kallsyms_{name})={at:x}" for name, at in self.places.items()]
        return "\n".join(["OSRELEASE=6.0.0-test", *lines, ""]).encode()


def tokens() -> list[bytes]:
    """The token of each byte: itself for letters that names have."""
    plain = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.$")
    pairs = iter(_PAIRS * 20)
    return [bytes([i]) if i in plain else next(pairs).encode() for i in range(256)]


def encode(name: str, table: Sequence[bytes]) -> bytes:
    """Length and tokens of a type and name."""
    codes = bytearray()
    text = name.encode()
    pairs = {token: code for code, token in enumerate(table) if len(token) == 2}
    at = 0
    while at < len(text):
        code = pairs.get(text[at : at + 2])
        codes.append(text[at] if code is None else code)
        at += 1 if code is None else 2
    size = len(codes)
    length = [size] if size < 0x80 else [size & 0x7F | 0x80, size >> 7]
    return bytes(length) + bytes(codes)


def build(symbols: Sequence[Symbol], layout: Layout, before: bytes, behind: bytes) -> Image:
    """An image with these symbols, sorted by address, between other bytes."""
    table = tokens()
    out = bytearray(before)
    places: dict[str, int] = {}

    def put(name: str, body: bytes) -> None:
        out.extend(bytes(-len(out) % 8))
        places[name] = BASE + len(out)
        out.extend(body)

    def put_addresses() -> None:
        base = min((at for at, *_ in symbols if at >> 63), default=BASE)
        if layout.offsets == "absolute":
            put("addresses", b"".join(struct.pack("<Q", at) for at, *_ in symbols))
            return
        out.extend(bytes(-len(out) % 8))
        start = BASE + len(out)
        if layout.offsets == "percpu":
            offsets = [at if not at >> 63 else base - 1 - at for at, *_ in symbols]
        elif layout.offsets == "place":
            offsets = [at - (start + 4 * i) for i, (at, *_) in enumerate(symbols)]
        else:
            offsets = [at - base for at, *_ in symbols]
        put("offsets", b"".join(struct.pack("<I", value & 0xFFFFFFFF) for value in offsets))
        if layout.offsets != "place":
            put("relative_base", struct.pack("<Q", base))

    names = [encode(kind + name, table) for _, kind, name in symbols]
    starts = [0]
    for name in names:
        starts.append(starts[-1] + len(name))
    if not layout.newer:
        put_addresses()
    put("num_syms", struct.pack("<I", len(symbols)))
    put("names", b"".join(names))
    width = "<I" if layout.marker_width == 4 else "<Q"
    put("markers", b"".join(struct.pack(width, at) for at in starts[:-1][::_GROUP]))
    if layout.sequence:
        put("seqs_of_names", b"".join(i.to_bytes(3, "big") for i in range(len(symbols))))
    put("token_table", b"".join(token + b"\0" for token in table))
    index, at = b"", 0
    for token in table:
        index += struct.pack("<H", at)
        at += len(token) + 1
    put("token_index", index)
    if layout.newer:
        put_addresses()
    del places["markers"]
    places.pop("seqs_of_names", None)
    return Image(bytes(out) + behind, places)
