"""vmcoreinfo: a page of text in which a Linux kernel tells crash tools about itself.

kernel/vmcore_info.c (kernel/crash_core.c before 6.9): lines such as `OSRELEASE=6.1.0`,
`SYMBOL(_stext)=ffffffff81000000`, `NUMBER(phys_base)=0`. It begins a page, so the first bytes of
every page that exists are looked at; copies and leftovers of an earlier boot are found too, and
are for the reader to tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.budget import Budget
from kvmperf_magic.guests.linux import IMAGE, Boot
from kvmperf_magic.guests.memory import HOLES, Access
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping
from kvmperf_magic.parallel import blocks

_BEGIN = b"OSRELEASE="
# the page may be an ELF note as well: its header, and the name VMCOREINFO padded to words
_NOTE = b"VMCOREINFO\0\0"
_NOTE_HEADER = 12
_LOOKED_AT = _NOTE_HEADER + len(_NOTE)
_PIECE = 64 << 20  # bytes between looks at the clock
_RELEASE = re.compile(r"[!-~]{1,64}")  # struct new_utsname has 65 bytes for it
_LINE = re.compile(r"([A-Z_-]+(?:\([\w.]+\))?)=(.*)")


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
        """The kernel's version; "" where it is no word: then this is no kernel's page."""
        release = self.fields.get("OSRELEASE", "")
        return release if _RELEASE.fullmatch(release) else ""

    @property
    def build_id(self) -> str:
        return self.fields.get("BUILD-ID", "")

    def symbol(self, name: str) -> int | None:
        """The address of a kernel symbol."""
        address = _number(self.fields.get(f"SYMBOL({name})"), 16)
        return address if address is not None and 0 <= address < 2**64 else None

    def number(self, name: str) -> int | None:
        return _number(self.fields.get(f"NUMBER({name})"), 0)

    def offset(self, name: str) -> int | None:
        """Where a member lies in its struct."""
        return _number(self.fields.get(f"OFFSET({name})"), 0)

    @property
    def is_x86(self) -> bool:
        """Whether it tells what is needed to find an x86-64 kernel's image."""
        return self.number("phys_base") is not None and (self.symbol("_stext") or 0) > IMAGE

    def boot(self) -> Boot:
        """What it tells of this boot of the kernel (x86-64's, see `is_x86`)."""
        return Boot(
            self.release,
            self.build_id,
            self.number("phys_base") or 0,
            self.symbol("_stext") or 0,
            self.symbol("init_top_pgt") or self.symbol("swapper_pg_dir") or 0,
            bool(self.number("pgtable_l5_enabled")),
            self.number("sme_mask") or 0,
            self.host,
            self.page,
        )


class Search:
    """All vmcoreinfo pages in these mappings, as they are found: iterate over it.

    Where the kernel mostly puts its page is looked at first, so that a large guest need not be
    searched to its end. `complete` is False while there is more to look at: also after the last
    one, where the budget was spent before.
    """

    def __init__(
        self,
        vmm: Access,
        mappings: Sequence[Mapping],
        budget: Budget,
    ) -> None:
        self._vmm = vmm
        self._mappings = mappings
        self._budget = budget
        self.complete = False

    def __iter__(self) -> Iterator[Vmcoreinfo]:
        ranges = sorted(
            (part for one in self._mappings for part in _parts(one)), key=lambda part: part[0]
        )
        total, done = sum(stop - start for _, start, stop in ranges), 0
        for _, start, stop in ranges:
            yield from self._in(start, stop)
            done += stop - start
            if not self._budget.spend(done, total):
                return
        self.complete = True

    def _in(self, start: int, stop: int) -> Iterator[Vmcoreinfo]:
        there = np.flatnonzero(self._vmm.present(start, stop)).astype(np.uint64)
        pages = there * np.uint64(PAGE) + np.uint64(start)
        if not len(pages):
            return
        heads = np.concatenate(blocks(partial(_heads, self._vmm, pages), len(pages), 4096))
        plain = (heads[:, : len(_BEGIN)] == np.frombuffer(_BEGIN, np.uint8)).all(axis=1)
        note = (heads[:, _NOTE_HEADER:] == np.frombuffer(_NOTE, np.uint8)).all(axis=1)
        for host in pages[plain | note].tolist():
            one = Vmcoreinfo(host, self._vmm.read(host, PAGE))
            if one.release:
                yield one


def _parts(mapping: Mapping) -> list[tuple[int, int, int]]:
    """A mapping in pieces: what is first to be looked at, its start and its end.

    A young kernel gives away pages from the beginning of its highest zone, which is at 4 GiB and
    thus behind the hole for devices, or, in a guest that ends below, from its end.
    """
    first = {place - place % _PIECE for place in HOLES if place < mapping.size}
    first |= {
        0,
        (mapping.size - 1) // _PIECE * _PIECE,
        max(0, mapping.size - 1 - _PIECE) // _PIECE * _PIECE,
    }
    found = []
    for at in range(0, mapping.size, _PIECE):
        stop = min(at + _PIECE, mapping.size)
        found.append((int(at not in first), mapping.start + at, mapping.start + stop))
    return found


def _heads(vmm: Access, pages: NDArray[np.uint64], rows: slice) -> NDArray[np.uint8]:
    return vmm.gather(pages[rows], _LOOKED_AT)


def _number(text: str | None, base: int) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None
