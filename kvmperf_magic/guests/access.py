"""The way to a VM's memory that is open to us: its VMM's process, else QEMU's monitor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kvmperf_magic.errors import KvmperfError, NotPermittedError
from kvmperf_magic.guests.commandline import options, properties, told
from kvmperf_magic.guests.memory import Access
from kvmperf_magic.guests.monitormemory import MonitorMemory
from kvmperf_magic.guests.vmmmemory import VmmMemory


def open_memory(pid: int, command: Sequence[str]) -> Access:
    """Of the VMM with this command line.

    Raises NotPermittedError where no way is open, and says what was tried; TargetError where the
    process has ended.
    """
    try:
        vmm = VmmMemory(pid)
        # more is needed to read than to list (Documentation/admin-guide/LSM/Yama.rst)
        vmm.read(vmm.mappings()[0].start, 1)
        return vmm
    except NotPermittedError as error:
        refused = error
    tried = []
    for path, is_its_own in monitors(command):
        try:
            return MonitorMemory(pid, path, pid if is_its_own else None)
        except KvmperfError as error:
            tried.append(error.message)
    if not tried:
        raise refused
    raise NotPermittedError("; ".join([refused.message, *tried]), refused.hint)


def monitors(command: Sequence[str]) -> list[tuple[Path, bool]]:
    """The sockets where QEMU with this command line speaks QMP, and whether it listens itself.

    What libvirt starts is handed a socket: it is in the folder that the guest's key lies in.
    """
    sockets, keys = {}, []
    for value in options(command, "-chardev"):
        given = told(value, "backend")
        if given.get("backend") == "socket" and "path" in given:
            sockets[given.get("id", "")] = given["path"]
    for value in options(command, "-object"):
        given = told(value, "qom-type")
        if given.get("qom-type") == "secret" and given.get("id") == "masterKey0":
            keys.append(PurePosixPath(given.get("file", "")))
    found = []
    for value in (*options(command, "-qmp"), *options(command, "-qmp-pretty")):
        kind, _, rest = value.partition(":")
        if kind == "unix":
            found.append(properties(rest, "path").get("path", ""))
        elif kind == "chardev":
            found.append(sockets.get(rest, ""))
    for value in options(command, "-mon"):
        given = told(value, "chardev")
        if given.get("mode") == "control":
            found.append(sockets.get(given.get("chardev", ""), ""))
    own = [(Path(path), True) for path in dict.fromkeys(found) if path.startswith("/")]
    theirs = [(Path(key.parent / "monitor.sock"), False) for key in keys if key.is_absolute()]
    return own + theirs
