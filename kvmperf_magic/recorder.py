"""record(): plan what to sample, run the recording process, open what it wrote."""

from __future__ import annotations

import operator
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

from kvmperf_magic.errors import (
    FileError,
    NoKvmError,
    NotPermittedError,
    QueryError,
    TargetError,
)
from kvmperf_magic.frontend import in_notebook
from kvmperf_magic.guests.collecting import Collector
from kvmperf_magic.guests.discovery import find_vm, machines
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.tasks import TaskSampler
from kvmperf_magic.perfdata.packed import SUFFIX
from kvmperf_magic.perfdata.records import GUEST_MAGIC, TASKS_MAGIC
from kvmperf_magic.recording import DEFAULT_OUTPUTS, Recording, open_recording
from kvmperf_magic.sampler.options import (
    SamplerOptions,
    call_graph,
    ring_pages,
    sample_rate,
    seconds,
)
from kvmperf_magic.sampler.process import SamplerProcess
from kvmperf_magic.symbols.guestsymbols import GuestSymbols
from kvmperf_magic.symbols.options import SymbolOptions


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def plan(
    *,
    guest: bool | None = None,
    host: bool | None = None,
    events: str | Sequence[str] | None = None,
    frequency: int | str | None = None,
    period: int | None = None,
    command: str | Sequence[str] | None = None,
    pid: int | Sequence[int] | None = None,
    tid: int | Sequence[int] | None = None,
    vm: str | int | Sequence[str | int] | None = None,
    cpus: int | Sequence[int] | None = None,
    system_wide: bool = False,
    callchain: bool | str = False,
    user_stack: int = 0,
    mmap_pages: int | str = 128,
    say: Callable[[str], None] = say_on_stderr,
) -> SamplerOptions:
    """The sampler's options for these wishes: sides, VMs and defaults settled."""
    guest = not host if guest is None else guest
    host = not guest if host is None else host
    if not (guest or host):
        raise TargetError("neither host nor guest is to be recorded", "say --guest or --host")
    found = machines()
    vms = [m for m in found if m.kind == "guest"]
    if guest and not Path("/dev/kvm").exists() and not vms:
        if not host:
            raise NoKvmError(
                "no /dev/kvm here, so there is no guest to record",
                "modprobe kvm_intel or kvm_amd, or record the host with --host",
            )
        say("no /dev/kvm here: only host samples will come")
    elif guest and not any(m.accel == "kvm" for m in vms):
        said = "no VM runs under KVM now: guest samples will come only from VMs that start"
        if any(m.accel == "tcg" for m in vms):
            said += " (guests under TCG run as user code of their QEMU)"
        say(said)
    chains = call_graph(callchain)
    if user_stack:
        chains |= call_graph(f"dwarf,{user_stack}")
    pids = _numbers("pid", pid)
    if vm is not None:
        wanted = [vm] if isinstance(vm, str | int) else list(vm)
        vms = [find_vm(one, found) for one in wanted]
        pids += [m.pid for m in vms]
        found = [*(m for m in found if m.kind == "host"), *vms]
    return SamplerOptions(
        events=_names("events", events or "cycles"),
        **sample_rate(frequency, period),
        **chains,
        cpus=None if cpus is None else _numbers("cpus", cpus),
        pids=pids,
        tids=_numbers("tid", tid),
        command=_command(command),
        # a guest's code does not run in the command: it only says how long to look
        system_wide=system_wide or guest,
        mmap_pages=ring_pages(mmap_pages),
        host=host,
        guest=guest,
        machines=[m.to_json() for m in found],
        cmdline=list(sys.argv) or ["python"],
    )


def start_sampler(options: SamplerOptions, say: Callable[[str], None]) -> SamplerProcess:
    """The recording process, started; without the right to the whole machine, on what is ours."""
    named = options.pids or options.tids or (options.command and not options.system_wide)
    try:
        return SamplerProcess.start(options)
    except NotPermittedError as refused:
        if named:
            raise
        own = _own_processes(options)
        if not own:
            raise
        say(
            f"{refused.message}: recording only your own {len(own)} processes, in user mode"
            + (f"; for the whole machine: {refused.hint}" if refused.hint else "")
        )
        return SamplerProcess.start(replace(options, pids=own, user_only=True, cpus=None))


def collect(options: SamplerOptions, found: Callable[[GuestSymbols], None]) -> Collector:
    """Find the symbols of the guests that these options sample, as long as it lasts."""
    known = [Machine.from_json(machine) for machine in options.machines]
    return Collector(found, known, options.pids or None)


