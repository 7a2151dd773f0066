"""A live view names what begins to run while it is watched: JIT compilers' code, BPF programs."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from perfrecord import build
from programs import BPF, JITDUMP

import kvmperf_magic as kvm
from kvmperf_magic.live import Top

pytestmark = [pytest.mark.root]


@contextmanager
def watching() -> Iterator[Top]:
    top = kvm.top(
        host=True,
        keys="comm,symbol,dso",
        frequency=500,
        delay=0.1,
        entries=4096,
        say=lambda _: None,
    )
    try:
        yield top
    finally:
        top.stop()
    assert top.error is None


def until(seen: Callable[[], object], of: subprocess.Popen[bytes]) -> None:
    """Wait for it, at most as long as the program runs and what it did is looked at."""
    ended = None
    while not seen():
        if ended is None and of.poll() is not None:
            ended = time.monotonic()
        assert ended is None or time.monotonic() < ended + 5, "it has ended and was not seen"
        time.sleep(0.02)


def rows(top: Top, comm: str) -> dict[str, str]:
    """The DSO of each symbol of a program."""
    table = top.table
    mine = table["comm"] == comm
    return dict(zip(table["symbol"][mine], table["dso"][mine], strict=True))


@pytest.mark.compiler
def test_code_that_is_compiled_while_it_is_watched(tmp_path: Path) -> None:
    """Function after function, one of them at the place of another."""
    build(tmp_path, "jit", JITDUMP.replace("N)", "1500000000l)"))
    with watching() as top, subprocess.Popen([tmp_path / "jit", tmp_path]) as program:
        dump = str(tmp_path / f"jit-{program.pid}.dump")
        for name in ("first", "other", "second at the place of the first"):
            until(lambda name=name: name in rows(top, "jit"), program)
            assert rows(top, "jit")[name].endswith(dump)
            if name == "first":
                assert "other" not in rows(top, "jit")
                said = {row["dso"]: row for row in top.symbols.rows()}
                (mine,) = (row for dso, row in said.items() if dso.endswith(dump))
                assert mine["symbols"] == 1
        program.kill()
    assert "[unknown]" not in rows(top, "jit")


def test_a_program_that_is_loaded_into_the_kernel(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the number of the bpf call is x86-64's")
    said = tmp_path / "said"
    with watching() as top:
        code = BPF.replace("ROUNDS", "60")
        with subprocess.Popen([sys.executable, "-c", code, said]) as program:

            def seen() -> bool:
                if said.exists():
                    pytest.skip(f"no BPF programs here: {said.read_text()}")
                table = top.table
                return "[bpf]" in table["dso"]

            until(seen, program)
            program.kill()
        names = top.table["symbol"][top.table["dso"] == "[bpf]"]
        assert any(name.startswith("bpf_prog_") and "spinner" in name for name in names)
        said_of = {row["dso"]: row["source"] for row in top.symbols.rows()}
        assert "KSYMBOL" in said_of["[bpf]"]
