"""Recordings made by perf, read back through `perf script`: records and perf's own names."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvmperf_magic.modes import HOST_KERNEL, HOST_USER
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Categorical, Table

_LINE = re.compile(r"^\s*(.*?)\s+(-?\d+)/(-?\d+)\s+(\d+)\.(\d{9}):\s+(.*)$")
_MMAP = re.compile(
    r"PERF_RECORD_MMAP2? (-?\d+)/(-?\d+): \[(0x[0-9a-f]+)\((0x[0-9a-f]+)\) @ (0x[0-9a-f]+|0)"
    r"(?: [0-9a-f]+:[0-9a-f]+ \d+ \d+| <[0-9a-f]+>)?\]: \S+ (.*)$"
)
_COMM = re.compile(r"PERF_RECORD_COMM( exec)?: .*:(\d+)/(\d+)$")
_FORK = re.compile(r"PERF_RECORD_FORK\((\d+):(\d+)\):\((\d+):(\d+)\)$")
_SAMPLE = re.compile(r"([0-9a-f]+) (.*?) \(((?:/|\[).*)\)$")


def categorical(values: Iterable[str]) -> Categorical:
    listed = list(values)
    categories = list(dict.fromkeys(listed))
    return Categorical(np.array([categories.index(v) for v in listed], np.int32), categories)


def mmap_table(rows: Sequence[tuple[int, int, int, int, int, str, int]]) -> Table:
    """MMAP records from (time, pid, addr, len, pgoff, filename, misc)."""
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * 7
    return Table(
        {
            "time": np.array(columns[0], np.uint64),
            "pid": np.array(columns[1], np.int32),
            "addr": np.array(columns[2], np.uint64),
            "len": np.array(columns[3], np.uint64),
            "pgoff": np.array(columns[4], np.uint64),
            "filename": categorical(columns[5]),
            "build_id": categorical([""] * len(rows)),
            "misc": np.array(columns[6], np.uint16),
        }
    )


def comm_table(rows: Sequence[tuple[int, int, bool]]) -> Table:
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * 3
    return Table(
        {
            "time": np.array(columns[0], np.uint64),
            "pid": np.array(columns[1], np.int32),
            "exec": np.array(columns[2], np.bool_),
        }
    )


def fork_table(rows: Sequence[tuple[int, int, int]]) -> Table:
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * 3
    return Table(
        {
            "time": np.array(columns[0], np.uint64),
            "pid": np.array(columns[1], np.int32),
            "ppid": np.array(columns[2], np.int32),
        }
    )


class Recorded:
    """One recording: its tables and its samples (time, pid, ip, symbol, dso) as perf has them."""

    def __init__(self, text: str) -> None:
        mmap, comm, fork, samples = [], [], [], []
        for line in text.splitlines():
            parts = _LINE.match(line)
            if parts is None:
                continue
            _, pid, _, seconds, rest_of_time, rest = parts.groups()
            time = int(seconds) * 10**9 + int(rest_of_time)
            if found := _MMAP.match(rest):
                owner, _, address, length, offset, name = found.groups()
                misc = 1 if int(owner) < 0 else 2
                mmap.append(
                    (
                        time,
                        int(owner),
                        int(address, 16),
                        int(length, 16),
                        int(offset, 16),
                        name,
                        misc,
                    )
                )
            elif found := _COMM.match(rest):
                comm.append((time, int(found[2]), bool(found[1])))
            elif found := _FORK.match(rest):
                fork.append((time, int(found[1]), int(found[3])))
            elif found := _SAMPLE.match(rest):
                samples.append((time, int(pid), int(found[1], 16), found[2], found[3]))
        self.mmap, self.comm, self.fork = mmap_table(mmap), comm_table(comm), fork_table(fork)
        self.samples = samples

    def kernel_addresses(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.unique(np.array([s[2] for s in self.samples if s[2] >= 2**63], np.uint64))

    def compare(self, options: SymbolOptions | None = None) -> Counter[tuple[str, ...]]:
        """What perf and we say of each sample where it is not the same, with how often."""
        spaces = AddressSpaces(self.mmap, self.comm, self.fork)
        symbolizer = Symbolizer(
            spaces,
            self.mmap,
            options or SymbolOptions(),
            build_ids={},
            same_boot=True,
            os_release=None,
            vm_names={},
        )
        time = np.array([s[0] for s in self.samples], np.uint64)
        pid = np.array([s[1] for s in self.samples], np.int32)
        ip = np.array([s[2] for s in self.samples], np.uint64)
        mode = np.where(ip >= 2**63, HOST_KERNEL, HOST_USER).astype(np.uint8)
        resolved = symbolizer.resolve(spaces.epoch_of(pid, time), pid, mode, ip)
        ours = zip(resolved.symbol.values(), resolved.dso.values(), strict=True)
        return Counter(
            (theirs[3], theirs[4], symbol, dso)
            for theirs, (symbol, dso) in zip(self.samples, ours, strict=True)
            if not (theirs[4] == dso and _same(theirs[3], symbol))
        )


def _same(theirs: str, ours: str) -> bool:
    if ours.endswith("@plt"):
        # perf 6.1 numbers PLT entries by relocation, not by their jump, and knows no .plt.got:
        # objdump is the oracle of these names
        return theirs.endswith("@plt") or theirs == "[unknown]"
    # `> >` and `>>` are the same
    return re.sub(r"\s+>", ">", theirs) == re.sub(r"\s+>", ">", ours)


def record(
    perf: Callable[..., str], folder: Path, command: Sequence[str | Path], *options: str
) -> Recorded:
    """Record a command with perf and read it back."""
    file = folder / "perf.data"
    # when a tracer elsewhere asks for build-ids the kernel marks everybody's MMAP2 records with
    # that flag, on which perf 6.1 aborts: so ask for them too
    how = ["-q", "-e", "cpu-clock", "-F", "10000", "--buildid-mmap", "-o", file, *options]
    perf("record", *how, "--", *command)
    fields = ["-F", "comm,pid,tid,time,ip,sym,dso", "--ns"]
    return Recorded(perf("script", "-i", file, *fields, "--show-mmap-events", "--show-task-events"))


def build(folder: Path, name: str, source: str, *flags: str, compiler: str = "gcc") -> Path:
    """Compile a program; its path."""
    suffix = ".cc" if compiler == "g++" else ".c"
    (folder / f"{name}{suffix}").write_text(source)
    command = [compiler, "-O1", f"{name}{suffix}", "-o", name, *flags]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return folder / name
