"""Recordings with Linux guests in them, saved: read the same without anything but themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kvmperf_magic as kvm
from kvmperf_magic.recording import Recording
from kvmperf_magic.symbols import kallsyms

recordings = pytest.importorskip("test_linux_recordings")
recording = recordings.recording  # its fixture
if TYPE_CHECKING:
    from linuxguest import LinuxGuest

pytestmark = [pytest.mark.kernels, pytest.mark.root]


def test_guests_kernels_are_kept(
    linux_guest: LinuxGuest, recording: Recording, tmp_path: Path
) -> None:
    wanted = recordings.functions(kallsyms.parse(linux_guest.kallsyms()))
    path = tmp_path / "perf.data"
    count = recordings.in_guest_kernel(Path(recording.path), path, linux_guest.pid, wanted)
    here = kvm.open(path, cache=False)
    here.save(tmp_path / "saved.kvmperf")
    there = kvm.open(tmp_path / "saved.kvmperf", cache=False)
    assert repr(there.report(modes=("host", "guest"))) == repr(here.report(modes=("host", "guest")))
    assert there.samples.to_csv() == here.samples.to_csv()
    assert there.symbols.to_csv() == here.symbols.to_csv()
    assert f"{linux_guest.suite} [sunrpc]" in here.symbols["dso"]
    guest = there.filter(modes="guest-kernel").samples
    assert len(guest) == count
    assert "[unknown]" not in set(guest["symbol"])
