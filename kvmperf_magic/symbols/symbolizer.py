"""From (epoch, pid, mode, address) to symbol and DSO, for whole columns of unique addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.modes import GUEST_KERNEL, GUEST_USER, HOST_KERNEL, HOST_USER
from kvmperf_magic.symbols import files
from kvmperf_magic.symbols.debuginfod import Debuginfod
from kvmperf_magic.symbols.guest import Guest, named_sources
from kvmperf_magic.symbols.guestsymbols import Boots, GuestSymbols
from kvmperf_magic.symbols.host import HostKernel
from kvmperf_magic.symbols.images import Images
from kvmperf_magic.symbols.jitdump import Jit
from kvmperf_magic.symbols.kept import Keeping, Kept
from kvmperf_magic.symbols.kernel import KernelSymbols, recorded_maps
from kvmperf_magic.symbols.lines import Located
from kvmperf_magic.symbols.names import NameList
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.table import Categorical, Table

_CPUMODE_KERNEL, _CPUMODE_GUEST_KERNEL = 1, 4


@dataclass(frozen=True)
class Resolved:
    """One row for each address asked for; "[unknown]" where there is no name."""

    symbol: Categorical
    dso: Categorical


class Symbolizer:
    """Names for the addresses of one recording; everything it reads is read once and kept.

    Args:
        spaces: the user address spaces.
        mmap: the MMAP records, kernels' and guests' among them.
        options: named sources.
        build_ids: build-ids by file name, as in the recording's table.
        same_boot: the recording was made on the kernel that runs now, so that /proc may be
            believed.
        os_release: the recorded kernel's release.
        vm_names: names of VMs by the pid of their VMM.
        guest_symbols: what was found of guests' kernels in their memory, the newest last.
        ksymbols: the KSYMBOL records.
        jits: the code of JIT compilers, by process.
        keeping: the symbols that the recording carries; it was not made here then.
        kernel_directory: a copy of the recorded machine's /proc/kcore and /proc/kallsyms.

    Raises:
        SymbolError, FileError: a named source is not there or cannot be used.
    """

    def __init__(
        self,
        spaces: AddressSpaces,
        mmap: Table,
        options: SymbolOptions,
        *,
        build_ids: Mapping[str, str],
        same_boot: bool,
        os_release: str | None,
        vm_names: Mapping[int, str],
        guest_symbols: Sequence[GuestSymbols] = (),
        ksymbols: Table | None = None,
        jits: Mapping[int, Jit] | None = None,
        keeping: Keeping | None = None,
        kernel_directory: str | None = None,
    ) -> None:
        options.check()
        self._options = options
        self._keeping = keeping
        self._names = NameList()
        self._guests: dict[tuple[int, int], Guest] = {}
        self._guest_sources = named_sources(options)
        server = Debuginfod.of(options.debuginfod)
        self._host = HostKernel(
            self._names,
            options,
            recorded_maps(mmap, _CPUMODE_KERNEL, {-1}),
            ksymbols,
            build_ids,
            keeping,
            server,
            same_boot=same_boot,
            os_release=os_release,
            kernel_directory=kernel_directory,
        )
        self._images = Images(
            self._names, options, build_ids, jits or {}, keeping, server, same_boot=same_boot
        )
        self.update(spaces, mmap, vm_names, guest_symbols, ksymbols)
        if options.kallsyms is not None or options.vmlinux is not None:
            # what was named is tried at once, so that a mistake is not met in the middle
            self.host  # noqa: B018

    def update(
        self,
        spaces: AddressSpaces,
        mmap: Table,
        vm_names: Mapping[int, str],
        guest_symbols: Sequence[GuestSymbols] = (),
        ksymbols: Table | None = None,
    ) -> None:
        """Go on with more records of the same recording (live): the names found so far stay."""
        self._host.update(ksymbols)
        by_pid: dict[int, list[GuestSymbols]] = {}
        for one in guest_symbols:
            by_pid.setdefault(one.pid, []).append(one)
        self.boots = {pid: Boots(found) for pid, found in by_pid.items()}
        for (pid, boot), guest in self._guests.items():
            guest.renew(self._found_of(pid, boot))
        self._mmap = mmap
        self._vm_names = vm_names
        self._images.update(spaces, mmap)

    def refresh(self, jits: Mapping[int, Jit]) -> None:
        """Look again at what changes without a record (live): the code of JIT compilers, and the
        host's modules."""
        self._images.follow(jits)
        self._host.refresh()

    def resolve(
        self,
        epoch: NDArray[np.int32],
        pid: NDArray[np.int32],
        mode: NDArray[np.uint8],
        ip: NDArray[np.uint64],
    ) -> Resolved:
        """Symbol and DSO of each row; rows should be unique, the answer is as long as they are.

        `pid` is the VMM's for the guest modes, `epoch` there the number of the VM's boot.
        """
        symbol = np.zeros(len(ip), np.int32)
        dso = np.zeros(len(ip), np.int32)
        kernel = np.flatnonzero(mode == HOST_KERNEL)
        if len(kernel):
            symbol[kernel], dso[kernel] = self._host.resolve(ip[kernel])
        user = np.flatnonzero(mode == HOST_USER)
        if len(user):
            symbol[user], dso[user] = self._images.resolve(epoch[user], ip[user])
        guest = (mode == GUEST_KERNEL) | (mode == GUEST_USER)
        boots = pid.astype(np.int64) << 32 | epoch.view(np.uint32)
        for key in np.unique(boots[guest]).tolist():
            mine = guest & (boots == key)
            first = np.argmax(mine)
            one = self._guest(int(pid[first]), int(epoch[first]))
            rows = np.flatnonzero(mine & (mode == GUEST_KERNEL))
            if len(rows):
                symbol[rows], dso[rows] = one.resolve_kernel(ip[rows])
            rows = np.flatnonzero(mine & (mode == GUEST_USER))
            if len(rows):
                symbol[rows], dso[rows] = one.resolve_user(ip[rows])
        return Resolved(self._names.categorical(symbol), self._names.categorical(dso))

    def locate(
        self,
        epoch: NDArray[np.int32],
        pid: NDArray[np.int32],
        mode: NDArray[np.uint8],
        ip: NDArray[np.uint64],
    ) -> Located:
        """The source lines of each row, and what was inlined there; rows as of `resolve()`.

        Raises:
            LibraryError: symbolic is not installed.
        """
        located = Located(len(ip))
        kernel = np.flatnonzero(mode == HOST_KERNEL)
        if len(kernel):
            self._host.locate(ip[kernel], located.at(kernel))
        user = np.flatnonzero(mode == HOST_USER)
        if len(user):
            self._images.locate(epoch[user], ip[user], located.at(user))
        guest = (mode == GUEST_KERNEL) | (mode == GUEST_USER)
        boots = pid.astype(np.int64) << 32 | epoch.view(np.uint32)
        for key in np.unique(boots[guest]).tolist():
            rows = np.flatnonzero(guest & (boots == key))
            one = self._guest(int(pid[rows[0]]), int(epoch[rows[0]]))
            one.locate(ip[rows], located.at(rows))
        return located

    @property
    def warnings(self) -> list[str]:
        """What stands in the way of names, one plain line each; grows as addresses are met."""
        lines = self._host.warnings
        for guest in self._guests.values():
            lines += guest.warnings.values()
        return list(dict.fromkeys(lines))

    @property
    def sources(self) -> Table:
        """Where the names of each DSO met so far come from: dso, source, symbols, note."""
        rows = list(self._host.sources())
        for guest in self._guests.values():
            rows += guest.sources()
        rows += self._images.sources()
        return _sources(rows)

    @property
    def host(self) -> KernelSymbols:
        """The host kernel's symbols, found when first needed."""
        return self._host.symbols

    def find(self, name: str, build_id: str, pid: int) -> files.Found:
        """The ELF files behind a user mapping of a process: those its names come from."""
        return self._images.find(name, build_id, pid)

    def kept(self) -> list[Kept]:
        """The names met so far, as a recording can carry them."""
        guests = [kept for guest in self._guests.values() for kept in guest.kept()]
        return [*self._host.kept(), *guests, *self._images.kept()]

    @property
    def contained(self) -> frozenset[int]:
        """The processes that saw another file system than we do."""
        return self._images.contained

    def _found_of(self, pid: int, boot: int) -> list[GuestSymbols]:
        boots = self.boots.get(pid)
        return boots.parts[boot] if boots and 0 <= boot < len(boots.parts) else []

    def _guest(self, pid: int, boot: int) -> Guest:
        found = self._guests.get((pid, boot))
        if found is None:
            # perf records a guest's kernel under the VMM's pid, a nameless one's under 0 or -1
            maps = recorded_maps(self._mmap, _CPUMODE_GUEST_KERNEL, {pid})
            if not len(maps.start):
                maps = recorded_maps(self._mmap, _CPUMODE_GUEST_KERNEL, {0, -1})
            found = self._guests[pid, boot] = Guest(
                pid,
                self._vm_names.get(pid, ""),
                self._options,
                maps,
                self._names,
                self._guest_sources,
                lambda: self.host,
                self._found_of(pid, boot),
                self._keeping,
                boot,
            )
        return found


def _sources(rows: Sequence[tuple[str, str, int, str]]) -> Table:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return Table(
        {
            "dso": _strings(columns[0]),
            "source": _strings(columns[1]),
            "symbols": np.array(columns[2], np.int64),
            "note": _strings(columns[3]),
        }
    )


def _strings(values: tuple[str, ...]) -> Categorical:
    categories = list(dict.fromkeys(values))
    numbers = {name: i for i, name in enumerate(categories)}
    return Categorical(np.array([numbers[v] for v in values], np.int32), categories)


NO_SOURCES = _sources([])  # of a recording of which nothing was named yet
