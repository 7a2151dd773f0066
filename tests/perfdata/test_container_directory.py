"""Directories of `perf record --threads`, and files that perf inject wrote."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from perfdump import dumped, ours

from kvmperf_magic import demo
from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.reader import PerfFile, read

RECORDINGS = Path(demo.__file__).parent / "recordings"
LOOP = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; ls / >/dev/null"
OPTIONS = ("-q", "-F", "2000", "-g", "-e", "cpu-clock")


def samples_of(samples: list[object]) -> Counter[str]:
    return Counter(str(astuple(one)) for one in samples)  # type: ignore[call-overload]


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.parametrize("how", [("--threads=cpu",), ("--threads=cpu", "-z")])
def test_threads_are_merged_by_time(
    perf: Callable[..., str], tmp_path: Path, how: tuple[str, ...]
) -> None:
    folder = tmp_path / "perf.data"
    perf("record", *OPTIONS, *how, "-a", "-o", folder, "--", "sh", "-c", LOOP)
    filled = [one for one in folder.glob("data.*") if one.stat().st_size]
    assert len(filled) > 1
    file = read(folder)
    assert file.path == str(folder)
    assert file.header.nrcpus_online
    assert samples_of(ours(file)) == samples_of(dumped(perf, folder))
    assert len(set(file.samples.cpu.tolist())) > 1
    assert np.all(np.diff(file.samples.time.astype(np.int64)) >= 0)
    assert file.damage == []


@pytest.mark.perf
@pytest.mark.root
def test_a_cut_thread_is_told(perf: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "perf.data"
    perf("record", *OPTIONS, "--threads=cpu", "-a", "-o", folder, "--", "sh", "-c", LOOP)
    whole = sum(read(folder).counts.values())
    last = max(folder.glob("data.*"), key=lambda one: one.stat().st_size)
    last.write_bytes(last.read_bytes()[:-9])
    file = read(folder)
    assert sum(file.counts.values()) == whole - 1
    (damage,) = file.damage
    assert damage.message.startswith(f"{last.name}: a record of")


def test_a_thread_that_is_no_file(tmp_path: Path) -> None:
    """The others are read, and nobody waits for somebody to write into a pipe."""
    (tmp_path / "data").write_bytes((RECORDINGS / "again.data").read_bytes())
    count = len(read(tmp_path).samples)
    assert count
    os.mkfifo(tmp_path / "data.0")
    (tmp_path / "data.1").mkdir()
    file = read(tmp_path)
    assert len(file.samples) == count
    told = [damage.message for damage in file.damage]
    assert [text.split(":")[0] for text in told] == ["data.0", "data.1"]
    assert "is a device, a pipe or a socket, and no file" in told[0]


def test_a_pipe_is_no_recording(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "perf.data")
    with pytest.raises(FileError, match="a device, a pipe or a socket"):
        read(tmp_path / "perf.data")


def test_another_directory(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a directory and no recording") as caught:
        read(tmp_path)
    assert caught.value.hint


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.parametrize("pipe", [False, True])
def test_perf_inject(perf: Callable[..., str], tmp_path: Path, pipe: bool) -> None:
    """What perf inject writes is perf.data of its own kind: read as perf reads it."""
    recorded, injected = tmp_path / "recorded", tmp_path / "injected"
    perf("record", *OPTIONS, "-o", recorded, "--", "sh", "-c", LOOP)
    if pipe:
        with injected.open("wb") as out:
            subprocess.run(
                ["perf", "inject", "-b", "-i", recorded, "-o", "-"],
                check=True,
                stdout=out,
                stderr=subprocess.DEVNULL,
                timeout=60,
            )
    else:
        perf("inject", "-b", "-i", recorded, "-o", injected)
    file: PerfFile = read(injected)
    assert file.header.pipe == pipe
    assert ours(file) == dumped(perf, injected)
    assert len(file.samples) == len(read(recorded).samples) > 20
