"""The rarer fields of samples against what perf prints of the same file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.reader import read

# names of asm/perf_regs.h as perf prints them, for x86
X86 = ["AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP", "IP", "FLAGS", "CS", "SS", "DS", "ES"]
X86 += ["FS", "GS", *(f"R{n}" for n in range(8, 16))]
PUBLISHED = [
    "KDAB__hotspot__cpp-recursion_perf.data",
    "KDAB__perfparser__vector_static_gcc_perf.data",
    "KDAB__perfparser__vector_static_clang_perf.data",
    "KDAB__perfparser__contentsize.data",
    "KDAB__hotspot__perf.data.true.v2",
    "GrapheneOS__platform_system_extras__perf_g_fp.data",
]
BRANCHES = [
    "google__perf_data_converter__perf.data.branch-4.14",
    "google__perf_data_converter__perf.data.branch-3.8",
    "google__perf_data_converter__perf.data.branch-3.4",
    "google__perf_data_converter__perf.data.callgraph_and_branch-3.8",
    "google__perf_data_converter__perf.data.branch_stack_spec",
    "GrapheneOS__platform_system_extras__perf_b.data",
]


def dumped(text: str) -> Iterator[dict[str, Any]]:
    """The samples of `perf report -D`, with the fields that it prints on lines of their own."""
    sample: dict[str, Any] | None = None
    registers: dict[str, int] = {}
    for line in text.splitlines():
        if begins := re.search(r"PERF_RECORD_SAMPLE\(.*addr: (0x[0-9a-f]+|0)$", line):
            sample = {"addr": int(begins[1], 16), "regs_user": {}, "regs_intr": {}}
        elif sample is None:
            continue
        elif found := re.match(r"\.\.\. (user|intr) regs: mask (0x[0-9a-f]+) ABI (\S+)", line):
            registers = sample[f"regs_{found[1]}"]
            sample[f"regs_{found[1]}_mask"] = int(found[2], 16)
        elif found := re.match(r"\.\.\.\. (\S+)\s+0x([0-9a-f]{16})$", line):
            registers[found[1]] = int(found[2], 16)
        elif found := re.match(r"\.\.\. ustack: size (\d+)", line):
            sample["ustack"] = int(found[1])
        elif found := re.match(r"\.\.\. weight: (\d+)(?:,0x([0-9a-f]+),0x([0-9a-f]+))?", line):
            sample["weight"] = int(found[1])
            sample["ins_lat"], sample["p_stage_cyc"] = (int(found[i] or "0", 16) for i in (2, 3))
        elif found := re.match(r" \. data_src: 0x([0-9a-f]+)", line):
            sample["data_src"] = int(found[1], 16)
        elif found := re.match(r" \.\. phys_addr: 0x([0-9a-f]+)", line):
            sample["phys_addr"] = int(found[1], 16)
        elif found := re.match(r"\.\.\. transaction: ([0-9a-f]+)", line):
            sample["transaction"] = int(found[1], 16)
        elif found := re.match(r" \.\. (code|data) page size: (\S+)", line):
            units = {"N": 0, "4": 4096, "2": 1 << 21, "1": 1 << 30}
            sample[f"{found[1]}_page_size"] = units[found[2][0]]
        elif re.match(r" (\.\.\. thread|\.+ thread): ", line):
            yield sample
            sample = None


def compare(fields: Fields, samples: list[dict[str, Any]]) -> set[str]:
    """All that was printed is what was decoded; the names that were compared."""
    assert len(samples) == len(fields) > 0
    compared = set()
    for name in fields.names():
        column = fields.column(name)
        if name in ("regs_user", "regs_intr"):
            masks = getattr(fields, f"{name}_mask").tolist()
            for i, sample in enumerate(samples):
                named = sample[name]
                if named:
                    assert sample[f"{name}_mask"] == masks[i]
                    bits = [bit for bit in range(64) if masks[i] >> bit & 1]
                    assert [named[X86[bit]] for bit in bits] == column[i].tolist()
                    for bit in bits:
                        one = fields.register(bit, user=name == "regs_user")
                        assert one[i] == named[X86[bit]]
                else:
                    assert not len(column[i])
        elif name == "stack_user":
            assert column.length.tolist() == [sample.get("ustack", 0) for sample in samples]
        elif name in samples[0]:
            assert column.tolist() == [sample[name] for sample in samples]
        else:
            continue
        compared.add(name)
    assert not fields.problems
    return compared


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of two events with all fields that a software event can have."""
    path = tmp_path_factory.mktemp("fields") / "perf.data"
    options = "-d --phys-data --code-page-size --data-page-size -W --transaction --all-cgroups"
    options += " --user-regs=ip,sp,bp,ax --intr-regs=ip,sp,r10 --call-graph dwarf,1024"
    loop = "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; ls -R /proc/self >/dev/null"
    subprocess.run(
        [
            *("perf", "record", "-q", "-o", path, "-e", "cpu-clock,page-faults", "-F", "500"),
            *options.split(),
            *("--", "sh", "-c", loop),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return path


@pytest.mark.perf
@pytest.mark.root
def test_every_field_of_a_recording_made_here(everything: Path, perf: Callable[..., str]) -> None:
    file = read(everything)
    fields = Fields(file.samples, file.events)
    compared = compare(fields, list(dumped(perf("report", "-D", "-i", everything))))
    assert compared >= {
        *("addr", "regs_user", "regs_intr", "stack_user", "weight", "data_src", "phys_addr"),
        *("transaction", "data_page_size", "code_page_size"),
    }
    assert fields.addr.any()
    assert fields.code_page_size.any()
    # the stack begins at the stack pointer, and holds words: the pointer is aligned to them
    assert {len(one) % 8 for one in fields.stack_user} == {0}
    assert max(len(one) for one in fields.stack_user) == 1024
    # every cgroup that was sampled in has a name
    assert set(np.unique(fields.cgroup).tolist()) - {0} or not fields.cgroup.any()


@pytest.mark.perf
@pytest.mark.fixtures
@pytest.mark.parametrize("name", PUBLISHED)
def test_fields_of_published_recordings(
    name: str, fixtures: Path, perf: Callable[..., str]
) -> None:
    path = fixtures / "recordings" / name
    file = read(path)
    compared = compare(
        Fields(file.samples, file.events), list(dumped(perf("report", "-D", "-i", path)))
    )
    assert compared >= {"regs_user", "stack_user"}


@pytest.mark.perf
@pytest.mark.fixtures
@pytest.mark.parametrize("name", BRANCHES)
def test_branches_of_published_recordings(
    name: str, fixtures: Path, perf: Callable[..., str]
) -> None:
    path = fixtures / "recordings" / name
    file = read(path)
    stacks = Fields(file.samples, file.events).branch_stack
    lines = perf("script", "-i", path, "-F", "tid,time,brstack").splitlines()
    printed = [re.findall(r"(0x[0-9a-f]+|0)/(0x[0-9a-f]+|0)/([MPN-])/", line) for line in lines]
    printed = [one for one, line in zip(printed, lines, strict=True) if line.strip()]
    decoded = [
        [(branch["from"], branch["to"], "-MPP"[branch["flags"] & 3]) for branch in stack]
        for stack in stacks.tolist()
    ]
    printed = [[(int(a, 16), int(b, 16), flag) for a, b, flag in one] for one in printed]
    assert decoded == printed
    assert sum(map(len, decoded)) > 100
