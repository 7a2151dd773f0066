"""The micro guest: a VM small enough to ship, and the same code as a host process.

`MicroGuest` and `HostBaseline` run them beside the notebook, each in a process of its own that
ends with it; `guest_elf()` and `host_elf()` are where their symbols come from.
"""

from __future__ import annotations

from kvmperf_magic.demo.image import guest_elf, host_elf
from kvmperf_magic.demo.run import PHASES, HostBaseline, MicroGuest
from kvmperf_magic.demo.stage import live, replay, two_cpus

__all__ = [
    "PHASES",
    "HostBaseline",
    "MicroGuest",
    "guest_elf",
    "host_elf",
    "live",
    "replay",
    "two_cpus",
]
