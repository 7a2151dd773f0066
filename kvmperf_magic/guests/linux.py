"""A guest's Linux kernel as its memory tells of it: version, symbols, modules, command line.

vmcoreinfo says where the image lies and where its symbol tables are; nothing is believed before
the image itself agrees: its version, its build-id, the addresses of its own symbols.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kvmperf_magic.guests import kallfinder
from kvmperf_magic.guests.btf import Btf
from kvmperf_magic.guests.memory import GuestMemory, layouts, ram_mappings
from kvmperf_magic.guests.modules import Module, joined, loaded_modules
from kvmperf_magic.guests.paging_x86 import PagingX86
from kvmperf_magic.guests.vmcoreinfo import Search, Vmcoreinfo
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping, VmmMemory
from kvmperf_magic.symbols.kallsyms import Listing
from kvmperf_magic.symbols.symboltable import SymbolTable

_SEARCH_SECONDS = 10.0
_SAME_TIME = 2.0  # seconds that the clocks of a guest that runs and of the host may differ
_IMAGE_SIZE = 64 << 20  # of the image, as far as tables are searched for
_UTS_LENGTH = 65  # include/uapi/linux/utsname.h
_UTS_FIELDS = 6
_BOOT_PARAMS = 4096  # arch/x86/include/uapi/asm/bootparam.h: struct boot_params
_E820_ENTRIES, _E820_TABLE, _E820_ENTRY, _E820_MOST = 0x1E8, 0x2D0, 20, 128
_FOUR_GIB = 4 << 30
_TIMEKEEPER = 8  # of tk_core, behind its sequence counter
_TICKING = 256  # bytes of tk_core that every tick changes
_LARGEST_BTF = 64 << 20
_NT_GNU_BUILD_ID = 3


@dataclass(frozen=True)
class Found:
    """What a search of a VM's memory came to: a kernel, or why there is none."""

    kernel: LinuxKernel | None
    why: str = ""


