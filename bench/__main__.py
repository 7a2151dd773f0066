"""`python -m bench`: prints both tables. perf must be there; the machine should be idle."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from bench.live import live_cost
from bench.reading import reading_speed
from bench.recording import recorder_cost


def main() -> int:
    if not shutil.which("perf"):
        print("bench: no perf to compare with (Debian: linux-perf)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="kvmperf-bench-") as folder:
        recorder_cost(Path(folder))
        live_cost()
        reading_speed(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
