"""Whether the demo can be recorded here and now, and the bundled recordings for where it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvmperf_magic.demo.image import guest_elf
from kvmperf_magic.demo.run import MicroGuest
from kvmperf_magic.errors import KvmperfError, QueryError
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

if TYPE_CHECKING:
    from kvmperf_magic.recording import Recording

RECORDINGS = Path(__file__).with_name("recordings")


@dataclass(frozen=True)
class Live:
    """True where a guest can be run and sampled; `reason` says what is missing elsewhere."""

    reason: str

    def __bool__(self) -> bool:
        return not self.reason

    @property
    def sentence(self) -> str:
        if self:
            return "KVM and the right to sample are here: everything below is recorded live."
        return f"Not recorded live here ({self.reason}): the bundled recordings are replayed."


def live() -> Live:
    """Try it: a guest that runs, and a recording of it."""
    try:
        with MicroGuest(vcpus=1, name="probe") as vm:
            options = SamplerOptions(
                events=["cycles"], frequency=100, pids=[vm.pid], guest=True, duration=0.1
            )
            with SamplerProcess.start(options) as process:
                process.wait()
    except KvmperfError as error:
        return Live(str(error))
    return Live("")


def two_cpus() -> list[int]:
    """Two of the CPUs this process may use (one where there is but one): the demo's machine."""
    return sorted(os.sched_getaffinity(0))[:2]


def replay(name: str) -> Recording:
    """One of the bundled recordings, opened. QueryError names those there are."""
    from kvmperf_magic.recording import open_recording

    path = RECORDINGS / f"{name}.data"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in RECORDINGS.glob("*.data")))
        raise QueryError(f"no bundled recording {name!r}", f"there are: {known}")
    return open_recording(path, guest_elf=guest_elf(), symfs=str(RECORDINGS.parent))
