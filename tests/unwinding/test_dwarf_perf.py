"""Unwound stacks against perf's, sample by sample, of perf's recordings and ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from chains import of_ours, of_perf

from kvmperf_magic.recorder import record
from kvmperf_magic.recording import open_recording

pytest.importorskip("drgn", reason="the extra [dwarf] is not installed")
pytestmark = [pytest.mark.perf, pytest.mark.compiler]
HERE = Path(__file__).parent
Perf = Callable[..., str]


@pytest.fixture(scope="module", params=["deep.c", "deep.cc"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optimised, without frame pointers."""
    made = tmp_path_factory.mktemp("program") / str(request.param).replace(".", "-")
    compiler = "gcc" if str(request.param).endswith(".c") else "g++"
    source = HERE / str(request.param)
    subprocess.run(
        [compiler, "-O2", "-fomit-frame-pointer", "-o", made, source], check=True, timeout=120
    )
    return made


def rounds(program: Path) -> str:
    return "200" if program.name == "deep-c" else "20"


def agree(perf: Perf, path: Path) -> tuple[int, int, list[str]]:
    """How many samples there are, how many agree to the last frame, and those that contradict.

    Of a return address that is 0, as the copy of the stack ends there, perf takes 1 and prints it:
    that is no frame. In rare places there (the dynamic linker's entry) perf prints one more word,
    of no map, or stops a frame before: of two chains one then continues the other. It ends like
    that too where it meets a 0 in between (seen in __run_exit_handlers): ours may go on to _start.
    """
    theirs = of_perf(perf, path)
    ended = {key for key, chain in theirs.items() if chain[-1:] == [2**64 - 1]}
    theirs |= {key: theirs[key][:-1] for key in ended}
    ours = of_ours(open_recording(path))
    assert theirs.keys() == ours.keys()
    contradict = []
    for key, chain in theirs.items():
        mine = ours[key]
        common = min(len(mine), len(chain))
        goes_on = key in ended and len(mine) > len(chain)
        if mine[:common] != chain[:common] or not (goes_on or abs(len(mine) - len(chain)) <= 1):
            contradict.append(f"{key}: {list(map(hex, mine))} and by perf {list(map(hex, chain))}")
    return len(theirs), sum(ours[key] == chain for key, chain in theirs.items()), contradict


def agrees(perf: Perf, path: Path) -> None:
    count, same, contradict = agree(perf, path)
    assert count > 20
    assert not contradict
    assert same >= 0.97 * count


@pytest.mark.parametrize("size", [1024, 65528])
def test_perfs_recording(program: Path, tmp_path: Path, perf: Perf, size: int) -> None:
    path = tmp_path / "perf.data"
    told = (
        "-q",
        "-e",
        "cpu-clock:u",
        "-F",
        1000,
        "-B",
        "--call-graph",
        f"dwarf,{size}",
        "-o",
        path,
    )
    perf("record", *map(str, told), "--", program, rounds(program))
    agrees(perf, path)


def test_with_the_kernels_part(program: Path, tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "perf.data"
    told = ("-q", "-e", "cpu-clock", "-F", 2000, "-B", "--call-graph", "dwarf", "-o", path)
    perf("record", *map(str, told), "--", program, rounds(program))
    agrees(perf, path)


def test_our_recording(program: Path, tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "ours.data"
    recording = record(
        host=True,
        command=[str(program), rounds(program)],
        callchain="dwarf",
        events="cpu-clock",
        output=path,
        progress=False,
    )
    agrees(perf, path)
    assert recording.warnings == []
    folded = recording.to_folded()
    assert isinstance(folded, str)
    # how long the dynamic linker takes before main depends on the machine's load
    assert any(";_start;" in line and ";main;" in line for line in folded.splitlines())


def test_switched_off(program: Path, tmp_path: Path, perf: Perf) -> None:
    path = tmp_path / "perf.data"
    told = ("-q", "-e", "cpu-clock:u", "-F", 1000, "-B", "--call-graph", "dwarf", "-o", path)
    perf("record", *map(str, told), "--", program, rounds(program))
    recording = open_recording(path, unwind=False)
    assert len(recording.callchains.ip) == len(recording)
    assert recording.warnings == []


def test_a_program_that_is_gone(program: Path, tmp_path: Path, perf: Perf) -> None:
    copy = tmp_path / "gone"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    path = tmp_path / "perf.data"
    told = ("-q", "-e", "cpu-clock:u", "-F", 1000, "-B", "--call-graph", "dwarf", "-o", path)
    perf("record", *map(str, told), "--", copy, rounds(program))
    copy.unlink()
    recording = open_recording(path)
    mine = recording.filter(dso="/gone$")
    assert len(mine) > 5
    # its own code ends the stack: nobody knows how to go on from there
    assert len(mine.callchains.ip) == len(mine)
    assert any(f"{copy} (no such file here)" in line for line in recording.warnings)
