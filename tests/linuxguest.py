"""Stock Linux guests for tests: Debian's cloud kernels under QEMU's emulator, with a busybox.

A guest tells of itself over its serial lines only: messages on the first, files on the second.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvmperf_magic.symbols.kallsyms import Listing

SUITES = {"bullseye": "5.10", "bookworm": "6.1", "trixie": "6.12"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvmperf-test-kernels"

_INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo 0 >/proc/sys/kernel/kptr_restrict
echo "text: $(grep -m 1 ' _text$' /proc/kallsyms)" >/dev/console
for module in /modules/*.ko; do insmod $module; done
stty -F /dev/ttyS1 raw
gzip -1 </proc/kallsyms >/dev/ttyS1
echo "modules: $(cat /proc/modules) modules end" >/dev/console
/ticker &
echo "ticker: $!" >/dev/console
echo "guest is ready: $(cat /proc/uptime)" >/dev/console
while sleep 1000; do :; done
"""
_TICKER = """#!/bin/sh
while sleep 0.3; do
  i=0
  while [ $i -lt 2000 ]; do i=$((i + 1)); done
done
"""


def available() -> bool:
    """Whether all that the guests are made of is here."""
    programs = shutil.which("qemu-system-x86_64") and shutil.which("busybox")
    return bool(programs) and all((CACHE / suite / "complete").is_file() for suite in SUITES)


def initramfs(suite: str, folder: Path) -> Path:
    """A cpio archive (newc) with busybox, an init and the modules."""
    files: dict[str, tuple[int, bytes]] = {
        "dev": (0o40755, b""),
        "proc": (0o40755, b""),
        "sys": (0o40755, b""),
        "bin": (0o40755, b""),
        "modules": (0o40755, b""),
        "init": (0o100755, _INIT.encode()),
        "ticker": (0o100755, _TICKER.encode()),
        "bin/busybox": (0o100755, Path(str(shutil.which("busybox"))).read_bytes()),
    }
    for name in ("sh", "mount", "echo", "insmod", "stty", "cat", "gzip", "grep", "sleep"):
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


@dataclass
class LinuxGuest:
    """A guest that boots, and what it says of itself."""

    suite: str
    process: subprocess.Popen[bytes]
    folder: Path
    memory: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def release(self) -> str:
        return (CACHE / self.suite / "complete").read_text().strip()

    def wait(self, line: str = "guest is ready", times: int = 1, seconds: float = 90.0) -> None:
        """Until its console has shown this so many times."""
        end = time.monotonic() + seconds
        while self.console().count(line) < times:
            assert self.process.poll() is None, (self.folder / "qemu.err").read_text()
            assert time.monotonic() < end, f"{self.suite} does not boot: {self.console()}"
            time.sleep(0.05)

    def ticker(self) -> int:
        """The number of the process that computes a little every now and then."""
        return int(self.console().rpartition("ticker: ")[2].split()[0])

    def text(self) -> int:
        """Where its kernel's `_text` is, as it said it last."""
        return int(self.console().rpartition("text: ")[2].split()[0], 16)

    def console(self) -> str:
        path = self.folder / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def kallsyms(self) -> bytes:
        """Its /proc/kallsyms, of its last boot."""
        sent, text = (self.folder / "files").read_bytes(), b""
        while sent:
            unpacker = zlib.decompressobj(wbits=31)
            text = unpacker.decompress(sent)
            sent = unpacker.unused_data
        return text

    def modules(self) -> str:
        """Its /proc/modules."""
        return self.console().rpartition("modules:")[2].partition("modules end")[0]

    def uptime(self) -> float:
        """Seconds from its boot to its being ready, as it said it last."""
        return float(self.console().rpartition("guest is ready: ")[2].split()[0])

    def qmp(self, command: str) -> Any:
        """One command of QEMU's monitor."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / "qmp"))
            lines = monitor.makefile("rwb")
            answer: dict[str, Any] = json.loads(lines.readline())
            for execute in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": execute}).encode() + b"\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    assert "error" not in answer, answer  # events come in between
            return answer["return"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def boot(suite: str, folder: Path, memory: int, *more: str, cpu: str = "max") -> LinuxGuest:
    """Start a guest of so many MiB with two CPUs; `more` are options of QEMU's."""
    folder.mkdir(parents=True, exist_ok=True)
    system = [
        *("-kernel", str(CACHE / suite / "vmlinuz"), "-initrd", str(initramfs(suite, folder))),
        *("-append", "console=ttyS0 quiet panic=-1 no_timer_check told=outside"),
        *("-chardev", f"file,id=console,path={folder / 'console'}", "-serial", "chardev:console"),
        *("-chardev", f"file,id=files,path={folder / 'files'}", "-serial", "chardev:files"),
    ]
    return LinuxGuest(suite, _qemu(folder, memory, cpu, *system, *more), folder, memory << 20)


def boot_nothing(folder: Path, memory: int, *more: str) -> LinuxGuest:
    """Start a VM without a system: its firmware looks for one."""
    folder.mkdir(parents=True, exist_ok=True)
    # SeaBIOS says what it does to whoever listens at this port
    console = ("-chardev", f"file,id=console,path={folder / 'console'}")
    console += ("-device", "isa-debugcon,iobase=0x402,chardev=console")
    return LinuxGuest("", _qemu(folder, memory, "max", *console, *more), folder, memory << 20)


def _qemu(folder: Path, memory: int, cpu: str, *more: str) -> subprocess.Popen[bytes]:
    command = [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-smp", "2", "-m", str(memory)),
        *("-name", f"guest={folder.name},debug-threads=on"),
        *("-display", "none", "-nodefaults", "-no-user-config"),
        *("-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"),
        *more,
    ]
    with (folder / "qemu.err").open("wb") as errors:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=subprocess.STDOUT
        )


def lines(listing: Listing) -> list[str]:
    """Symbols as /proc/kallsyms prints them."""
    names = [
        listing.strings[at : at + length].decode()
        for at, length in zip(listing.name_at.tolist(), listing.name_length.tolist(), strict=True)
    ]
    modules = [f"\t[{module}]" if module else "" for module in listing.modules.values()]
    columns = zip(listing.address.tolist(), listing.types.tolist(), names, modules, strict=True)
    return [f"{at:016x} {chr(kind)} {name}{module}" for at, kind, name, module in columns]


@contextmanager
def running(*guests: LinuxGuest) -> Iterator[None]:
    """All of them up, and gone at the end."""
    try:
        for guest in guests:
            guest.wait()
        yield
    finally:
        for guest in guests:
            guest.stop()
