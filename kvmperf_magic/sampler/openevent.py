"""perf_event_open: the attr of an event, the system call, and what its refusals mean.

perf_event_open(2); the order of retreat on refusals is that of tools/perf/util/evsel.c
(evsel__open_cpu(), evsel__fallback(), evsel__open_strerror()).
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import platform
import sys
from dataclasses import dataclass, field, replace

from kvmperf_magic.errors import (
    EventError,
    KvmperfError,
    NoPmuError,
    NotPermittedError,
    TargetError,
)
from kvmperf_magic.perfdata.abi import (
    ATTR_SIZE,
    AttrFlag,
    BranchType,
    EventType,
    PerfEventAttr,
    ReadFormat,
    SampleType,
)
from kvmperf_magic.sampler.events import MAX_PRECISE, EventSpec
from kvmperf_magic.sampler.options import DEFAULT_FREQUENCY, SamplerOptions
from kvmperf_magic.sampler.sysfs import read_int

SOFTWARE_CPU_CLOCK, SOFTWARE_DUMMY, HARDWARE_CYCLES = 0, 9, 0
BASE_SAMPLE = (
    SampleType.IDENTIFIER
    | SampleType.IP
    | SampleType.TID
    | SampleType.TIME
    | SampleType.CPU
    | SampleType.PERIOD
)
TRACKING = (
    AttrFlag.MMAP
    | AttrFlag.MMAP2
    | AttrFlag.COMM
    | AttrFlag.COMM_EXEC
    | AttrFlag.TASK
    | AttrFlag.KSYMBOL
    | AttrFlag.BPF_EVENT
)  # no BUILD_ID: it spoils the MMAP2 records of every other recorder on the machine (6.18 seen)
# perf record --call-graph lbr: tools/perf/util/evsel.c: __evsel__config_callchain()
CALL_STACK = BranchType.USER | BranchType.CALL_STACK | BranchType.NO_CYCLES | BranchType.NO_FLAGS
# what older kernels do not know, newest first: taken away one after the other on EINVAL
_NEWER: tuple[AttrFlag | ReadFormat, ...] = (
    ReadFormat.LOST,
    AttrFlag.KSYMBOL | AttrFlag.BPF_EVENT,
)
# general registers that a dwarf unwinder needs: PERF_REGS_MASK of tools/perf/arch
_USER_REGS = {"x86_64": 0xFF0FFF, "aarch64": (1 << 33) - 1, "riscv64": (1 << 32) - 1}
_SYSCALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
_FLAG_FD_CLOEXEC = 8
_PARANOID = "/proc/sys/kernel/perf_event_paranoid"

_libc = ct.CDLL(None, use_errno=True)


def perf_event_open(attr: PerfEventAttr, pid: int, cpu: int, group_fd: int = -1) -> int:
    """The file descriptor of a new counter; OSError as the kernel says it."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no perf_event_open known for {platform.machine()}")
    fd: int = _libc.syscall(
        ct.c_long(number),
        ct.byref(attr),
        ct.c_int(pid),
        ct.c_int(cpu),
        ct.c_int(group_fd),
        ct.c_ulong(_FLAG_FD_CLOEXEC),
    )
    if fd < 0:
        code = ct.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def make_attr(spec: EventSpec, options: SamplerOptions) -> PerfEventAttr:
    """The attr to sample `spec` with: as perf record makes it, and always with IDENTIFIER and CPU.

    Tracepoints are recorded one by one with their raw data unless a period is asked for.
    """
    sample_type = BASE_SAMPLE
    flags = AttrFlag.SAMPLE_ID_ALL | AttrFlag.DISABLED | spec.flags
    attr = PerfEventAttr(size=ATTR_SIZE, type=spec.type, config=spec.config)
    attr.config1, attr.config2 = spec.config1, spec.config2
    attr.read_format = ReadFormat.ID | ReadFormat.LOST
    period = spec.period or (None if spec.frequency else options.period)
    if spec.type == EventType.TRACEPOINT:
        sample_type |= SampleType.RAW
        period = period or 1
    if period:
        attr.sample_period = period
    else:
        attr.sample_period = spec.frequency or options.frequency or DEFAULT_FREQUENCY
        flags |= AttrFlag.FREQ
    if options.callchain or options.user_stack:
        sample_type |= SampleType.CALLCHAIN
    if options.branch_stack:
        sample_type |= SampleType.BRANCH_STACK
        attr.branch_sample_type = CALL_STACK
    if options.user_stack:
        sample_type |= SampleType.REGS_USER | SampleType.STACK_USER
        attr.sample_regs_user = _USER_REGS.get(platform.machine(), 0)
        attr.sample_stack_user = options.user_stack
        flags |= AttrFlag.EXCLUDE_CALLCHAIN_USER
    if options.inherit:
        flags |= AttrFlag.INHERIT
    if options.user_only:
        flags |= AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV
    attr.sample_type = sample_type
    attr.flags = flags | spec.precise * AttrFlag.PRECISE_IP_LOW
    return attr


