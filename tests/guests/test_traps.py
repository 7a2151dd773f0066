"""Guests whose memory is a trap for who reads it: nothing fails, nothing grows without end."""

from __future__ import annotations

import json
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_guest_memory import Ram, Types

from kvmperf_magic.guests.btf import Btf, Member
from kvmperf_magic.guests.commandline import describe
from kvmperf_magic.guests.finding import find_kernel
from kvmperf_magic.guests.kallfinder import by_shape
from kvmperf_magic.guests.machine import Machine, vcpu_number
from kvmperf_magic.guests.modules import loaded_modules
from kvmperf_magic.guests.paging_x86 import PagingX86
from kvmperf_magic.guests.tasks import CurrentTasks, Task, TaskLooks
from kvmperf_magic.guests.vmcoreinfo import Vmcoreinfo
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping

POINTER, HEAD, TABLE, STRINGS, SYMBOLS = 2, 0x10000, 0x20000, 0x30000, 0x40000


@pytest.mark.parametrize("last", [9 | 4 << 24, 3 << 24], ids=["struct", "array"])
def test_a_type_that_is_cut_off_is_none(last: int) -> None:
    """A member leads to it, so that the struct asked for is whole itself."""
    types = Types()
    number = types.add("int", 1, 4, 32)
    types.struct("module", 16, ("", 3, 0), ("list", 3, 4), ("state", number, 8))
    types.records += struct.pack("<5I", 0, last, 8, 0, 0)
    btf = Btf.parse(types.data())
    assert btf is not None
    assert btf.member("module", "list") == Member(4, 0)
    assert btf.member("module", "state") == Member(8, 4)
    assert btf.member("module", "nothing") is None


class Words:
    """A paging that maps a few numbers and runs of bytes, and counts what is asked of it."""

    def __init__(self, numbers: dict[int, int], runs: dict[int, bytes]) -> None:
        self.numbers, self.runs, self.asked = numbers, runs, 0

    def number(self, at: int, size: int = 8) -> int:
        self.asked += 1
        return self.numbers.get(at, 0)

    def read(self, at: int, size: int) -> bytes:
        return self.runs.get(at, b"")[:size]

    def string(self, at: int, longest: int = PAGE) -> str:
        return "n" * min(longest, PAGE) if at < STRINGS else "n"


def test_a_module_of_endless_parts_and_names() -> None:
    """2**33 parts, and 4000 symbols whose name is a string of a MiB: kallsyms shows 511 of it."""
    count, letters = 4000, 1 << 20
    types = Types()
    number, size = types.add("int", 1, 4, 32), 1 << 31
    types.add("", 2, number)
    text = types.add("", 3, 0, number, number, 1 << 30)
    part = types.struct("module_memory", 1, ("base", POINTER, 0), ("size", number, 8))
    parts = types.add("", 3, 0, part, number, size)
    many = types.add("", 3, 0, parts, number, 4)
    types.struct(
        "mod_kallsyms",
        32,
        *(("symtab", POINTER, 0), ("num_symtab", number, 8)),
        *(("strtab", POINTER, 16), ("typetab", POINTER, 24)),
    )
    types.struct(
        "module",
        512,
        *(("list", POINTER, 0), ("state", number, 16), ("name", text, 24)),
        *(("kallsyms", POINTER, 128), ("mem", many, 256)),
    )
    btf = Btf.parse(types.data())
    assert btf is not None
    symbols = np.zeros((count, 24), np.uint8)
    symbols[:, 0] = 1
    symbols[-1, :4] = np.array([letters + 2], "<u4").view(np.uint8)
    module = HEAD + 64
    numbers = {HEAD: module, module: HEAD, module + 256: 0x1000, module + 264: 0x1000}
    numbers |= {module + 128: TABLE, TABLE: SYMBOLS, TABLE + 8: count}
    numbers |= {TABLE + 16: STRINGS, TABLE + 24: TABLE}
    runs = {SYMBOLS: symbols.tobytes(), TABLE: b"t" * count}
    runs[STRINGS] = b"\0" + b"n" * letters + b"\0n\0"
    words = Words(numbers, runs)
    (found,) = loaded_modules(words, HEAD, btf) or []  # type: ignore[arg-type]  # reads as paging
    assert words.asked < 100
    assert len(found.name) == 511
    assert found.symbols.name_length.tolist() == [511] * (count - 1) + [1]


def test_digits_all_over_the_image_are_not_all_followed() -> None:
    image = b"".join(b"%d\0" % digit for digit in range(10)) * (1 << 14)
    asked: list[int] = []

    def read(at: int, size: int) -> bytes:
        asked.append(size)
        return image[at : at + size] if at + size <= len(image) else b""

    assert by_shape(0, len(image), read) is None
    assert len(asked) < 5000


