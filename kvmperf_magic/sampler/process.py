"""The recording process as its parent sees it: started, watched, stopped, never left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvmperf_magic import errors
from kvmperf_magic.errors import KvmperfError, SamplerError
from kvmperf_magic.sampler.options import SamplerOptions

_STOP_SECONDS = 30.0  # a full disk or a slow one may take its time; then it is killed
_PIPE_SIZE = 1 << 20
# the standard library and this package are all it needs: -I -S keeps site-packages, PYTHON*
# variables and the current folder out, and starts fast
_RUN = (
    "import sys; sys.path.append(sys.argv[1]); from kvmperf_magic.sampler.child import main; main()"
)


@dataclass(frozen=True)
class Stats:
    """How a recording goes. `elapsed` in seconds, `bytes` written so far.

    `samples` is an estimate (nothing is decoded while recording); `lost` records found no room in
    the rings, `throttled` counts how often the kernel held an event back, `dropped` are bytes of a
    stream that its reader was too slow for.
    """

    elapsed: float = 0.0
    bytes: int = 0
    samples: int = 0
    lost: int = 0
    throttled: int = 0
    dropped: int = 0


_STAT_NAMES = {f.name for f in fields(Stats)}


@dataclass
class _Heard:
    """What the child has said until now; the reading thread fills it in."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    notices: list[str] = field(default_factory=list)
    stats: Stats = Stats()
    started: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None
    error: KvmperfError | None = None
    over: bool = False
    closed: bool = False

    def take(self, told: dict[str, Any]) -> None:
        event = told.pop("event")
        with self.changed:
            if event == "notice":
                self.notices.append(told["text"])
            elif event == "started":
                self.started = told
            elif event == "error":
                self.error = _carried(told)
            elif event == "over":
                self.over = True
            if event == "end":
                self.ended = told
            if event in {"status", "end"}:
                self.stats = Stats(**{k: v for k, v in told.items() if k in _STAT_NAMES})
            self.changed.notify_all()


