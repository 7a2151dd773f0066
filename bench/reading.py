"""Wall time, CPU time and memory of whole processes that read the same file: ours and perf's.

One file with callchains is recorded while compilers, interpreters, searches and packers run; what
is compared is run in turns, so that both meet the same machine.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load import mixed_load
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

_RUNS = 3
_FREQUENCY = 20000
_SECONDS = 34.0  # about 1.3 M samples on two CPUs
# modules are compiled once, as everybody has them
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
_SIZES = (10_000, 100_000, 1_000_000, 5_000_000)

_OPEN = "import kvmperf_magic as k, sys; r = k.open(sys.argv[1], cache={cache});"
_FLAT = _OPEN + "r.report('comm,dso,symbol', children=False).report.__repr__()"
_ALL = _OPEN + "r.report('comm,dso,symbol').report.__repr__(); r.to_folded()"
_AGAIN = """
import sys, time, kvmperf_magic as k
k.open(sys.argv[1]).report().report.__repr__()
start = time.perf_counter()
r = k.open(sys.argv[1]); len(r.samples); r.report(children=False).report.__repr__()
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds of wall and CPU time, peak MB."""

    wall: float
    cpu: float
    memory: float


def _run(command: list[str]) -> Cost:
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENVIRONMENT
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    wall = time.monotonic() - start
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _best(costs: list[Cost]) -> Cost:
    """The least times and the most memory."""
    return Cost(min(c.wall for c in costs), min(c.cpu for c in costs), max(c.memory for c in costs))


def _python(code: str, path: str, *, cache: bool = False) -> list[str]:
    return [sys.executable, "-c", code.format(cache=cache), path]


def _printed(*arguments: str) -> str:
    """What a Python process prints. This one stays small: the peak memory that wait4() tells of a
    child is never less than its parent's."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def reading_speed(folder: Path) -> None:
    """Records a file with callchains, then prints what it takes to read it."""
    path = str(folder / "reading.data")
    samples = _record(path, _SECONDS)
    size = Path(path).stat().st_size / 1e6
    print(f"\nreading {samples:,} samples with stacks, {size:.0f} MB, best of {_RUNS} in turns")
    print(f"{'':<34} {'wall s':>7} {'CPU s':>7} {'MB':>6}   {'ours faster':>11}")
    perf = ["perf", "report", "--stdio", "-i", path]
    _compare("flat table", _FLAT, path, perf=[*perf, "--no-children", "-g", "none"], runs=_RUNS)
    ours = _compare("tree, folded text, children", _ALL, path, perf=perf, runs=1)
    _folding(path, ours)
    _cache(path)
    _stages(path)
    print(f"\n{_printed('-m', 'bench.agreement', path)}", end="")
    _linearity(folder, path, samples)


def _record(path: str, seconds: float) -> int:
    options = SamplerOptions(
        events=["cpu-clock"],
        frequency=_FREQUENCY,
        callchain=True,
        output=path,
        duration=seconds,
        mmap_pages=4096,
        cmdline=sys.argv,
    )
    with mixed_load(), SamplerProcess.start(options) as process:
        process.wait()
    code = "from kvmperf_magic.perfdata.reader import read; import sys"
    return int(_printed("-c", f"{code}; print(len(read(sys.argv[1]).samples))", path))


def _line(what: str, cost: Cost, base: Cost | None = None) -> None:
    ratio = f"{cost.wall / base.wall:>10.1f}x" if base else ""
    print(f"{what:<34} {cost.wall:>7.2f} {cost.cpu:>7.2f} {cost.memory:>6.0f}   {ratio}")


def _compare(what: str, code: str, path: str, *, perf: list[str], runs: int) -> Cost:
    """Ours `_RUNS` times, perf's `runs` times, in turns; perf's call graph takes half a minute."""
    mine: list[Cost] = []
    theirs: list[Cost] = []
    for turn in range(_RUNS):
        mine.append(_run(_python(code, path)))
        if turn < runs:
            theirs.append(_run(perf))
    ours = _best(mine)
    _line(what, ours)
    _line(f"  {' '.join(perf[:3])} {' '.join(perf[5:])}", _best(theirs), ours)
    return ours


