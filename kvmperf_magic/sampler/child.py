"""The recording process: told on stdin what to do, tells on stdout how it goes.

stdin: one line of JSON, then "attached" for each attachment that lies in the descriptor for them,
"enough" to sample no more, and "stop", or its end. stdout: JSON lines, each with an "event":
notice, started, status, over (it samples no more, and waits for "stop"), error, end. The process
ends with its parent, whatever ends that.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from kvmperf_magic.errors import FileError, KvmperfError, SamplerError
from kvmperf_magic.perfdata import records
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.features import BuildId
from kvmperf_magic.perfdata.writer import feature_records
from kvmperf_magic.sampler import facts
from kvmperf_magic.sampler.counters import Counters
from kvmperf_magic.sampler.events import parse_events
from kvmperf_magic.sampler.loop import Progress, RecordingLoop
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.procfs import Synthesizer
from kvmperf_magic.sampler.sinks import FileSink, Sink, StreamSink
from kvmperf_magic.sampler.targets import resolve, targets_command
from kvmperf_magic.sampler.tracing import tracing_data
from kvmperf_magic.sampler.workload import Workload

_STDIN, _STDOUT = 0, 1
_PATIENCE = 5.0  # seconds to wait for a parent that does not read


class Talk:
    """Lines of JSON to the parent, who may be stopped or gone: nothing here blocks for long."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def say(self, event: str, *, must: bool = True, **told: Any) -> None:
        """One line; without `must` it is dropped where the pipe is full."""
        line = json.dumps({"event": event, **told}).encode() + b"\n"
        while line:
            if not must and not select.select([], [self._fd], [], 0)[1]:
                return
            if must and not select.select([], [self._fd], [], _PATIENCE)[1]:
                return
            try:
                done = os.write(self._fd, line)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return
            line, must = line[done:], True

    def error(self, error: KvmperfError) -> None:
        path = error.path if isinstance(error, FileError) else None
        self.say(
            "error",
            kind=type(error).__name__,
            message=error.message,
            hint=error.hint,
            path=path,
        )


