"""The machines of this host as `%kvm_list` shows them: what runs, and what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from kvmperf_magic.guests.discovery import machines, what_can_be_sampled
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.survey import Facts, survey
from kvmperf_magic.table import Categorical, Table
from kvmperf_magic.views import Lines, View

# what a list shows at once; the table has more
_SHOWN = ("machine", "pid", "vmm", "vcpus", "memory MiB", "load %", "kernel", "up", "symbols")


class MachineList(View):
    """The machines of this host: `.table`, a row each, and `.machines`."""

    def __init__(self, found: list[Machine], facts: Sequence[Facts]) -> None:
        self.machines = found
        self.facts = list(facts)

    @classmethod
    def found(cls) -> MachineList:
        there = machines()
        return cls(there, survey(there))

    @cached_property
    def table(self) -> Table:
        """machine pid vmm accel vcpus vcpu:thread memory MiB (0 if not known) load % (of all its
        CPUs, -1 if not known) kernel up (since its boot) cpus (online) symbols (how many)
        symbols from, command line, can be sampled, notes"""
        found, facts = self.machines, self.facts

        def text(values: list[str]) -> Categorical:
            return Categorical(np.arange(len(values), dtype=np.int32), values)

        def numbers(values: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
            return np.array(values, dtype=np.int64)

        loads = [-1 if f.load is None else round(100 * f.load) for f in facts]
        return Table(
            {
                "machine": text([m.name for m in found]),
                "pid": numbers([m.pid for m in found]),
                "vmm": text([m.vmm for m in found]),
                "accel": text([m.accel for m in found]),
                "vcpus": numbers([len(m.vcpus) for m in found]),
                "vcpu:thread": text([_threads(m) for m in found]),
                "memory MiB": numbers([(m.memory or 0) >> 20 for m in found]),
                "load %": numbers(loads),
                "kernel": text([f.release for f in facts]),
                "up": text([_duration(f.uptime) for f in facts]),
                "cpus": numbers([f.cpus for f in facts]),
                "symbols": numbers([f.symbols for f in facts]),
                "symbols from": text([f.source for f in facts]),
                "command line": text([f.command_line for f in facts]),
                "can be sampled": text([what_can_be_sampled(m) for m in found]),
                "notes": text(["; ".join(notes) for notes in self._notes]),
            }
        )

    @property
    def _notes(self) -> list[list[str]]:
        pairs = zip(self.machines, self.facts, strict=True)
        return [[*m.notes, *([f.note] if f.note else [])] for m, f in pairs]

    def parts(self) -> Sequence[Any]:
        columns = {name: self.table.column(name) for name in _SHOWN}
        rows = zip(self.table.rows(), self._notes, strict=True)
        lines = []
        for row, notes in rows:
            about = f"{row['machine']}: can be sampled: {row['can be sampled']}"
            if row["symbols from"]:
                about += f"; symbols from {row['symbols from']}"
            if row["vcpu:thread"]:
                about += f"; vCPU threads {row['vcpu:thread']}"
            lines += [about, *(f"    {note}" for note in notes)]
        return [Table(columns), Lines(lines)]


def _threads(machine: Machine) -> str:
    return " ".join(f"{v.id}:{v.tid or '?'}" for v in machine.vcpus)


def _duration(seconds: int) -> str:
    """`2d 03:04:05`; "" for none."""
    if not seconds:
        return ""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {clock}" if days else clock
