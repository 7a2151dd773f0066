"""Every error this project raises on purpose.

A message says what was met, where, what was expected and what to do about it: the last part
is `hint`, kept apart so that a magic can print it on a line of its own.
"""

from __future__ import annotations

from pathlib import Path


def one_line(text: str) -> str:
    """A line that says nothing to a terminal but itself: names in it are others' words. What
    steers, breaks the line or turns it round becomes U+FFFD."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


class KvmperfError(Exception):
    """The base of all: `str()` is one readable line, `hint` what mends it (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = one_line(message), one_line(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class FileError(KvmperfError):
    """A file that is damaged, of another kind, or not there."""

    def __init__(
        self, path: str | Path, message: str, *, offset: int | None = None, hint: str = ""
    ) -> None:
        where = f"{path}" if offset is None else f"{path}, offset {offset:#x}"
        super().__init__(f"{where}: {message}", hint)
        self.path = str(path)
        self.offset = offset


class NotPermittedError(KvmperfError):
    """The kernel refuses: capability, perf_event_paranoid, file mode, ptrace."""


class NoKvmError(KvmperfError):
    """There is no /dev/kvm, or it cannot run a guest."""


class NoPmuError(KvmperfError):
    """The event needs hardware that this machine (or its vPMU owner) does not give."""


class EventError(KvmperfError):
    """An event name that is not understood or not known here."""


class TargetError(KvmperfError):
    """No such VM, process, thread or CPU."""


class SamplerError(KvmperfError):
    """The recording process could not start, or died."""


class SymbolError(KvmperfError):
    """A symbol source that was named and cannot be used."""


class QueryError(KvmperfError):
    """A report, filter or diff asked for something that does not exist."""


class LibraryError(KvmperfError):
    """A library that only some people need is not installed."""


def missing(library: str, extra: str) -> LibraryError:
    """The error for a library of the extra of this name."""
    return LibraryError(f"{library} is not installed", f'pip install "kvmperf_magic[{extra}]"')
