"""All counters of a recording, opened: every event on every CPU and thread, a ring a CPU.

As perf does it (tools/perf/util/evlist.c, tools/lib/perf/evlist.c): the first counter of a CPU is
mapped, the others of that CPU are redirected into its ring, so that inheritance works.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from kvmperf_magic.errors import KvmperfError, NotPermittedError, TargetError
from kvmperf_magic.perfdata.abi import (
    IOC_DISABLE,
    IOC_ENABLE,
    IOC_ID,
    IOC_SET_OUTPUT,
    AttrFlag,
    PerfEventAttr,
    ReadFormat,
)
from kvmperf_magic.perfdata.features import encode_group_desc
from kvmperf_magic.perfdata.writer import WrittenEvent
from kvmperf_magic.sampler import openevent
from kvmperf_magic.sampler.events import EventSpec
from kvmperf_magic.sampler.options import DEFAULT_FREQUENCY, SamplerOptions
from kvmperf_magic.sampler.ring import Ring
from kvmperf_magic.sampler.sysfs import read_int
from kvmperf_magic.sampler.targets import Target

TRACKING_NAME = "dummy:HG"  # perf's name for it


@dataclass
class Opened:
    """One event of the recording; `fds` by (cpu, thread)."""

    spec: EventSpec
    attr: PerfEventAttr
    tracking: bool = False
    fds: dict[tuple[int, int], int] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)


class Counters:
    """The open counters and their rings. `notices` are lines that the user should see."""

    def __init__(self, specs: list[EventSpec], options: SamplerOptions, target: Target) -> None:
        self.options = options
        self.target = target
        self.on_exec = False
        self.events: list[Opened] = []
        self.rings: dict[int, Ring] = {}
        self.notices: list[str] = []
        self._gone: set[int] = set()
        _raise_open_files()
        self.options = _clamp_frequency(options, self._say)
        self._specs = specs

    def open(self, *, on_exec: bool) -> None:
        """Open everything, disabled but for the tracking event. `on_exec`: the exec enables.

        Raises NotPermittedError, NoPmuError, EventError, TargetError.
        """
        self.on_exec = on_exec
        try:
            leaders: dict[int, Opened] = {}
            for spec in self._specs:
                leader = None if spec.group is None else leaders.get(spec.group)
                opened = self._open_event(spec, leader)
                if spec.group is not None:
                    leaders.setdefault(spec.group, opened)
            if not (on_exec and len(self.events) == 1):
                self._open_tracking()
            self._map()
        except BaseException:
            self.close()
            raise

    def _say(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)

    def _open_event(self, spec: EventSpec, leader: Opened | None) -> Opened:
        tried = openevent.attempt(spec, self.options)
        if self.on_exec:
            tried.attr.flags |= AttrFlag.ENABLE_ON_EXEC
            if len(self._specs) == 1:
                tried.attr.flags |= openevent.tracking(self.options)
        if leader is not None:  # members follow their leader
            tried.attr.flags &= ~(AttrFlag.DISABLED | AttrFlag.ENABLE_ON_EXEC)
            tried.attr.flags |= AttrFlag(leader.attr.flags) & AttrFlag.EXCLUDE_KERNEL
        opened = Opened(spec, tried.attr)
        self.events.append(opened)
        for cpu in self.target.cpus:
            for thread in self.target.threads:
                self._open_one(opened, tried, leader, cpu, thread)
        for notice in tried.notices:
            self._say(notice)
        opened.spec = tried.spec
        if not opened.fds:
            raise TargetError("all threads to be sampled have ended")
        return opened

    def _open_one(
        self,
        opened: Opened,
        tried: openevent.Attempt,
        leader: Opened | None,
        cpu: int,
        thread: int,
    ) -> None:
        if thread in self._gone:
            return
        group_fd = -1 if leader is None else leader.fds.get((cpu, thread), -1)
        while True:
            try:
                fd = openevent.perf_event_open(opened.attr, thread, cpu, group_fd)
            except OSError as error:
                if error.errno == errno.ESRCH and len(self.target.threads) > 1:
                    self._gone.add(thread)
                    return
                last = error
            else:
                opened.fds[cpu, thread] = fd
                opened.ids.append(_id_of(fd))
                return
            # guests in the way of a hardware counter are the user's to know: no silent fallback
            owned = last.errno == errno.EOPNOTSUPP and openevent.guests_owned(
                opened.attr, thread, cpu
            )
            first = not opened.fds
            if owned or not (
                first and tried.retreat(last, self.options, whole_cpus=self.target.whole_cpus)
            ):
                raise openevent.refusal(last, tried.spec, opened.attr, thread, cpu) from None

    def _open_tracking(self) -> None:
        spec = EventSpec(TRACKING_NAME, 1, openevent.SOFTWARE_DUMMY)
        tried = openevent.Attempt(spec, openevent.tracking_attr(self.options))
        opened = Opened(spec, tried.attr, tracking=True)
        self.events.append(opened)
        if any(e.attr.flags & AttrFlag.EXCLUDE_KERNEL for e in self.events):
            # a user who may not sample the kernel may not have this event count there either
            tried.attr.flags |= AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV
        for cpu in self.target.cpus:
            for thread in self.target.threads:
                self._open_one(opened, tried, None, cpu, thread)

    def _map(self) -> None:
        """A ring for each CPU, smaller than asked for where the limit on locked memory says so."""
        pages = self.options.mmap_pages
        for cpu in self.target.cpus:
            for opened in self.events:
                for (its_cpu, _), fd in opened.fds.items():
                    if its_cpu != cpu:
                        continue
                    if cpu not in self.rings:
                        pages = self._map_one(fd, cpu, pages)
                    else:
                        ring = self.rings[cpu]
                        fcntl.ioctl(fd, IOC_SET_OUTPUT, ring.fds[0])
                        ring.fds.append(fd)
                    os.set_blocking(fd, False)

    def _map_one(self, fd: int, cpu: int, pages: int) -> int:
        asked = pages
        while True:
            try:
                self.rings[cpu] = Ring(fd, cpu, pages)
            except OSError as error:
                if error.errno not in {errno.EPERM, errno.ENOMEM, errno.EAGAIN} or pages <= 1:
                    raise _unmappable(error, asked) from None
                pages //= 2
                continue
            if pages != asked:
                self._say(
                    f"rings of {pages} pages instead of {asked}: locked memory is limited "
                    "(sudo sysctl kernel.perf_event_mlock_kb=8192)"
                )
            return pages

    def enable(self) -> None:
        """Start the events that exec does not start."""
        for opened in self.events:
            if opened.attr.flags & AttrFlag.DISABLED and not self.on_exec:
                for fd in opened.fds.values():
                    fcntl.ioctl(fd, IOC_ENABLE, 0)

    def disable(self) -> None:
        for opened in self.events:
            for fd in opened.fds.values():
                fcntl.ioctl(fd, IOC_DISABLE, 0)

    def lost(self) -> int:
        """Samples that found no room in a ring, by the counters' own count; 0 before kernel 6.0."""
        total = 0
        for opened in self.events:
            if self.count_lost and not opened.tracking:
                for fd in opened.fds.values():
                    value = os.read(fd, 24)
                    if len(value) == 24:  # a pinned event in error reads as nothing
                        total += struct.unpack("<3Q", value)[2]
        return total

    @property
    def sees_kernel(self) -> bool:
        """Whether any event may sample the host's kernel."""
        return not all(e.attr.flags & AttrFlag.EXCLUDE_KERNEL for e in self.events)

    @property
    def count_lost(self) -> bool:
        """Whether the kernel counts lost samples (PERF_FORMAT_LOST)."""
        return all(e.attr.read_format & ReadFormat.LOST for e in self.events)

    def written(self) -> list[WrittenEvent]:
        """The events as the file tells them."""
        return [WrittenEvent(e.spec.name, e.attr, e.ids) for e in self.events]

    def group_desc(self) -> bytes:
        """The GROUP_DESC section, empty where nothing is grouped."""
        groups: dict[int, tuple[int, int]] = {}
        for i, opened in enumerate(self.events):
            number = opened.spec.group
            if number is not None:
                first, count = groups.get(number, (i, 0))
                groups[number] = (first, count + 1)
        told = [("{anon_group}", first, count) for first, count in groups.values()]
        return encode_group_desc(told) if told else b""

    def close(self) -> None:
        for ring in self.rings.values():
            ring.close()
        for opened in self.events:
            for fd in opened.fds.values():
                os.close(fd)
            opened.fds.clear()
        self.rings.clear()


def _id_of(fd: int) -> int:
    return int(struct.unpack("<Q", fcntl.ioctl(fd, IOC_ID, bytes(8)))[0])


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _clamp_frequency(options: SamplerOptions, say: Callable[[str], None]) -> SamplerOptions:
    most = read_int("/proc/sys/kernel/perf_event_max_sample_rate")
    asked = options.frequency or DEFAULT_FREQUENCY
    if most is None or options.period or asked <= most:
        return options
    say(
        f"{asked} Hz is more than kernel.perf_event_max_sample_rate: sampling at {most} Hz "
        f"(sudo sysctl kernel.perf_event_max_sample_rate={asked})"
    )
    return replace(options, frequency=most)


def _unmappable(error: OSError, pages: int) -> KvmperfError:
    if error.errno == errno.EINVAL:
        return TargetError(f"a ring of {pages} pages is not possible", "a power of two, e.g. 128")
    return NotPermittedError(
        f"no memory for rings of {pages} pages: {error.strerror}",
        "sudo sysctl kernel.perf_event_mlock_kb=8192, or smaller rings (mmap_pages)",
    )
