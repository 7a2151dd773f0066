"""What a recording process is told to do, as JSON can carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SamplerOptions:
    """One recording.

    The target is the first of these that is given: `pids` and `tids`; `cpus`; `command` (unless
    `system_wide`); else every CPU. A command that is not the target is run and ends the recording
    when it ends. `output` None streams the pipe format to the parent instead of writing a file.
    `duration` is in seconds, `user_stack` in bytes (0 = none), `mmap_pages` a power of two a CPU.
    `machines` are `Machine.to_json()` of what runs: guests get a kernel map in the recording.
    """

    events: list[str] = field(default_factory=lambda: ["cycles"])
    frequency: int | None = None
    period: int | None = None
    callchain: bool = False
    user_stack: int = 0
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
