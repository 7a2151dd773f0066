"""Sample columns and sideband -> a Profile: whose sample, which address space, which names.

Work is done on what is unique: the samples' own addresses are named by distinct (space, ip), and
stacks, only when they are asked for, are reduced to distinct (owner, ip, callchain) by a 64-bit
hash before they are split at their context markers and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import is_guest, split_chains
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.modes import HOST_USER
from kvmperf_magic.numbering import mix, number
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.perfdata.sideband import Sideband
from kvmperf_magic.profile.profile import FrameTable, Profile, Stacked, Stacks
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Categorical
from kvmperf_magic.whose import Whose, whose

_Any = TypeVar("_Any", bound=np.generic)
_BLOCK = 32768  # rows hashed at a time: bigger temporaries cost page faults
_CLOCKS = ("cpu-clock", "task-clock")  # software events whose periods are nanoseconds


class Decoded:
    """A profile, and what it was made from that answers do not need.

    `machine_pid`: int32[n], per sample, 0 for the host, else the VMM's pid. `frame_ip`, uint64,
    and `frame_mode`, uint8: per frame of profile.stacks its address and its mode.
    """

    def __init__(
        self,
        samples: SampleColumns,
        events: Sequence[Event],
        of: Whose,
        chains: Callable[[], Chains],
        symbolizer: Symbolizer,
    ) -> None:
        self._samples = samples
        self._of = of
        self._chains = chains
        self._symbolizer = symbolizer
        self.machine_pid = of.machine_pid[of.kind]
        leaf, first = number(mix(samples.ip ^ of.space[of.kind]))
        names = self._resolve(samples.ip[first], of.mode[of.kind[first]], of.kind[first])
        symbol, dso = (Categorical(c.codes[leaf], c.categories) for c in names)
        self.profile = Profile(
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
            stacked_later=lambda: self._stacked[0],
            unit=unit_of([events[i] for i in np.flatnonzero(np.bincount(samples.event)).tolist()]),
        )

    @property
    def frame_ip(self) -> NDArray[np.uint64]:
        return self._stacked[1]

    @property
    def frame_mode(self) -> NDArray[np.uint8]:
        return self._stacked[2]

    @cached_property
    def _stacked(self) -> tuple[Stacked, NDArray[np.uint64], NDArray[np.uint8]]:
        samples, of, chains = self._samples, self._of, self._chains()
        key = _chain_hash(chains)
        key ^= mix(samples.ip ^ of.owner[of.kind])
        stack, first = number(key)

        kind = of.kind[first]
        frames = split_chains(*chains.take(first).compact(), samples.ip[first], of.mode[kind])
        table, frame = self._frame_table(frames.ip, frames.mode, np.repeat(kind, frames.counts))
        turned = _reversed_rows(frames.offsets)
        stacks = Stacks(frames.offsets, frame[turned])
        stacked = Stacked(stack.astype(np.int32), stacks, table)
        return stacked, frames.ip[turned], frames.mode[turned]

    def _frame_table(
        self, ip: NDArray[np.uint64], mode: NDArray[np.uint8], kind: NDArray[np.int64]
    ) -> tuple[FrameTable, NDArray[np.int32]]:
        """Distinct (symbol, dso, mode) as a table, and for each frame its place in it."""
        of = self._of
        key = np.where(is_guest(mode), of.machine_pid[kind], -1)
        user = mode == HOST_USER
        key[user] = of.epoch[kind[user]]
        which, first = number(mix(mix((key.astype(np.uint64) << np.uint64(8)) | mode) ^ ip))
        modes = mode[first]
        symbol, dso = self._resolve(ip[first], modes, kind[first])
        frame, chosen = number(
            mix(
                (symbol.codes.astype(np.uint64) << np.uint64(32))
                ^ dso.codes.astype(np.uint64) * 8
                ^ modes
            )
        )
        table = FrameTable(symbol.take(chosen), dso.take(chosen), modes[chosen])
        return table, frame.astype(np.int32)[which]

    def _resolve(
        self, ip: NDArray[np.uint64], mode: NDArray[np.uint8], kind: NDArray[np.int64]
    ) -> tuple[Categorical, Categorical]:
        """Symbol and DSO of distinct addresses, of samples of these kinds."""
        of = self._of
        owner = np.where(is_guest(mode), of.machine_pid[kind], of.pid[kind])
        found = self._symbolizer.resolve(of.epoch[kind], owner.astype(np.int32), mode, ip)
        return found.symbol, found.dso


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
    of = whose(samples, sideband, machines, spaces)
    return Decoded(samples, events, of, chains or (lambda: samples.chains), symbolizer)


def unit_of(events: Sequence[Event]) -> str:
    """What a period of these events counts, in words for a picture."""
    names = list(dict.fromkeys(event.name.split(":")[0] for event in events)) or ["samples"]
    if len(names) > 1:
        return "periods of each event"
    return f"{names[0]} ns" if names[0] in _CLOCKS else names[0]


def _chain_hash(chains: Chains) -> NDArray[np.uint64]:
    """One hash a chain; the order of its words counts."""
    hashed = np.zeros(len(chains), dtype=np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, len(chains), _BLOCK):
        offsets, block = chains.take(slice(start, start + _BLOCK)).compact()
        place = np.arange(len(block)) - np.repeat(offsets[:-1], np.diff(offsets))
        sums = np.zeros(len(block) + 1, dtype=np.uint64)
        np.cumsum(mix(block + place.astype(np.uint64) * golden), out=sums[1:])
        hashed[start : start + _BLOCK] = sums[offsets[1:]] - sums[offsets[:-1]]
    return hashed


def _reversed_rows(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of a CSR array's entries with each row back to front."""
    counts = np.diff(offsets)
    return np.repeat(offsets[:-1] + offsets[1:] - 1, counts) - np.arange(offsets[-1])
