"""Does a kernel's symbol table fit the addresses that were sampled, and moved by how much?

KASLR moves an x86-64 kernel's image by a multiple of 2 MiB within the top GiB under the modules
(arch/x86/boot/compressed/kaslr.c). A table taken in another boot is off by such a slide. Every
sampled address must lie in a function; with the right slide all do, with a wrong one some fall
outside the code, into data, or into the padding before functions (`__pfx_` symbols, gaps between
sized ones). A slide is believed only when no other one comes near it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.symboltable import SymbolTable

_STEP = 2 << 20
_LOWEST, _HIGHEST = 0xFFFFFFFF80000000, 0xFFFFFFFFC0000000
# evidence: how many distinct addresses a slide needs, and how many are weighed
_FEWEST, _MOST = 16, 4096


@dataclass(frozen=True)
class Verdict:
    """`delta` moves the table onto the addresses; None: it cannot hold them, `why` says so."""

    delta: int | None
    why: str = ""


class Fit:
    """A symbol table, ready to be weighed against addresses at many slides."""

    def __init__(self, table: SymbolTable) -> None:
        image = np.array([not m for m in table.modules.categories] or [True])
        own = image[table.modules.codes] if len(table) else np.zeros(0, np.bool_)
        code = np.isin(table.types | 0x20, (ord("t"), ord("w")))
        padding = table.starts_with(b"__pfx_") | table.starts_with(b"__cfi_")
        self._functions = table.take(own & code & ~padding)
        self._whole = table
        self.movable = bool(
            len(self._functions)
            and int(self._functions.start[0]) >= _LOWEST
            and int(self._functions.end[-1]) <= _HIGHEST
        )

    def misses(self, address: NDArray[np.uint64], delta: int) -> int:
        """How many of the addresses are in no function of the table moved by `delta`."""
        at = address - np.uint64(delta % 2**64)
        missed = self._functions.find(at) < 0
        if delta == 0 and missed.any():
            # a module's symbols hold only where they were loaded
            rows = self._whole.find(address[missed])
            in_module = rows >= 0
            in_module[in_module] &= np.array(
                [bool(m) for m in self._whole.modules.categories], np.bool_
            )[self._whole.modules.codes[rows[in_module]]]
            return int((~in_module).sum())
        return int(missed.sum())

    def judge(self, address: NDArray[np.uint64], recorded: int | None = None) -> Verdict:
        """How far to move the table for these kernel addresses (unique, any order).

        `recorded` is the slide the recording itself gives: it is taken unless it cannot be.
        """
        if not self.movable:
            return self._unmoved(address, recorded or 0)
        weighed = address[(address >= np.uint64(_LOWEST)) & (address < np.uint64(_HIGHEST))]
        if len(weighed) > _MOST:
            weighed = weighed[:: len(weighed) // _MOST + 1]
        n = len(weighed)
        expected = recorded or 0
        if not n:
            if not (address >= np.uint64(_LOWEST)).any():
                return Verdict(None, "no sampled address is where this kernel can be")
            return Verdict(expected)
        slides = self._slides(weighed)
        misses = {slide: self.misses(weighed, slide) for slide in {*slides, expected}}
        # with the right slide none is outside; a wrong one leaves some 5 % in padding alone
        tolerated = n // 200
        margin = max(5, n // 50)
        best = min(misses, key=lambda slide: (misses[slide], slide != expected))
        if recorded is not None and misses[recorded] * 10 <= n:
            return Verdict(recorded)
        if misses[expected] <= tolerated and misses[expected] - misses[best] < margin:
            return Verdict(expected)
        others = [count for slide, count in misses.items() if slide != best]
        # slides that were not weighed leave more than half of the addresses outside the code
        second = min([*others, n // 2])
        if n >= _FEWEST and misses[best] <= tolerated and second - misses[best] >= margin:
            return Verdict(best)
        outside = f"{misses[expected]} of {n} sampled addresses are in none of its functions"
        if misses[best] <= tolerated:
            return Verdict(None, f"{outside}, and more than one KASLR slide would fit")
        return Verdict(None, f"{outside}, and no KASLR slide mends that")

    def _unmoved(self, address: NDArray[np.uint64], delta: int) -> Verdict:
        missed = self.misses(address, delta)
        if missed * 2 <= len(address):
            return Verdict(delta)
        return Verdict(
            None, f"{missed} of {len(address)} sampled addresses are in none of its functions"
        )

    def _slides(self, address: NDArray[np.uint64]) -> list[int]:
        """Slides at which at least half of the addresses are inside the code as a whole."""
        begin, end = int(self._functions.start[0]), int(self._functions.end[-1])
        first = (_LOWEST - begin) // _STEP + 1
        last = (_HIGHEST - end) // _STEP
        steps = np.arange(first, last + 1, dtype=np.int64) * _STEP
        ordered = np.sort(address)
        moved = steps.astype(np.uint64)
        inside = np.searchsorted(ordered, np.uint64(end) + moved) - np.searchsorted(
            ordered, np.uint64(begin) + moved
        )
        return [int(step) for step in steps[inside * 2 >= len(address)]]
