"""Build-ids: the hash by which a recording names the very binary it saw."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

_NT_GNU_BUILD_ID = 3


def in_notes(data: bytes, *, little: bool = True) -> str:
    """The build-id in an ELF note segment as hex digits, "" where there is none.

    A note is name size, content size, type, name, content, both padded to 4 bytes
    (tools/perf/util/symbol-elf.c: elf_read_build_id()).
    """
    order: Literal["little", "big"] = "little" if little else "big"
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = (
            int.from_bytes(data[at + i : at + i + 4], order) for i in (0, 4, 8)
        )
        at += 12
        name = data[at : at + name_size]
        at += (name_size + 3) & ~3
        if kind == _NT_GNU_BUILD_ID and name == b"GNU\0" and 0 < size <= 64:
            return data[at : at + size].hex()
        at += (size + 3) & ~3
    return ""


@cache
def of_running_kernel() -> str:
    """The build-id of the kernel that runs here (/sys/kernel/notes), "" where it is hidden."""
    try:
        return in_notes(Path("/sys/kernel/notes").read_bytes())
    except OSError:
        return ""


def normal(build_id: str) -> str:
    """A build-id as it compares: lower case, without the zeros that pad it to 20 bytes.

    Short ids (md5, uuid) are stored padded in perf.data when no size was written.
    """
    text = build_id.lower()
    while len(text) > 32 and text.endswith("00000000"):
        text = text[:-8]
    return text if text.strip("0") else ""


def same(one: str, other: str) -> bool:
    """Whether two build-ids do not contradict each other: an unknown one never does."""
    a, b = normal(one), normal(other)
    return not a or not b or a == b
