"""What is made of the kernel's refusals: kernels that refuse are put in front of the real one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from kvmperf_magic.errors import (
    EventError,
    KvmperfError,
    NoPmuError,
    NotPermittedError,
    TargetError,
)
from kvmperf_magic.perfdata.abi import AttrFlag, EventType, PerfEventAttr, ReadFormat
from kvmperf_magic.sampler import openevent
from kvmperf_magic.sampler.counters import Counters
from kvmperf_magic.sampler.events import parse_events
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.targets import Target

pytestmark = [pytest.mark.root, pytest.mark.alone]
Refuses = Callable[[PerfEventAttr, int, int], int]
Kernel = Callable[[Refuses], None]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """`kernel(refuses)`: an errno where `refuses(attr, pid, cpu)` gives one, else the real call.

    Hardware events are opened as software ones behind it: test machines have no PMU.
    """
    real = openevent.perf_event_open

    def install(refuses: Refuses) -> None:
        def call(attr: PerfEventAttr, pid: int, cpu: int, group_fd: int = -1) -> int:
            code = refuses(attr, pid, cpu)
            if code:
                raise OSError(code, os.strerror(code))
            opened = PerfEventAttr.from_buffer_copy(attr)
            if opened.type == EventType.HARDWARE:
                opened.type, opened.config = EventType.SOFTWARE, 0
            return real(opened, pid, cpu, group_fd)

        monkeypatch.setattr(openevent, "perf_event_open", call)

    return install


@pytest.fixture
def opened() -> Iterator[Callable[..., Counters]]:
    """Counters of events on CPU 0, closed afterwards."""
    made: list[Counters] = []

    def open_them(text: str, target: Target | None = None, guest: bool = False) -> Counters:
        specs = parse_events(text, guest=guest)
        counters = Counters(specs, SamplerOptions(guest=guest), target or Target([0]))
        counters.open(on_exec=False)
        made.append(counters)
        return counters

    yield open_them
    for counters in made:
        counters.close()


Opened = Callable[..., Counters]


def _hardware(attr: PerfEventAttr) -> bool:
    return attr.type == EventType.HARDWARE


def test_cycles_where_there_are_none_are_cpu_clock(kernel: Kernel, opened: Opened) -> None:
    kernel(lambda attr, pid, cpu: errno.ENOENT if _hardware(attr) else 0)
    counters = opened("cycles:u,cycles:k")
    assert [e.spec.name for e in counters.events] == ["cpu-clock:u", "cpu-clock:k", "dummy:HG"]
    assert counters.notices == ["cycles is not available here: using cpu-clock"]
    with pytest.raises(NoPmuError, match="no hardware counter for 'instructions'") as caught:
        opened("instructions")
    assert caught.value.hint == "use cpu-clock"


def test_a_mediated_vpmu_is_said_and_not_fallen_back_from(kernel: Kernel, opened: Opened) -> None:
    """Such a kernel takes hardware events only with exclude_guest while such a VM runs."""

    def refuses(attr: PerfEventAttr, pid: int, cpu: int) -> int:
        shares = _hardware(attr) and not attr.flags & AttrFlag.EXCLUDE_GUEST
        return errno.EOPNOTSUPP if shares else 0

    kernel(refuses)
    with pytest.raises(NoPmuError, match="mediated vPMU") as caught:
        opened("cycles", guest=True)
    assert "--host" in caught.value.hint
    assert opened("cycles").events[0].spec.name == "cycles"


def test_a_pmu_without_interrupts_is_no_mediated_one(kernel: Kernel, opened: Opened) -> None:
    kernel(lambda attr, pid, cpu: errno.EOPNOTSUPP if _hardware(attr) else 0)
    assert opened("cycles", guest=True).events[0].spec.name == "cpu-clock"
    with pytest.raises(NoPmuError, match="no overflow interrupt"):
        opened("instructions", guest=True)


def test_an_older_kernel_gets_what_it_knows(kernel: Kernel, opened: Opened) -> None:
    new = AttrFlag.KSYMBOL | AttrFlag.BPF_EVENT

    def refuses(attr: PerfEventAttr, pid: int, cpu: int) -> int:
        return errno.EINVAL if attr.flags & new or attr.read_format & ReadFormat.LOST else 0

    kernel(refuses)
    counters = opened("cpu-clock")
    assert not counters.count_lost
    assert counters.lost() == 0
    tracking = counters.events[-1].attr
    assert not tracking.flags & new
    assert tracking.flags & AttrFlag.MMAP2


@pytest.mark.parametrize(("most", "expected"), [(0, 0), (1, 1), (3, 3)])
def test_as_precise_as_the_pmu_grants(
    kernel: Kernel, opened: Opened, most: int, expected: int
) -> None:
    def refuses(attr: PerfEventAttr, pid: int, cpu: int) -> int:
        precise = attr.flags // int(AttrFlag.PRECISE_IP_LOW) & 3
        return errno.EOPNOTSUPP if precise > most else 0

    kernel(refuses)
    flags = opened("cycles:P").events[0].attr.flags
    assert flags // int(AttrFlag.PRECISE_IP_LOW) & 3 == expected


@pytest.mark.parametrize(
    ("code", "error", "hint"),
    [
        (errno.EMFILE, NotPermittedError, "ulimit -n"),
        (errno.EBUSY, NoPmuError, "nmi_watchdog"),
        (errno.EINVAL, EventError, "dmesg"),
        (errno.ENODEV, TargetError, "online"),
        (errno.ESRCH, TargetError, "ended"),
        (errno.ENOSYS, NoPmuError, "CONFIG_PERF_EVENTS"),
        (errno.EACCES, NotPermittedError, "perf_event_paranoid=-1"),
    ],
)
def test_each_refusal_has_its_words(
    kernel: Kernel, opened: Opened, code: int, error: type[KvmperfError], hint: str
) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kernel(lambda attr, pid, cpu: code if cpu == 0 else 0)
    with pytest.raises(error) as caught:
        opened("cpu-clock", Target([0]))
    assert hint in caught.value.hint
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_threads_that_end_meanwhile_are_left_out(kernel: Kernel, opened: Opened) -> None:
    kernel(lambda attr, pid, cpu: errno.ESRCH if pid == 4242424 else 0)
    counters = opened("cpu-clock,page-faults", Target([0], [os.getpid(), 4242424]))
    assert [list(e.fds) for e in counters.events] == [[(0, os.getpid())]] * 3


def test_a_frequency_over_the_limit_is_clamped_and_said() -> None:
    counters = Counters([], SamplerOptions(frequency=10**9), Target([0]))
    limit = counters.options.frequency
    assert limit is not None
    assert limit < 10**9
    assert f"sampling at {limit} Hz" in counters.notices[0]
