"""QEMU's monitor as a program speaks to it: one JSON a line, both ways (docs/interop/qmp-spec.rst).

A socket has one client at a time: the others, libvirt among them, wait while we are connected.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvmperf_magic.errors import NotPermittedError, TargetError

_SECONDS = 3.0  # that a monitor may take for an answer; one that another client has gives none
_LONGEST = 16 << 20  # bytes of an answer
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Qmp:
    """One connection. Raises NotPermittedError where there can be none, TargetError where it ends
    or refuses a command."""

    def __init__(self, path: Path, pid: int | None) -> None:
        """`pid` is the process that has to be at the other end, None where that is not known."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_SECONDS)
        self._heard = bytearray()  # what came and is not looked at yet
        try:
            self._socket.connect(os.fspath(path))
            size = _CREDENTIALS.size
            told = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            if pid is not None and _CREDENTIALS.unpack(told)[0] != pid:
                raise NotPermittedError(f"the monitor {path} is another process's")
            self._answer("QMP")
            self.run("qmp_capabilities")
        except TimeoutError:
            self.close()
            raise NotPermittedError(
                f"the monitor {path} does not answer", "another program is connected to it"
            ) from None
        except OSError as error:
            self.close()
            raise NotPermittedError(f"the monitor {path}: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def run(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        descriptors: Sequence[int] = (),
    ) -> Any:
        """What the command returns; `descriptors` go along with it."""
        self._say([_line(command, arguments or {})], descriptors)
        return self._wait()

    def run_each(self, command: str, arguments: Sequence[dict[str, Any]]) -> None:
        """A command many times, one after the other without waiting in between."""
        self._say([_line(command, each) for each in arguments])
        for _ in arguments:
            self._wait()

    def close(self) -> None:
        self._socket.close()

    def _say(self, lines: Sequence[bytes], descriptors: Sequence[int] = ()) -> None:
        self._socket.settimeout(_SECONDS)
        try:
            if descriptors:
                socket.send_fds(self._socket, lines, list(descriptors))
            else:
                self._socket.sendall(b"".join(lines))
        except OSError as error:
            raise TargetError(f"the monitor {self._path}: {error}") from None

    def _wait(self) -> Any:
        try:
            return self._answer("return")
        except OSError as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise TargetError(f"the monitor {self._path}: {what}") from None

    def _answer(self, key: str) -> Any:
        """The next line that has this key; events come in between, but not for ever."""
        end = time.monotonic() + _SECONDS
        while True:
            line = self._next(end)
            if not line:
                raise TargetError(f"the monitor {self._path} was closed")
            if time.monotonic() > end:
                raise TimeoutError
            try:
                told = json.loads(line)
            except (ValueError, RecursionError):
                told = None
            if not isinstance(told, dict):
                raise TargetError(f"the monitor {self._path} speaks no QMP")
            if key in told:
                return told[key]
            if "error" in told:
                error = told["error"]
                said = error.get("desc", "") if isinstance(error, dict) else error
                raise TargetError(f"the monitor {self._path}: {said}")

    def _next(self, end: float) -> bytes:
        """The next line; b"" where there is none to come. TimeoutError where none has by `end`."""
        place = self._heard.find(b"\n")
        while place < 0:
            self._socket.settimeout(max(end - time.monotonic(), 1e-3))
            more = self._socket.recv(1 << 16)
            if not more or len(self._heard) > _LONGEST:
                return b""
            place = more.find(b"\n")
            place += len(self._heard) if place >= 0 else 0
            self._heard += more
            if place < 0 and time.monotonic() > end:
                raise TimeoutError
        line = bytes(self._heard[: place + 1])
        del self._heard[: place + 1]
        return line


def _line(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
