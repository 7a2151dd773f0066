"""What a user may say about where symbols come from, in one value that can be handed around."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

from kvmperf_magic.errors import QueryError, SymbolError
from kvmperf_magic.symbols.debuginfod import Debuginfod

PathLike: TypeAlias = "str | Path"

_FILES = ("kallsyms", "vmlinux", "guest_kallsyms", "guest_modules", "guest_vmlinux")
_FOLDERS = ("symfs", "guest_mount")
# what a recording says of its symbols' files counts for a side of which nothing else is said
_SIDES = (
    ("kallsyms", "vmlinux", "symfs"),
    (*_FILES[2:], "guest_mount", "guest_elf", "guest_symbols"),
)


@dataclass(frozen=True)
class SymbolOptions:
    """Named symbol sources. A named file that is not there is an error, never passed over.

    Attributes:
        kallsyms: a copy of the host's /proc/kallsyms, or a System.map.
        vmlinux: the host kernel's ELF file with symbols.
        symfs: a folder in which the paths of user binaries are looked up, instead of `/`.
        guest_kallsyms: a copy of the guests' /proc/kallsyms.
        guest_modules: a copy of the guests' /proc/modules.
        guest_vmlinux: the guests' kernel as an ELF file with symbols.
        guest_mount: a folder as `perf kvm --guestmount` has it: DIR/PID/proc/kallsyms.
        guest_elf: an ELF file that runs in the guests' user mode, or one for each VM by its
            name or pid.
        guest_symbols: "host" where the guests run the host's own kernel image; "none" where
            their memory is not to be looked into.
        debuginfod: whether servers are asked for what is not here: True are those that
            DEBUGINFOD_URLS names, else an URL or several. They learn the build-ids of what ran.
        demangle: whether C++ and Rust names are shown as they are written in the source.
        unwind: whether stacks that were copied are unwound, which needs the files that ran.
    """

    kallsyms: PathLike | None = None
    vmlinux: PathLike | None = None
    symfs: PathLike | None = None
    guest_kallsyms: PathLike | None = None
    guest_modules: PathLike | None = None
    guest_vmlinux: PathLike | None = None
    guest_mount: PathLike | None = None
    guest_elf: PathLike | Mapping[str | int, PathLike] | None = None
    guest_symbols: str | None = None
    debuginfod: bool | str | Sequence[str] = False
    demangle: bool = True
    unwind: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Of keyword arguments; an unknown one is a QueryError that names those there are."""
        known = cls.__dataclass_fields__
        for name in options:
            if name not in known:
                raise QueryError(f"no symbol option {name!r}", f"there are: {', '.join(known)}")
        return cls(**options)

    def check(self) -> None:
        """Raise `SymbolError` for a named file or folder that cannot be read."""
        if self.guest_symbols not in {None, "host", "none"}:
            raise SymbolError(
                f"guest_symbols is {self.guest_symbols!r}", "it is 'host', 'none' or not given"
            )
        for name in _FILES:
            named = getattr(self, name)
            if named is not None:
                _readable(name, named)
        for name in _FOLDERS:
            named = getattr(self, name)
            if named is not None and not _path(name, named).is_dir():
                raise SymbolError(f"{name}: there is no folder {named}")
        Debuginfod.of(self.debuginfod)
        for elf in self.guest_elfs().values():
            _readable("guest_elf", elf)

    def to_json(self) -> dict[str, Any]:
        """Which files and folders these are, for a recording to remember."""
        found: dict[str, Any] = {
            name: str(Path(named).absolute())
            for name in (*_FILES, *_FOLDERS)
            if (named := getattr(self, name)) is not None
        }
        if elfs := self.guest_elfs():
            found["guest_elf"] = {vm: str(Path(elf).absolute()) for vm, elf in elfs.items()}
        if self.guest_symbols is not None:
            found["guest_symbols"] = self.guest_symbols
        return found

    def remembered(self, told: object) -> Self:
        """These, and of a side, host or guest, of which they name nothing what `to_json()` told a
        recording, as far as it still is here. `told` may be anything: it comes from a file."""
        if not isinstance(told, dict):
            return self
        sound = {name: value for name, value in told.items() if _is_here(name, value)}
        if "guest_elf" in sound:
            sound["guest_elf"] = sound["guest_elf"].get("", sound["guest_elf"])
        for side in _SIDES:
            if any(getattr(self, name) is not None for name in side):
                sound = {name: value for name, value in sound.items() if name not in side}
        return replace(self, **sound)

    def guest_elfs(self) -> dict[str, PathLike]:
        """The guest ELF files by VM name or pid as strings; "" stands for every VM."""
        if self.guest_elf is None:
            return {}
        if isinstance(self.guest_elf, Mapping):
            return {str(vm): path for vm, path in self.guest_elf.items()}
        return {"": self.guest_elf}


def _is_here(name: object, value: object) -> bool:
    """Whether a recording tells something that can be used."""
    if name == "guest_elf":
        return isinstance(value, dict) and all(_is_file(path) for path in value.values())
    if name == "guest_symbols":
        return value in ("host", "none")
    if name in _FOLDERS:
        return isinstance(value, str) and _holds(Path(value).is_dir)
    return name in _FILES and _is_file(value)


def _is_file(path: object) -> bool:
    return isinstance(path, str) and _holds(Path(path).is_file) and os.access(path, os.R_OK)


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError):  # a name too long, or one that cannot be
        return False


def _path(name: str, named: object) -> Path:
    if not isinstance(named, str | os.PathLike):
        raise SymbolError(f"{name} is {named!r}", "a path")
    return Path(named)


def _readable(name: str, named: object) -> None:
    path = _path(name, named)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise SymbolError(f"{name}: cannot read {path}: {error.strerror}") from None