def tracking(options: SamplerOptions) -> AttrFlag:
    """What an event asks for to bring COMM, FORK, MMAP2 and the like."""
    # call frame information is not in executable maps, and perf looks for it where it was mapped
    return TRACKING | AttrFlag.MMAP_DATA if options.user_stack else TRACKING


def tracking_attr(options: SamplerOptions) -> PerfEventAttr:
    """A dummy event, enabled from the start, that brings COMM, FORK, MMAP2 and the like."""
    attr = PerfEventAttr(size=ATTR_SIZE, type=EventType.SOFTWARE, config=SOFTWARE_DUMMY)
    attr.sample_period = 1
    attr.sample_type = BASE_SAMPLE & ~SampleType.PERIOD
    attr.read_format = ReadFormat.ID | ReadFormat.LOST
    attr.flags = AttrFlag.SAMPLE_ID_ALL | tracking(options)
    if options.inherit:
        attr.flags |= AttrFlag.INHERIT
    if options.user_only:
        attr.flags |= AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV
    return attr


@dataclass
class Attempt:
    """An event on its way to being opened: what had to be changed is in `spec` and `attr`."""

    spec: EventSpec
    attr: PerfEventAttr
    notices: list[str] = field(default_factory=list)

    def retreat(self, error: OSError, options: SamplerOptions, *, whole_cpus: bool) -> bool:
        """Change the event into one that may work after this refusal; False where none is left."""
        attr = self.attr
        flags = AttrFlag(attr.flags)
        if error.errno in {errno.EACCES, errno.EPERM}:
            kernel_too = not flags & AttrFlag.EXCLUDE_KERNEL
            if whole_cpus or not kernel_too or attr.type == EventType.TRACEPOINT:
                return False
            attr.flags = flags | AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV
            self.spec = replace(self.spec, name=_user_name(self.spec.name))
            self.notices.append(
                f"{_PARANOID} is {read_int(_PARANOID)}: sampling user code only "
                "(with the kernel: sudo sysctl kernel.perf_event_paranoid=1)"
            )
            return True
        if error.errno in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT} and self._less_precise():
            return True
        if error.errno == errno.EINVAL:
            return self._older()
        missing = error.errno in {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}
        if error.errno == errno.EOPNOTSUPP and attr.sample_type & SampleType.BRANCH_STACK:
            attr.sample_type &= ~SampleType.BRANCH_STACK
            attr.branch_sample_type = 0
            self.notices.append(
                f"{self.spec.name} has no branch call stacks here: frame pointers instead"
            )
            return True
        if missing and (attr.type, attr.config) == (EventType.HARDWARE, HARDWARE_CYCLES):
            attr.type, attr.config = EventType.SOFTWARE, SOFTWARE_CPU_CLOCK
            attr.flags = flags & ~(AttrFlag.PRECISE_IP_LOW | AttrFlag.PRECISE_IP_HIGH)
            told = self.spec.name.partition(":")[0]
            self.notices.append(f"{told} is not available here: using cpu-clock")
            modifiers = self.spec.name.partition(":")[2].replace("p", "").replace("P", "")
            name = f"cpu-clock:{modifiers}" if modifiers else "cpu-clock"
            self.spec = replace(self.spec, name=name, type=EventType.SOFTWARE, config=0)
            return True
        return False

    def _less_precise(self) -> bool:
        if not self.spec.precise_max or not self.spec.precise:
            return False
        self.spec = replace(self.spec, precise=self.spec.precise - 1)
        self.attr.flags -= int(AttrFlag.PRECISE_IP_LOW)
        return True

    def _older(self) -> bool:
        for newer in _NEWER:
            if isinstance(newer, ReadFormat) and self.attr.read_format & newer:
                self.attr.read_format &= ~newer
                return True
            if isinstance(newer, AttrFlag) and self.attr.flags & newer:
                self.attr.flags &= ~newer
                return True
        return False


def attempt(spec: EventSpec, options: SamplerOptions) -> Attempt:
    """The event as it is tried first."""
    if spec.precise_max:
        spec = replace(spec, precise=MAX_PRECISE)
    return Attempt(spec, make_attr(spec, options))


