"""Stacks that mean no good, and recordings whose programs are elsewhere."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from chains import raw
from stacked import PID, TRAILER, dump, event, sample, write

from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata.abi import CONTEXT_USER, SampleType
from kvmperf_magic.recording import open_recording

pytest.importorskip("drgn", reason="the extra [dwarf] is not installed")
MASK = 0xFF0FFF
DUMPS = SampleType.REGS_USER | SampleType.STACK_USER
EVENT = event(DUMPS, sample_regs_user=MASK, sample_stack_user=4096)
BASE, SP = 0x55_0000_0000, 0x7FFF_0000_0000
REGISTERS = MASK.bit_count()


def registers(ip: int, sp: int = SP, filling: int = SP) -> list[int]:
    """Of the mask's order: sp is the eighth, ip the ninth."""
    made = [filling] * REGISTERS
    made[7], made[8] = sp, ip
    return made


def recording(path: Path, dumps: list[bytes]) -> Path:
    python = Path(sys.executable).resolve()
    size = python.stat().st_size + 4095 & ~4095
    mapped = r.mmap2(PID, PID, BASE, size, 0, str(python), trailer=TRAILER)
    samples = [sample(1000 + i, (), one, ip=BASE) for i, one in enumerate(dumps)]
    return write(path / "hostile.data", EVENT, [mapped, *samples])


def test_garbage_never_harms(tmp_path: Path) -> None:
    chance = random.Random(6)
    dumps = []
    for i in range(300):
        stack = bytearray(chance.randbytes(chance.choice((8, 64, 1024, 4096))))
        for at in range(0, len(stack) - 7, 8):
            # half of the words point into the program or the stack itself
            where = chance.choice((BASE + chance.randrange(1 << 22), SP + chance.randrange(4096)))
            if chance.random() < 0.5:
                stack[at : at + 8] = where.to_bytes(8, "little")
        ip = BASE + chance.randrange(1 << 22) if i % 3 else chance.randrange(1 << 64)
        sp = SP if i % 5 else chance.choice((0, 2**64 - 8, 2**63, 7))
        filled = chance.choice((0, SP, SP + 8, BASE, 2**64 - 1))
        dumps.append(dump(registers(ip, sp, filled), bytes(stack)))
    chains = raw(recording(tmp_path, dumps))
    assert len(chains) == 300
    assert all(chain[0] == CONTEXT_USER and 2 <= len(chain) <= 128 for chain in chains)


def test_a_stack_that_points_to_itself(tmp_path: Path) -> None:
    stack = np.full(512, SP, np.uint64).tobytes()
    chains = raw(recording(tmp_path, [dump(registers(BASE + 0x1000), stack)]))
    assert len(chains[0]) <= 128


def test_nothing_to_unwind(tmp_path: Path) -> None:
    stack = bytes(64)
    path = recording(
        tmp_path,
        [
            dump(registers(BASE), b""),
            dump((), stack, abi=0),
            dump(registers(BASE), stack, dynamic=0),
            dump(registers(BASE), stack, dynamic=1 << 40),
            dump(registers(BASE), stack, abi=1),
            dump(registers(BASE), stack)[:-72],
        ],
    )
    assert [chain for chain in raw(path)[:3] if chain] == []
    opened = open_recording(path)
    assert len(opened.callchains.ip) >= len(opened) == 6
    assert any("other registers" in line for line in opened.warnings)


def test_registers_of_another_machine_only(tmp_path: Path) -> None:
    """Found by fuzzing: nothing is left to unwind then."""
    opened = open_recording(recording(tmp_path, [dump(registers(BASE), bytes(64), abi=1)]))
    assert opened.callchains.ip.tolist() == [BASE]
    assert any("other registers" in line for line in opened.warnings)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drgn", None)
    monkeypatch.delitem(sys.modules, "kvmperf_magic.unwinding.process", raising=False)
    opened = open_recording(recording(tmp_path, [dump(registers(BASE), bytes(64))]))
    assert opened.callchains.ip.tolist() == [BASE]
    assert [line for line in opened.warnings if "pip install 'kvmperf_magic[dwarf]'" in line]


@pytest.mark.fixtures
@pytest.mark.parametrize(
    "name",
    [
        "KDAB__perfparser__vector_static_gcc_perf.data",
        "KDAB__perfparser__vector_static_clang_perf.data",
        "KDAB__hotspot__cpp-recursion_perf.data",
        "GrapheneOS__platform_system_extras__perf_no_unwind.data",
    ],
)
def test_programs_that_are_elsewhere(fixtures: Path, name: str) -> None:
    """Each stack is its interrupted address, behind what the kernel walked; one line says why."""
    opened = open_recording(fixtures / "recordings" / name)
    assert len(opened.callchains) == len(opened)
    told = [line for line in opened.warnings if "not here" in line]
    assert len(told) == 1
    for chain in raw(Path(opened.path)):
        if CONTEXT_USER in chain:
            assert len(chain) - chain.index(CONTEXT_USER) == 2
