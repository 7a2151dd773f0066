"""vmcoreinfo: a page of text in which a Linux kernel tells crash tools about itself.

kernel/vmcore_info.c (kernel/crash_core.c before 6.9): lines such as `OSRELEASE=6.1.0`,
`SYMBOL(_stext)=ffffffff81000000`, `NUMBER(phys_base)=0`. It begins a page, so the first bytes of
every page that exists are looked at; copies and leftovers of an earlier boot are found too, and
are for the reader to tell apart.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.memory import page_numbers
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping, VmmMemory
from kvmperf_magic.parallel import blocks

_BEGIN = b"OSRELEASE="
# the page may be an ELF note as well: its header, and the name VMCOREINFO padded to words
_NOTE = b"VMCOREINFO\0\0"
_NOTE_HEADER = 12
_LOOKED_AT = _NOTE_HEADER + len(_NOTE)
_BATCH = 1 << 15  # pages between looks at the clock
_LINE = re.compile(r"([A-Z_-]+(?:\([\w.]+\))?)=(.*)")
_IMAGE = 0xFFFFFFFF80000000  # __START_KERNEL_map


@dataclass(frozen=True)
class Vmcoreinfo:
    """One page of it: where the VMM has it, and its bytes."""

    host: int
    page: bytes

    @cached_property
    def fields(self) -> dict[str, str]:
        text = self.page.partition(_BEGIN)[2].partition(b"\0")[0]
        lines = (_BEGIN + text).decode("ascii", "replace").splitlines()
        found = (_LINE.fullmatch(line) for line in lines)
        return {match[1]: match[2] for match in found if match}

    @property
    def release(self) -> str:
        return self.fields.get("OSRELEASE", "")

    @property
    def build_id(self) -> str:
        return self.fields.get("BUILD-ID", "")

    def symbol(self, name: str) -> int | None:
        """The address of a kernel symbol."""
        return _number(self.fields.get(f"SYMBOL({name})"), 16)

    def number(self, name: str) -> int | None:
        return _number(self.fields.get(f"NUMBER({name})"), 0)

    def offset(self, name: str) -> int | None:
        """Where a member lies in its struct."""
        return _number(self.fields.get(f"OFFSET({name})"), 0)

    @property
    def is_x86(self) -> bool:
        """Whether it tells what is needed to find an x86-64 kernel's image."""
        return self.number("phys_base") is not None and (self.symbol("_stext") or 0) > _IMAGE

    def image_physical(self, virtual: int) -> int:
        """The physical address of something in the kernel's image, which lies in one piece."""
        return (virtual - _IMAGE + (self.number("phys_base") or 0)) % 2**64


@dataclass(frozen=True)
class Scan:
    """What was found; `complete` is False where the time was over before the memory was."""

    found: list[Vmcoreinfo]
    pages: int
    complete: bool


def scan(
    vmm: VmmMemory,
    mappings: Sequence[Mapping],
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Look through all pages of these mappings; `progress` is told pages done and pages in all."""
    end = time.monotonic() + seconds
    pages = np.concatenate([page_numbers(vmm, one) for one in mappings] or [np.zeros(0, np.uint64)])
    found: list[Vmcoreinfo] = []
    for start in range(0, len(pages), _BATCH):
        batch = pages[start : start + _BATCH]
        heads = np.concatenate(blocks(partial(_heads, vmm, batch), len(batch), 4096))
        plain = (heads[:, : len(_BEGIN)] == np.frombuffer(_BEGIN, np.uint8)).all(axis=1)
        note = (heads[:, _NOTE_HEADER:] == np.frombuffer(_NOTE, np.uint8)).all(axis=1)
        for host in batch[plain | note].tolist():
            one = Vmcoreinfo(host, vmm.read(host, PAGE))
            if one.release:
                found.append(one)
        if progress is not None:
            progress(min(start + _BATCH, len(pages)), len(pages))
        if time.monotonic() > end:
            return Scan(found, len(pages), start + _BATCH >= len(pages))
    return Scan(found, len(pages), True)


def _heads(vmm: VmmMemory, pages: NDArray[np.uint64], rows: slice) -> NDArray[np.uint8]:
    return vmm.gather(pages[rows], _LOOKED_AT)


def _number(text: str | None, base: int) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None
