"""A profile: samples as columns, with their stacks stored once. The only input of every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.tasks import GuestTasks
from kvmperf_magic.modes import GUEST_MODES, MODES, mode_codes
from kvmperf_magic.numbering import hash_rows, number
from kvmperf_magic.profile.groups import group, sums, within
from kvmperf_magic.table import Categorical

GUEST_CODES = mode_codes(GUEST_MODES)


@dataclass(frozen=True)
class FrameTable:
    """Frames that stacks are made of: one row a frame; `srcline` where lines were asked for."""

    symbol: Categorical
    dso: Categorical
    mode: NDArray[np.uint8]
    srcline: Categorical | None = None

    def __len__(self) -> int:
        return len(self.mode)


@dataclass(frozen=True)
class Stacks:
    """Stacks, root first: stack i is `frames[offsets[i] : offsets[i + 1]]`, never empty.

    `offsets` is int64[s + 1], `frames` int32, indices into a `FrameTable`.
    """

    offsets: NDArray[np.int64]
    frames: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def leaves(self) -> NDArray[np.int32]:
        """The leaf frame of every stack."""
        return self.frames[self.offsets[1:] - 1]

    @cached_property
    def merged(self) -> tuple[NDArray[np.int64], Stacks]:
        """The stacks that differ in their frames, and for each stack which of them it is: stacks
        of other addresses in the same functions are one."""
        ids, first = number(hash_rows(self.offsets, self.frames))
        if len(first) == len(self):
            return ids, self
        offsets = np.zeros(len(first) + 1, np.int64)
        np.cumsum(self.offsets[first + 1] - self.offsets[first], out=offsets[1:])
        return ids, Stacks(offsets, self.frames[within(self.offsets, first)])


@dataclass(frozen=True)
class Stacked:
    """Which stack each of n samples has: `stack` (int32[n]) numbers `stacks`, whose frames are
    rows of `frames`."""

    stack: NDArray[np.int32]
    stacks: Stacks
    frames: FrameTable


@dataclass(frozen=True)
class Profile:
    """n samples, in the order of time. Every array has n rows; -1 in `vcpu` is no vCPU.

    `period` is the weight of a sample, `unit` what it counts ("cpu-clock ns", "cycles"). `mode`,
    `symbol` and `dso` are those of the leaf frame of the sample's stack. `machine` is "host" or
    the name of a VM. Stacks are worked out when first asked for: many an answer needs none.
    """

    time: NDArray[np.uint64]
    period: NDArray[np.uint64]
    mode: NDArray[np.uint8]
    ip: NDArray[np.uint64]
    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    cpu: NDArray[np.int32]
    vcpu: NDArray[np.int32]
    event: Categorical
    comm: Categorical
    symbol: Categorical
    dso: Categorical
    machine: Categorical
    stacked_later: Callable[[], Stacked]
    unit: str = ""
    srcline: Categorical | None = None  # file:line, where it was asked for
    tasks_later: Callable[[], GuestTasks] | None = None  # None: nobody looked into guests

    @cached_property
    def stacked(self) -> Stacked:
        return self.stacked_later()

    @cached_property
    def tasks(self) -> GuestTasks:
        """The process that a guest's CPU ran, of each sample."""
        return self.tasks_later() if self.tasks_later else GuestTasks.unseen(len(self))

    @property
    def guest_comm(self) -> Categorical:
        """Its command; "" for host samples, and where nothing was seen."""
        return self.tasks.comm

    @property
    def guest_pid(self) -> NDArray[np.int32]:
        """Its pid within the guest; -1 for host samples, and where nothing was seen."""
        return self.tasks.pid

    @property
    def guest_sure(self) -> NDArray[np.float64]:
        """How sure that is, 0 to 1: see `GuestTasks`."""
        return self.tasks.sure

    @property
    def stack(self) -> NDArray[np.int32]:
        """int32[n]: which of `stacks` each sample has."""
        return self.stacked.stack

    @property
    def stacks(self) -> Stacks:
        return self.stacked.stacks

    @property
    def frames(self) -> FrameTable:
        return self.stacked.frames

    def __len__(self) -> int:
        return len(self.time)

    @property
    def total(self) -> float:
        """The sum of all periods."""
        return float(self.period.sum(dtype=np.float64))

    def select(self, rows: Any) -> Profile:
        """The samples a mask, slice or index array chooses; stacks and frames are shared."""
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_ and rows.all():
            return self
        columns: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Categorical):
                columns[field.name] = value.take(rows)
            elif isinstance(value, np.ndarray):
                columns[field.name] = value[rows]

        def later() -> Stacked:
            return replace(self.stacked, stack=self.stack[rows])

        watched = self.tasks_later and (lambda: self.tasks.take(rows))
        return replace(self, **columns, stacked_later=later, tasks_later=watched)

    def in_modes(self, modes: Iterable[str] | str | None) -> Profile:
        """The samples whose leaf runs in these modes (`host` and `guest`: all of that side)."""
        if modes is None:
            return self
        wanted = np.zeros(256, dtype=np.bool_)
        wanted[mode_codes([modes] if isinstance(modes, str) else modes)] = True
        return self.select(wanted[self.mode])


