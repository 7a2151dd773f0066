"""The CPU time of the recording process, ours and perf's, at several frequencies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.load import busy_cpus
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

_SECONDS = 5.0
_SETTLE = 1.0  # what runs already is written down at the start: that is not what is measured


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far (/proc/PID/task/TID/schedstat: nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _share(pid: int) -> float:
    time.sleep(_SETTLE)
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(_SECONDS)
    return (cpu_seconds(pid) - before) / (time.monotonic() - start)


def _ours(path: Path, frequency: int, callchain: bool) -> tuple[float, int]:
    options = SamplerOptions(
        events=["cpu-clock"],
        frequency=frequency,
        callchain=callchain,
        output=str(path),
        cmdline=sys.argv,
    )
    with SamplerProcess.start(options) as process:
        share = _share(process.pid)
        process.stop()
        stats = process.stats()
    return share, stats.lost


def _perf(path: Path, frequency: int, callchain: bool) -> float:
    command = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", str(frequency), "-o", path]
    process = subprocess.Popen(
        [*command, *(["-g"] if callchain else [])], stderr=subprocess.DEVNULL
    )
    share = _share(process.pid)
    process.send_signal(signal.SIGINT)
    process.wait()
    return share


def recorder_cost(folder: Path) -> None:
    """Prints the share of one core that each recorder takes, whole machine, all CPUs busy."""
    print(f"recorder cost, share of one core over {_SECONDS:.0f} s, {os.cpu_count()} busy CPUs")
    print(f"{'Hz':>7} {'stacks':>7} {'ours':>9} {'perf':>9} {'ours/perf':>10} {'lost':>6}")
    with busy_cpus():
        for frequency, callchain in ((1000, False), (4000, False), (10000, False), (4000, True)):
            ours, lost = _ours(folder / "ours.data", frequency, callchain)
            theirs = _perf(folder / "perf.data", frequency, callchain)
            ratio = f"{ours / theirs:.2f}" if theirs else "-"
            stacks = "yes" if callchain else "no"
            print(f"{frequency:>7} {stacks:>7} {ours:>9.2%} {theirs:>9.2%} {ratio:>10} {lost:>6}")
