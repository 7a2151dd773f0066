"""Recordings and profiles that every format is tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
from names import HOSTILE

import kvmperf_magic
from kvmperf_magic import demo
from kvmperf_magic.profile.profile import Profile, Sample, profile_of
from kvmperf_magic.recording import Recording


@pytest.fixture(scope="session")
def consumers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages of the consumers are unpacked."""
    return tmp_path_factory.mktemp("consumers")


@pytest.fixture(scope="session", params=["both", "host", "crowded"])
def recording(request: pytest.FixtureRequest) -> Recording:
    """A bundled recording: of guest and host, of the host, of a guest."""
    path = Path(demo.__file__).parent / "recordings" / f"{request.param}.data"
    return kvmperf_magic.open(path)


@pytest.fixture(scope="session")
def both() -> Recording:
    return kvmperf_magic.open(Path(demo.__file__).parent / "recordings" / "both.data")


@pytest.fixture
def mixed() -> Profile:
    """Two guests and the host, hostile names, the same symbol on both sides, big periods."""
    kernel = [("entry", "[kernel.kallsyms]", "host-kernel"), ("schedule", "[kvm]", "host-kernel")]
    samples = [
        Sample(kernel, period=(1 << 53) + 1, time=10**15 + 7, comm="qemu", pid=50, tid=51),
        Sample(kernel, period=3, time=10**15 + 9, comm="qemu", pid=50, tid=52),
    ]
    for i, name in enumerate(HOSTILE):
        frames = [("main", name, "host-user"), (name, f"/opt/{name}", "host-user")]
        samples.append(
            Sample(frames, period=10 + i, time=10**15 + 100 + i, comm=name, pid=90 + i, tid=90 + i)
        )
        guest = [(name, "[guest.kernel.kallsyms]", "guest-kernel")]
        samples.append(
            Sample(guest, 20 + i, 10**15 + 200 + i, "qemu", 50, 51, vcpu=i % 2, machine="web1")
        )
    user = [("vcpu_run", "[kvm]", "host-kernel"), ("schedule", "/app", "guest-user")]
    samples += [
        Sample(user, 1000, 10**15 + 300, "qemu", 50, 51, vcpu=0, machine="web1"),
        Sample(user, 2000, 10**15 + 301, "vmm", 60, 61, vcpu=-1, machine="db"),
    ]
    return profile_of(samples, "cpu-clock ns")