@dataclass(frozen=True)
class Sample:
    """One sample in plain Python, for `profile_of`. Frames: (symbol, dso, mode), root first."""

    frames: Sequence[tuple[str, str, str]]
    period: int = 1
    time: int = 0
    comm: str = "comm"
    pid: int = 1
    tid: int = 1
    cpu: int = 0
    vcpu: int = -1
    machine: str = "host"
    event: str = "cpu-clock"
    ip: int = 0
    guest_comm: str = ""
    guest_pid: int = -1
    guest_sure: float = 0.0


def profile_of(samples: Iterable[Sample], unit: str = "") -> Profile:
    """A profile of hand-written samples: the small way in, for tests and other sources."""
    rows = list(samples)
    stack_numbers: dict[tuple[tuple[str, str, str], ...], int] = {}
    stack = [stack_numbers.setdefault(tuple(row.frames), len(stack_numbers)) for row in rows]
    frame_numbers: dict[tuple[str, str, str], int] = {}
    flat = [
        frame_numbers.setdefault(frame, len(frame_numbers))
        for frames in stack_numbers
        for frame in frames
    ]
    frames = FrameTable(
        categorical([symbol for symbol, _, _ in frame_numbers]),
        categorical([dso for _, dso, _ in frame_numbers]),
        np.array([MODES.index(mode) for _, _, mode in frame_numbers], dtype=np.uint8),
    )
    lengths = [len(frames) for frames in stack_numbers]
    stacks = Stacks(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.array(flat, np.int32)
    )
    leaf = stacks.leaves[np.array(stack, np.int64)]

    def numbers(name: str, kind: Any) -> NDArray[Any]:
        return np.array([getattr(row, name) for row in rows], dtype=kind)

    return Profile(
        time=numbers("time", np.uint64),
        period=numbers("period", np.uint64),
        mode=frames.mode[leaf],
        ip=numbers("ip", np.uint64),
        pid=numbers("pid", np.int32),
        tid=numbers("tid", np.int32),
        cpu=numbers("cpu", np.int32),
        vcpu=numbers("vcpu", np.int32),
        event=categorical([row.event for row in rows]),
        comm=categorical([row.comm for row in rows]),
        symbol=frames.symbol.take(leaf),
        dso=frames.dso.take(leaf),
        machine=categorical([row.machine for row in rows]),
        stacked_later=lambda: Stacked(np.array(stack, np.int32), stacks, frames),
        unit=unit,
        tasks_later=lambda: GuestTasks(
            categorical([row.guest_comm for row in rows]),
            numbers("guest_pid", np.int32),
            numbers("guest_sure", np.float64),
        ),
    )


def categorical(values: Sequence[str]) -> Categorical:
    """These strings, each stored once."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return Categorical(np.array(codes, dtype=np.int32), list(numbers))


@dataclass(frozen=True)
class Pairs:
    """The unique (sample group, stack) of a profile and what falls on each; `stack` is a row of
    `stacks`, in which no two are made of the same frames."""

    group: NDArray[np.int64]
    stack: NDArray[np.int64]
    weight: NDArray[np.float64]
    samples: NDArray[np.int64]
    stacks: Stacks


def pairs_of(
    profile: Profile,
    ids: NDArray[np.int64],
    groups: int,
    weight: NDArray[np.float64] | None = None,
) -> Pairs:
    """Sums the samples by (`ids`, stack); `ids` numbers the samples' groups below `groups`.
    `weight` of a sample is its period unless it is given."""
    weight = profile.period.astype(np.float64) if weight is None else weight
    merged, stacks = profile.stacks.merged
    stack = merged[profile.stack]
    count = len(stacks)
    group_of = np.zeros(count, dtype=np.int64)
    group_of[stack] = ids
    if groups <= 1 or bool((group_of[stack] == ids).all()):
        # a stack belongs to one group only, as it does where stacks were keyed by process
        samples = np.bincount(stack, minlength=count)
        used = np.flatnonzero(samples)
        weights = sums(stack, weight, count)
        return Pairs(group_of[used], used, weights[used], samples[used], stacks)
    found = group(ids * count + stack)
    return Pairs(
        ids[found.row],
        stack[found.row],
        sums(found.ids, weight, len(found)),
        np.bincount(found.ids, minlength=len(found)),
        stacks,
    )
