"""What the sampler's tests share: busy programs and short recordings."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess, Stats

SPIN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"
# two threads that run at once: hashing gives up the GIL
THREADS = """
import hashlib, threading
def work(): hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
print("ready", flush=True)
threads[0].join()
"""


def spin(seconds: float, cpu: int | None = None) -> list[str]:
    """A command that burns so much CPU time in user mode, on this CPU if one is named."""
    pin = "" if cpu is None else f"import os; os.sched_setaffinity(0, [{cpu}])\n"
    return [sys.executable, "-I", "-S", "-c", pin + SPIN.format(seconds=seconds)]


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that said `ready`, killed at the end."""
    program = subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE)
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == b"ready\n"
        yield program
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def record(path: Path, seconds: float | None = None, **options: Any) -> Stats:
    """Record into `path` until the command ends, or for so many seconds."""
    options.setdefault("events", ["cpu-clock"])
    with SamplerProcess.start(SamplerOptions(output=str(path), **options)) as process:
        if process.wait(seconds):
            return process.stats()
        return process.stop()


def until(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def alive(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
