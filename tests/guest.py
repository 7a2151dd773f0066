"""The micro guest as a fixture of tests: a real VM where there is KVM."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kvmperf_magic import demo


@contextmanager
def running_guest(
    vcpus: int, name: str = "guest", phase: str = "dbench"
) -> Iterator[demo.MicroGuest]:
    """A VM on two CPUs, past its start."""
    with demo.MicroGuest(vcpus=vcpus, name=name, phase=phase, cpus=demo.two_cpus()) as vm:
        time.sleep(0.3)
        yield vm
