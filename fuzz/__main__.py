"""`python -m fuzz --minutes 30`: tries inputs on all CPUs, says how many, keeps what fails.

Ends with 1 if anything was found; the inputs then lie in the folder named by --found.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.seeds import jitdumps, saved, sections, seeds, symbols, tracing
from fuzz.targets import TARGETS

# shares of the time: what people open most, and what has most code, most
_SHARES = {"file": 8, "answers": 5, "stream": 3, "tracing": 2, "section": 1, "attr": 1}
_SHARES |= {"packed": 3, "symbols": 2, "jitdumps": 1}
_ROUND = 60.0  # seconds a worker lives, so that one that dies costs little


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--target", choices=TARGETS, action="append", help="only these")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    options = parser.parse_args()
    options.found.mkdir(exist_ok=True)
    targets = options.target or list(TARGETS)
    guided = importlib.util.find_spec("atheris") is not None
    print(f"fuzz: {', '.join(targets)}; {'coverage by atheris' if guided else 'no atheris: blind'}")
    tried: Counter[str] = Counter()
    problems: list[str] = []
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="kvmperf-corpus-") as folder:
        corpora = {name: _corpus(Path(folder) / name, name) for name in targets}
        turns = [name for name in targets for _ in range(_SHARES[name])]

        def worker(job: int) -> None:
            turn = job * len(turns) // options.jobs
            while (left := end - time.monotonic()) > 1:
                name = turns[turn % len(turns)]
                turn += 1
                seconds = min(
                    _ROUND * options.minutes / 30 if options.minutes < 30 else _ROUND, left
                )
                count, found = _round(name, corpora[name], options.found, seconds)
                tried[name] += count
                problems.extend(found)
                for line in found:
                    print(line, flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(worker, range(options.jobs)))
    for name in targets:
        print(f"fuzz: {tried[name]:>10,} inputs of {name}")
    print(
        f"fuzz: {tried.total():,} inputs tried in {options.minutes:g} minutes, "
        f"{len(problems)} found"
    )
    return 1 if problems else 0


def _round(name: str, corpus: Path, found: Path, seconds: float) -> tuple[int, list[str]]:
    """One worker's life: inputs tried, lines on what was found."""
    command = [sys.executable, "-m", "fuzz.worker", name, str(corpus), str(found), str(seconds)]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=seconds + 120
        )
    except subprocess.TimeoutExpired:
        return 0, [f"found in {name}: the worker did not end"]
    lines = done.stdout.splitlines()
    count = sum(int(line.split()[1]) for line in lines if line.startswith("tried "))
    problems = [line for line in lines if line.startswith("found ")]
    if done.returncode not in (0, 1):
        problems.append(
            f"found in {name}: worker ended with {done.returncode}: {done.stderr[-500:]}"
        )
    return count, problems


def _corpus(folder: Path, name: str) -> Path:
    folder.mkdir()
    files = seeds()
    inputs = {
        "section": [bytes([feature]) + data for feature, data in sections(files)],
        "attr": [data[104:248] for data in files],
        "tracing": tracing(files),
        "packed": saved(),
        "symbols": symbols(),
        "jitdumps": jitdumps(),
    }.get(name, files)
    for i, data in enumerate(inputs):
        (folder / f"seed-{i}").write_bytes(data)
    return folder


if __name__ == "__main__":
    sys.exit(main())
