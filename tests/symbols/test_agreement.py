"""On recordings of the host, symbol and DSO of every sample are perf's: C++, Rust, Python with
its perf map, a JIT compiler with its dump."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from perfpython import perf_python
from perfrecord import build
from programs import JITDUMP, RUST
from test_symbols_perf import CPLUSPLUS

import kvmperf_magic as kvm
from kvmperf_magic.recording import Recording

pytestmark = [pytest.mark.perf, pytest.mark.root, pytest.mark.compiler]

# many calls: a function's own code is only the few instructions that call the interpreter
PYTHON = """
def leaf():
    pass
def alpha(n):
    for _ in range(n):
        leaf(), leaf(), leaf(), leaf()
alpha(4000000)
"""
_SAMPLE = re.compile(r"^\s*(\d+)/(\d+)\s+(\d+)\.(\d{9}):\s+([0-9a-f]+) (.*) \(((?:/|\[).*)\)$")
Key = tuple[int, int, int]  # tid, time, address


def samples_of_perf(perf: Callable[..., str], path: Path) -> dict[Key, tuple[str, str]]:
    said = perf("script", "-i", path, "-F", "pid,tid,time,ip,sym,dso", "--ns")
    found = {}
    for line in said.splitlines():
        if match := _SAMPLE.match(line):
            _, tid, seconds, rest, address, symbol, dso = match.groups()
            key = int(tid), int(seconds) * 10**9 + int(rest), int(address, 16)
            found[key] = symbol, dso
    return found


def samples_of_ours(recording: Recording) -> dict[Key, tuple[str, str]]:
    s = recording.samples
    keys = zip(s["tid"].tolist(), s["time"].tolist(), s["ip"].tolist(), strict=True)
    return dict(zip(keys, zip(s["symbol"], s["dso"], strict=True), strict=True))


def differences(
    theirs: dict[Key, tuple[str, str]], ours: dict[Key, tuple[str, str]], jits: Iterable[Path] = ()
) -> Counter[tuple[str, str, str, str]]:
    """Where they name a sample differently; `jits`: dumps for which perf made files."""
    assert theirs.keys() == ours.keys()
    made = {}
    for one in jits:
        pid = one.stem.split("-")[1]
        made |= {str(f): str(one) for f in one.parent.glob(f"jitted-{pid}-*.so")}
    return Counter(
        (symbol, dso, *ours[key])
        for key, (symbol, dso) in theirs.items()
        if not _same((symbol, made.get(dso, dso)), ours[key])
    )


def _same(theirs: tuple[str, str], ours: tuple[str, str]) -> bool:
    if theirs[1] != ours[1]:
        return False
    if ours[0].endswith("@plt"):
        return theirs[0].endswith("@plt") or theirs[0] == "[unknown]"  # see perfrecord.py
    return re.sub(r"\s+>", ">", theirs[0]) == re.sub(r"\s+>", ">", ours[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    build(folder, "cplusplus", CPLUSPLUS, compiler="g++")
    build(folder, "jit", JITDUMP.replace("N)", "60000000l)"))
    (folder / "work.py").write_text(PYTHON)
    return folder


@pytest.fixture(scope="module")
def recorded(folder: Path, perf: Callable[..., str]) -> Iterator[Path]:
    """One recording of them all, one after the other."""
    script = f"./cplusplus; {perf_python()} -X perf -S work.py; ./jit {folder}"
    how = ["-q", "-k", "mono", "-e", "cpu-clock", "-F", "5000", "--buildid-mmap"]
    script = f"cd {folder}; {script}"
    perf("record", *how, "-o", folder / "perf.data", "--", "sh", "-c", script)
    perf("inject", "--jit", "-i", folder / "perf.data", "-o", folder / "injected.data")
    yield folder
    for dso in kvm.open(folder / "perf.data", cache=False).samples["dso"]:
        if dso.startswith("/tmp/perf-"):
            Path(dso).unlink(missing_ok=True)


@pytest.mark.perfpython
def test_all_of_them(recorded: Path, perf: Callable[..., str]) -> None:
    theirs = samples_of_perf(perf, recorded / "injected.data")
    named = {symbol for symbol, _ in theirs.values()}
    assert {"ns::S<long>::work", "first", "other", "second at the place of the first"} <= named
    assert any(symbol.startswith("py::leaf:") for symbol in named)
    # what perf made of the dump, and the dump itself
    with_files = samples_of_ours(kvm.open(recorded / "injected.data", cache=False))
    with_dump = samples_of_ours(kvm.open(recorded / "perf.data", cache=False))
    for ours, jits in ((with_files, []), (with_dump, recorded.glob("jit-*.dump"))):
        different = differences(theirs, ours, jits)
        assert different.total() <= 0.005 * len(theirs), different.most_common(10)


@pytest.mark.rust
def test_rust(tmp_path: Path, perf: Callable[..., str]) -> None:
    """Both manglings: that of old, and v0."""
    (tmp_path / "work.rs").write_text(RUST)
    environment = {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    made = [
        subprocess.Popen(
            ["rustc", "-O", *mangling, "work.rs", "-o", name], cwd=tmp_path, env=environment
        )
        for name, mangling in {
            "old": ("-Z", "unstable-options", "-C", "symbol-mangling-version=legacy"),
            "v0": ("-C", "symbol-mangling-version=v0"),
        }.items()
    ]
    assert [process.wait() for process in made] == [0, 0]
    data = tmp_path / "perf.data"
    how = ["-q", "-e", "cpu-clock", "-F", "10000", "--buildid-mmap", "-o", data]
    perf("record", *how, "--", "sh", "-c", f"{tmp_path}/old; {tmp_path}/v0")
    theirs = samples_of_perf(perf, data)
    for name in ("old", "v0"):
        own = [symbol for symbol, dso in theirs.values() if dso == str(tmp_path / name)]
        assert len(own) > 100
        assert any("area" in symbol and "Shape" in symbol for symbol in own)
    different = differences(theirs, samples_of_ours(kvm.open(data, cache=False)))
    assert different.total() <= 0.005 * len(theirs), different.most_common(10)


@pytest.mark.perfpython
def test_each_dso_says_where_its_names_come_from(recorded: Path) -> None:
    recording = kvm.open(recorded / "perf.data", cache=False)
    assert len(recording)
    said = {row["dso"]: row for row in json.loads(recording.symbols.to_json())}
    assert said[str(recorded / "cplusplus")]["symbols"] > 10
    (dump,) = recorded.glob("jit-*.dump")
    assert (said[str(dump)]["source"], said[str(dump)]["symbols"]) == (str(dump), 4)
    maps = [row for dso, row in said.items() if dso.startswith("/tmp/perf-") and row["symbols"]]
    assert [row["source"] for row in maps] == [row["dso"] for row in maps]
    assert maps
    unnamed = [row for row in said.values() if not row["symbols"]]
    assert all(row["note"] for row in unnamed)
