"""Sample columns and sideband -> a Profile: whose sample, which address space, which names.

Work is done on what is unique: the samples' own addresses are named by distinct (space, ip), and
stacks, only when they are asked for, are reduced to distinct (owner, ip, callchain) by a 64-bit
hash before they are split at their context markers and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import is_guest
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.tasks import GuestTasks, TaskLooks, tasks_of
from kvmperf_magic.lining import Locate, lined
from kvmperf_magic.numbering import mix, number
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.profile.profile import FrameTable, Profile, Stacked, Stacks
from kvmperf_magic.stacks import Addresses, chain_hashes, split
from kvmperf_magic.symbols.lines import Located
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Categorical
from kvmperf_magic.whose import Whose, whose

_MODIFIERS = re.compile(":[ukhIGHpPSDWeb]+$")  # of an event's name: cycles:Gk; no kvm:kvm_exit
_CLOCKS = ("cpu-clock", "task-clock")  # software events whose periods are nanoseconds


class Decoded:
    """A profile, and what it was made from that answers do not need.

    `machine_pid`: int32[n], per sample, 0 for the host, else the VMM's pid. `frame_ip`, uint64,
    and `frame_mode`, uint8: per frame of profile.stacks its address and its mode.
    """

    def __init__(
        self,
        profile: Profile,
        machine_pid: NDArray[np.int32],
        addresses: Callable[[], Addresses],
        locate: Locate | None = None,
    ) -> None:
        self.profile = profile
        self.machine_pid = machine_pid
        self._later = addresses
        self._locate = locate

    @cached_property
    def addresses(self) -> Addresses:
        """What the frames of profile.stacks are."""
        return self._later()

    def lined(self, *, inline: bool) -> Decoded:
        """The same with source lines, and with inlined functions as frames: see lining.py."""
        assert self._locate is not None
        profile, addresses = lined(self.profile, self.addresses, self._locate, inline=inline)
        return Decoded(profile, self.machine_pid, lambda: addresses)

    def with_tasks(self, looks: Sequence[TaskLooks]) -> Decoded:
        """The same with the processes that these looks saw on guests' CPUs."""
        whole, machine_pid = self.profile, self.machine_pid
        if not looks:
            return self

        def later() -> GuestTasks:
            machine = np.where(is_guest(whole.mode), machine_pid, 0)
            return tasks_of(looks, whole.time, machine, whole.vcpu)

        profile = replace(whole, tasks_later=later)
        return Decoded(profile, machine_pid, self._later, self._locate)

    @property
    def frame_ip(self) -> NDArray[np.uint64]:
        return self.addresses.ip[self.addresses.which]

    @property
    def frame_mode(self) -> NDArray[np.uint8]:
        return self.addresses.mode[self.addresses.which]


class _Decoder:
    """Names samples at once, and their stacks when these are asked for."""

    def __init__(
        self,
        samples: SampleColumns,
        events: Sequence[Event],
        of: Whose,
        chains: Callable[[], Chains],
        symbolizer: Symbolizer,
    ) -> None:
        self._samples = samples
        self._events = events
        self._of = of
        self._later_chains = chains
        self._symbolizer = symbolizer

    def decoded(self) -> Decoded:
        samples, events, of = self._samples, self._events, self._of
        leaf, first = number(mix(samples.ip ^ of.space[of.kind]))
        names = self._resolve(samples.ip[first], of.mode[of.kind[first]], of.kind[first])
        symbol, dso = (Categorical(c.codes[leaf], c.categories) for c in names)
        profile = Profile(
            time=samples.time,
            period=samples.period,
            mode=of.mode[of.kind],
            ip=samples.ip,
            pid=samples.pid,
            tid=samples.tid,
            cpu=samples.cpu,
            vcpu=of.vcpu[of.kind],
            event=Categorical(samples.event, [event.name for event in events]),
            comm=of.comm.take(of.kind),
            symbol=symbol,
            dso=dso,
            machine=of.machine.take(of.kind),
            stacked_later=self._stacked,
            unit=unit_of(
                [events[i].name for i in np.flatnonzero(np.bincount(samples.event)).tolist()]
            ),
        )
        pids = of.machine_pid[of.kind]
        return Decoded(profile, pids, lambda: self._addresses, self._located)

    @cached_property
    def _chains(self) -> Chains:
        return self._later_chains()

    @cached_property
    def _distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stack of each sample, and the first sample of each stack."""
        key = chain_hashes(self._chains)
        key ^= mix(self._samples.ip ^ self._of.owner[self._of.kind])
        return number(key)

    @cached_property
    def _addresses(self) -> Addresses:
        _, first = self._distinct
        return split(
            self._chains.take(first), self._samples.ip[first], self._of.kind[first], self._of
        )

    def _stacked(self) -> Stacked:
        found = self._addresses
        symbol, dso = self._resolve(found.ip, found.mode, found.kind)
        key = symbol.codes.astype(np.uint64) << np.uint64(32)
        key |= dso.codes.astype(np.uint64) << np.uint64(3)
        frame, chosen = number(mix(key | found.mode))
        table = FrameTable(symbol.take(chosen), dso.take(chosen), found.mode[chosen])
        stacks = Stacks(found.offsets, frame.astype(np.int32)[found.which])
        return Stacked(self._distinct[0].astype(np.int32), stacks, table)

    def _resolve(
        self, ip: NDArray[np.uint64], mode: NDArray[np.uint8], kind: NDArray[np.int64]
    ) -> tuple[Categorical, Categorical]:
        """Symbol and DSO of distinct addresses, of samples of these kinds."""
        found = self._symbolizer.resolve(*self._places(ip, mode, kind))
        return found.symbol, found.dso

    def _located(
        self, ip: NDArray[np.uint64], mode: NDArray[np.uint8], kind: NDArray[np.int64]
    ) -> Located:
        return self._symbolizer.locate(*self._places(ip, mode, kind))

    def _places(
        self, ip: NDArray[np.uint64], mode: NDArray[np.uint8], kind: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint64]]:
        """Addresses of samples of these kinds, as the symbolizer wants them."""
        of = self._of
        owner = np.where(is_guest(mode), of.machine_pid[kind], of.pid[kind])
        return of.epoch[kind], owner.astype(np.int32), mode, ip


def decode(
    samples: SampleColumns,
    sideband: Sideband,
    events: Sequence[Event],
    machines: Sequence[Machine],
    spaces: AddressSpaces,
    symbolizer: Symbolizer,
    chains: Callable[[], Chains] | None = None,
) -> Decoded:
    """Name every sample of `samples`; nothing is filtered. `chains` gives the callchains where
    they are not the samples' own; it is asked only when stacks are."""
    of = whose(samples, sideband, machines, spaces, symbolizer.boots)
    later = chains or (lambda: samples.chains)
    return _Decoder(samples, events, of, later, symbolizer).decoded()


def unit_of(events: Iterable[str]) -> str:
    """What a period of the events of these names counts, in words for a picture."""
    names = list(dict.fromkeys(_MODIFIERS.sub("", name) for name in events)) or ["samples"]
    if len(names) > 1:
        return "periods of each event"
    return f"{names[0]} ns" if names[0] in _CLOCKS else names[0]