@dataclass(frozen=True)
class LinuxKernel:
    """One boot of a Linux kernel. `symbols` are the image's own, as it lists them itself."""

    info: Vmcoreinfo = field(repr=False)
    memory: GuestMemory = field(repr=False)
    symbols: Listing = field(repr=False)
    how: str

    @property
    def release(self) -> str:
        return self.info.release

    @cached_property
    def paging(self) -> PagingX86:
        top = self.info.symbol("init_top_pgt") or self.info.symbol("swapper_pg_dir") or 0
        return PagingX86(
            self.memory,
            self.info.image_physical(top),
            five_levels=bool(self.info.number("pgtable_l5_enabled")),
            encryption=self.info.number("sme_mask") or 0,
        )

    @cached_property
    def _addresses(self) -> dict[str, int]:
        symbols = self.symbols
        text = np.frombuffer(symbols.strings, np.uint8)
        found = {}
        for name in _WANTED:
            rows = np.flatnonzero(symbols.name_length == len(name))
            for i, byte in enumerate(name.encode()):
                rows = rows[text[symbols.name_at[rows] + i] == byte]
            if len(rows):
                found[name] = int(symbols.address[rows[0]])
        return found

    def address(self, name: str) -> int | None:
        """Where one of the few symbols is that this module asks for."""
        return self._addresses.get(name)

    def image(self, virtual: int, size: int) -> bytes:
        """Bytes of the kernel's image, which lies in one piece in physical memory."""
        return self.memory.read(self.info.image_physical(virtual), size)

    def _value(self, name: str, size: int = 8) -> int:
        """The number in a variable of the image, 0 where there is none."""
        at = self.address(name)
        return 0 if at is None else int.from_bytes(self.image(at, size), "little")

    @cached_property
    def banner(self) -> str:
        """`Linux version ...`, as the kernel says it when it boots."""
        at = self.address("linux_banner")
        text = b"" if at is None else self.image(at, 512)
        return text.partition(b"\0")[0].decode("utf-8", "replace").strip()

    @cached_property
    def command_line(self) -> str:
        """What it was booted with; "" where that is not known."""
        at = self._value("saved_command_line")
        return self.paging.string(at) if at else ""

    @property
    def cpus(self) -> int:
        """CPUs online now, 0 where that is not known."""
        count = self._value("__num_online_cpus", 4)
        return count if count < 1 << 16 else 0

    @cached_property
    def btf(self) -> Btf | None:
        start, stop = self.address("__start_BTF"), self.address("__stop_BTF")
        if start is None or stop is None or not 0 < stop - start <= _LARGEST_BTF:
            return None
        return Btf.parse(self.image(start, stop - start))

    def clock(self) -> tuple[int, int]:
        """The guest's seconds since 1970 and since its boot; zeros where they are not known."""
        at = self.address("tk_core")
        if at is None or self.btf is None:
            return 0, 0
        data = self.image(at + _TIMEKEEPER, 512)
        seconds = []
        for name in ("xtime_sec", "ktime_sec"):
            member = self.btf.member("timekeeper", name)
            if member is None or member.offset + 8 > len(data):
                return 0, 0
            seconds.append(int.from_bytes(data[member.offset : member.offset + 8], "little"))
        return seconds[0], seconds[1]

    def ticking(self) -> bytes:
        """Bytes that change as long as this kernel runs: its timekeeper's, its ticks."""
        found = []
        for name, size in (("tk_core", _TICKING), ("jiffies_64", 8), ("jiffies", 8)):
            at = self.address(name)
            found.append(b"" if at is None else self.image(at, size))
        return b"".join(found)

    def modules(self) -> list[Module] | None:
        """What is loaded now; None where it cannot be known."""
        head = self.address("modules")
        if head is None or self.btf is None:
            return None
        return loaded_modules(self.paging.afresh(), head, self.btf)

    def newest_module(self) -> bytes:
        """Bytes that change when a module is loaded: the ends of their list, and the first one's
        state, for its symbols are others when it is initialised."""
        head = self.address("modules")
        if head is None or self.btf is None:
            return b""
        ends = self.image(head, 16)
        links, state = self.btf.member("module", "list"), self.btf.member("module", "state")
        if links is None or state is None or len(ends) < 16:
            return ends
        first = int.from_bytes(ends[:8], "little") - links.offset
        return ends + self.paging.afresh().read(first + state.offset, 4)

    def table(self, modules: list[Module] | None) -> SymbolTable:
        """All symbols, those of modules too, as /proc/kallsyms in the guest would give them."""
        return joined(self.symbols, modules or []).counted().table()


_WANTED = (
    *("_stext", "init_uts_ns", "linux_banner", "saved_command_line", "__num_online_cpus"),
    *("__start_BTF", "__stop_BTF", "__start_notes", "__stop_notes", "vmcoreinfo_data"),
    *("tk_core", "jiffies_64", "jiffies", "modules", "boot_params"),
    *("__per_cpu_offset", "current_task", "pcpu_hot"),
)


