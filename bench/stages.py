"""`python -m bench.stages FILE`: the seconds of each stage of reading one file, in one process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable


def main(path: str) -> None:
    begin = time.perf_counter()
    times: list[tuple[str, float, float]] = []

    def stage(name: str, work: Callable[[], object]) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((name, time.perf_counter() - start, time.process_time() - cpu))

    stage("import numpy", lambda: __import__("numpy"))
    stage("import the rest", lambda: __import__("kvmperf_magic.reportview"))
    import kvmperf_magic as kvm

    recording = kvm.open(path, cache=False)
    source = recording._source
    stage("records, samples, sideband", lambda: source.file.samples)
    stage("address spaces", lambda: source.spaces)
    stage("whose, names of the leaves", lambda: source.decoded)
    stage("flat table", lambda: recording.report(children=False))
    stage("distinct stacks", lambda: source.decoded.addresses)
    stage("names of their frames", lambda: recording.profile.stacked)
    stage("table with children", recording.report)
    stage("tree and folded text", recording.to_folded)
    total = time.perf_counter() - begin
    print(f"\n{'stage':<30} {'wall s':>7} {'share':>6} {'CPU s':>7}   ({os.cpu_count()} CPUs)")
    for name, wall, cpu in times:
        print(f"{name:<30} {wall:>7.3f} {wall / total:>6.1%} {cpu:>7.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
