"""Where mutations begin: small recordings of every kind, the published ones among them."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import numpy as np

from fuzz.mutate import records_of
from kvmperf_magic.demo import guest_elf
from kvmperf_magic.perfdata import packed
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.recording import open_recording
from kvmperf_magic.symbols import kallsyms, kept
from kvmperf_magic.symbols.keptlines import KeptLines
from kvmperf_magic.symbols.lines import Place

_SMALL = 48 << 10
_BUNDLED = Path(__file__).parent.parent / "kvmperf_magic/demo/recordings"


def seeds() -> list[bytes]:
    """Small recordings: bundled ones cut short, and published ones where KVMPERF_FIXTURES names
    them. What is larger is cut to its first records; the features behind are lost then."""
    paths = sorted(_BUNDLED.glob("*.data"))
    published = os.environ.get("KVMPERF_FIXTURES")
    if published:
        paths += sorted(p for p in (Path(published) / "recordings").rglob("*") if p.is_file())
    found = [path.read_bytes() for path in paths]
    return [data if len(data) <= _SMALL else _shortened(data) for data in found]


def sections(all_seeds: list[bytes]) -> list[tuple[int, bytes]]:
    """(feature, bytes) of every feature section in these files."""
    found = []
    for data in all_seeds:
        end = _data_end(data)
        if end is None:
            continue
        mask = int.from_bytes(data[72:104], "little")
        for i, feature in enumerate(bit for bit in range(256) if mask >> bit & 1):
            at = end + 16 * i
            offset = int.from_bytes(data[at : at + 8], "little")
            size = int.from_bytes(data[at + 8 : at + 16], "little")
            if size > 0 and offset + size <= len(data):
                found.append((feature, data[offset : offset + size]))
    return found


def _data_end(data: bytes) -> int | None:
    if int.from_bytes(data[8:16], "little") != 104:
        return None
    start, size = (int.from_bytes(data[at : at + 8], "little") for at in (40, 48))
    return start + size if size > 0 and start + size <= len(data) else None


def _shortened(data: bytes) -> bytes:
    """The first records; a file's data section ends with them, and its features follow them."""
    kept = [one for one in records_of(data) if sum(one) <= _SMALL]
    cut = sum(kept[-1]) if kept else _SMALL
    end = _data_end(data)
    if end is None:
        return data[:cut]
    start = int.from_bytes(data[40:48], "little")
    count = int.from_bytes(data[72:104], "little").bit_count()
    table, body = b"", b""
    for i in range(count):
        at = end + 16 * i
        offset, size = (int.from_bytes(data[at + k : at + k + 8], "little") for k in (0, 8))
        place = cut + 16 * count + len(body)
        section = data[offset : offset + size] if size < _SMALL // 4 else b""
        table += place.to_bytes(8, "little") + len(section).to_bytes(8, "little")
        body += section
    head = data[:48] + (cut - start).to_bytes(8, "little") + data[56:cut]
    return head + table + body


def saved() -> list[bytes]:
    """Bundled recordings with what names them: packed, then as perf.data."""
    with tempfile.TemporaryDirectory(prefix="kvmperf-seeds-") as folder:
        found = []
        for name in ("saved.kvmperf", "saved.data"):
            for recording in sorted(_BUNDLED.glob("*.data")):
                opened = open_recording(recording, cache=False, guest_elf=guest_elf())
                opened.save(Path(folder) / name)
                found.append((Path(folder) / name).read_bytes())
        return found


def symbols() -> list[bytes]:
    """The names that packed recordings carry, and some of every kind that there is."""
    table = kallsyms.parse(b"0000000000001000 T one\n0000000000001010 t two\t[ext4]\n")
    many = [
        kept.Kept(0, kept.KERNEL, "", "", table, "/proc/kallsyms", "", 2, warnings=("a", "b")),
        kept.Kept(7, kept.KERNEL, maps=((0x1000, 0x2000, "[ext4]"),)),
        kept.Kept(
            0, kept.USER, "/a", lines=KeptLines.of({16: (Place("", "a:1"), Place("f", "b:2"))})
        ),
        *(kept.Kept(0, kept.JITTED, "/j", "", table, processes=(9,), since=t) for t in (0, 5)),
    ]
    chains = np.array([0, 2, 2]), np.array([1, 2], np.uint64)
    whole = kept.encode(kept.Keeping(many, frozenset({3}), chains, ("c",)))
    carried = [packed.unpack("", one).members for one in saved() if packed.is_packed(one)]
    return [whole, *(bytes(members[packed.SYMBOLS]) for members in carried)]


def jitdumps() -> list[bytes]:
    """Code that is loaded, moved, replaced."""
    found = struct.pack("<IIIIIIQQ", 0x4A695444, 1, 40, 62, 0, 9, 5, 0)
    for time, at in enumerate((0x1000, 0x2000, 0x1000, 0x1800)):
        body = struct.pack("<IIQQQQ", 9, 9, at, at, 0x900, time) + b"name %d\0\xc3" % time
        found += struct.pack("<IIQ", 0, 16 + len(body), time) + body
    found += struct.pack("<IIQIIQQQQQ", 1, 64, 9, 9, 9, 0x3000, 0x1000, 0x3000, 16, 2)
    return [found]


def tracing(all_seeds: list[bytes]) -> list[bytes]:
    """The TRACING_DATA among these."""
    return [data for feature, data in sections(all_seeds) if feature == Feature.TRACING_DATA]
