"""A guest's Linux kernel as its memory tells of it: version, symbols, modules, command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from kvmperf_magic.guests.btf import Btf
from kvmperf_magic.guests.kalltables import addresses_of
from kvmperf_magic.guests.memory import GuestMemory
from kvmperf_magic.guests.modules import Module, joined, loaded_modules
from kvmperf_magic.guests.paging_x86 import PagingX86
from kvmperf_magic.symbols.kallsyms import Listing
from kvmperf_magic.symbols.symboltable import SymbolTable

IMAGE = 0xFFFFFFFF80000000  # __START_KERNEL_map
_TIMEKEEPER = 8  # of tk_core, behind its sequence counter
_TICKING = 256  # bytes of tk_core that every tick changes
_LARGEST_BTF = 64 << 20
_NT_GNU_BUILD_ID = 3


@dataclass(frozen=True)
class Boot:
    """What tells one boot of a kernel from another, and where its image lies.

    `top` is the virtual address of its first page table, 0 where that is not known. `mark` are
    bytes of it that stay as they are, at address `mark_at` of the way to its memory.
    """

    release: str
    build_id: str
    phys_base: int
    start: int
    top: int
    five_levels: bool = False
    encryption: int = 0
    mark_at: int = 0
    mark: bytes = field(default=b"", repr=False)

    def physical(self, virtual: int) -> int:
        """The physical address of something in the image, which lies in one piece."""
        return (virtual - IMAGE + self.phys_base) % 2**64

    def same(self, other: Boot) -> bool:
        """Whether symbols of one are symbols of the other."""
        return replace(self, mark_at=0, mark=b"") == replace(other, mark_at=0, mark=b"")


@dataclass(frozen=True)
class LinuxKernel:
    """One boot of a Linux kernel. `symbols` are the image's own, as it lists them itself."""

    boot: Boot
    memory: GuestMemory = field(repr=False)
    symbols: Listing = field(repr=False)
    how: str

    @property
    def release(self) -> str:
        return self.boot.release

    @cached_property
    def paging(self) -> PagingX86:
        boot = self.boot
        return PagingX86(
            self.memory,
            boot.physical(boot.top),
            five_levels=boot.five_levels,
            encryption=boot.encryption,
        )

    @cached_property
    def _addresses(self) -> dict[str, int]:
        return addresses_of(self.symbols, WANTED)

    def address(self, name: str) -> int | None:
        """Where one of the few symbols is that this module asks for."""
        return self._addresses.get(name)

    def image(self, virtual: int, size: int) -> bytes:
        """Bytes of the kernel's image, which lies in one piece in physical memory."""
        return self.memory.read(self.boot.physical(virtual), size)

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

    @property
    def _timekeeper(self) -> int | None:
        """`tk_core`, or the array that the system's clock is the first of (since 6.17)."""
        at = self.address("tk_core")
        return self.address("timekeeper_data") if at is None else at

    def clock(self) -> tuple[int, int]:
        """The guest's seconds since 1970 and since its boot; zeros where they are not known."""
        at = self._timekeeper
        if at is None or self.btf is None:
            return 0, 0
        inside = self.btf.member("tk_data", "timekeeper")  # since 6.13
        data = self.image(at + (inside.offset if inside else _TIMEKEEPER), 512)
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
        places = (
            (self._timekeeper, _TICKING),
            (self.address("jiffies_64"), 8),
            (self.address("jiffies"), 8),
        )
        for at, size in places:
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


WANTED = (
    *("_stext", "_etext", "phys_base", "init_uts_ns", "linux_banner", "linux_proc_banner"),
    *("init_top_pgt", "init_level4_pgt", "swapper_pg_dir", "sme_me_mask"),
    *("saved_command_line", "__num_online_cpus"),
    *("__start_BTF", "__stop_BTF", "__start_notes", "__stop_notes", "vmcoreinfo_data"),
    *("tk_core", "timekeeper_data", "jiffies_64", "jiffies", "modules", "boot_params"),
    *("__per_cpu_offset", "current_task", "pcpu_hot"),
)