def _user_name(name: str) -> str:
    base, colon, modifiers = name.partition(":")
    return f"{base}:{modifiers}u" if colon else f"{base}{'' if base.endswith('/') else ':'}u"


def refusal(
    error: OSError, spec: EventSpec, attr: PerfEventAttr, pid: int, cpu: int
) -> KvmperfError:
    """What the kernel's refusal to open `spec` for `pid` (-1 all) on `cpu` means, in words."""
    name = spec.name
    code = error.errno
    if code in {errno.EACCES, errno.EPERM}:
        return _not_permitted(spec, pid)
    if code == errno.EOPNOTSUPP:
        if guests_owned(attr, pid, cpu):
            return NoPmuError(
                f"{name!r} cannot sample guests: a running VM owns the hardware counters while it "
                "executes (mediated vPMU)",
                "sample the host only (--host, or the modifier :H), use cpu-clock, or start the "
                "VM without a vPMU (QEMU: -cpu ...,pmu=off; KVM: enable_pmu=N)",
            )
        return NoPmuError(
            f"this machine's PMU cannot sample {name!r}: it gives no overflow interrupt",
            "use cpu-clock",
        )
    if code in {errno.ENOENT, errno.ENXIO}:
        if spec.type in {EventType.HARDWARE, EventType.HW_CACHE, EventType.RAW}:
            return NoPmuError(f"this machine has no hardware counter for {name!r}", "use cpu-clock")
        return EventError(f"the kernel does not know the event {name!r}", "perf list shows them")
    if code == errno.ENODEV:
        if cpu >= 0 and pid == -1 and spec.type == EventType.SOFTWARE:
            return TargetError(f"CPU {cpu} is not online", "online: /sys/devices/system/cpu/online")
        return NoPmuError(f"the PMU of {name!r} is not on CPU {cpu}", "use cpu-clock")
    if code == errno.ESRCH:
        return TargetError(f"there is no thread {pid}", "it has ended, or was never there")
    if code in {errno.EMFILE, errno.ENFILE}:
        return NotPermittedError(
            "too many open files: every event takes one a CPU and thread",
            "raise the limit: ulimit -n 1048576 (hard limit: /etc/security/limits.conf), "
            "or sample fewer threads, CPUs or events",
        )
    if code == errno.EBUSY:
        return NoPmuError(
            f"the PMU is busy: another program holds what {name!r} needs",
            "look for other perf sessions, or the NMI watchdog: sudo sysctl kernel.nmi_watchdog=0",
        )
    if code == errno.ENOSYS:
        return NoPmuError(
            "this kernel has no perf events", "it is built without CONFIG_PERF_EVENTS"
        )
    if code == errno.EINVAL:
        return EventError(
            f"the kernel refuses {name!r} with these options (EINVAL)",
            "fewer modifiers, another frequency, or a smaller user stack may pass; "
            "dmesg may say more",
        )
    return EventError(f"the kernel refuses {name!r}: {error.strerror}")


def guests_owned(attr: PerfEventAttr, pid: int, cpu: int) -> bool:
    """Whether the event would open if only it left guests alone: a mediated vPMU is in the way."""
    flags = AttrFlag(attr.flags)
    if flags & AttrFlag.EXCLUDE_GUEST:
        return False
    probe = PerfEventAttr.from_buffer_copy(attr)
    probe.flags = (flags | AttrFlag.EXCLUDE_GUEST) & ~AttrFlag.EXCLUDE_HOST
    try:
        os.close(perf_event_open(probe, pid, cpu))
    except OSError:
        return False
    return True


def _not_permitted(spec: EventSpec, pid: int) -> NotPermittedError:
    paranoid = read_int(_PARANOID)
    python = os.path.realpath(sys.executable)
    grant = f"run as root, or: sudo setcap cap_perfmon,cap_sys_ptrace,cap_ipc_lock+ep {python}"
    if spec.type == EventType.TRACEPOINT:
        return NotPermittedError(
            f"this user may not record the tracepoint {spec.name} (perf_event_paranoid is "
            f"{paranoid})",
            f"sudo sysctl kernel.perf_event_paranoid=-1; {grant}",
        )
    if pid == -1:
        return NotPermittedError(
            f"this user may not sample the whole machine (perf_event_paranoid is {paranoid})",
            f"sudo sysctl kernel.perf_event_paranoid=-1; {grant}",
        )
    if (paranoid or 0) > 2:
        return NotPermittedError(
            f"this user may not sample at all (perf_event_paranoid is {paranoid}) "
            f"or not thread {pid}",
            f"sudo sysctl kernel.perf_event_paranoid=2 for your own processes; {grant}",
        )
    return NotPermittedError(f"thread {pid} is not yours to sample", grant)
