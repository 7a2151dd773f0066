"""TRACING_DATA of other machines and damaged ones; formats as kernels write and wrote them."""

from __future__ import annotations

import random
import struct
from typing import Literal

import numpy as np
import pytest
from effort import within
from tracing_payloads import field, format_text, payload

from kvmperf_magic.perfdata.printformat import namings
from kvmperf_magic.perfdata.tracepoints import TracepointFields, columns
from kvmperf_magic.perfdata.tracingdata import Format, parse
from kvmperf_magic.table import Categorical, Ragged

FIELDS = (
    field("char comm[16]", 8, 16)
    + field("long ret", 24, 4, 1)
    + field("unsigned long args[2]", 28, 8)
    + field("__data_loc char[] name", 36, 4)
    + field("__rel_loc u16[] ports", 40, 4)
    + field("bool up", 44, 1)
    + field("enum kind kind", 48, 4)
    + field("const void * where", 52, 4)
    + field("u8 mac[6]", 56, 6)
    + field("short small", 62, 2, 1)
)
PRINTED = '"%s kind=%s", REC->comm, __print_symbolic(REC->kind, { 1, "one" }, { 0x2, "two" })'


def small(endian: Literal["<", ">"] = "<", version: str = "0.6") -> bytes:
    text = format_text("thing", 77, FIELDS, PRINTED)
    other = format_text("other", 78, field("int x", 8, 4, 1))
    return payload(
        {"mine": [text], "yours": [other]},
        endian=endian,
        long_size=4,
        version=version,
        ftrace=[format_text("function", 1, field("unsigned long ip", 8, 4))],
    )


def record(endian: str, comm: bytes, ret: int, name: bytes, ports: list[int]) -> bytes:
    """One sample's raw bytes by FIELDS, the dynamic parts behind."""
    fixed = 64
    packed_ports = struct.pack(f"{endian}{len(ports)}H", *ports)
    name_loc = len(name) << 16 | fixed
    ports_loc = len(packed_ports) << 16 | (fixed + len(name) - 44)
    raw = struct.pack(f"{endian}HBBi", 77, 0, 0, 4242)
    raw += comm.ljust(16, b"\0") + struct.pack(f"{endian}i2I", ret, 7, 0xFFFFFFFF)
    raw += struct.pack(f"{endian}II", name_loc, ports_loc)
    raw += struct.pack(f"{endian}B3xIIBBBBBBh", 1, 2, 0xC0001000, 1, 2, 3, 4, 5, 6, -2)
    assert len(raw) == fixed
    return raw + name + packed_ports


def ragged(rows: list[bytes]) -> Ragged:
    offsets = np.cumsum([0, *map(len, rows)])
    return Ragged(offsets, np.frombuffer(b"".join(rows), np.uint8))


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("version", ["0.5", "0.6"])
def test_of_another_machine(endian: Literal["<", ">"], version: str) -> None:
    data = parse(small(endian, version))
    assert (data.endian, data.long_size, data.page_size, data.version) == (endian, 4, 4096, version)
    assert [f.event for f in data.events.values()] == [
        "ftrace:function",
        "mine:thing",
        "yours:other",
    ]
    assert (data.kallsyms, data.printk) == (b"syms", b'0x1 "a')
    assert data.cmdlines == (b"1 init\n" if version == "0.6" else b"")
    thing = data.events[77]
    sizes = {f.name: f.element_size for f in thing.fields}
    assert (sizes["args"], sizes["ports"], sizes["name"], sizes["mac"]) == (4, 2, 1, 1)

    rows = [
        record(endian, b"alpha", -5, b"eth0\0", [80, 443]),
        record(endian, b"sixteen-bytes-ab", 2**31 - 1, b"", []),
        record(endian, b"alpha\0junk", 0, b"a much longer name\0", [65535]),
    ]
    found = columns(thing, ragged(rows))
    assert isinstance(found["comm"], Categorical)
    assert found["comm"].values().tolist() == ["alpha", "sixteen-bytes-ab", "alpha"]
    assert len(found["comm"].categories) == 2
    assert isinstance(found["name"], Categorical)
    assert found["name"].values().tolist() == ["eth0", "", "a much longer name"]
    assert found["ret"].tolist() == [-5, 2**31 - 1, 0]
    assert found["args"].tolist() == [[7, 0xFFFFFFFF]] * 3
    assert found["ports"].tolist() == [[80, 443], [], [65535]]
    assert found["mac"].tolist() == [bytes([1, 2, 3, 4, 5, 6])] * 3
    assert found["up"].tolist() == [True] * 3
    assert found["where"].tolist() == [0xC0001000] * 3
    assert found["small"].tolist() == [-2] * 3
    assert found["common_pid"].tolist() == [4242] * 3
    assert found["kind"].tolist() == [2, 2, 2]
    assert isinstance(found["kind_name"], Categorical)
    assert found["kind_name"].values().tolist() == ["two"] * 3
    numbers = [c for c in found.values() if isinstance(c, np.ndarray)]
    assert all(c.dtype.isnative for c in numbers)


