"""A command that waits, forked and ready, until the counters are open."""

from __future__ import annotations

import contextlib
import ctypes as ct
import errno
import os
import select
import signal
import struct

from kvmperf_magic.errors import NotPermittedError, TargetError

_PR_SET_PDEATHSIG = 1


class Workload:
    """One command. It does not outlive the sampler: that is asked of the kernel.

    `stdout` and `stderr` are the descriptors the command gets, None for /dev/null.
    """

    def __init__(self, command: list[str], stdout: int | None, stderr: int | None) -> None:
        self.command = command
        self.status: int | None = None
        go_read, self._go = os.pipe()
        self._failed, failed_write = os.pipe()
        sampler = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(go_read, failed_write, stdout, stderr, sampler)
        os.close(go_read)
        os.close(failed_write)
        self.pidfd = os.pidfd_open(self.pid)

    def _become(
        self, go: int, failed: int, stdout: int | None, stderr: int | None, sampler: int
    ) -> None:
        """In the child: wait for the word, then be the command. Never returns."""
        try:
            os.setsid()
            ct.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != sampler:
                os._exit(1)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null if stdout is None else stdout, 1)
            os.dup2(null if stderr is None else stderr, 2)
            os.close(self._go)
            for ours in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
                signal.signal(ours, signal.SIG_DFL)
            if os.read(go, 1):
                os.execvp(self.command[0], self.command)
        except OSError as error:
            os.write(failed, struct.pack("<i", error.errno or errno.EIO))
        finally:
            os._exit(127)

    def start(self) -> None:
        """Let it run. Raises TargetError or NotPermittedError where it cannot be executed."""
        os.write(self._go, b"g")
        os.close(self._go)
        self._go = -1
        failure = os.read(self._failed, 4)
        if len(failure) == 4:
            code = struct.unpack("<i", failure)[0]
            what = f"cannot run {self.command[0]!r}: {os.strerror(code)}"
            if code == errno.EACCES:
                raise NotPermittedError(what, "is it there, and executable for this user?")
            raise TargetError(what, "give a command that is on the PATH")

    def end(self) -> int | None:
        """Its exit status (negative: the signal); what still runs of it is ended."""
        if self._go >= 0:  # never told to start: the end of this pipe ends it
            os.close(self._go)
            self._go = -1
        for deadly in (signal.SIGTERM, signal.SIGKILL):
            if self.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, deadly)
                self.reap(timeout=2.0)
        for fd in (self._failed, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self._failed = self.pidfd = -1
        return self.status

    def reap(self, timeout: float = 0) -> bool:
        """Whether it has ended, waiting so many seconds at most."""
        if self.status is None and select.select([self.pidfd], [], [], timeout)[0]:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status is not None
