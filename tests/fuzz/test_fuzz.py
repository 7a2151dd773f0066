"""A short run of what `make fuzz` does for long, and every input that ever failed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzz.mutate import mutated
from fuzz.seeds import jitdumps, saved, sections, seeds, symbols, tracing
from fuzz.targets import TARGETS
from fuzz.worker import run

_INPUTS = {
    "file": 400,
    "answers": 100,
    "stream": 200,
    "section": 3000,
    "attr": 3000,
    "tracing": 400,
    "packed": 150,
    "symbols": 2000,
    "jitdumps": 1000,
}
_FOUND = Path(__file__).parent / "found"


@pytest.fixture(scope="module")
def corpora() -> dict[str, list[bytes]]:
    files = seeds()
    return {
        **dict.fromkeys(("file", "answers", "stream"), files),
        "section": [bytes([feature]) + data for feature, data in sections(files)],
        "attr": [data[104:248] for data in files],
        "tracing": tracing(files),
        "packed": saved(),
        "symbols": symbols(),
        "jitdumps": jitdumps(),
    }


@pytest.mark.parametrize(
    "name",
    # of the bundled recordings none has tracepoints
    [pytest.param(n, marks=pytest.mark.fixtures if n == "tracing" else ()) for n in TARGETS],
)
def test_mutated(name: str, corpora: dict[str, list[bytes]]) -> None:
    """The same inputs every time: what is new is for `make fuzz` to find."""
    rng = random.Random(name)
    corpus = corpora[name]
    for i in range(_INPUTS[name]):
        data = mutated(rng.choice(corpus), rng, corpus)
        assert not run(TARGETS[name], data), f"input {i}"


def test_found_once() -> None:
    """Inputs that failed when they were found; the target is the first word of their names."""
    for path in _FOUND.glob("*-*"):
        assert not run(TARGETS[path.name.split("-")[0]], path.read_bytes()), path.name


def test_a_fault_is_seen() -> None:
    def broken(data: bytes) -> None:
        raise IndexError(f"{len(data)}")

    def endless(data: bytes) -> None:
        while True:
            pass

    assert "IndexError" in run(broken, b"x")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr("fuzz.worker.LONGEST", 1)
        assert "Hang" in run(endless, b"x")