def _folding(path: str, ours: Cost) -> None:
    """`perf script` through whatever folds its output here."""
    script = f"perf script --no-inline -i {path} 2>/dev/null"
    folders = {
        "stackcollapse-perf.pl": "stackcollapse-perf.pl",
        "inferno-collapse-perf": "inferno-collapse-perf",
    }
    found = next((name for name in folders if shutil.which(name)), None)
    if found:
        cost = _run(["sh", "-c", f"{script} | {folders[found]} >/dev/null"])
        _line(f"  perf script | {found}", cost, ours)
        return
    print("  stackcollapse-perf.pl is missing here (no package brings it); instead:")
    stackcollapse = ["perf", "script", "report", "stackcollapse", "-i", path]
    _line("  perf script report stackcollapse", _run(stackcollapse), ours)
    _line("  perf script alone", _run(["sh", "-c", f"{script} >/dev/null"]), ours)
    code = "from bench.agreement import collapse; import sys; collapse(sys.stdin)"
    root = Path(__file__).parent.parent
    piped = f"{script} | PYTHONPATH={root}:{root}/widgets {sys.executable} -c '{code}'"
    _line("  perf script | our own collapse", _run(["sh", "-c", piped]), ours)


def _cache(path: str) -> None:
    _line("everything, and the cache written", _run(_python(_ALL, path, cache=True)))
    _line("everything, from the cache", _run(_python(_ALL, path, cache=True)))
    inside = subprocess.run(_python(_AGAIN, path), capture_output=True, text=True, check=True)
    print(
        f"second open, samples and flat table, in a running process: {float(inside.stdout):.2f} s"
    )


def _stages(path: str) -> None:
    """Where the time of a process that does everything goes."""
    print(_printed("-m", "bench.stages", path), end="")


def _linearity(folder: Path, path: str, samples: int) -> None:
    print(f"\n{'samples':>10} {'flat s':>8} {'us each':>8} {'all s':>8} {'us each':>8} {'MB':>6}")
    for size in _SIZES:
        cut = str(folder / "cut.data")
        code = "from bench.reading import sized; import sys; a = sys.argv"
        code += "; print(sized(a[1], a[2], int(a[3]), int(a[4])))"
        count = int(_printed("-c", code, path, cut, str(size), str(samples)))
        flat, everything = (_best([_run(_python(c, cut)) for _ in range(2)]) for c in (_FLAT, _ALL))
        each = [1e6 * cost.wall / count for cost in (flat, everything)]
        print(
            f"{count:>10,} {flat.wall:>8.2f} {each[0]:>8.2f} {everything.wall:>8.2f} "
            f"{each[1]:>8.2f} {everything.memory:>6.0f}"
        )


def sized(path: str, cut: str, wanted: int, samples: int) -> int:
    """A file of about so many samples: the first records of `path`, or its data several times."""
    from kvmperf_magic.perfdata.abi import FILE_HEADER_SIZE, RecordType
    from kvmperf_magic.perfdata.walk import walk

    data = Path(path).read_bytes()
    start, size = struct.unpack_from("<QQ", data, 40)  # struct perf_file_header: data
    walked = walk(data, start, start + size)
    rows = walked.of_type(RecordType.SAMPLE)
    if wanted < samples:
        end = 8 * int(walked.position[rows[wanted]])
        body = data[start : start + end]
        count = wanted
    else:
        times = max(round(wanted / samples), 1)
        body = data[start : start + size] * times
        count = samples * times
    # a file that says it was not finished needs no features behind its data
    head = bytearray(data[:start])
    struct.pack_into("<Q", head, 48, 0)
    assert len(head) >= FILE_HEADER_SIZE
    with Path(cut).open("wb") as file:
        file.write(head)
        file.write(body)
    return count