def test_too_short_records_are_empty_and_told() -> None:
    thing = parse(small()).events[77]
    whole = record("<", b"alpha", -5, b"eth0\0", [80])
    rows = [whole, whole[:30], b"", whole[:66], whole]
    fields = TracepointFields(thing, lambda: ragged(rows))
    assert fields.column("common_pid").tolist() == [4242, 4242, 0, 4242, 4242]
    assert fields.problems == ["1 samples of mine:thing are too short for their common_pid"]
    assert fields.column("args").tolist() == [
        [7, 2**32 - 1],
        [],
        [],
        [7, 2**32 - 1],
        [7, 2**32 - 1],
    ]
    name = fields.column("name")
    assert isinstance(name, Categorical)
    assert name.values().tolist() == ["eth0", "", "", "", "eth0"]
    assert "3 samples of mine:thing are too short for their name" in fields.problems
    assert fields.column("kind_name")
    nothing = columns(thing, ragged([]))
    assert all(len(column) == 0 for column in nothing.values())


def test_any_cut_is_a_value_error() -> None:
    whole = small()
    parse(whole)
    parse(whole + bytes(5))  # padding
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r"bytes wanted|begins with|does not end"):
            parse(whole[:size])


def test_any_damage_is_a_value_error_and_soon() -> None:
    rng = random.Random(3)
    whole = small(">")
    row = ragged([record(">", b"alpha", -5, b"eth0\0", [80])] * 3)
    parsed = 0
    with within(60):
        for _ in range(1500):
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                at = rng.randrange(len(damaged))
                damaged[at] = rng.choice([0, 1, 0x28, 0x3B, 0x5B, 0xFF, 0x39])
            try:
                data = parse(bytes(damaged))
            except ValueError:
                continue
            parsed += 1
            for format in data.events.values():
                columns(format, row)
    assert parsed > 100


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "~" * 100_000 + "1",
        "(int)" * 20_000 + "1",
        "REC->a ? 1 : " * 20_000 + "1",
        "REC->a | " * 20_000 + "1",
        "1 << 60 << " * 5_000 + "1",
        "{" * 100_000,
        '"' + "\\" * 100_000,
        '"\\' * 100_000,
        " " * 200_000 + "@",
        "@ " * 100_000,
    ],
    ids=range(11),
)
def test_a_hostile_print_format_ends(text: str) -> None:
    with within(5):
        for naming in namings(f'"%s", __print_symbolic({text}, {{ 1, "a" }})'):
            naming.name(dict.fromkeys(naming.needs, 3))


def test_a_format_of_long_lines_ends() -> None:
    with within(5):
        for filler in ("\t", "a", "field:", "[", "a ", "\n", ";"):
            field = f"\tfield:{filler * 200_000};\toffset:0;\tsize:4;\n"
            text = f"name: x\nID: 1\nformat:\n{field}"
            assert len(Format.parse("s", text.encode()).fields) <= 1
        line = f"\tfield:{'a' * 500}!;\toffset:0;\tsize:4;\n"
        assert not Format.parse("s", ("name: x\nID: 1\n" + line * 20_000).encode()).fields


def test_formats_of_old_kernels() -> None:
    """2.6.32: no `signed:`, and `field special:`."""
    text = (
        "name: sched_wakeup\nID: 53\nformat:\n"
        "\tfield:int common_pid;\toffset:4;\tsize:4;\n"
        "\n\tfield special:char comm[TASK_COMM_LEN];\toffset:12;\tsize:16;\n"
        "\tfield:pid_t pid;\toffset:28;\tsize:4;\n"
        "\tfield:u64 runtime;\toffset:32;\tsize:8;\n"
    )
    format = Format.parse("sched", text.encode())
    told = [(f.name, f.signed, f.is_string, f.is_integer) for f in format.fields]
    assert told == [
        ("common_pid", True, False, True),
        ("comm", False, True, False),
        ("pid", True, False, True),
        ("runtime", False, False, True),
    ]
    assert format.print_format == ""


def test_a_format_that_is_none_costs_only_itself() -> None:
    data = parse(payload({"mine": ["rubbish", format_text("thing", 77, FIELDS)]}))
    assert list(data.events) == [77]
    assert data.problems == ["a format of system 'mine' without name or ID"]


