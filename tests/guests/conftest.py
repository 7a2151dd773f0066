"""Three Linux guests for all tests of this folder, booted side by side once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import linuxguest
import pytest
from linuxguest import LinuxGuest

# RAM around the hole for devices: all below it, on at 4 GiB from 3 GiB (pc) and from 2 GiB (q35);
# page tables of four levels and of five
_SHAPES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "bullseye": (512, "max,la57=off", ()),
    "bookworm": (4096, "max", ()),
    "trixie": (4096, "max", ("-machine", "q35")),
}

_booted: dict[str, LinuxGuest] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernels"):
        _signal(signal.SIGCONT)


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Guests rest while nobody looks at them: emulated ones take a core together."""
    if not (nextitem and nextitem.get_closest_marker("kernels")):
        _signal(signal.SIGSTOP)


def _signal(number: int) -> None:
    for guest in _booted.values():
        guest.process.send_signal(number)


@pytest.fixture(scope="session")
def linux_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LinuxGuest]]:
    """A guest of each suite, up and idle (mark the test `kernels`)."""
    folder = tmp_path_factory.mktemp("linux")
    started = {
        suite: linuxguest.boot(suite, folder / suite, memory, *more, cpu=cpu)
        for suite, (memory, cpu, more) in _SHAPES.items()
    }
    with linuxguest.running(*started.values()):
        _booted.update(started)
        yield started
        _booted.clear()


@pytest.fixture(params=_SHAPES)
def linux_guest(request: pytest.FixtureRequest, linux_guests: dict[str, LinuxGuest]) -> LinuxGuest:
    """Each of them."""
    return linux_guests[request.param]


@pytest.fixture
def empty_guest(tmp_path: Path) -> Iterator[LinuxGuest]:
    """A guest whose firmware finds nothing to boot."""
    guest = linuxguest.boot_nothing(tmp_path / "empty", 64)
    try:
        yield guest
    finally:
        guest.stop()
