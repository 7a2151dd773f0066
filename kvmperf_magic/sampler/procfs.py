"""The sideband of what already runs: COMM, FORK and MMAP2 records made from /proc.

As tools/perf/util/synthetic-events.c: only executable maps, anonymous ones as //anon, time 0;
where stacks are to be unwound, the read-only maps of files too, as call frame information is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from kvmperf_magic.perfdata import records
from kvmperf_magic.perfdata.abi import MISC_KERNEL, MISC_MMAP_DATA, MISC_USER
from kvmperf_magic.perfdata.features import BuildId
from kvmperf_magic.sampler import buildids
from kvmperf_magic.sampler.sysfs import read_text
from kvmperf_magic.sampler.targets import threads_of

_MAP = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([rwxsp-]{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *([^\n]*)"
)
_MAP_SHARED, _MAP_PRIVATE = 1, 2


class Synthesizer:
    """Makes the records; `trailer` is what a sample_id of zeros is for the first event, `data`
    asks for maps of files that are not executable."""

    def __init__(self, trailer: bytes, *, data: bool = False) -> None:
        self.trailer = trailer
        self.data = data
        self.files = buildids.BuildIds()
        self._modules: list[tuple[str, bytes]] = []
        self._kernel_found = False
        self._own_root = _root_of(os.getpid())

    def everything(self) -> Iterator[bytes]:
        """Every process there is, each as one piece of whole records."""
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdecimal():
                yield self.process(int(name))

    def process(self, pid: int) -> bytes:
        """FORK and COMM of every thread and MMAP2 of the process; empty where it has gone."""
        parts: list[bytes] = []
        parent = _parent_of(pid)
        for tid in sorted(threads_of(pid), key=lambda tid: tid != pid):
            comm = read_text(f"/proc/{pid}/task/{tid}/comm")
            if comm is None:
                continue
            above = parent if tid == pid else pid
            parts.append(records.fork(pid, above, tid, above, trailer=self.trailer))
            parts.append(records.comm(pid, tid, comm, trailer=self.trailer))
            if tid == pid:
                parts += self._maps(pid)
        return b"".join(parts)

    def _maps(self, pid: int) -> Iterator[bytes]:
        try:
            text = Path(f"/proc/{pid}/maps").read_bytes()
        except OSError:
            return  # not ours to see, or gone
        elsewhere = _root_of(pid) != self._own_root
        for start, end, modes, pgoff, major, minor, inode, name in _MAP.findall(text):
            runs = modes[2:3] == b"x"
            if not runs and not (self.data and modes[0:1] == b"r" and name.startswith(b"/")):
                continue
            filename = os.fsdecode(name) if name else "//anon"
            if filename.startswith("[") and filename not in {"[vdso]", "[vsyscall]"}:
                filename = "//anon" if filename.startswith("[anon:") else filename
            yield records.mmap2(
                pid,
                pid,
                int(start, 16),
                int(end, 16) - int(start, 16),
                int(pgoff, 16),
                filename,
                major=int(major, 16),
                minor=int(minor, 16),
                inode=int(inode),
                build_id=self.files.of_map(pid, filename, own_root=elsewhere),
                prot=(modes[0:1] == b"r") | (modes[1:2] == b"w") << 1 | runs << 2,
                flags=_MAP_SHARED if modes[3:4] == b"s" else _MAP_PRIVATE,
                misc=MISC_USER | (0 if runs else MISC_MMAP_DATA),
                trailer=self.trailer,
            )

    def kernel(self) -> bytes:
        """The maps of the running kernel and its modules; empty where addresses are hidden."""
        text = kernel_text()
        if text is None:
            return b""
        self._kernel_found = True
        start, end, reference = text
        parts = [records.kernel_map(start, end - start, reference=reference, trailer=self.trailer)]
        for name, address, size in modules():
            self._modules.append((f"[{name}]", buildids.module(name)))
            parts.append(
                records.mmap(
                    -1, 0, address, size, 0, f"[{name}]", misc=MISC_KERNEL, trailer=self.trailer
                )
            )
        return b"".join(parts)

    def guest(self, pid: int) -> bytes:
        """A map of the guest kernel of this VMM, so that perf keeps the VMs apart.

        Where its text lies is not known here: a map of nothing at 0 means anywhere
        (tools/perf/util/machine.c: machine__set_kernel_mmap()). A wider one would hide the host's
        kernel from a perf that reads the file without --guest. No reference symbol is named, for
        perf would relocate by it.
        """
        return records.kernel_map(0, 0, machine_pid=pid, reference="", trailer=self.trailer)

    def build_ids(self) -> list[BuildId]:
        """The build-id table: the kernel, its modules, files that were mapped.

        No entry for guests, though perf would then make a machine for each: it would name their
        functions by the host's kallsyms and no longer heed --guestvmlinux or --guestkallsyms.
        """
        kernel = buildids.kernel() if self._kernel_found else b""
        found = [(MISC_KERNEL, "[kernel.kallsyms]", kernel)]
        found += [(MISC_KERNEL, name, id) for name, id in self._modules]
        found += [(MISC_USER, name, id) for name, id in self.files.found.items()]
        return [BuildId(-1, misc, id.hex(), name) for misc, name, id in found if id]


def kernel_text() -> tuple[int, int, str] | None:
    """Start, end and reference symbol of the running kernel's text by /proc/kallsyms.

    None where addresses are hidden (kptr_restrict). Read only as far as _etext.
    """
    found: dict[str, int] = {}
    rest = b""
    try:
        with Path("/proc/kallsyms").open("rb", buffering=0) as file:
            while "_etext" not in found and (block := file.read(1 << 20)):
                whole, newline, tail = (rest + block).rpartition(b"\n")
                whole += newline
                for name in ("_text", "_stext", "_etext"):
                    at = whole.find(f" {name}\n".encode())
                    if at >= 0:
                        found[name] = int(whole[whole.rfind(b"\n", 0, at) + 1 : at].split()[0], 16)
                rest = tail
    except OSError:
        return None
    reference = "_text" if "_text" in found else "_stext"
    start, end = found.get(reference, 0), found.get("_etext", 0)
    return (start, end, reference) if 0 < start < end else None


def modules() -> Iterator[tuple[str, int, int]]:
    """(name, address, size) of loaded modules; none whose address is hidden."""
    for line in (read_text("/proc/modules") or "").splitlines():
        fields = line.split()
        if len(fields) >= 6 and (address := int(fields[5], 16)):
            yield fields[0], address, int(fields[1])


def _parent_of(pid: int) -> int:
    status = read_text(f"/proc/{pid}/status") or ""
    met = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
    return int(met[1]) if met else 0


def _root_of(pid: int) -> str:
    """What tells apart processes that see different files under one name."""
    try:
        return f"{os.readlink(f'/proc/{pid}/ns/mnt')} {os.readlink(f'/proc/{pid}/root')}"  # noqa: PTH115
    except OSError:
        return ""