def _own_processes(options: SamplerOptions) -> list[int]:
    """What an ordinary user may sample: the VMs they run, or for the host all they run."""
    if options.guest and not options.host:
        vms = (Machine.from_json(m) for m in options.machines)
        return [m.pid for m in vms if m.kind == "guest" and _is_mine(Path("/proc") / str(m.pid))]
    processes = [p for p in Path("/proc").iterdir() if p.name.isdecimal() and _is_mine(p)]
    return [int(p.name) for p in processes]


def _is_mine(process: Path) -> bool:
    try:
        return process.stat().st_uid == os.geteuid() and (process / "maps").read_bytes() != b""
    except OSError:
        return False


def _numbers(what: str, value: int | Iterable[int] | None) -> list[int]:
    if value is None:
        return []
    try:
        several = [value] if isinstance(value, SupportsIndex) else list(value)
        return [operator.index(one) for one in several]
    except TypeError:
        raise QueryError(f"{what} is {value!r}", "a whole number, or several") from None


def _command(told: str | Sequence[str] | None) -> list[str] | None:
    if told is None:
        return None
    try:
        words = shlex.split(told) if isinstance(told, str) else _names("command", told)
    except ValueError as error:
        raise QueryError(f"command {told!r}: {error}") from None
    if not words:
        raise QueryError("the command is empty", "its name and its arguments")
    return words


def _names(what: str, value: str | Sequence[str]) -> list[str]:
    several = (
        [value]
        if isinstance(value, str)
        else list(value)
        if isinstance(value, Iterable)
        else [value]
    )
    if not all(isinstance(one, str) for one in several):
        raise QueryError(f"{what} is {value!r}", "a text, or several")
    return several


class Recorder:
    """A recording under way: the `with` block is what is recorded, `.recording` what came.

    Options are those of `record()`; `say` gets each notice as one line.
    """

    def __init__(
        self,
        output: str | Path | None = None,
        say: Callable[[str], None] = say_on_stderr,
        duration: float | None = None,
        **wishes: Any,
    ) -> None:
        self._duration = seconds(duration)
        plan_names = plan.__kwdefaults__ or {}
        symbols = {name: wishes.pop(name) for name in list(wishes) if name not in plan_names}
        named = SymbolOptions.of(symbols)
        named.check()  # a wrong option is said before anything is recorded
        self._symbols = symbols
        self._say = say
        options = plan(say=say, **wishes)
        path = Path(output or DEFAULT_OUTPUTS[options.guest, options.host]).absolute()
        # what is to be packed in the end is a perf.data until then: a kill loses nothing
        self._packed = path if path.name.endswith(SUFFIX) else None
        path = path.with_name(f"{path.name}.data") if self._packed else path
        self._options = replace(options, output=str(path), symbols=named.to_json(), linger=True)
        self._process: SamplerProcess | None = None
        self._collector: Collector | None = None
        self._tasks: TaskSampler | None = None
        self._opened: Recording | None = None

    def __enter__(self) -> Self:
        self._process = start_sampler(self._options, self._say)
        try:
            for message in self._process.messages:
                self._say(message)
            if self._options.guest and self._symbols.get("guest_symbols") != "none":
                self._collector = collect(self._options, self._keep)
                vms = (Machine.from_json(machine) for machine in self._options.machines)
                # of others there are no guest samples
                self._tasks = TaskSampler([vm for vm in vms if vm.accel == "kvm"])
        except BaseException:
            self._end()
            raise
        return self

    def _keep(self, found: GuestSymbols) -> None:
        self.process.attach(GUEST_MAGIC, found.pack())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.enough()  # to look into the guests once more takes its time
        try:
            if self._collector is not None and self._tasks is not None:
                for looks in self._tasks.stop():
                    self.process.attach(TASKS_MAGIC, looks.pack())
                self._collector.stop(last=True)
        finally:  # Ctrl-C may come once more
            self._end()

    def _end(self) -> None:
        """Nothing records any more, and nothing looks at guests."""
        try:
            if self._tasks is not None:
                self._tasks.stop()
            if self._collector is not None:
                self._collector.stop()
        finally:
            self.process.stop()

    @property
    def process(self) -> SamplerProcess:
        assert self._process is not None
        return self._process

    @property
    def recording(self) -> Recording:
        """What was recorded, opened once."""
        if self._opened is None:
            output, keep = self._found(), self._packed is None
            self._opened = open_recording(output, cache=keep, **self._symbols)
            if self._packed:
                self._opened.save(self._packed, self._packed.name)
                Path(output).unlink()
                self._opened = open_recording(self._packed)
            if self._opened.lost.complete < 1 or self._opened.lost.throttled:
                self._say(f"recording: {self._opened.lost}")
        return self._opened

    def _found(self) -> str:
        """Where the file is now: another recording of the same name makes this one `.old`."""
        named = self._options.output
        assert named is not None
        for path in (named, f"{named}.old"):
            if Path(path).exists() and Path(path).stat().st_ino == self.process.inode:
                if path != named:
                    self._say(f"another recording has taken the name {named}: this one is {path}")
                return path
        raise FileError(named, "is another recording's by now, and this one is gone")

    def wait(self, duration: float | None = None, progress: bool = True) -> None:
        """Until `duration` seconds (default: the recorder's own) are over, the command ended, or
        Ctrl-C, which keeps the data."""
        from tqdm import tqdm  # as text: of a widget a saved notebook keeps an error message

        duration = seconds(duration) or self._duration
        # a notebook paints stderr red; a script's stdout is its own
        out = sys.stdout if in_notebook() else sys.stderr
        shown = progress and out is not None and (in_notebook() or out.isatty())
        started = time.monotonic()
        bar = tqdm(
            total=duration,
            desc=f"recording {Path(self._options.output or '').name}",
            unit="s",
            disable=not shown,  # a log is no place for it
            file=out,
            bar_format="{desc}: {n:.0f} s {bar:20}{postfix}"
            if duration
            else "{desc}: {n:.0f} s{postfix}",
        )
        try:
            with bar:
                while True:
                    elapsed = time.monotonic() - started
                    left = 0.2 if duration is None else min(0.2, duration - elapsed)
                    ended = left <= 0 or not self.process.running(timeout=left)
                    stats = self.process.stats()
                    bar.n = min(elapsed, duration or elapsed)
                    said = f"{stats.bytes / 1e6:.1f} MB, {stats.lost:,} lost"
                    searching = self._collector.searching() if self._collector else ""
                    bar.set_postfix_str(f"{said}, {searching}" if searching else said)
                    if ended:
                        break
        except KeyboardInterrupt:
            self._say("interrupted: what was recorded until now is kept")


