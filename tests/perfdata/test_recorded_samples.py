"""Every sample of what perf records here is what perf script says it is, option by option."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from comparing import check_fields, comms, counts, ours, theirs
from guest import running_guest
from perfscript import Account, run

from kvmperf_magic.perfdata.abi import AttrFlag, RecordType
from kvmperf_magic.perfdata.reader import read

pytest.importorskip("zstandard")
pytestmark = [pytest.mark.perf, pytest.mark.root]

COUNT = "n=0; while [ $n -lt 10000 ]; do n=$((n + 1)); done"
SYSTEM = ("sh", "-c", f"({COUNT}; ls -R /usr/lib/python3 >/dev/null; true) & {COUNT}; wait")
SWITCHES = "sched:sched_switch"


@dataclass(frozen=True)
class Recorded:
    """Options of perf record; `inject`: what perf inject is then to do with the recording."""

    options: tuple[str, ...]
    inject: tuple[str, ...] = ()
    piped: bool = False
    command: tuple[str, ...] = SYSTEM


def _options(line: str) -> tuple[str, ...]:
    return tuple(line.split())


# No software event twice: where two recorders count page faults at once, Linux 6.18 gives samples
# of one the id of the other's event, and perf stops at the first ("failed to process type: 9").
RECORDINGS = {
    "three events, callchains": Recorded(
        _options("-a -g -e cpu-clock,task-clock,context-switches")
    ),
    "one thread, no time": Recorded(_options("--per-thread -g -e cpu-clock")),
    "counts and no inheritance": Recorded(_options("-i -s -e cpu-clock")),
    "compressed stack dumps": Recorded(_options("-z --call-graph dwarf,1024 -e cpu-clock")),
    "directory": Recorded(_options("-a -g --threads -e cpu-clock")),
    "addresses": Recorded(_options("-a -T -P -d --phys-data --data-page-size -e minor-faults")),
    "weights, pages, cpu": Recorded(_options("-a -W --code-page-size --sample-cpu -e cpu-clock")),
    "registers": Recorded(_options("--intr-regs=ax,ip,sp --user-regs=ip,sp,bp -e cpu-clock")),
    "group": Recorded(_options("-a -g -e {cpu-clock,context-switches,task-clock}:S")),
    "cgroups and namespaces": Recorded(_options("-a --all-cgroups --namespaces -e cpu-clock")),
    "sample types that differ": Recorded(
        _options("-a -e cpu-clock/call-graph=fp/,task-clock/call-graph=no/")
    ),
    "other clock": Recorded(_options("-a -k CLOCK_MONOTONIC --sample-identifier -e cpu-clock")),
    "overwritten": Recorded(_options("-a --overwrite --tail-synthesize -e cpu-clock")),
    "tracepoints": Recorded(_options(f"-a -g -e {SWITCHES},sched:sched_wakeup")),
    "stream": Recorded(_options("-a -g -e cpu-clock"), piped=True),
    "compressed stream": Recorded(_options("-a -g -z -e cpu-clock,task-clock"), piped=True),
    "stream of tracepoints": Recorded(_options(f"-a -e {SWITCHES}"), piped=True),
    "a compressed one injected": Recorded(_options("-a -g -z -e cpu-clock"), _options("-b")),
    "a stream injected": Recorded(_options("-a -g -e cpu-clock"), _options("-b"), piped=True),
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Account]]:
    """All of them, several at a time: perf record waits longer than it works."""
    paths = [tmp_path_factory.mktemp("perf") / "perf.data" for _ in RECORDINGS]
    with ThreadPoolExecutor(6) as pool:
        accounts = pool.map(recorded, paths, RECORDINGS.values())
        return dict(zip(RECORDINGS, zip(paths, accounts, strict=True), strict=True))


def recorded(path: Path, wanted: Recorded) -> Account:
    """Made, and made once more where perf cannot read its own file: see perfdump.steady()."""
    for _ in range(4):
        record(path, wanted)
        account = run(path)
        if "stack smashing" not in account.errors:
            break
        path.rename(path.with_suffix(f".{time.monotonic_ns()}"))
    return account


def record(path: Path, wanted: Recorded) -> None:
    command = ["perf", "record", "-q", "-B", "-F", "999", *wanted.options]
    if wanted.piped:
        with path.open("wb") as out:
            _run(*command, "-o", "-", "--", *wanted.command, out=out.fileno())
    else:
        _run(*command, "-o", path, "--", *wanted.command)
    if not wanted.inject:
        return
    if wanted.piped:
        with path.open("rb") as stream, path.with_suffix(".new").open("wb") as out:
            _run("perf", "inject", *wanted.inject, into=stream.fileno(), out=out.fileno())
    else:
        _run("perf", "inject", *wanted.inject, "-i", path, "-o", path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def _run(*command: str | Path, into: int = subprocess.DEVNULL, out: int | None = None) -> None:
    """Once more where perf aborts: see perfdump.steady()."""
    environment = {**os.environ, "PERF_CONFIG": "/dev/null", "LC_ALL": "C"}
    for _ in range(4):
        done = subprocess.run(
            command, check=False, stdin=into, stdout=out, stderr=subprocess.PIPE, env=environment
        )
        if done.returncode == 0:
            return
        if into != subprocess.DEVNULL:
            os.lseek(into, 0, os.SEEK_SET)
        if out is not None:
            os.ftruncate(out, 0)
            os.lseek(out, 0, os.SEEK_SET)
    raise AssertionError(f"{command}: {done.stderr.decode(errors='replace')}")


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_sample(name: str, recordings: dict[str, tuple[Path, Account]]) -> None:
    path, account = recordings[name]
    file = read(path)
    assert account.returncode == 0, account.errors
    assert len(account.records) > 3
    assert ours(file, account) == theirs(account)
    assert comms(file) == [row.comm for row in account.rows()]
    assert Counter(counts(file)) == account.counts
    check_fields(file, account)
    assert file.damage == []


@pytest.fixture(scope="module")
def with_a_guest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Account]:
    path = tmp_path_factory.mktemp("guest") / "perf.data"
    with running_guest(2):
        options = _options("-a -g -e cpu-clock:GH,task-clock:GH")
        return path, recorded(path, Recorded(options, command=("sleep", "0.5")))


def modes(account: Account) -> Counter[int]:
    return Counter(record.misc & 7 for record in account.records)


@pytest.mark.kvm
def test_both_sides(with_a_guest: tuple[Path, Account]) -> None:
    """Host and guest samples: as many of each mode as perf's dump shows, and the same ones."""
    path, account = with_a_guest
    file = read(path)
    counted = modes(account)
    assert counted[4] + counted[5] > 100
    assert counted[1] + counted[2] > 3
    assert Counter((file.samples.misc & 7).tolist()) == counted
    assert ours(file, account) == theirs(account)
    # perf looks a guest sample's thread up in the guest, which knows none: it prints ":TID"
    for name, row in zip(comms(file), account.rows(), strict=True):
        guest = row.record.misc & 7 in (4, 5)
        assert row.comm == (f":{row.tid}" if guest else name)
        assert not guest or re.fullmatch(r"CPU \d/KVM", name)


@pytest.mark.kvm
@pytest.mark.parametrize("excluded", [AttrFlag.EXCLUDE_GUEST, AttrFlag.EXCLUDE_HOST])
def test_the_attrs_do_not_decide_on_modes(
    with_a_guest: tuple[Path, Account], tmp_path: Path, excluded: AttrFlag
) -> None:
    """A kernel can have put guest samples under attrs that say exclude_guest."""
    original, account = with_a_guest
    raw = bytearray(original.read_bytes())
    stride, attrs, size = (int.from_bytes(raw[at : at + 8], "little") for at in (16, 24, 32))
    for at in range(attrs, attrs + size, stride):
        flags = int.from_bytes(raw[at + 40 : at + 48], "little")
        both = AttrFlag.EXCLUDE_GUEST | AttrFlag.EXCLUDE_HOST
        raw[at + 40 : at + 48] = (flags & ~both | excluded).to_bytes(8, "little")
    path = tmp_path / "perf.data"
    path.write_bytes(raw)
    file = read(path)
    assert all(event.attr.has(excluded) for event in file.events)
    counted = Counter((file.samples.misc & 7).tolist())
    assert counted == modes(run(path)) == modes(account)
    assert file.counts[RecordType.SAMPLE] == counted.total()
