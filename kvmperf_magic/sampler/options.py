"""What a recording process is told to do, as JSON can carry it."""

from __future__ import annotations

import math
import re
import resource
from dataclasses import asdict, dataclass, field
from typing import Any

from kvmperf_magic.errors import QueryError
from kvmperf_magic.sampler.sysfs import read_int

DEFAULT_USER_STACK = 8192  # perf's
MOST_USER_STACK = 65528  # sample_stack_user is below USHRT_MAX, in words
DEFAULT_FREQUENCY = 4000  # perf record's
_MAX_RATE = "/proc/sys/kernel/perf_event_max_sample_rate"
_UNITS = {"B": 0, "K": 10, "M": 20, "G": 30}  # as perf spells sizes: tools/lib/api, parse_tag_value


@dataclass(frozen=True)
class SamplerOptions:
    """One recording.

    The target is the first of these that is given: `pids` and `tids`; `cpus`; `command` (unless
    `system_wide`); else every CPU. A command that is not the target is run and ends the recording
    when it ends. `output` None streams the pipe format to the parent instead of writing a file.
    `duration` is in seconds, `user_stack` in bytes (0 = none), `mmap_pages` a power of two a CPU.
    `callchain` has the kernel walk the stacks; with `branch_stack` the user part is the
    processor's last branches, kept as a call stack.
    `machines` are `Machine.to_json()` of what runs: guests get a kernel map in the recording.
    With `linger` it is there until it is told to stop, whatever ended the sampling: until then
    more can be attached. `symbols` is `SymbolOptions.to_json()`, for who opens the recording.
    """

    events: list[str] = field(default_factory=lambda: ["cycles"])
    frequency: int | None = None
    period: int | None = None
    callchain: bool = False
    user_stack: int = 0
    branch_stack: bool = False
    cpus: list[int] | None = None
    pids: list[int] = field(default_factory=list)
    tids: list[int] = field(default_factory=list)
    command: list[str] | None = None
    system_wide: bool = False
    inherit: bool = True
    mmap_pages: int = 128
    host: bool = True
    guest: bool = False
    output: str | None = None
    duration: float | None = None
    machines: list[dict[str, Any]] = field(default_factory=list)
    symbols: dict[str, Any] = field(default_factory=dict)
    cmdline: list[str] = field(default_factory=list)
    user_only: bool = False
    linger: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> SamplerOptions:
        return cls(**told)


def call_graph(told: str | bool) -> dict[str, Any]:
    """perf's --call-graph as options: `fp` (True), `dwarf`, `dwarf,BYTES`, `lbr`; False: none.

    QueryError for what is none of these.
    """
    mode, comma, size = (
        ("fp" if told else "no", "", "") if isinstance(told, bool) else (told.partition(","))
    )
    if mode == "dwarf":
        if comma and not size.isdecimal():
            raise QueryError(f"--call-graph {told}: no number of bytes", "as dwarf,8192")
        wanted = int(size) if comma else DEFAULT_USER_STACK
        if not 8 <= wanted <= MOST_USER_STACK:
            raise QueryError(
                f"a user stack of {wanted} bytes cannot be copied", f"8 to {MOST_USER_STACK} can"
            )
        return {"callchain": True, "user_stack": -(-wanted // 8) * 8}
    if mode not in {"fp", "lbr", "no"} or comma:
        raise QueryError(f"no call graph {told!r}", "there are fp, dwarf, dwarf,BYTES and lbr")
    return {"callchain": mode != "no", "branch_stack": mode == "lbr"}


def sample_rate(frequency: int | str | None, period: int | None) -> dict[str, Any]:
    """perf's -F (in Hz, or "max") and -c as options; without both its default of 4000 Hz.

    QueryError for what is no rate.
    """
    if period is not None:
        return {"frequency": None, "period": _positive("period", period, "events")}
    if frequency is None:
        return {"frequency": DEFAULT_FREQUENCY, "period": None}
    if frequency == "max":
        # tools/perf/util/record.c: record_opts__config_freq()
        frequency = read_int(_MAX_RATE) or DEFAULT_FREQUENCY
    return {"frequency": _positive("frequency", frequency, "Hz"), "period": None}


def ring_pages(told: int | str) -> int:
    """perf's -m: pages, or a size as 512K; what is no power of two is rounded up to one.

    QueryError for what is neither (tools/perf/builtin-record.c: parse_pages_arg()).
    """
    pages = told
    if isinstance(told, str):
        found = re.fullmatch(r"(\d+)([BKMG]?)", told)
        if found is None:
            raise QueryError(f"mmap_pages {told!r} is no number of pages", "as 128, or 512K")
        number, unit = int(found[1]), found[2]
        size = resource.getpagesize()
        pages = -(-(number << _UNITS[unit]) // size) if unit else number
    return 1 << (_positive("mmap_pages", pages, "pages") - 1).bit_length()


def seconds(duration: float | None) -> float | None:
    """A length of time; None has no end. QueryError for what is no time to record in."""
    if duration is None:
        return None
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not duration > 0:
        raise QueryError(f"a duration of {duration!r} is none", "seconds, more than 0")
    return None if math.isinf(duration) else duration


def _positive(what: str, value: object, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise QueryError(f"{what} {value!r} cannot be", f"a whole number of {unit}, 1 or more")
    return value