class Child:
    """One recording from its options to its end."""

    def __init__(self, options: SamplerOptions, fds: dict[str, int | None], talk: Talk) -> None:
        self.options = options
        self.talk = talk
        self._fds = fds
        self._workload: Workload | None = None
        self._counters: Counters | None = None
        self._started_at = 0.0
        self._enabled = 0
        self._commands = b""
        self._sink: Sink | None = None
        self._told_to_stop = False
        self._attached = 0  # bytes of attachments that were written

    def run(self) -> None:
        """Record. Errors are told, not raised."""
        try:
            self._record()
        except KvmperfError as error:
            self.talk.error(error)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self.options.output is None:
                return  # the reader of the stream has gone: nobody wants more
            what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            self.talk.error(SamplerError(f"the recording process met: {what}"))
        finally:
            if self._workload is not None:
                self._workload.end()

    def _record(self) -> None:
        options = self.options
        specs = parse_events(options.events, host=options.host, guest=options.guest)
        formats = tracing_data(specs)
        command_pid = None
        if options.command:
            self._workload = Workload(
                options.command, self._fds.get("stdout"), self._fds.get("stderr")
            )
            command_pid = self._workload.pid
        target = resolve(options, command_pid)
        counters = self._counters = Counters(specs, options, target)
        counters.open(on_exec=targets_command(options))
        for notice in counters.notices:
            self.talk.say("notice", text=notice)
        sink = self._sink = self._open_sink(counters, formats)
        try:
            # what is known now stands at the beginning too: a killed recording still has it
            sink.write(feature_records(self._features([], Progress())))
            trailer = records.sample_id(counters.events[0].attr.sample_type)
            synthesizer = Synthesizer(trailer, data=options.user_stack > 0)
            self._synthesize(synthesizer, sink, counters.sees_kernel)
            wakers = self._wakers()
            loop = RecordingLoop(counters, sink, wakers, self._status)
            self._start(counters)
            try:
                loop.run(options.duration)
                counters.disable()
                loop.drain()
                if options.linger:
                    sink.flush()
                    self._linger(wakers)
            except FileError:  # the disk is full: what was written before stays, and is told
                sink.flush()
                raise
            self._write_attachments()
            loop.update()  # the counters have ended: these are the counts that the file tells
            for name, inode in loop.mapped.items():
                synthesizer.files.of_record(os.fsdecode(name), inode)
            told = self._features(synthesizer.build_ids(), loop.progress)
            if isinstance(sink, FileSink):  # a stream has a record of its own kind for it
                told[Feature.TRACING_DATA] = formats
            sink.finish(told)
            if isinstance(sink, StreamSink):
                sink.hand_over()
            loop.update()  # for the size of the finished file
            status = None if self._workload is None else self._workload.end()
            self.talk.say("end", status=status, **asdict(loop.progress))
        finally:
            sink.close()
            counters.close()

    def _open_sink(self, counters: Counters, formats: bytes) -> Sink:
        if self.options.output is not None:
            return FileSink(self.options.output, counters.written())
        fd = self._fds.get("stream")
        if fd is None:
            raise SamplerError("neither an output file nor a stream was given")
        return StreamSink(fd, counters.written(), formats)

    def _guests(self) -> list[int]:
        return [m["pid"] for m in self.options.machines if m.get("kind") == "guest"]

    def _synthesize(self, synthesizer: Synthesizer, sink: Sink, sees_kernel: bool) -> None:
        """What runs already, in pieces: the rings wait meanwhile, only sideband comes in."""
        kernel = synthesizer.kernel() if sees_kernel else b""
        if sees_kernel and not kernel:
            self.talk.say(
                "notice",
                text="kernel addresses are hidden: kernel functions will have no names "
                "(sudo sysctl kernel.kptr_restrict=0, or run as root)",
            )
        sink.write(kernel, *(synthesizer.guest(pid) for pid in self._guests()))
        if self.options.pids or self.options.tids:
            owners = {*self.options.pids, *map(_process_of, self.options.tids), *self._guests()}
            for pid in sorted(owners):
                sink.write(synthesizer.process(pid))
        elif not targets_command(self.options):
            for piece in synthesizer.everything():
                sink.write(piece)
        sink.write(records.finished_round())
        sink.flush()

    def _start(self, counters: Counters) -> None:
        self._started_at = time.time()
        self._enabled = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counters.enable()
        if self._workload is not None:
            self._workload.start()
        self.talk.say(
            "started",
            events=[e.spec.name for e in counters.events if not e.tracking],
            inode=self._sink.inode if isinstance(self._sink, FileSink) else 0,
            command_pid=None if self._workload is None else self._workload.pid,
        )

    def _wakers(self) -> dict[int, Callable[[], bool]]:
        """What ends the recording: a word of the parent, the parent's end, the command's end."""
        wakers: dict[int, Callable[[], bool]] = {
            _STDIN: self._hear,
            _ending_signals(): lambda: True,
        }
        parent = self._fds.get("parent")
        if parent is not None:
            try:
                wakers[os.pidfd_open(parent)] = lambda: True
            except OSError as error:
                if error.errno == errno.ESRCH:
                    raise SamplerError("the process that wanted this recording has ended") from None
        if self._workload is not None:
            wakers[self._workload.pidfd] = self._workload.reap
        return wakers

    def _linger(self, wakers: dict[int, Callable[[], bool]]) -> None:
        """Until the parent has nothing more to attach."""
        self.talk.say("over")
        poll = select.poll()
        command = None if self._workload is None else self._workload.pidfd
        for fd in wakers.keys() - {command}:
            poll.register(fd, select.POLLIN)
        while not self._told_to_stop:
            for fd, _ in poll.poll():
                if wakers[fd]() and fd != _STDIN:  # the parent's end, or a signal
                    return

    def _hear(self) -> bool:
        heard = os.read(_STDIN, 4096)
        *lines, self._commands = (self._commands + heard).split(b"\n")
        if b"attached" in lines:
            self._write_attachments()
        self._told_to_stop = not heard or b"stop" in lines
        return self._told_to_stop or b"enough" in lines

    def _write_attachments(self) -> None:
        """Each is its length, u64, its kind, and its bytes."""
        fd = self._fds.get("attachments")
        while fd is not None and self._sink is not None:
            head = os.pread(fd, 16, self._attached)
            size = int.from_bytes(head[:8], "little")
            body = os.pread(fd, size, self._attached + 16)
            if not size or len(body) < size:
                return
            self._sink.write(records.note(body, head[8:]))
            self._attached += 16 + size

    def _status(self, progress: Progress) -> None:
        self.talk.say("status", must=False, **asdict(progress))

    def _features(self, build_ids: list[BuildId], progress: Progress) -> dict[Feature, bytes]:
        assert self._counters is not None
        ours = {
            "version": 1,
            "boot_id": facts.boot_id(),
            "started": self._started_at,
            "ended": time.time(),
            # the same by the clock that perf's own follows
            "raw": [self._enabled, time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)],
            "host": self.options.host,
            "guest": self.options.guest,
            "command": self.options.command,
            "notices": self._counters.notices,
            "machines": self.options.machines,
            "symbols": self.options.symbols,
            "progress": asdict(progress),
        }
        return facts.of_machine() | facts.of_recording(
            self.options.cmdline,
            self._counters.written(),
            self._counters.group_desc(),
            build_ids,
            ours,
        )


def _process_of(tid: int) -> int:
    """The process that a thread belongs to; itself where that cannot be seen."""
    try:
        with open(f"/proc/{tid}/status", errors="replace") as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))
    except (OSError, StopIteration):
        return tid


def _ending_signals() -> int:
    """A descriptor that becomes readable when somebody asks this process to end."""
    readable, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written)
    for deadly in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(deadly, lambda _number, _frame: None)
    return readable


def main() -> None:
    """Entry of the recording process."""
    # Ctrl-C in a terminal or notebook is the parent's to turn into a clean stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):  # nothing follows until "started" was said
        heard = os.read(_STDIN, 1 << 16)
        if not heard:
            return
        line += heard
    told = json.loads(line)
    talk = Talk(_STDOUT)
    Child(SamplerOptions.from_json(told["options"]), told["fds"], talk).run()
