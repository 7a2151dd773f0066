"""What a VMM's command line tells of its VM: QEMU (and libvirt's), Firecracker, and others."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d{1,18})\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_MOST_VCPUS = 4096  # KVM_MAX_VCPUS: who says more says nothing
_PYTHON = re.compile(r"python[\d.]*")


@dataclass(frozen=True)
class Description:
    """`name` and `accel` are "" and `memory` is None where the command line does not say."""

    vmm: str
    name: str = ""
    accel: str = ""
    memory: int | None = None
    vcpus: int = 0


def describe(command: Sequence[str], comm: str) -> Description:
    """`command` is the argument list, `comm` the process's own name."""
    program = PurePath(command[0]).name if command else comm
    if program.startswith("qemu-system-") or program in ("qemu-kvm", "kvm"):
        return _qemu(program, command)
    if program.startswith("firecracker"):
        return Description("firecracker", _option(command, "--id"), "kvm")
    if program.startswith("cloud-hypervisor"):
        socket = properties(_option(command, "--api-socket"), "path").get("path", "")
        memory = properties(_option(command, "--memory"), "size").get("size", "")
        cpus = properties(_option(command, "--cpus"), "boot").get("boot", "")
        return Description(
            "cloud-hypervisor", PurePath(socket).stem, "kvm", size(memory, "b"), _count(cpus)
        )
    if program.startswith("crosvm"):
        memory = properties(_option(command, "-m", "--mem"), "size").get("size", "")
        cpus = properties(_option(command, "-c", "--cpus"), "num-cores").get("num-cores", "")
        name = _option(command, "--name")
        return Description("crosvm", name, "kvm", size(memory, "m"), _count(cpus))
    if program.startswith("lkvm"):
        return Description(
            "kvmtool",
            _option(command, "--name", "-n"),
            "kvm",
            size(_option(command, "-m", "--mem"), "m"),
            _count(_option(command, "-c", "--cpus")),
        )
    return Description(_program(program, command), _option(command, "--name", "--id") or comm)


def known_vmm(command: Sequence[str], comm: str) -> bool:
    """Whether the program is a VMM by its name: all that can be told of another user's process."""
    vmm = describe(command, comm).vmm
    return vmm in ("qemu", "firecracker", "cloud-hypervisor", "crosvm", "kvmtool")


def size(text: str, unit: str) -> int | None:
    """`512`, `2G`, `2048k`, `1GiB` in bytes; `unit` is meant where none is written."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return None
    return int(found[1]) << _UNITS[(found[2] or unit).lower()]


def _qemu(program: str, command: Sequence[str]) -> Description:
    """qemu-options.hx; an option has one dash or two, a comma in a value is doubled."""
    name = properties(_option(command, "-name", "--name"), "guest").get("guest", "")
    memory = properties(_option(command, "-m", "--m"), "size").get("size", "")
    cpus = properties(_option(command, "-smp", "--smp"), "cpus").get("cpus", "1")
    accels = [properties(value, "accel").get("accel", "") for value in options(command, "-accel")]
    for value in (*options(command, "-machine"), *options(command, "-M")):
        accels += properties(value, "type").get("accel", "").split(":")
    if "-enable-kvm" in command or "--enable-kvm" in command or program in ("qemu-kvm", "kvm"):
        accels.append("kvm")
    accel = next((a for a in accels if a), "tcg")
    return Description("qemu", name, accel, size(memory, "m"), _count(cpus))


def _program(program: str, command: Sequence[str]) -> str:
    """The program's name; of a Python program its module or script."""
    if not _PYTHON.fullmatch(program):
        return program
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "-m":
            return next(arguments, program)
        if argument == "-c":
            return program
        if argument in ("-W", "-X"):  # these have a value
            next(arguments, None)
        elif not argument.startswith("-"):
            return PurePath(argument).name
    return program


def _option(command: Sequence[str], *names: str) -> str:
    return next((value for name in names for value in options(command, name)), "")


def options(command: Sequence[str], name: str) -> list[str]:
    """The values of an option written `-name value`, `--name value` or `--name=value`."""
    spelled = {name, f"-{name}"} if not name.startswith("--") and len(name) > 2 else {name}
    values = [v for part, v in pairwise(command) if part in spelled]
    return values + [
        part.partition("=")[2]
        for part in command[1:]
        if part.startswith("--") and part.partition("=")[0] in spelled and "=" in part
    ]


def properties(value: str, first: str) -> dict[str, str]:
    """`guest=a,debug-threads=on` as a dict; a bare first part is the value of `first`."""
    parts = value.replace(",,", "\0").split(",")
    found = {}
    for i, part in enumerate(parts):
        key, equals, text = part.partition("=")
        if equals:
            found[key] = text.replace("\0", ",")
        elif i == 0 and part:
            found[first] = part.replace("\0", ",")
    return found


def _count(text: str) -> int:
    count = int(text) if text.isdecimal() and len(text) < 8 else 0
    return count if count <= _MOST_VCPUS else 0


def told(value: str, first: str) -> dict[str, str]:
    """An option's properties, written `a,b=c` or, as libvirt does, as JSON."""
    if not value.startswith("{"):
        return properties(value, first)
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(text) for key, text in found.items()}