# Linux 6.18, shortened: arch/x86/kvm/trace.h
KVM_EXIT = (
    '"vcpu %u reason %s%s%s rip 0x%lx", REC->vcpu_id, (REC->isa == 1) ? '
    '__print_symbolic(REC->exit_reason & 0xffff, { 0, "EXCEPTION_NMI" }, { 12, "HLT" }, '
    '{ 48, "EPT_VIOLATION" }) : __print_symbolic(REC->exit_reason, { 0x040 + 14, "PF excp" }, '
    '{ 0x078, "hlt" }, { 0x400, "npf" }, { -1, "invalid_guest_state" }), '
    '(REC->isa == 1 && REC->exit_reason & ~0xffff) ? " " : "", (REC->isa == 1) ? '
    '__print_flags(REC->exit_reason & ~0xffff, " ", { 0x80000000, "FAILED_VMENTRY" }) : "", '
    "REC->guest_rip"
)


@pytest.mark.parametrize(
    ("isa", "reason", "name"),
    [
        (1, 12, "HLT"),
        (1, 48, "EPT_VIOLATION"),
        (1, 0x80000030, "EPT_VIOLATION FAILED_VMENTRY"),
        (1, 0x40000030, "EPT_VIOLATION 0x40000000"),
        (1, 99, "0x63"),
        (2, 0x400, "npf"),
        (2, 0x4E, "PF excp"),
    ],
)
def test_the_reason_of_an_exit(isa: int, reason: int, name: str) -> None:
    """VMX and SVM have other numbers; one tracepoint serves both."""
    fields = field("unsigned int exit_reason", 8, 4) + field("u32 isa", 12, 4)
    format = Format.parse("kvm", format_text("kvm_exit", 5, fields, KVM_EXIT).encode())
    raw = ragged([struct.pack("<8xII", reason, isa)])
    found = columns(format, raw)
    assert list(found)[4:] == ["exit_reason", "exit_reason_name", "isa"]
    assert isinstance(found["exit_reason_name"], Categorical)
    assert found["exit_reason"].tolist() == [reason]
    assert found["exit_reason_name"].values().tolist() == [name]


@pytest.mark.parametrize(
    ("argument", "value", "name"),
    [
        ('__print_flags(REC->f, "|", { 1, "a" }, { 2, "b" }, { 12, "c" })', 15, "a|b|c"),
        ('__print_flags(REC->f, "|", { 1, "a" }, { 12, "c" })', 4, "0x4"),
        ('__print_flags(REC->f, "|", { 1, "a" })', 0, ""),
        ('REC->f ? __print_flags(REC->f, "|", { 1, "a" }) : "none"', 0, "none"),
        ('__print_symbolic(REC->f, { (1 << 3) | 0x1u, "nine" }, {9UL, "again"})', 9, "nine"),
        ('__print_symbolic((unsigned long)REC->f, {( gfp_t)(((1UL))), "one"})', 1, "one"),
        ('__print_symbolic(REC->f, { 010, "octal" })', 8, "octal"),
        ('__print_symbolic(REC->f, { -5, "EIO" })', -5, "EIO"),
        ('__print_symbolic(REC->f, { 1, "a, \\"b\\" }" })', 1, 'a, "b" }'),
        ('__print_symbolic(REC->f, { 1, "a" }, {})', 3, "0x3"),
        ('__print_symbolic(REC->f / 2, { -1, "towards 0" })', -3, "towards 0"),
        ('__print_symbolic(REC->f % 2, { -1, "odd" })', -3, "odd"),
        ('__print_symbolic(REC->f / (2 - 2), { 0, "none" })', 3, "none"),
    ],
)
def test_names_as_libtraceevent_prints_them(argument: str, value: int, name: str) -> None:
    (naming,) = namings(f'"x %d %s y", REC->other, {argument}')
    assert (naming.field, naming.name({"f": value})) == ("f", name)


def test_what_is_not_understood_has_no_name() -> None:
    assert not namings('"%s", __print_symbolic(REC->f, { SOME_ENUM, "a" })')
    assert not namings('"%s", __print_symbolic(some_function(REC->f), { 1, "a" })')
    assert not namings('"%d", REC->f')
    assert not namings("")
    (naming,) = namings('"%s%s", __get_str(g), __print_symbolic(REC->f, { 1, "a" })')
    assert naming.name({"f": 1}) == "a"


def test_strings_whose_hashes_meet_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hash alike: the exact way has to decide."""
    unique = np.unique
    asked: list[str] = []

    def alike(values: np.ndarray, **options: bool) -> object:
        if values.dtype == np.uint64 and values.ndim == 1:
            asked.append("hash")
            return unique(np.zeros_like(values), **options)
        return unique(values, **options)

    monkeypatch.setattr(np, "unique", alike)
    format = Format.parse("s", format_text("e", 1, field("char comm[16]", 8, 16)).encode())
    rows = [bytes(8) + name.ljust(16, b"\0") for name in (b"one", b"two", b"one")]
    comm = columns(format, ragged(rows))["comm"]
    assert asked
    assert isinstance(comm, Categorical)
    assert comm.values().tolist() == ["one", "two", "one"]
