"""Wall time and memory of whole processes that read the same file: ours and perf's."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.load import busy_cpus
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

_RUNS = 3
_SECONDS = 20.0
_FREQUENCY = 10000

_FLAT = (
    "import kvmperf_magic as k, sys; r = k.open(sys.argv[1]);"
    "r.report('comm,dso,symbol', children=False).report.__repr__()"
)
_ALL = (
    "import kvmperf_magic as k, sys; r = k.open(sys.argv[1]);"
    "r.report('comm,dso,symbol').report.__repr__(); r.to_folded()"
)


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MB of a command."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def reading_speed(folder: Path) -> None:
    """Records a file with callchains, then prints what it takes to read it."""
    path = str(folder / "reading.data")
    options = SamplerOptions(
        events=["cpu-clock"],
        frequency=_FREQUENCY,
        callchain=True,
        output=path,
        duration=_SECONDS,
        cmdline=sys.argv,
    )
    with busy_cpus(), SamplerProcess.start(options) as process:
        process.wait()
    from kvmperf_magic.perfdata.reader import read

    samples = len(read(path).samples)
    size = Path(path).stat().st_size / 1e6
    print(f"\nreading {samples:,} samples with stacks, {size:.0f} MB, median of {_RUNS}")
    print(f"{'':<32} {'ours s':>8} {'perf s':>8} {'perf/ours':>10} {'ours MB':>8} {'perf MB':>8}")
    perf = ["perf", "report", "--stdio", "-i", path]
    for what, code, theirs in (
        ("flat table", _FLAT, [*perf, "--no-children", "-g", "none"]),
        ("tree, folded text, children", _ALL, perf),
    ):
        mine = [_run([sys.executable, "-c", code, path]) for _ in range(_RUNS)]
        other = [_run(theirs) for _ in range(_RUNS)]
        seconds = [statistics.median(s for s, _ in runs) for runs in (mine, other)]
        memory = [max(m for _, m in runs) for runs in (mine, other)]
        print(
            f"{what:<32} {seconds[0]:>8.2f} {seconds[1]:>8.2f} {seconds[1] / seconds[0]:>10.1f} "
            f"{memory[0]:>8.0f} {memory[1]:>8.0f}"
        )