class Pages:
    """A VMM of which every page is a vmcoreinfo of another kernel, none of which there is."""

    physical, cheap = False, True

    def __init__(self, size: int) -> None:
        self.size, self.reads = size, 0
        self.largest = 0

    def exist(self, address: np.ndarray) -> np.ndarray:
        return np.ones(len(address), np.bool_)

    def mappings(self) -> list[Mapping]:
        return [Mapping(0, self.size, "rw-p", 0, "", "")]

    def present(self, start: int, end: int) -> np.ndarray:
        return np.ones((end - start) // PAGE, np.bool_)

    stored = present

    def gather(self, address: np.ndarray, size: int) -> np.ndarray:
        row = np.frombuffer(self.read(0, size), np.uint8)
        return np.broadcast_to(row, (len(address), size))

    def read(self, at: int, size: int) -> bytes:
        self.reads, self.largest = self.reads + 1, max(self.largest, size)
        number = at // PAGE
        lines = f"OSRELEASE=6.1.{number}\nNUMBER(phys_base)=0\nSYMBOL(_stext)=ffffffff81000000\n"
        lines += "SYMBOL(init_uts_ns)=ffffffff80000000\n"
        lines += f"OFFSET(uts_namespace.name)={self.size // 2 if number % 2 else 0}\n"
        return lines.encode().ljust(PAGE, b"\0")[:size]


def test_of_many_traces_of_kernels_a_few_are_followed() -> None:
    vmm = Pages(64 << 20)
    found = find_kernel(vmm, None)  # type: ignore[arg-type]  # reads as VmmMemory does
    assert found.kernel is None
    assert "a trace of Linux 6.1." in found.why
    assert vmm.reads < 10_000
    assert vmm.largest <= 2 * PAGE


@pytest.mark.parametrize("told", ["-5", "f" * 30, "g"])
def test_an_address_that_is_none(told: str) -> None:
    page = f"OSRELEASE=6.1\nSYMBOL(a)={told}\nSYMBOL(b)=ffffffff81000000\n"
    info = Vmcoreinfo(0, page.encode())
    assert info.symbol("a") is None
    assert info.symbol("b") == 0xFFFFFFFF81000000
    assert Vmcoreinfo(0, b"OSRELEASE=6.1\x1b[31m\n").release == ""


def test_numbers_of_a_command_line_that_cannot_be() -> None:
    for told in ("9" * 5000, "9" * 12):
        found = describe(["qemu-system-x86_64", "-smp", told, "-m", told * 2], "qemu")
        assert (found.vcpus, found.memory) == (0, None)
    assert vcpu_number("vcpu9999999999") is None
    assert vcpu_number("vcpu4095") == 4095


def test_tasks_of_a_kernel_that_maps_its_memory_later() -> None:
    """Its page tables were looked at before: what they did not map then may be there now."""
    ram, virtual, table = Ram(), 0x200000, 4 * PAGE
    for at in range(PAGE, table, PAGE):
        ram.write(at, (at + PAGE | 3).to_bytes(8, "little") + bytes(PAGE - 8))
    ram.write(table - PAGE, bytes(8) + (table | 3).to_bytes(8, "little"))
    ram.write(table, bytes(PAGE))
    types = Types()
    number = types.add("int", 1, 4, 32)
    members = ("pid", number, 0), ("tgid", number, 4), ("comm", number, 8)
    types.struct("task_struct", 32, *members)
    paging = PagingX86(ram, PAGE, five_levels=False)  # type: ignore[arg-type]  # reads as memory
    kernel = SimpleNamespace(
        paging=paging,
        btf=Btf.parse(types.data()),
        address={"current_task": virtual, "__per_cpu_offset": virtual}.get,
        image=lambda at, size: bytes(size),
        cpus=1,
    )
    current = CurrentTasks(kernel)  # type: ignore[arg-type]  # has what of it is used
    assert current.look() == [None]
    ram.write(table, (0x9000 | 3).to_bytes(8, "little"))
    task = (virtual + 64).to_bytes(8, "little").ljust(64) + struct.pack("<II16s", 5, 4, b"init")
    ram.write(0x9000, task.ljust(PAGE))
    assert current.look() == [Task(4, 5, "init")]


def test_looks_at_tasks_that_cannot_be() -> None:
    def unpacked(pid: int, comm: str, cpu: int) -> TaskLooks:
        told = {"machine": 5, "every": 0.05, "looks": 1, "tasks": [[pid, 1, comm]]}
        body = zlib.compress(struct.pack("<QiI", 0, cpu, 0))
        return TaskLooks.unpack(json.dumps(told).encode() + b"\n" + body)

    task = unpacked(10**30, "\ud800", 3).tasks[0]
    assert 0 <= task.pid < 2**32
    assert task.comm.encode() == b"?"
    for cpu in (-1, 1 << 20):
        with pytest.raises(ValueError, match="CPUs"):
            unpacked(1, "a", cpu)


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "tid", "name"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Machine.__dataclass_fields__]), NONSENSE))
def test_a_machine_that_somebody_else_wrote_down(told: dict[str, Any]) -> None:
    try:
        machine = Machine.from_json(told)
    except ValueError:
        return
    assert json.dumps(machine.to_json(), ensure_ascii=False).encode()
    np.array([machine.pid, *(number for v in machine.vcpus for number in (v.id, v.tid))], np.int32)
    assert Machine.from_json(machine.to_json()) == machine
