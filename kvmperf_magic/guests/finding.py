"""The Linux kernel that runs in a VM, found in its memory: by its image, else by vmcoreinfo.

Nothing is believed before the image itself agrees: its version, its build-id, the addresses of
its own symbols, its page tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kvmperf_magic.guests import kallfinder
from kvmperf_magic.guests.budget import Budget
from kvmperf_magic.guests.encryption import has_guest_memfd, host_encrypts, looks_encrypted
from kvmperf_magic.guests.image import images, kernel_of, vmcoreinfo_of
from kvmperf_magic.guests.linux import LinuxKernel
from kvmperf_magic.guests.memory import Access, GuestMemory, layouts_of, ram_of
from kvmperf_magic.guests.vmcoreinfo import Search, Vmcoreinfo
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping

_SEARCH_SECONDS = 10.0
_MOST_TRACES = 16  # that are followed: a reboot leaves a few, a trap as many as there are pages
_SAME_TIME = 2.0  # seconds that the clocks of a guest that runs and of the host may differ
_IMAGE_SIZE = 64 << 20  # of the image, as far as tables are searched for
_UTS_LENGTH = 65  # include/uapi/linux/utsname.h
_UTS_FIELDS = 6
_BOOT_PARAMS = 4096  # arch/x86/include/uapi/asm/bootparam.h: struct boot_params
_E820_ENTRIES, _E820_TABLE, _E820_ENTRY, _E820_MOST = 0x1E8, 0x2D0, 20, 128
_FOUR_GIB = 4 << 30
_NT_GNU_BUILD_ID = 3


@dataclass(frozen=True)
class Found:
    """What a search of a VM's memory came to: a kernel, or why there is none."""

    kernel: LinuxKernel | None
    why: str = ""


def find_kernel(
    vmm: Access,
    memory: int | None,
    progress: Callable[[int, int], None] | None = None,
    thorough: bool = True,
) -> Found:
    """The Linux kernel that runs in a VM of so many bytes.

    By its image, which takes no time; where there is none, and `thorough`, all memory is searched
    for vmcoreinfo, which costs about a second for 4 GiB that are in use. `progress` is told bytes
    searched and bytes in all. Raises NotPermittedError where the VMM may not be looked into,
    TargetError where it has ended.
    """
    ram = ram_of(vmm, memory)
    if not ram:
        return Found(None, "its VMM has no mapping that can be its memory")
    whys: list[str] = []
    budget = Budget(_SEARCH_SECONDS, progress)
    kernel = _running(_by_image(vmm, ram, budget, whys), whys)
    if kernel is not None:
        return Found(kernel)
    if thorough and vmm.cheap:
        search = Search(vmm, ram, budget)
        kernel = _running(_by_vmcoreinfo(vmm, ram, search, whys), whys)
        if kernel is not None:
            return Found(kernel)
    if whys:
        return Found(None, "; ".join(dict.fromkeys(whys)))
    if not budget.spend(1, 1):
        return Found(None, f"no Linux kernel in what could be searched in {budget.seconds:.0f} s")
    if looks_encrypted(vmm, ram):
        able = host_encrypts()
        how = f" (this host has {able})" if able else ""
        return Found(None, f"what is in its memory is noise, as if it were encrypted{how}")
    if has_guest_memfd(vmm.pid):
        return Found(
            None, "no Linux kernel in what its VMM maps; other memory (guest_memfd) cannot be read"
        )
    return Found(
        None, "no Linux kernel in its memory: it runs something else, or is still starting"
    )


def _running(kernels: Iterator[LinuxKernel], whys: list[str]) -> LinuxKernel | None:
    """That one of them which runs: of what a reboot left behind the clock stands still."""
    found = []
    for kernel in kernels:
        found.append(kernel)
        if abs(kernel.clock()[0] - time.time()) < _SAME_TIME:
            return kernel
    if len(found) > 1 and not any(kernel.boot.top for kernel in found):
        whys.append("several Linux kernels in its memory: which of them runs cannot be told")
        return None
    # without page tables of its own an image is only likely to run
    return max(found, key=lambda one: (one.boot.top > 0, one.clock()), default=None)


def _by_image(
    vmm: Access, ram: Sequence[Mapping], budget: Budget, whys: list[str]
) -> Iterator[LinuxKernel]:
    for image in images(vmm, ram, budget):
        kernel = kernel_of(vmm, ram, image)
        wrong = "" if kernel is None else _contradiction(kernel, vmcoreinfo_of(kernel))
        if wrong:
            whys.append(f"its Linux {image.release} cannot be believed: {wrong}")
        elif kernel is None:
            whys.append(f"an image of Linux {image.release} in its memory, but not one that runs")
        else:
            yield _laid_out(kernel, ram)


def _by_vmcoreinfo(
    vmm: Access, ram: Sequence[Mapping], search: Search, whys: list[str]
) -> Iterator[LinuxKernel]:
    seen: set[frozenset[tuple[str, str]]] = set()
    for info in search:
        text = frozenset(info.fields.items())
        if text in seen:  # the page and the note that it was copied to
            continue
        if len(seen) == _MOST_TRACES:
            return
        seen.add(text)
        one = _kernel_of(vmm, ram, info)
        if one.kernel is None:
            whys.append(one.why)
        else:
            yield one.kernel


