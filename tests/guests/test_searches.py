"""Searches of memory: told of while they last, only where they last, and not for ever."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from vmram import as_ram

from kvmperf_magic import progress
from kvmperf_magic.guests import collecting, finding, survey, watch
from kvmperf_magic.guests.collecting import Collector
from kvmperf_magic.guests.finding import Found, find_kernel
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.vmmmemory import VmmMemory

SIZE = 38 << 20  # no other mapping here is that large
Tell = Callable[[int, int], None]


def test_a_search_says_how_far_it_is_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    with as_ram(SIZE) as area:
        area[::4096] = bytes(SIZE // 4096)
        vmm = VmmMemory(os.getpid())
        assert find_kernel(vmm, SIZE, lambda *now: told.append(now)).kernel is None
        monkeypatch.setattr(finding, "_SEARCH_SECONDS", 0.0)
        ended = find_kernel(vmm, SIZE)
    assert {total for _, total in told[:-1]} == {SIZE}
    assert (SIZE, SIZE) in told
    assert ended == Found(None, "no Linux kernel in what could be searched in 0 s")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks at a terminal."""
    monkeypatch.setattr(progress, "_seen", lambda: True)


@pytest.mark.usefixtures("seen")
def test_a_bar_is_for_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress.share("searching") as tell:
        for done in range(10):
            tell(done, 10)
    assert capfd.readouterr() == ("", "")
    shown, end = "", time.monotonic() + 30
    with progress.share("searching") as tell:
        while "25%" not in shown and time.monotonic() < end:
            tell(1 << 20, 4 << 20)
            shown += capfd.readouterr().err
    assert re.search(r"searching: +25%.*1.00M/4.00M", shown)


class Long:
    """A search that lasts until somebody has seen it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looked_at = threading.Event()
        monkeypatch.setattr(watch, "_SHORT", 0.0)
        monkeypatch.setattr(watch, "find_kernel", self)
        monkeypatch.setattr(watch, "open_memory", lambda *_: VmmMemory(os.getpid()))
        self.machine = Machine(os.getpid(), f"searched-{id(self)}", memory=SIZE)

    def __call__(self, _vmm: VmmMemory, _memory: int, tell: Tell, _thorough: bool) -> Found:
        tell(3 << 20, 12 << 20)
        assert self.looked_at.wait(60)
        return Found(None, "nothing there")


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Long:
    return Long(monkeypatch)


def test_a_list_shows_a_long_search(long: Long, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if total:
            long.looked_at.set()

    monkeypatch.setattr(survey, "share", lambda _what: nullcontext(tell))
    (facts,) = survey.survey([long.machine])
    assert facts.note == "nothing there"
    assert (3 << 20, 12 << 20) in told


def test_a_recording_says_that_it_searches(long: Long, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_EVERY", 0.01)
    collector = Collector(lambda _found: None, [long.machine], [long.machine.pid])
    while not (said := collector.searching()):
        pass
    assert said == "searching guests' memory: 25 %"
    long.looked_at.set()
    collector.stop(last=True)
    assert collector.searching() == ""