def find_kernel(
    vmm: VmmMemory,
    memory: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The Linux kernel that runs in a VM of so many bytes.

    Raises NotPermittedError where the VMM may not be looked into, TargetError where it has ended.
    """
    ram = ram_mappings(vmm.mappings(), memory)
    if not ram:
        return Found(None, "its VMM has no mapping that can be its memory")
    search = Search(vmm, ram, _SEARCH_SECONDS, progress)
    seen: set[frozenset[tuple[str, str]]] = set()
    found: list[LinuxKernel] = []
    whys: list[str] = []
    for info in search:
        text = frozenset(info.fields.items())
        if text in seen:  # the page and the note that it was copied to
            continue
        seen.add(text)
        one = _kernel_of(vmm, ram, info)
        if one.kernel is None:
            whys.append(one.why)
            continue
        found.append(one.kernel)
        if abs(one.kernel.clock()[0] - time.time()) < _SAME_TIME:
            return one  # it runs; of what a reboot left behind the clock stands still
    if found:
        return Found(max(found, key=lambda kernel: kernel.clock()))
    if whys:
        return Found(None, "; ".join(dict.fromkeys(whys)))
    if not search.complete:
        return Found(None, f"no Linux kernel in what could be searched in {_SEARCH_SECONDS:.0f} s")
    return Found(
        None,
        "no Linux kernel in its memory: it runs something else, is still starting, was built "
        "without vmcoreinfo, or its memory is encrypted",
    )


def _kernel_of(vmm: VmmMemory, ram: list[Mapping], info: Vmcoreinfo) -> Found:
    """The kernel that a vmcoreinfo page is of, in the first layout of memory that fits it."""
    if not info.is_x86:
        what = "is not for x86-64, or older than 4.10"
        return Found(None, f"its Linux {info.release} {what}: such a kernel is not read yet")
    blocks = [(one.start, one.size) for one in ram]
    why = f"a trace of Linux {info.release} in its memory, but not its image"
    for layout in layouts(blocks):
        memory = GuestMemory(vmm, layout)
        if not _is_image(memory, info):
            continue
        told = _symbols(memory, info)
        if told is None:
            why = f"its Linux {info.release} has no symbol tables (CONFIG_KALLSYMS)"
            continue
        kernel = LinuxKernel(info, memory, told.symbols, told.how)
        wrong = _contradiction(kernel)
        if wrong:
            why = f"its Linux {info.release} cannot be believed: {wrong}"
            continue
        return Found(_laid_out(kernel, blocks))
    return Found(None, why)


def _is_image(memory: GuestMemory, info: Vmcoreinfo) -> bool:
    """Whether the kernel's own name (struct new_utsname) is where this layout has it."""
    at = info.symbol("init_uts_ns")
    if at is None:
        return False
    # before 5.12 the name's offset was not told; it stood behind a reference count
    start = info.offset("uts_namespace.name") or 0
    text = memory.read(info.image_physical(at), 16 + start + _UTS_LENGTH * _UTS_FIELDS)
    wanted = b"Linux\0".ljust(_UTS_LENGTH, b"\0")
    place = text.find(wanted, 0, start + 16 + _UTS_LENGTH)
    release = text[place + 2 * _UTS_LENGTH :].partition(b"\0")[0]
    return place >= 0 and release.decode("ascii", "replace") == info.release


def _symbols(memory: GuestMemory, info: Vmcoreinfo) -> kallfinder.Told | None:
    def read(virtual: int, size: int) -> bytes:
        return memory.read(info.image_physical(virtual), size)

    start = info.symbol("_stext") or 0
    return kallfinder.by_vmcoreinfo(info, read) or kallfinder.by_shape(
        start, start + _IMAGE_SIZE, read
    )


def _contradiction(kernel: LinuxKernel) -> str:
    """What the symbols, and what they lead to, say against each other; "" for nothing."""
    info = kernel.info
    for name in ("_stext", "init_uts_ns"):
        at = kernel.address(name)
        # data is listed only with CONFIG_KALLSYMS_ALL
        if at != info.symbol(name) and (at is not None or name == "_stext"):
            return f"{name} is not where it says"
    if kernel.banner and f"Linux version {info.release} " not in kernel.banner:
        return "its banner is of another version"
    own = _build_id(kernel)
    if own and info.build_id and own != info.build_id:
        return "its build-id is another one"
    at = kernel.address("vmcoreinfo_data")
    if at is not None:
        page = kernel.paging.translate(int.from_bytes(kernel.image(at, 8), "little"))
        told = b"" if page is None else kernel.memory.read(page, PAGE)
        if Vmcoreinfo(0, told).fields != info.fields:
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


def _laid_out(kernel: LinuxKernel, blocks: list[tuple[int, int]]) -> LinuxKernel:
    """The kernel with its memory laid out as the firmware told it, where that still fits."""
    above = _told_above(kernel)
    total = sum(size for _, size in blocks)
    if above is None or not 0 <= above < total or above == _above(kernel.memory):
        return kernel
    for layout in layouts(blocks, above):
        other = LinuxKernel(
            kernel.info, GuestMemory(kernel.memory.vmm, layout), kernel.symbols, kernel.how
        )
        if _is_image(other.memory, kernel.info) and not _contradiction(other):
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
