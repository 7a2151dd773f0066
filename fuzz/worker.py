"""`python -m fuzz.worker TARGET CORPUS FOUND SECONDS`: one process that tries inputs.

With atheris it follows coverage; without, it mutates the corpus blindly. Prints one line a finding
(`found PATH: what`) and, last, `tried N`. A hang and too much memory end the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz.mutate import mutated

LONGEST = 10  # seconds for one input: the reader needs milliseconds
MEMORY = 3 << 30  # bytes of address space beyond what is mapped at the start
MOST = 128 << 10  # bytes of an input


class Hang(BaseException):
    """Not an Exception: nothing that is tried may swallow it."""


def run(target: Callable[[bytes], None], data: bytes) -> str:
    """What went wrong, empty if nothing: the exception and the innermost lines of ours."""

    def alarm(*_: object) -> None:
        raise Hang(f"more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(LONGEST)
    try:
        target(data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the very thing that is looked for
        places = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(p.filename).name}:{p.lineno}" for p in places if "kvmperf" in p.filename]
        return f"{type(error).__name__}: {str(error)[:200]} at {' < '.join(reversed(ours[-3:]))}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return ""


def limit_memory() -> None:
    """What an input asks for without the bytes to justify it becomes a MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


class _Tried:
    """Counts the inputs and keeps those that fail, one of each kind."""

    def __init__(self, target: Callable[[bytes], None], found: Path) -> None:
        self.target, self.found = target, found
        self.count = 0
        self.kinds: set[str] = set()

    def __call__(self, data: bytes) -> None:
        self.count += 1
        problem = run(self.target, data)
        kind = problem.split(" at ")[-1] + problem.split(":")[0]
        if problem and kind not in self.kinds:
            self.kinds.add(kind)
            name = f"{self.target.__name__}-{hashlib.sha256(data).hexdigest()[:12]}"
            (self.found / name).write_bytes(data)
            print(f"found {self.found / name}: {problem}", flush=True)

    def ended(self) -> int:
        """Say how many; the exit code."""
        print(f"tried {self.count}", flush=True)
        return 1 if self.kinds else 0


def _blind(tried: _Tried, corpus: list[bytes], seconds: float, rng: random.Random) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tried(mutated(rng.choice(corpus), rng, corpus)[:MOST])


@contextlib.contextmanager
def _coverage() -> Iterator[bool]:
    """Whether atheris is there; while inside, what is imported of ours is instrumented."""
    try:
        import atheris
    except ImportError:
        yield False
        return
    with atheris.instrument_imports(include=["kvmperf_magic"]):
        yield True


def main(arguments: list[str]) -> int:
    name, corpus, found, seconds = arguments
    faulthandler.enable()
    with _coverage() as guided:
        from fuzz.targets import TARGETS
    warnings.simplefilter("error")
    tried = _Tried(TARGETS[name], Path(found))
    limit_memory()
    seeds = [path.read_bytes() for path in sorted(Path(corpus).iterdir())]
    if guided:
        _guided(tried, seeds, Path(corpus), float(seconds))
    _blind(tried, seeds, float(seconds), random.Random())
    return tried.ended()


def _guided(tried: _Tried, seeds: list[bytes], corpus: Path, seconds: float) -> None:
    """Never returns: libFuzzer ends the process, so it is ended before when the time is over."""
    import atheris

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        return mutated(data or seeds[seed % len(seeds)], random.Random(seed), seeds)[:most]

    end = time.monotonic() + seconds

    def one(data: bytes) -> None:
        tried(data)
        if time.monotonic() > end:
            os._exit(tried.ended())

    options = [
        f"-max_len={MOST}",
        "-verbosity=0",
        "-timeout=0",
        "-rss_limit_mb=0",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
