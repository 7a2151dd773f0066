"""Stock Linux guests for tests: Debian's cloud kernels under QEMU's emulator, with a busybox.

A guest tells of itself over its serial lines only: messages on the first, files on the second.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUITES = {"bullseye": "5.10", "bookworm": "6.1", "trixie": "6.12"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvmperf-test-kernels"

_INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo 0 >/proc/sys/kernel/kptr_restrict
for module in /modules/*.ko; do insmod $module; done
stty -F /dev/ttyS1 raw
cat /proc/kallsyms | gzip -1 >/dev/ttyS1
echo "guest is ready: $(cat /proc/uptime)" >/dev/console
while read -r line </dev/console; do eval "$line"; done
"""


def available() -> list[str]:
    """The suites whose kernel is in the cache."""
    return [suite for suite in SUITES if (CACHE / suite / "complete").is_file()]


def initramfs(suite: str, folder: Path) -> Path:
    """A cpio archive (newc) with busybox, an init and the modules."""
    files: dict[str, tuple[int, bytes]] = {
        "dev": (0o40755, b""),
        "proc": (0o40755, b""),
        "sys": (0o40755, b""),
        "bin": (0o40755, b""),
        "modules": (0o40755, b""),
        "init": (0o100755, _INIT.encode()),
        "bin/busybox": (0o100755, Path(str(shutil.which("busybox"))).read_bytes()),
    }
    for name in "sh mount echo insmod stty cat gzip reboot sleep grep sed yes".split():
        files[f"bin/{name}"] = (0o120777, b"busybox")
    for module in sorted((CACHE / suite).glob("*.ko")):
        files[f"modules/{module.name}"] = (0o100644, module.read_bytes())
    out = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        numbers = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % value for value in numbers) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    path = folder / f"{suite}.cpio"
    path.write_bytes(out)
    return path
