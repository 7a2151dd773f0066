"""The live view in a terminal and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from guest import running_guest
from test_live import samplers, until

from kvmperf_magic import demo

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.alone]
ROWS, COLUMNS = 24, 120
_SIZES = ("COLUMNS", "LINES")
SEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
TOP = [sys.executable, "-m", "kvmperf_magic", "top", "-F", "1000", "-d", "0.3"]


class Terminal:
    """A command in a terminal of 24 rows, and what it has written."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            # not execv(): readline puts the size of its own terminal where os.environ does not see
            named = {name: os.environ[name] for name in os.environ if name not in _SIZES}
            paths = os.pathsep.join(sys.path)
            os.execve(command[0], command, {**named, "TERM": "xterm-256color", "PYTHONPATH": paths})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.written = ""
        self.status: int | None = None

    def read(self) -> bool:
        """What came until now; whether there can be more."""
        while select.select([self._fd], [], [], 0.05)[0]:
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                if self.status is None:
                    self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                return False
            self.written += data.decode(errors="replace")
        return True

    def shows(self, words: str) -> bool:
        self.read()
        return words in SEEN.sub("", self.written)

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextmanager
def terminal(command: list[str]) -> Iterator[Terminal]:
    made = Terminal(command)
    try:
        yield made
    finally:
        made.close()


def test_ctrl_c_leaves_the_last_view_and_no_process() -> None:
    with running_guest(1, "web1", phase="search"):
        command = [*TOP, "--guest-elf", demo.guest_elf(), "--filter", "^(ext3|bitmap)_"]
        with terminal(command) as shown:
            until(lambda: shown.shows("bitmap_search_next_usable_block"), 60)
            (recorder,) = samplers(shown.pid)
            shown.read()
            pressed = time.monotonic()
            shown.press(b"\x03")
            until(lambda: not shown.read(), 5)
            assert time.monotonic() - pressed < 3
            assert shown.status == 0
            assert recorder not in samplers(shown.pid)
    assert "Traceback" not in shown.written
    assert "\x1b[?1049h" not in shown.written  # of another screen nothing would be left
    text = SEEN.sub("", shown.written)
    last = text[text.rindex("PerfTop:") :].splitlines()
    assert len(last) < ROWS
    assert re.search(r"all +host [\d.]+ % .*web1 [\d.]+ %", last[1])
    assert "stopped" in "".join(last[:8])
    (row, *_) = [line for line in last if "ext3_test_allocatable" in line]
    assert re.search(r"\d+\.\d\d  [█▏▎▍▌▋▊▉]+ .*[▁▂▃▄▅▆▇█]+ +[\d]+  ext3_test", row)
    assert row.split()[-2:] == ["guest-user", "web1"]
    assert shown.written.endswith("\x1b[?25h") or "\x1b[?25h" in shown.written[-40:]


def piped(*more: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": paths}
    pipe = subprocess.PIPE
    return subprocess.Popen([*TOP, *more], stdout=pipe, stderr=pipe, text=True, env=environment)


def test_a_pipe_gets_one_view_after_the_other() -> None:
    with piped("--duration", "3", "--host") as top:
        written, said = top.communicate(timeout=30)
    assert top.returncode == 0
    assert written.count("PerfTop:") >= 3
    assert written.count("stopped") == 1
    assert "\x1b" not in written
    assert said == ""


def test_a_pipe_that_nobody_reads_ends_it() -> None:
    with piped("--host") as top:
        assert top.stdout is not None
        assert top.stderr is not None
        while "PerfTop:" not in top.stdout.readline():
            pass
        top.stdout.close()
        assert top.wait(15) == 0
        assert top.stderr.read() == ""