class SamplerProcess:
    """A recording under way in a process of its own.

    `messages` are one-line notices ("cycles is not available here: using cpu-clock"); `stream` is
    the descriptor to read from where the options name no output, else None. As a context manager
    it stops at the end of the block. The process ends with its parent, and with this object.
    """

    def __init__(self, options: SamplerOptions) -> None:
        self.options = options
        self.stream: int | None = None
        self._heard = _Heard()
        self._open: set[int] = set()
        self.began = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)  # before the first sample
        self._child = self._spawn()
        self._finalizer = weakref.finalize(self, _end, self._child, self._open)
        reader = threading.Thread(
            target=_read, args=(self._child, self._heard), name="kvmperf-sampler", daemon=True
        )
        reader.start()
        self._reader = reader

    @classmethod
    def start(cls, options: SamplerOptions) -> Self:
        """Start, and come back when it records.

        Raises what the child met: NotPermittedError, NoPmuError, EventError, TargetError,
        FileError, SamplerError.
        """
        process = cls(options)
        heard = process._heard
        try:
            with heard.changed:
                heard.changed.wait_for(lambda: heard.started or heard.error or heard.closed)
            if heard.started is None:
                process.wait()
        except BaseException:
            process._kill()
            raise
        return process

    def _spawn(self) -> subprocess.Popen[bytes]:
        mine: list[int] = []  # descriptors that only the child needs
        fds = {"parent": os.getpid()}
        try:
            if self.options.output is None:
                self.stream, fds["stream"] = os.pipe()
                self._open.add(self.stream)
                mine.append(fds["stream"])
                with contextlib.suppress(OSError):  # over the user's limit: it stays small
                    fcntl.fcntl(self.stream, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            for name, fd in (("stdout", 1), ("stderr", 2)) if self.options.command else ():
                with contextlib.suppress(OSError):  # closed here: the command gets /dev/null
                    fds[name] = os.dup(fd)
                    mine.append(fds[name])
            self._attachments = os.memfd_create("kvmperf-attachments")
            self._open.add(self._attachments)
            fds["attachments"] = os.dup(self._attachments)
            mine.append(fds["attachments"])
            self._complaints = os.memfd_create("kvmperf-sampler-stderr")
            self._open.add(self._complaints)
            child = subprocess.Popen(
                [
                    sys.executable or "python3",
                    *("-I", "-S", "-c", _RUN),
                    str(Path(errors.__file__).resolve().parents[1]),
                    "kvmperf-sampler",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                pass_fds=mine,
                start_new_session=True,
            )
        except OSError as error:
            _close(self._open)
            raise SamplerError(f"the recording process cannot start: {error}") from None
        finally:
            for fd in mine:
                os.close(fd)
        assert child.stdin is not None
        line = json.dumps({"options": self.options.to_json(), "fds": fds}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # it died at once: the reader will say so
            child.stdin.write(line)
            child.stdin.flush()
        return child

    @property
    def messages(self) -> list[str]:
        """One-line notices so far."""
        with self._heard.changed:
            return list(self._heard.notices)

    @property
    def events(self) -> list[str]:
        """The names of the events that are sampled, after fallbacks."""
        return list((self._heard.started or {}).get("events", []))

    @property
    def inode(self) -> int:
        """Of the file that it writes, whatever that is called by now; 0 of a stream."""
        return int((self._heard.started or {}).get("inode", 0))

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def command_status(self) -> int | None:
        """How the command ended (negative: the signal); None before the end or without one."""
        return (self._heard.ended or {}).get("status")

    def stats(self) -> Stats:
        """The last that the recording process told, at most half a second old."""
        with self._heard.changed:
            return self._heard.stats

    def running(self, timeout: float = 0) -> bool:
        """Whether it still records, waiting for its end so many seconds at most."""
        heard = self._heard
        with heard.changed:
            return not heard.changed.wait_for(lambda: heard.over or heard.closed, timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended within `timeout` seconds (None: wait as long as it takes).

        Raises the error that ended it: a full disk is a FileError, a killed process a
        SamplerError that says what is kept.
        """
        with self._heard.changed:
            if not self._heard.changed.wait_for(lambda: self._heard.closed, timeout):
                return False
        self._reap()
        if self._heard.error is not None:
            raise self._heard.error
        if self._heard.ended is None:
            raise self._death()
        return True

    def enough(self) -> None:
        """Sample no more; what `linger`s can still be attached to."""
        self._tell(b"enough\n")

    def stop(self) -> Stats:
        """End it, wait until the file is whole, give the last stats. Raises as wait()."""
        self._tell(b"stop\n")
        try:
            if not self.wait(_STOP_SECONDS):
                self._kill()
                raise SamplerError(
                    f"the recording process did not end in {_STOP_SECONDS:.0f} s and was killed",
                    self._kept(),
                )
        except KeyboardInterrupt:
            self._kill()
            raise
        return self._heard.stats

    def attach(self, magic: bytes, packed: bytes) -> None:
        """Keep a note about a guest with the recording: it is among its records from now on."""
        if self._attachments not in self._open:  # it has ended
            return
        os.write(self._attachments, len(packed).to_bytes(8, "little") + magic + packed)
        self._tell(b"attached\n")

    def _tell(self, line: bytes) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            stdin.write(line)
            stdin.flush()

    def _kill(self) -> None:
        self._child.kill()
        self._reap()

    def _reap(self) -> None:
        self._child.wait()
        self._reader.join()
        if self._complaints in self._open:
            self._said = os.pread(self._complaints, 1 << 16, 0).decode(errors="replace").strip()
        if self.stream is None:
            self._finalizer()

    def _death(self) -> SamplerError:
        code = self._child.returncode
        after = f"after {self._heard.stats.elapsed:.1f} s"
        if code < 0:
            name = signal.Signals(-code).name
            return SamplerError(f"the recording process was killed ({name}) {after}", self._kept())
        last = self._said.splitlines()[-1] if self._said else f"exit status {code}"
        return SamplerError(f"the recording process failed {after}: {last}", self._kept())

    def _kept(self) -> str:
        output = self.options.output
        if output is None or self._heard.started is None:
            return ""
        return f"{output} keeps what came until the last flush: {self._heard.stats.bytes:,} bytes"

    def close(self) -> None:
        """Kill it if it still runs, and close `stream`."""
        self._finalizer()
        self.stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.running() or self.options.linger:
                self.stop()
        finally:
            self.close()


def _read(child: subprocess.Popen[bytes], heard: _Heard) -> None:
    """The reading thread: until the child closes its end by ending."""
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            if line.endswith(b"\n"):  # a killed child may leave half a line
                heard.take(json.loads(line))
    with heard.changed:
        heard.closed = True
        heard.changed.notify_all()


def _end(child: subprocess.Popen[bytes], open_fds: set[int]) -> None:
    """Whatever happened before: no process and no descriptor is left."""
    if child.poll() is None:
        child.kill()
        child.wait()
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    _close(open_fds)


def _close(fds: set[int]) -> None:
    while fds:
        os.close(fds.pop())


def _carried(told: dict[str, Any]) -> KvmperfError:
    """An error of the child as the same error here."""
    kind = getattr(errors, told["kind"], SamplerError)
    error: KvmperfError = kind.__new__(kind)
    KvmperfError.__init__(error, told["message"], told["hint"])
    if told["path"] is not None:
        error.__dict__.update(path=told["path"], offset=None)
    return error
