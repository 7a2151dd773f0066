"""What a live view costs: the recording process and the process that names and shows."""

from __future__ import annotations

import os
import time

from bench.load import busy_cpus
from bench.recording import cpu_seconds
from kvmperf_magic.live import top

_SECONDS = 10.0


def live_cost(frequency: int = 1000) -> None:
    """Prints the share of one core that `top()` takes, whole machine, all CPUs busy."""
    with busy_cpus():
        view = top(frequency=frequency, events="cpu-clock")
        time.sleep(3.0)
        pids = {"recorder": view.process.pid, "view": os.getpid()}
        before, start = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic()
        time.sleep(_SECONDS)
        took = time.monotonic() - start
        shares = {name: (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}
        view.stop()
    parts = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    total = sum(shares.values())
    print(f"\nlive view at {frequency} Hz, {os.cpu_count()} CPUs: {total:.2%} of a core ({parts})")
