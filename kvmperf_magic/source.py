"""One perf.data and what is worked out of it once, for all views of a recording."""

from __future__ import annotations

import platform
import socket
import time as clock
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.decoding import Decoded, decode
from kvmperf_magic.errors import FileError
from kvmperf_magic.guests.clock import ahead
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.tasks import TaskLooks
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.reader import PerfFile
from kvmperf_magic.perfdata.records import GUEST_MAGIC, TASKS_MAGIC
from kvmperf_magic.progress import steps
from kvmperf_magic.remembering import Memory, Remembered, Said
from kvmperf_magic.sampler.facts import boot_id
from kvmperf_magic.symbols import jitdump, kept
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.symbols.jitdump import Jit
from kvmperf_magic.symbols.kept import Keeping
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.unwinding.complete import complete

CLOCK_MONOTONIC = 1
_WORTH_KEEPING = 0.5  # seconds of decoding from which on a cache is written


class Source:
    """What all views of one file share."""

    def __init__(self, file: PerfFile, options: SymbolOptions, *, cache: bool = False) -> None:
        self.file = file
        if not file.symbols:  # else it carries the names of those files
            options = options.remembered(file.kvmperf.get("symbols"))
        self.options = options
        self._memory = Memory(file, options, self._decoded_said) if cache else None
        self._stack_warnings: list[str] = []
        self._lined: dict[bool, Decoded] = {}
        self._carried_warnings: list[str] = []
        if file.is_packed:
            _ = self.keeping  # what is wrong with it is told at once
        self.machines = list(_machines(file.kvmperf.get("machines")))

    @cached_property
    def symbolizer(self) -> Symbolizer:
        file = self.file
        return Symbolizer(
            self.spaces,
            file.sideband.mmap,
            self.options,
            build_ids={b.filename: b.build_id for b in file.build_ids},
            same_boot=recorded_on_this_boot(file),
            os_release=file.header.os_release,
            vm_names={m.pid: m.name for m in self.machines if m.kind == "guest"}
            | {one.pid: one.name for one in self.guest_symbols},
            guest_symbols=self.guest_symbols,
            ksymbols=file.sideband.ksymbol,
            jits=self.jits,
            keeping=self.keeping,
            kernel_directory=file.kernel_directory,
        )

    @cached_property
    def keeping(self) -> Keeping | None:
        """The names that the recording carries."""
        raw = self.file.symbols
        if not raw:
            return None
        try:
            return kept.decode(memoryview(raw))
        except ValueError as error:
            if self.file.is_packed:
                raise FileError(
                    self.file.path, f"its symbols: {error}", hint="save it again, do not trust it"
                ) from None
            self._carried_warnings.append(f"the names that the recording carries: {error}")
            return None

    @cached_property
    def jits(self) -> dict[int, Jit]:
        """The code of JIT compilers, by process."""
        if self.keeping is not None:
            return self.keeping.jits()
        return jitdump.of_recording(
            self.file.sideband.mmap,
            alive=recorded_on_this_boot(self.file),
            timed=all(event.attr.clockid == CLOCK_MONOTONIC for event in self.file.events),
        )

    @cached_property
    def guest_symbols(self) -> list[GuestSymbols]:
        """What the recorder found of guests' kernels, as far as it is not damaged."""
        found = []
        for packed in self.file.guest_notes(GUEST_MAGIC):
            with suppress(ValueError):
                one = GuestSymbols.unpack(packed)
                found.append(replace(one, since=max(0, one.since + self._clock_offset)))
        return found

    @cached_property
    def guest_tasks(self) -> list[TaskLooks]:
        """What the recorder saw running on guests' CPUs, as far as it is not damaged."""
        found = []
        for packed in self.file.guest_notes(TASKS_MAGIC):
            with suppress(ValueError):
                one = TaskLooks.unpack(packed)
                time = (one.time.astype(np.int64) + self._clock_offset).astype(np.uint64)
                found.append(replace(one, time=time))
        return found

    @cached_property
    def _clock_offset(self) -> int:
        """How far, in ns, perf's clock is ahead of CLOCK_MONOTONIC_RAW."""
        time = self.file.samples.time
        try:
            begin, end = (int(at) for at in self.file.kvmperf["raw"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return 0
        if not len(time) or not 0 < begin <= end < 1 << 62:
            return 0
        return ahead(begin, end, int(time[0]), int(time[-1]))

    @cached_property
    def spaces(self) -> AddressSpaces:
        sideband = self.file.sideband
        renewed = {pid: jit.starts[1:] for pid, jit in self.jits.items()}
        return AddressSpaces(sideband.mmap, sideband.comm, sideband.fork, renewed)

    @cached_property
    def chains(self) -> Chains:
        """The callchains of all samples, with the user frames that were left to be worked out."""
        if not self.options.unwind:
            return self.file.samples.chains
        if self.keeping is not None and self.keeping.chains is not None:
            self._stack_warnings += self.keeping.warnings
            return self._carried(*self.keeping.chains)
        return complete(self.file, self.spaces, self.symbolizer, self._stack_warnings)

    def _carried(self, offsets: NDArray[np.int64], words: NDArray[np.uint64]) -> Chains:
        """The callchains that were saved, if they are those of these samples."""
        if len(offsets) != len(self.file.samples) + 1:
            self._stack_warnings.append("the stacks that the recording carries are of another")
            return self.file.samples.chains
        return Chains.of(offsets, words)

    def carried(self, lines: bool | None = None) -> bytes:
        """All that names this recording's samples and stacks, as it can carry it, with their source
        lines; None: with those that are known already."""
        if self._remembered is not None:
            # what was kept is names alone: find out again where they come from
            wanted = True if lines is None and self._lined else lines
            return Source(self.file, self.options).carried(wanted)
        _ = self.decoded.profile.stacked
        if lines and not self._lined:
            self.lined(False)
        tables = self.symbolizer.kept()
        if lines is False:
            tables = [replace(one, lines=None) for one in tables]
        own, chains = self.file.samples.chains, self.chains
        made = chains is not own
        return kept.encode(
            Keeping(
                tables,
                self.symbolizer.contained,
                chains.compact() if made else None,
                tuple(self._stack_warnings) if made else (),
            )
        )

    @cached_property
    def _remembered(self) -> Remembered | None:
        """What another opening of this file left in its cache."""
        self.options.check()
        return self._memory.names(self._decode) if self._memory else None

    @cached_property
    def decoded(self) -> Decoded:
        if self._remembered is not None:
            # whether there are any is remembered, too: to see, the whole file would be read
            found = self._remembered.decoded
            return found.with_tasks(lambda: self.guest_tasks) if self._remembered.tasks else found
        start = clock.perf_counter()
        decoded = self._watched()
        if self._memory and clock.perf_counter() - start > _WORTH_KEEPING:
            return self._memory.keep(decoded)
        return decoded

    def _watched(self) -> Decoded:
        """Decoded now, with what guests' CPUs were seen running."""
        decoded = self._decode()
        return decoded.with_tasks(lambda: self.guest_tasks) if self.guest_tasks else decoded

    def lined(self, inline: bool) -> Decoded:
        """`decoded` with source lines, and with inlined functions as frames if `inline`."""
        if inline not in self._lined:
            fresh = self._watched() if self._remembered is not None else self.decoded
            self._lined[inline] = fresh.lined(inline=inline)
        return self._lined[inline]

    @property
    def weights(self) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """The event (an index) and the period of every sample."""
        if self._remembered is not None:
            profile = self._remembered.decoded.profile
            return profile.event.codes, profile.period
        return self.file.samples.event, self.file.samples.period

    @property
    def said(self) -> Said:
        """Where the names met so far came from, and what stood in the way of them and of stacks."""
        _ = self.decoded
        return self._remembered.said() if self._remembered else self._decoded_said()

    def _decoded_said(self) -> Said:
        carried, stacks = self._carried_warnings, self._stack_warnings
        warnings = [*self._strangers(), *carried, *stacks, *self.symbolizer.warnings]
        return Said(warnings, self.symbolizer.sources)

    def _strangers(self) -> list[str]:
        """VMs that a guest_elf was named for, and that the recorder did not find."""
        there = {one.pid: one.name for one in self.machines if one.kind == "guest"}
        known = {"", *there.values(), *map(str, there)}
        return [
            f"guest_elf is of a VM {vm!r} that is not here; here are: {', '.join(there.values())}"
            for vm in self.options.guest_elfs()
            if there and vm not in known
        ]

    def _decode(self) -> Decoded:
        file = self.file
        with steps("reading", 3) as done:
            _ = file.samples
            done()
            _ = self.symbolizer
            done()
            decoded = self._named()
            done()
        return decoded

    def _named(self) -> Decoded:
        file = self.file
        return decode(
            file.samples,
            file.sideband,
            file.events,
            self.machines,
            self.spaces,
            self.symbolizer,
            lambda: self.chains,
        )

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """The sides the recorder was told to record: modes outside are noise it could not avoid."""
        told = self.file.kvmperf
        return tuple(side for side in ("host", "guest") if told.get(side, True))


def _machines(told: Any) -> Iterator[Machine]:
    """Those that a recorder has written down, as far as they are not damaged."""
    for one in told if isinstance(told, list) else []:
        with suppress(ValueError):
            yield Machine.from_json(one)


def recorded_on_this_boot(file: PerfFile) -> bool:
    """True if the recording was made on the running kernel, since it booted, on this host, and
    does not bring its names along."""
    if file.symbols:
        return False
    if "boot_id" in file.kvmperf:
        return bool(file.kvmperf["boot_id"] == boot_id())
    header = file.header
    if (header.os_release, header.hostname) != (platform.release(), socket.gethostname()):
        return False
    up = float(Path("/proc/uptime").read_text().split()[0])
    return Path(file.path).stat().st_mtime >= clock.time() - up
