"""One user address space as drgn sees it: its ELF files in place, its stack one dump at a time.

drgn follows call frame information as libunwind does for perf (tools/perf/util/
unwind-libunwind-local.c); a file's tables are read once, when a stack first runs through it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import drgn
import numpy as np

from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.files import Found
from kvmperf_magic.symbols.spaces import Maps
from kvmperf_magic.unwinding.registers import Registers


class Process:
    """Unwinds the stacks of one address space; `found` are the files of its maps, where known."""

    def __init__(self, registers: Registers, maps: Maps, found: Sequence[Found | None]) -> None:
        self._program = drgn.Program(
            drgn.Platform(
                drgn.Architecture[registers.name],
                drgn.PlatformFlags.IS_LITTLE_ENDIAN
                | (drgn.PlatformFlags.IS_64_BIT if registers.word == 8 else drgn.PlatformFlags(0)),
            )
        )
        # nothing is to be searched for, or fetched: the files were found already
        self._program.set_enabled_debug_info_finders([])
        self._sp = 0
        self._stack = b""
        self._program.add_memory_segment(0, (1 << 8 * registers.word) - 1, self._read)
        word = self._program.int_type("unsigned long", registers.word, False)
        bits = 8 * registers.word
        fields = [
            drgn.TypeMember(word, f"field{i}", bits * i) for i in range(len(registers.fields))
        ]
        self._pt_regs = self._program.struct_type(
            "pt_regs", registers.word * len(fields), tuple(fields)
        )
        placed: set[tuple[str, int]] = set()
        for files, start, pgoff in zip(
            found, maps.start.tolist(), maps.pgoff.tolist(), strict=True
        ):
            if files is None or files.runtime is None:
                continue
            bias = start - _address(files.runtime, pgoff)
            key = files.runtime.path, bias
            if key not in placed:
                placed.add(key)
                # damage in a file has as many faces as it has tables: it is as if it had none
                with suppress(Exception):
                    self._add(files, bias)

    def _read(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:
        at = address - self._sp
        if not 0 <= at <= len(self._stack) - count:
            raise drgn.FaultError("not in the stack dump", address)
        return self._stack[at : at + count]

    def _add(self, files: Found, bias: int) -> None:
        image = files.runtime
        assert image is not None
        segments = image.segments
        first = int(segments.address.min()) & ~4095
        last = (int((segments.address + segments.memory_size).max()) + 4095) & ~4095
        # a file may be loaded twice, so its place is part of its name
        made = self._program.extra_module(image.path, (bias + first) % 2**64, create=True)
        made.address_ranges = [(bias + first, bias + last)]
        if image.section(".eh_frame") is not None:
            # names, and with them inlined frames, are not asked for here
            made.debug_file_status = drgn.ModuleFileStatus.DONT_NEED
        _use(made, image)
        if made.wants_debug_file() and files.symbols is not None and files.symbols is not image:
            _use(made, files.symbols)

    def callers(self, pt_regs: bytes, sp: int, stack: bytes, most: int) -> list[int]:
        """The callers of a stopped thread, up to `most`, the nearest first: as perf has them,
        the address of the call's last byte, or of an interrupted instruction itself."""
        self._sp, self._stack = sp, stack
        try:
            trace = self._program.stack_trace(
                drgn.Object.from_bytes_(self._program, self._pt_regs, pt_regs)
            )
        # contradictions in a file's tables: as far as the stack goes they matter to nobody else
        except Exception:
            return []
        found: list[int] = []
        # inlined frames come innermost first, and share the registers of the one they are in
        physical = [frame for frame in trace if not frame.is_inline]
        for frame in physical[1 : most + 1]:
            try:
                pc = frame.pc
            except LookupError:
                break
            if not pc:
                break
            found.append(pc if frame.interrupted else pc - 1)
        return found


def _use(made: drgn.Module, image: ElfImage) -> None:
    """Give drgn a file, or the bytes of one that is in no file (the vdso)."""
    if not image.in_memory:
        made.try_file(image.path, force=True)
        return
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
    os.write(descriptor, image.whole())
    made.try_file(image.path, fd=descriptor, force=True)  # which closes it


def _address(image: ElfImage, offset: int) -> int:
    """The link-time address of a file offset."""
    return int(image.segments.addresses(np.array([offset], np.uint64))[0])