def record(
    guest: bool | None = None,
    host: bool | None = None,
    events: str | Sequence[str] | None = None,
    frequency: int | str | None = None,
    period: int | None = None,
    duration: float | None = None,
    command: str | Sequence[str] | None = None,
    pid: int | Sequence[int] | None = None,
    tid: int | Sequence[int] | None = None,
    vm: str | int | Sequence[str | int] | None = None,
    cpus: int | Sequence[int] | None = None,
    system_wide: bool = False,
    callchain: bool | str = False,
    user_stack: int = 0,
    output: str | Path | None = None,
    mmap_pages: int | str = 128,
    progress: bool = True,
    say: Callable[[str], None] = say_on_stderr,
    **symbol_options: Any,
) -> Recording:
    """Sample guests (the default), the host, or both; give the recording, opened.

    Without a target (`pid`, `tid`, `vm`) the whole machine, or `cpus` of it. A `command`, its words
    or a line of them without a shell, is the target of a host recording unless `system_wide`; a
    guest recording takes as long as it runs. `frequency` in Hz, or "max" (4000 as perf's, unless
    `period` is given); `duration` in seconds, without one until the command ends or Ctrl-C.
    `output` is perf.data.guest, perf.data.host or perf.data.kvm (both sides) unless named; a file
    of that name becomes `.old`. One that ends in `.kvmperf` gets its symbols packed in, see
    `Recording.save()`. `callchain` records host stacks: True or "fp" by frame pointers, "dwarf" or
    "dwarf,BYTES" with a copy of the user stack (8192 bytes) to be unwound later, "lbr" by the
    processor's branch records; `user_stack=BYTES` is the same as "dwarf,BYTES". `mmap_pages` is
    the size of a ring, in pages or as "16M".

    Raises NotPermittedError, NoPmuError, EventError, TargetError, NoKvmError, SamplerError,
    QueryError, SymbolError.
    """
    recorder = Recorder(
        output,
        say,
        duration,
        guest=guest,
        host=host,
        events=events,
        frequency=frequency,
        period=period,
        command=command,
        pid=pid,
        tid=tid,
        vm=vm,
        cpus=cpus,
        system_wide=system_wide,
        callchain=callchain,
        user_stack=user_stack,
        mmap_pages=mmap_pages,
        **symbol_options,
    )
    with recorder:
        recorder.wait(progress=progress)
    return recorder.recording
