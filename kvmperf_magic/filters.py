"""Which samples satisfy a filter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.decoding import Decoded
from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import mode_codes


@dataclass(frozen=True)
class Filter:
    """What a dashboard shows; None: everything. The arguments of `Recording.filter()` that it has
    a control for: `vm` and `comm` are names, `time` seconds. One may stand without its tuple."""

    modes: tuple[str, ...] | None = None
    vm: tuple[str, ...] | None = None
    vcpu: tuple[int, ...] | None = None
    comm: tuple[str, ...] | None = None
    event: str | None = None
    symbol: str | None = None
    time: tuple[float | None, float | None] | None = None

    def __post_init__(self) -> None:
        for name in ("modes", "vm", "vcpu", "comm"):
            given = getattr(self, name)
            several = (given,) if isinstance(given, str | int) else given and tuple(given)
            object.__setattr__(self, name, several if several != () else None)
        if self.time is not None:
            bounds = (None if at is None else float(at) for at in self.time)
            object.__setattr__(self, "time", tuple(bounds))

    @property
    def arguments(self) -> dict[str, Any]:
        """Those that are given: `recording.filter(**filter.arguments)`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def select(
    decoded: Decoded,
    path: str,
    *,
    modes: str | Iterable[str] | None,
    numbers: Mapping[str, int | Sequence[int] | None],
    patterns: Mapping[str, str | Sequence[str] | None],
    vm: str | int | Sequence[str | int] | None,
    time: tuple[float | None, float | None] | None,
    event: str | Sequence[str] | None,
) -> NDArray[np.bool_]:
    """The samples of `decoded` for which all that is not None holds, as a mask.

    `numbers` and `patterns` are by column. QueryError, which names `path`, for what is not there.
    """
    whole = decoded.profile
    mask = np.ones(len(whole), np.bool_)
    if modes is not None:
        mask &= np.isin(whole.mode, mode_codes([modes] if isinstance(modes, str) else modes))
    for name, wanted in numbers.items():
        if wanted is not None:
            mask &= np.isin(getattr(whole, name), _numbers(name, wanted))
    if vm is not None:
        mask &= _of_vms(decoded, path, [vm] if isinstance(vm, str | int) else vm)
    if event is not None:
        mask &= whole.event.where(_known(event, whole.event.categories, "event"))
    for name, pattern in patterns.items():
        if pattern is not None:
            column = getattr(whole, name)
            if isinstance(pattern, str):
                mask &= column.where(_regex(pattern).search)
            elif isinstance(pattern, Iterable):
                mask &= column.where(_known(pattern, column.categories, name))
            else:
                raise QueryError(f"{name} is {pattern!r}", "an expression, or a list of names")
    if time is not None:
        start = int(whole.time[0]) if len(whole) else 0
        since, until = (_clock(bound, start) for bound in _pair(time))
        if since is not None and until is not None and since > until:
            raise QueryError(f"time {time!r} ends before it begins", "(from, until)")
        if since is not None:
            mask &= whole.time >= since
        if until is not None:
            mask &= whole.time < until
    return mask


def _numbers(name: str, wanted: int | Sequence[int]) -> NDArray[Any]:
    numbers = np.atleast_1d(np.asarray(wanted))
    if len(numbers) and numbers.dtype.kind not in "iu":
        raise QueryError(f"{name} is {wanted!r}", "a whole number, or several")
    return numbers


def _pair(time: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    if isinstance(time, str) or not isinstance(time, Sequence) or len(time) != 2:
        raise QueryError(f"time is {time!r}", "a pair: (from, until), None where there is no bound")
    return time


def _clock(bound: float | None, start: int) -> int | None:
    """A bound in the samples' nanoseconds: a float is seconds since `start`."""
    if bound is None or isinstance(bound, int | np.integer):
        return bound if bound is None else int(bound)
    if not isinstance(bound, float | np.floating) or not math.isfinite(bound):
        raise QueryError(f"{bound!r} is no time", "seconds as a float, or nanoseconds as an int")
    return start + round(float(bound) * 1e9)


def _of_vms(decoded: Decoded, path: str, wanted: Sequence[str | int]) -> NDArray[np.bool_]:
    """Samples in the guest code of these VMs."""
    mask = np.zeros(len(decoded.machine_pid), np.bool_)
    machine = decoded.profile.machine
    pids, first = np.unique(decoded.machine_pid, return_index=True)
    # VMs of one name are told apart by their pids, as `web1:4711`
    twins = dict(zip(pids.tolist(), machine.take(first).values().tolist(), strict=True))
    for one in wanted:
        text = str(one)
        here = machine.where(text.__eq__) & (decoded.machine_pid != 0)
        for pid, name in twins.items():
            if name == f"{text}:{pid}":
                here |= decoded.machine_pid == pid
        if text.isdecimal():
            here |= decoded.machine_pid == int(text)
        if not here.any():
            names = [name for name in machine.categories if name != "host"]
            raise QueryError(
                f"no guest samples of a VM {text!r} in {path}",
                f"VMs there: {', '.join(names) or 'none'}",
            )
        mask |= here
    return mask


def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise QueryError(f"{pattern!r} is no regular expression: {error}") from None


def _known(wanted: str | Sequence[str], names: Sequence[str], what: str) -> Callable[[str], object]:
    chosen = {wanted} if isinstance(wanted, str) else set(wanted)
    for one in chosen:
        if one not in names:
            raise QueryError(f"no {what} {one!r}", f"there are: {', '.join(names)}")
    return chosen.__contains__
