"""A kernel found by its image: where its read-only data begins, and its symbol tables in there.

arch/x86/kernel/vmlinux.lds.S lets .rodata begin at a multiple of 2 MiB, and the image lies at one
in physical memory too. What is linked first is init/: `linux_proc_banner` (init/version.c) is on
the first page. So one page in 512 is all that has to be looked at, whatever the guest has in its
memory, and this needs nothing that the kernel tells: no vmcoreinfo, no addresses in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kvmperf_magic.guests.budget import Budget
from kvmperf_magic.guests.kallfinder import Told, by_shape
from kvmperf_magic.guests.kalltables import addresses_of
from kvmperf_magic.guests.linux import IMAGE, WANTED, Boot, LinuxKernel
from kvmperf_magic.guests.memory import (
    Access,
    GuestMemory,
    as_it_is,
    layouts_of,
)
from kvmperf_magic.guests.paging_x86 import PagingX86
from kvmperf_magic.guests.vmcoreinfo import Vmcoreinfo
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping
from kvmperf_magic.symbols.kallsyms import Listing

_ALIGNED = 2 << 20
_BEGIN = b"%s version %s ("  # linux_proc_banner
_BANNER = re.compile(rb"Linux version (\d[^ \0]{1,100}) \([^\n\0]")  # linux_banner
_BATCH = 256  # pages looked at in one go
_LARGEST = 64 << 20  # of the read-only data
_CHUNK = 1 << 20
_TOPS = ("init_top_pgt", "init_level4_pgt", "swapper_pg_dir")  # the second before 4.13


@dataclass(frozen=True)
class Image:
    """An image in memory: its read-only data begins at `rodata`, `linux_proc_banner` at `banner`
    (addresses of the way to its memory); its release, its symbols as its tables have them."""

    rodata: int
    banner: int
    release: str
    told: Told


def images(vmm: Access, ram: Sequence[Mapping], budget: Budget) -> Iterator[Image]:
    """All images that have their symbol tables, as far as the budget goes."""
    memory = GuestMemory(vmm, as_it_is(ram))
    for banner in _banners(vmm, ram, budget):
        rodata = banner // PAGE * PAGE
        end = next(one.end for one in ram if one.start <= rodata < one.end)
        told = by_shape(rodata, min(rodata + _LARGEST, end), memory.read)
        release = _release(memory, rodata, min(rodata + _LARGEST, end)) if told else ""
        if told is not None and release:
            yield Image(rodata, banner, release, told)


def _banners(vmm: Access, ram: Sequence[Mapping], budget: Budget) -> Iterator[int]:
    total, done = sum(one.size for one in ram), 0
    for mapping in ram:
        # a block begins at such a multiple of the guest's physical memory
        first = -(-mapping.start // _ALIGNED) * _ALIGNED if vmm.physical else mapping.start
        slots = np.arange(first, mapping.end - PAGE + 1, _ALIGNED).astype(np.uint64)
        for at in range(0, len(slots), _BATCH):
            batch = slots[at : at + _BATCH]
            batch = batch[vmm.exist(batch)]
            heads = vmm.gather(batch, PAGE).tobytes()
            place = heads.find(_BEGIN)
            while place >= 0:
                yield int(batch[place // PAGE]) + place % PAGE
                place = heads.find(_BEGIN, (place // PAGE + 1) * PAGE)
            done += len(slots[at : at + _BATCH]) * _ALIGNED
            if not budget.spend(min(done, total), total):
                return


def _release(memory: GuestMemory, start: int, end: int) -> str:
    """What `linux_banner` says, somewhere in the read-only data."""
    for at in range(start, end, _CHUNK):
        data = memory.read(at, min(_CHUNK + PAGE, end - at))
        found = _BANNER.search(data)
        if found:
            return found[1].decode("ascii", "replace")
    return ""


def kernel_of(vmm: Access, ram: Sequence[Mapping], image: Image) -> LinuxKernel | None:
    """The kernel of an image, in the first layout of memory in which all of it agrees.

    Its page tables have to lead to itself. Where only functions are listed (no CONFIG_KALLSYMS_ALL)
    they are not known: then `boot.top` is 0, and that the image runs is only likely.
    """
    told = image.told
    places = addresses_of(told.symbols, WANTED)
    shift = _shift(image, places)
    at = places.get("phys_base")
    if at is None:
        if shift is None or "_stext" not in places:
            return None
        blocks = next(layouts_of(vmm, ram))
        memory = GuestMemory(vmm, blocks)
        physical = memory.physical(image.rodata)
        if physical is None:
            return None
        phys_base = physical - (image.rodata - shift - IMAGE)
        boot = Boot(image.release, "", phys_base, places["_stext"], 0)
        return _marked(LinuxKernel(boot, memory, told.symbols, told.how), image)
    data = vmm.read(at if shift is None else at + shift, 8)
    phys_base = int.from_bytes(data, "little", signed=True)
    possible = None
    for blocks in layouts_of(vmm, ram):
        kernel = _placed(GuestMemory(vmm, blocks), image, places, shift, phys_base)
        if kernel is None:
            continue
        kernel = _marked(kernel, image)
        # the image alone may fit several; its vmcoreinfo is somewhere else in memory
        if kernel.boot.mark_at != image.rodata or not _has_vmcoreinfo(kernel):
            return kernel
        possible = possible or kernel
    return possible


def _shift(image: Image, places: dict[str, int]) -> int | None:
    """From the kernel's own addresses to where the image is; None where symbols are told from
    there, so that the kernel's own are not known yet."""
    if image.told.from_place:
        return None
    if "linux_proc_banner" in places:
        return image.banner - places["linux_proc_banner"]
    # the read-only data begins at the next such multiple behind the code
    end = places.get("_etext", places.get("_stext", 0))
    return image.rodata - -(-end // _ALIGNED) * _ALIGNED


def _placed(
    memory: GuestMemory,
    image: Image,
    places: dict[str, int],
    shift: int | None,
    phys_base: int,
) -> LinuxKernel | None:
    physical = memory.physical(image.rodata)
    if physical is None:
        return None
    virtual = physical - phys_base + IMAGE  # of the read-only data
    symbols: Listing = image.told.symbols
    if shift is None:
        shift = image.rodata - virtual
        symbols = replace(symbols, address=symbols.address - np.uint64(shift % 2**64))
        places = {name: at - shift for name, at in places.items()}
    elif image.rodata - shift != virtual:
        return None
    top = next((places[name] for name in _TOPS if name in places), 0)
    start = places.get("_stext", 0)
    if not (top and start):
        return None
    boot = Boot(image.release, "", phys_base, start, top)
    mask = places.get("sme_me_mask")
    told = int.from_bytes(memory.read(boot.physical(mask), 8), "little") if mask else 0
    for encryption in dict.fromkeys((told, 0)):
        for five_levels in (False, True):
            paging = PagingX86(
                memory, boot.physical(top), five_levels=five_levels, encryption=encryption
            )
            if paging.translate(start) == boot.physical(start):
                boot = replace(boot, five_levels=five_levels, encryption=encryption)
                return LinuxKernel(boot, memory, symbols, image.told.how)
    return None


def _marked(kernel: LinuxKernel, image: Image) -> LinuxKernel:
    """With bytes that tell this boot: its vmcoreinfo, which says the build-id as well, or else the
    beginning of its read-only data."""
    memory, boot = kernel.memory, kernel.boot
    info = vmcoreinfo_of(kernel)
    if info is not None and info.release == boot.release:
        boot = replace(boot, build_id=info.build_id, mark_at=info.host, mark=info.page)
    else:
        page = memory.vmm.read(image.rodata, PAGE)
        boot = replace(boot, mark_at=image.rodata, mark=page)
    return replace(kernel, boot=boot)


def _has_vmcoreinfo(kernel: LinuxKernel) -> bool:
    at = kernel.address("vmcoreinfo_data")
    return at is not None and any(kernel.image(at, 8))


def vmcoreinfo_of(kernel: LinuxKernel) -> Vmcoreinfo | None:
    """The page that the kernel's own pointer leads to."""
    at = kernel.address("vmcoreinfo_data")
    if at is None or not kernel.boot.top:
        return None
    page = kernel.paging.translate(int.from_bytes(kernel.image(at, 8), "little"))
    host = None if page is None else kernel.memory.host(page)
    if page is None or host is None:
        return None
    info = Vmcoreinfo(host, kernel.memory.read(page, PAGE))
    return info if info.release else None
