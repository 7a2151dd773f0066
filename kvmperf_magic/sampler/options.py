"""What a recording process is told to do, as JSON can carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from kvmperf_magic.errors import QueryError

DEFAULT_USER_STACK = 8192  # perf's
MOST_USER_STACK = 65528  # sample_stack_user is below USHRT_MAX, in words


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
    cmdline: list[str] = field(default_factory=list)
    user_only: bool = False

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
