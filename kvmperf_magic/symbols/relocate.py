"""A relocatable ELF file (a kernel module) with the addresses in its debug data filled in.

Executable sections lie as the kernel lays them out (modules.py), from START on: in debug data, 0
stands for code that was left out. All others lie at 0: of the debug sections only offsets into one
another count. x86-64: include/uapi/linux/elf-em.h and
arch/x86/include/asm/elf.h.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.elfheaders import Section
from kvmperf_magic.symbols.modules import places

START = 1 << 20
_COMPRESSED = 0x800  # SHF_COMPRESSED
_WORDS = {1: 8, 10: 4, 11: 4}  # R_X86_64_64, _32, _32S: bytes
_RELA = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_ENTRY = 64  # bytes of a section header


def relocated(image: ElfImage) -> bytes:
    """The file's bytes. ValueError where it cannot be done."""
    if image.machine != "EM_X86_64" or not image.is_64 or not image.little:
        raise ValueError(f"relocations of {image.machine} are not known")
    data = np.frombuffer(image.whole(), np.uint8).copy()
    symtab = next((s for s in image.sections if s.type == "SHT_SYMTAB"), None)
    if symtab is None:
        raise ValueError("no symbols to relocate by")
    where = {number: START + at for number, at in places(image).items()}
    base = np.zeros(len(image.sections) + 1, np.int64)
    base[list(where)] = list(where.values())
    records = image.records(symtab)
    index = np.minimum(records["section"].astype(np.int64), len(image.sections))
    value = records["value"].astype(np.int64) + base[index]
    for section in image.sections:
        if section.type == "SHT_RELA" and section.name.startswith(".rela.debug"):
            _apply(image, section, value, data)
    # where the code lies now, in the section headers too: e_shoff, sh_addr
    headers = int.from_bytes(data[40:48].tobytes(), "little")
    for number, address in where.items():
        at = headers + _ENTRY * number + 16
        data[at : at + 8] = np.frombuffer(address.to_bytes(8, "little"), np.uint8)
    return data.tobytes()


def _apply(
    image: ElfImage, section: Section, value: NDArray[np.int64], data: NDArray[np.uint8]
) -> None:
    if not 0 < section.info < len(image.sections):
        raise ValueError(f"{section.name} is of no section")
    target = image.sections[section.info]
    if target.flags & _COMPRESSED:
        raise ValueError(f"{target.name} is compressed")
    raw = image.content(section)
    rows = np.frombuffer(raw, _RELA, len(raw) // _RELA.itemsize)
    rows = rows[rows["symbol"] < len(value)]
    for kind, size in _WORDS.items():
        mine = rows[(rows["type"] == kind) & (rows["offset"] <= max(target.size - size, 0))]
        words = (value[mine["symbol"]] + mine["addend"]).view(np.uint8).reshape(-1, 8)[:, :size]
        at = target.offset + mine["offset"].astype(np.int64)
        inside = at + size <= len(data)
        data[at[inside, None] + np.arange(size)] = words[inside]
