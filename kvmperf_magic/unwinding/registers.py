"""From perf's register dumps to the `struct pt_regs` that an unwinder starts from.

Bits of perf's masks: arch/*/include/uapi/asm/perf_regs.h; the order of the fields of pt_regs:
arch/*/include/uapi/asm/ptrace.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ABI_NONE, ABI_32, ABI_64 = 0, 1, 2  # enum perf_sample_regs_abi


@dataclass(frozen=True)
class Registers:
    """One architecture: which of perf's bits each field of pt_regs is (-1: none, so 0)."""

    name: str  # of drgn.Architecture
    machine: str  # of ELF files
    abi: int
    word: int  # bytes
    fields: tuple[int, ...]
    ip: int
    sp: int

    def pt_regs(self, dumped: NDArray[np.uint64], mask: int) -> NDArray[np.uint8]:
        """Dumps (a row each, a column for each bit of `mask`) as the bytes of pt_regs."""
        made = np.zeros((len(dumped), len(self.fields)), np.uint64)
        for i, bit in enumerate(self.fields):
            if bit >= 0 and mask >> bit & 1:
                made[:, i] = dumped[:, column(mask, bit)]
        return made.astype(f"<u{self.word}").view(np.uint8)

    def knows(self, mask: int) -> bool:
        """Whether these dumps hold the least that an unwinder needs."""
        return bool(mask >> self.ip & 1 and mask >> self.sp & 1)


def column(mask: int, bit: int) -> int:
    """Which of the dumped registers a bit of the mask is."""
    return (mask & ((1 << bit) - 1)).bit_count()


# x86: ax bx cx dx si di bp sp ip flags cs ss ds es fs gs, r8 from 16 on
_X86 = (23, 22, 21, 20, 6, 1, 19, 18, 17, 16, 0, 2, 3, 4, 5, -1, 8, 10, 9, 7, 11)
BY_ARCH = {
    "x86_64": Registers("X86_64", "EM_X86_64", ABI_64, 8, _X86, ip=8, sp=7),
    "aarch64": Registers("AARCH64", "EM_AARCH64", ABI_64, 8, (*range(33), -1), ip=32, sp=31),
    "arm": Registers("ARM", "EM_ARM", ABI_32, 4, (*range(16), -1, -1), ip=15, sp=13),
}


def of_arch(arch: str | None) -> Registers | None:
    """The registers of a machine as `uname -m` names it, None for one that is not unwound."""
    name = arch or ""
    return BY_ARCH.get("arm" if name.startswith("arm") and name != "arm64" else name)
