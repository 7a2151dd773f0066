"""The vdso: code the kernel maps into every process, in no file.

It is the same in every process of one boot, so our own copy serves for a recording made on the
running kernel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from kvmperf_magic.errors import FileError
from kvmperf_magic.symbols.elf import ElfImage

NAMES = ("[vdso]", "[vdso32]", "[vdsox32]")


@cache
def own() -> ElfImage | None:
    """The vdso of this process as an ELF image, None where there is none to read."""
    return of_process("self")


def of_process(pid: int | str) -> ElfImage | None:
    """The vdso of a running process, None where it has none or may not be read."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        for line in maps.splitlines():
            if line.endswith("[vdso]"):
                first, last = (int(word, 16) for word in line.split(None, 1)[0].split("-"))
                with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                    memory.seek(first)
                    return ElfImage(memory.read(last - first))
    except (OSError, ValueError, FileError):
        pass
    return None
