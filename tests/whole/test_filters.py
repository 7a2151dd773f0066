"""What a filter cannot be of is said, not taken for a filter that nothing satisfies."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.decoding import Decoded
from kvmperf_magic.errors import QueryError
from kvmperf_magic.recording import Recording
from kvmperf_magic.table import Categorical


@pytest.fixture(scope="module")
def recording() -> Recording:
    return kvm.open(Path(demo.__file__).parent / "recordings" / "again.data", cache=False)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("time", (1,), "(1,)"),
        ("time", "12", "'12'"),
        ("time", 1.0, "1.0"),
        ("time", (float("nan"), None), "nan is no time"),
        ("time", ("1", None), "'1' is no time"),
        ("cpu", "a", "cpu is 'a'"),
        ("pid", 1.5, "pid is 1.5"),
        ("tid", [1.5], "tid is [1.5]"),
        ("symbol", "(", "'(' is no regular expression"),
        ("symbol", 5, "symbol is 5"),
        ("time", (2.0, 1.0), "ends before it begins"),
        ("event", "none", "no event 'none'"),
        ("modes", "none", "no mode 'none'"),
        ("vm", "none", "VM 'none'"),
    ],
)
def test_what_cannot_be(recording: Recording, name: str, wrong: Any, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        recording.filter(**{name: wrong})
    assert said in str(caught.value)


def test_numbers_of_any_kind(recording: Recording) -> None:
    cpu = int(recording.samples["cpu"][0])
    expected = int((recording.samples["cpu"] == cpu).sum())
    for one in (cpu, [cpu], (cpu,), np.int32(cpu), np.array([cpu], np.uint8)):
        assert len(recording.filter(cpu=one)) == expected
    assert len(recording.filter(cpu=[])) == 0


def test_the_name_of_twins_means_both(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = kvm.open(Path(demo.__file__).parent / "recordings" / "crowded.data", cache=False)
    decoded = recording._source.decoded
    pid = np.where(recording.samples["vcpu"] == 0, 7, 8).astype(np.int32)
    names = Categorical(pid - 7, ["twin:7", "twin:8"])
    profile = replace(decoded.profile, machine=names)
    twins = Decoded(profile, pid, lambda: decoded.addresses)
    monkeypatch.setitem(recording._source.__dict__, "decoded", twins)
    assert len(recording.filter(vm="twin")) == len(recording)
    assert len(recording.filter(vm=7)) == len(recording.filter(vm="twin:7")) == (pid == 7).sum()
    with pytest.raises(QueryError, match="VM '8:twin'"):
        recording.filter(vm="8:twin")


def test_bounds_of_time(recording: Recording) -> None:
    time = recording.samples["time"]
    first, middle = int(time[0]), int(np.sort(time)[len(time) // 2])
    expected = int((time < middle).sum())
    seconds = (middle - first) / 1e9
    for bound in (middle, np.uint64(middle), seconds, np.float64(seconds)):
        assert len(recording.filter(time=(None, bound))) == expected
        assert len(recording.filter(time=(bound, None))) == len(time) - expected


def test_lists_are_whole_names(recording: Recording) -> None:
    symbols = recording.samples["symbol"]
    names = sorted(set(symbols.tolist()))[:2]
    expected = int(np.isin(symbols.astype(str), names).sum())
    assert len(recording.filter(symbol=names)) == expected
    part = names[0][:-1]
    assert len(recording.filter(symbol=re.escape(part))) > 0
    for name in ("comm", "symbol", "dso"):
        with pytest.raises(QueryError) as caught:
            recording.filter(**{name: [part]})
        assert f"no {name} {part!r}" in str(caught.value)
