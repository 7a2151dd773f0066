"""Chains made of branch call stacks, against perf's."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from chains import of_perf, raw
from stacked import PID, branches, event, sample, write

from kvmperf_magic.perfdata.abi import (
    CONTEXT_KERNEL,
    CONTEXT_USER,
    MISC_KERNEL,
    BranchType,
    SampleType,
)

KERNEL = (0xFFFFFFFF81000010, 0xFFFFFFFF81000020)
CALLS = [(0x401100 + 0x10 * i, 0x402000 + 0x100 * i) for i in range(5)]
FROM = [source for source, _ in CALLS]
WRITTEN = [
    sample(1000, (CONTEXT_USER, 0x401000, 0x500000), branches(CALLS)),
    sample(
        2000,
        (CONTEXT_KERNEL, *KERNEL, CONTEXT_USER, 0x401000),
        branches(CALLS[:2]),
        ip=KERNEL[0],
        misc=MISC_KERNEL,
    ),
    # what perf leaves alone: no user part
    sample(3000, (CONTEXT_KERNEL, *KERNEL), branches(CALLS), ip=KERNEL[0], misc=MISC_KERNEL),
    sample(4000, (), branches(CALLS)),
]
EXPECTED = [
    [CONTEXT_USER, 0x402000, *FROM],
    [CONTEXT_KERNEL, *KERNEL, CONTEXT_USER, 0x402000, *FROM[:2]],
    [CONTEXT_KERNEL, *KERNEL],
    [],
]


def recording(path: Path, *more: bytes, kind: int = BranchType.CALL_STACK) -> Path:
    written = event(SampleType.BRANCH_STACK, branch_sample_type=BranchType.USER | kind)
    return write(path / "lbr.data", written, [*WRITTEN, *more])


def test_user_part_is_the_branches(tmp_path: Path) -> None:
    assert raw(recording(tmp_path)) == EXPECTED


def test_no_branches_leave_the_chain(tmp_path: Path) -> None:
    chain = (CONTEXT_USER, 0x401000, 0x500000)
    path = recording(tmp_path, sample(5000, chain, branches([])))
    assert raw(path)[-1] == list(chain)


def test_plain_branches_are_no_call_stack(tmp_path: Path) -> None:
    assert raw(recording(tmp_path, kind=0))[0] == [CONTEXT_USER, 0x401000, 0x500000]


def test_more_branches_than_the_record_holds(tmp_path: Path) -> None:
    cut = struct.pack("<QQQQ", 1 << 40, 0x401100, 0x402000, 0)
    path = recording(tmp_path, sample(5000, (CONTEXT_USER, 0x401000), cut))
    assert raw(path)[-1][:1] == [CONTEXT_USER]
    assert len(raw(path)[-1]) <= 3


@pytest.mark.perf
def test_as_perf_prints(tmp_path: Path, perf: Callable[..., str]) -> None:
    path = recording(tmp_path)
    told = of_perf(perf, path)
    ours = [[ip for ip in chain if ip < CONTEXT_USER - 4096] for chain in raw(path)]
    for time, chain in zip((1000, 2000, 3000), ours, strict=False):
        assert told[PID, time] == chain


@pytest.mark.perf
@pytest.mark.fixtures
def test_real_branches_as_a_call_stack(
    tmp_path: Path, fixtures: Path, perf: Callable[..., str]
) -> None:
    """A published recording with chains and branches, its attr told to be a call stack."""
    name = "google__perf_data_converter__perf.data.callgraph_and_branch-3.8"
    data = bytearray((fixtures / "recordings" / name).read_bytes())
    attrs, size = struct.unpack_from("<QQ", data, 24)
    entry = struct.unpack_from("<Q", data, 16)[0]
    for at in range(attrs, attrs + size, entry):
        kind = struct.unpack_from("<Q", data, at + 72)[0]
        struct.pack_into("<Q", data, at + 72, kind | BranchType.CALL_STACK)
    path = tmp_path / "call-stack.data"
    path.write_bytes(data)
    dumped = perf("report", "-D", "-i", path, "--stdio")
    of_perf_chains = []
    for part in dumped.split("LBR call chain:")[1:]:
        frames = takewhile(lambda line: line.startswith("..... "), part.splitlines()[1:])
        of_perf_chains.append([int(line.split()[-1], 16) for line in frames])
    # the dump is in the order of the file, ours in that of time
    ours = {tuple(chain) for chain in raw(path)}
    assert len(of_perf_chains) > 100
    for chain in of_perf_chains:
        assert tuple(chain) in ours
    assert np.mean([len(chain) for chain in of_perf_chains]) > 4