def _kernel_of(vmm: Access, ram: Sequence[Mapping], info: Vmcoreinfo) -> Found:
    """The kernel that a vmcoreinfo page is of, in the first layout of memory that fits it."""
    if not info.is_x86:
        what = "is not for x86-64, or older than 4.10"
        return Found(None, f"its Linux {info.release} {what}: such a kernel is not read yet")
    why = f"a trace of Linux {info.release} in its memory, but not its image"
    boot = info.boot()
    for layout in layouts_of(vmm, ram):
        memory = GuestMemory(vmm, layout)
        at = info.symbol("init_uts_ns")
        # before 5.12 the name's offset was not told; it stood behind a reference count
        if at is None or not _is_named(
            memory, boot.physical(at), info.offset("uts_namespace.name") or 0, info.release
        ):
            continue
        told = _symbols(memory, info)
        if told is None:
            why = f"its Linux {info.release} has no symbol tables (CONFIG_KALLSYMS)"
            continue
        kernel = LinuxKernel(boot, memory, told.symbols, told.how)
        wrong = _contradiction(kernel, info)
        if wrong:
            why = f"its Linux {info.release} cannot be believed: {wrong}"
            continue
        return Found(_laid_out(kernel, ram))
    return Found(None, why)


def _is_named(memory: GuestMemory, physical: int, offset: int, release: str) -> bool:
    """Whether the kernel's own name (struct new_utsname) is there, at this offset or behind it."""
    if not 0 <= offset < PAGE:
        return False
    text = memory.read(physical, 16 + offset + _UTS_LENGTH * _UTS_FIELDS)
    wanted = b"Linux\0".ljust(_UTS_LENGTH, b"\0")
    place = text.find(wanted, 0, offset + 16 + _UTS_LENGTH)
    told = text[place + 2 * _UTS_LENGTH :].partition(b"\0")[0]
    return place >= 0 and told.decode("ascii", "replace") == release


def _symbols(memory: GuestMemory, info: Vmcoreinfo) -> kallfinder.Told | None:
    boot = info.boot()

    def read(virtual: int, size: int) -> bytes:
        return memory.read(boot.physical(virtual), size)

    return kallfinder.by_vmcoreinfo(info, read) or kallfinder.by_shape(
        boot.start, boot.start + _IMAGE_SIZE, read
    )


def _contradiction(kernel: LinuxKernel, info: Vmcoreinfo | None) -> str:
    """What the symbols, and what they lead to, say against each other; "" for nothing."""
    boot = kernel.boot
    if info is not None:
        for name in ("_stext", "init_uts_ns"):
            at = kernel.address(name)
            # data is listed only with CONFIG_KALLSYMS_ALL
            if at != info.symbol(name) and (at is not None or name == "_stext"):
                return f"{name} is not where it says"
        if (info.release, info.build_id) != (boot.release, boot.build_id):
            return "its vmcoreinfo is of another kernel"
        if info.number("phys_base") not in (None, boot.phys_base):
            return "its vmcoreinfo has it elsewhere"
    if kernel.banner and f"Linux version {boot.release} " not in kernel.banner:
        return "its banner is of another version"
    own = _build_id(kernel)
    if own and boot.build_id and own != boot.build_id:
        return "its build-id is another one"
    if kernel.address("vmcoreinfo_data") is not None and info is not None:
        reached = vmcoreinfo_of(kernel)
        if reached is None or reached.fields != info.fields:
            return "its page tables do not lead to its vmcoreinfo"
    return ""


def _build_id(kernel: LinuxKernel) -> str:
    """Of the notes in the image: name size, size and type of each, then both, padded to words."""
    start, stop = kernel.address("__start_notes"), kernel.address("__stop_notes")
    if start is None or stop is None or not 0 < stop - start <= 1 << 16:
        return ""
    notes, at = kernel.image(start, stop - start), 0
    while at + 12 <= len(notes):
        name_size, size, kind = np.frombuffer(notes, np.uint32, 3, at).tolist()
        name_at = at + 12
        body_at = name_at + -(-name_size // 4) * 4
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + 4] == b"GNU\0":
            return notes[body_at : body_at + size].hex()
        at = body_at + -(-size // 4) * 4
    return ""


def _laid_out(kernel: LinuxKernel, ram: Sequence[Mapping]) -> LinuxKernel:
    """The kernel with its memory laid out as the firmware told it, where that still fits."""
    memory = kernel.memory
    above = _told_above(kernel)
    total = sum(one.size for one in ram)
    if memory.vmm.physical or above is None or above == _above(memory) or not 0 <= above < total:
        return kernel
    for layout in layouts_of(memory.vmm, ram, above):
        other = LinuxKernel(
            kernel.boot, GuestMemory(memory.vmm, layout), kernel.symbols, kernel.how
        )
        at = kernel.address("init_uts_ns")
        fits = at is not None and _is_named(
            other.memory, kernel.boot.physical(at), 0, kernel.release
        )
        if fits and not _contradiction(other, vmcoreinfo_of(other)):
            return other
    return kernel


def _above(memory: GuestMemory) -> int:
    return sum(block.size for block in memory.blocks if block.physical >= _FOUR_GIB)


def _told_above(kernel: LinuxKernel) -> int | None:
    """Bytes of RAM from 4 GiB on, by the memory map that the kernel was booted with (e820)."""
    at = kernel.address("boot_params")
    params = b"" if at is None else kernel.image(at, _BOOT_PARAMS)
    if not params:
        return None
    count = min(params[_E820_ENTRIES], _E820_MOST)
    table = np.frombuffer(params, np.uint8, count * _E820_ENTRY, _E820_TABLE)
    entries = table.reshape(count, _E820_ENTRY)
    start, size = entries[:, :16].copy().view("<u8").T
    is_ram = entries[:, 16:].copy().view("<u4").ravel() == 1
    if not is_ram.any():
        return None
    return int(size[is_ram & (start >= np.uint64(_FOUR_GIB))].sum())
