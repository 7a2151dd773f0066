"""What every machine is doing now and what is known of its kernel, asked of all of them at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvmperf_magic.errors import KvmperfError, one_line
from kvmperf_magic.guests.machine import KALLSYMS, Machine
from kvmperf_magic.guests.watch import GuestWatch, searched, watch
from kvmperf_magic.progress import share
from kvmperf_magic.symbols import kallsyms

_SHORTEST = 0.25  # seconds over which a load is measured
_LONGEST = 15.0  # that are waited for memory to be searched; searches end sooner by themselves
_STEP = 0.1
_SEARCHING = "its memory is still being searched: list again"


@dataclass(frozen=True)
class Facts:
    """Of one machine. `load` is the share of its CPUs' time that was used, None where that is not
    known; `uptime` in seconds and `cpus` are 0, texts "" where they are not known."""

    load: float | None
    release: str = ""
    command_line: str = ""
    uptime: int = 0
    cpus: int = 0
    symbols: int = 0
    source: str = ""
    note: str = ""


def survey(machines: Sequence[Machine]) -> list[Facts]:
    """In a second or so, unless there is much memory to search: a bar shows that. Ctrl-C ends the
    waiting, not the search."""
    begun = time.monotonic()
    ran = [_ran(machine) for machine in machines]
    guests = {m.pid: watch(m) for m in machines if m.kind == "guest"}
    searches = {
        pid: threading.Thread(target=one.refresh, name="kvmperf-survey", daemon=True)
        for pid, one in guests.items()
    }
    for search in searches.values():
        search.start()
    _wait_for(list(searches.values()), list(guests.values()), begun + _LONGEST)
    time.sleep(max(0.0, begun + _SHORTEST - time.monotonic()))
    elapsed = time.monotonic() - begun
    found = []
    for machine, before in zip(machines, ran, strict=True):
        now = _ran(machine)
        cpus = len(machine.vcpus) if machine.kind == "guest" else os.cpu_count() or 1
        load = None
        if now is not None and before is not None and cpus:
            load = min(1.0, max(0.0, (now - before) / elapsed / cpus))
        if machine.kind == "host":
            found.append(_host(load))
        elif searches[machine.pid].is_alive():
            found.append(Facts(load, note=_SEARCHING))
        else:
            found.append(_guest(guests[machine.pid], load))
    return found


def _wait_for(
    searches: Sequence[threading.Thread], guests: Sequence[GuestWatch], end: float
) -> None:
    try:
        with share("searching guests' memory") as tell:
            for search in searches:
                while search.is_alive() and time.monotonic() < end:
                    search.join(_STEP)
                    tell(*(searched(guests) or (0, 0)))
    except KeyboardInterrupt:
        pass  # what is known by now is shown


def _host(load: float | None) -> Facts:
    uname = os.uname()
    up = int(float(Path("/proc/uptime").read_text().split()[0]))
    line = Path("/proc/cmdline").read_text().strip()
    told = uname.release, line, up, os.cpu_count() or 0
    try:
        return Facts(load, *told, len(kallsyms.parse(KALLSYMS)), KALLSYMS)
    except KvmperfError as error:
        return Facts(load, *told, note=str(error))


def _guest(watched: GuestWatch, load: float | None) -> Facts:
    symbols, kernel = watched.symbols, watched.kernel
    if kernel is None or symbols.table is None:
        return Facts(load, note=symbols.note)
    try:
        _, uptime = kernel.clock()
        line, cpus = one_line(kernel.command_line), kernel.cpus
    except KvmperfError as error:  # it has ended since it was searched
        return Facts(load, note=str(error))
    count = len(symbols.table)
    return Facts(load, kernel.release, line, uptime, cpus, count, symbols.source, symbols.note)


def _ran(machine: Machine) -> float | None:
    """CPU seconds that its CPUs have run: a guest's are threads, the host's are all but idle."""
    try:
        if machine.kind == "host":
            ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
            # user nice system idle iowait irq softirq steal
            return (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")
        tids = [vcpu.tid for vcpu in machine.vcpus if vcpu.tid]
        if not tids:
            return None
        paths = [Path(f"/proc/{machine.pid}/task/{tid}/schedstat") for tid in tids]
        return sum(int(path.read_text().split()[0]) for path in paths) / 1e9
    except (OSError, ValueError, IndexError):
        return None
