"""TRACING_DATA: the formats of the tracepoints of a recording, as tracefs tells them.

tools/perf/util/trace-event-read.c: trace_report() reads the same payload, which the recorder
copied from tracefs (trace-event-info.c: read_tracing_data()). It has a byte order and a size of
`long` of its own, those of the recording machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from kvmperf_magic.perfdata.cursor import Cursor

MAGIC = b"\x17\x08\x44tracing"

Endian = Literal["<", ">"]

# sizes of the C types that arrays are made of; `long` and pointers are the machine's
_SIZES = {
    **dict.fromkeys(("char", "u8", "s8", "__u8", "__s8", "uint8_t", "int8_t", "bool"), 1),
    **dict.fromkeys(("short", "u16", "s16", "__u16", "__s16", "uint16_t", "int16_t"), 2),
    **dict.fromkeys(("int", "unsigned", "u32", "s32", "__u32", "__s32", "uint32_t", "int32_t"), 4),
    **dict.fromkeys(("pid_t", "uid_t", "gid_t", "dev_t", "gfp_t"), 4),
    **dict.fromkeys(("long long", "u64", "s64", "__u64", "__s64", "uint64_t", "int64_t"), 8),
}
_OF_MACHINE = ("long", "size_t", "ssize_t", "uintptr_t")
_NOT_THE_TYPE = re.compile(r"\b(?:const|volatile|signed|unsigned(?=\s+\w)|struct(?=\s*$))\b")

# one line of a format, bounded so that no line can make the search slow
_FIELD = re.compile(
    r"^[ \t]*field(?: special)?:(?P<declared>[^;\n]{1,512});[ \t]*"
    r"offset:(?P<offset>\d{1,9});[ \t]*size:(?P<size>\d{1,9});(?:[ \t]*signed:(?P<signed>[01]);)?",
    re.MULTILINE,
)
_DECLARED = re.compile(r"(?P<type>.*?)\b(?P<name>\w+)\b\s*(?P<array>(?:\[[^\]]*\]\s*)*)$")
_NAME = re.compile(r"^name: *(\S+)", re.MULTILINE)
_ID = re.compile(r"^ID: *(\d{1,9})\b", re.MULTILINE)
_PRINT = re.compile(r"^print fmt: *", re.MULTILINE)
_DYNAMIC = ("__data_loc", "__rel_loc")


@dataclass(frozen=True)
class FormatField:
    """A field of a tracepoint: `size` bytes at `offset` of the raw data.

    `type` is as declared, without an array's brackets. Where `dynamic` is `__data_loc` or
    `__rel_loc` these bytes (u32: length << 16 | offset) tell where the array is; the offset of
    `__rel_loc` counts from behind the field. `element_size` is that of an array's elements.
    """

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    is_array: bool
    dynamic: Literal["", "__data_loc", "__rel_loc"]
    element_size: int

    @property
    def is_string(self) -> bool:
        """An array of plain char; of unsigned char or u8 they are numbers (addresses of nets)."""
        return self.is_array and self.type.removeprefix("const ").strip() in ("char", "signed char")

    @property
    def is_integer(self) -> bool:
        """One number: also an enum, a bool, a pointer."""
        return not self.is_array and self.size in (1, 2, 4, 8)

    @classmethod
    def parse(cls, found: re.Match[str], long_size: int) -> FormatField | None:
        """From a line of a format; None for a declaration without a name."""
        declared = _DECLARED.fullmatch(found["declared"].strip())
        if declared is None:
            return None
        kind, array = declared["type"].strip(), declared["array"].strip()
        dynamic: Literal["", "__data_loc", "__rel_loc"] = ""
        for prefix in _DYNAMIC:
            if kind.startswith(prefix):
                dynamic = "__data_loc" if prefix == "__data_loc" else "__rel_loc"
                kind = kind.removeprefix(prefix).strip()
        if kind.endswith("]"):  # `char[] name`, the way of dynamic ones
            kind, bracket, rest = kind.partition("[")
            kind, array = kind.strip(), bracket + rest + array
        size = int(found["size"])
        told = found["signed"]
        return cls(
            name=declared["name"],
            type=kind,
            offset=int(found["offset"]),
            size=size,
            signed=told == "1" if told else _seems_signed(kind),
            is_array=bool(array or dynamic),
            dynamic=dynamic,
            element_size=_element_size(kind, array, 0 if dynamic else size, long_size),
        )


def type_size(kind: str, long_size: int) -> int | None:
    """Bytes of a C type as formats declare it; None for one that is not known."""
    if kind.endswith("*"):
        return long_size
    plain = " ".join(_NOT_THE_TYPE.sub("", kind).split())
    if plain.endswith(" int") and plain != "unsigned int":
        plain = plain.removesuffix(" int")  # `long int`, `short int`
    return long_size if plain in _OF_MACHINE else _SIZES.get(plain)


def _element_size(kind: str, array: str, size: int, long_size: int) -> int:
    known = type_size(kind, long_size)
    if known:
        return known
    count = re.match(r"\[(\d{1,9})\]", array)
    if count and int(count[1]) and size % int(count[1]) == 0 and size // int(count[1]) in (2, 4, 8):
        return size // int(count[1])
    return 1


def _seems_signed(kind: str) -> bool:
    """Kernels before 2.6.33 do not say `signed:`."""
    return kind in ("int", "long", "short", "long long", "pid_t", "s8", "s16", "s32", "s64")


@dataclass(frozen=True)
class Format:
    """One tracepoint. `text` is its whole `format` file; `endian` and `long_size` (bytes) are
    those of the recording."""

    system: str
    name: str
    id: int
    text: str
    endian: Endian = "<"
    long_size: int = 8

    @property
    def event(self) -> str:
        """`system:name`, as perf calls the event."""
        return f"{self.system}:{self.name}"

    @cached_property
    def fields(self) -> tuple[FormatField, ...]:
        """In the order of the file: those of all tracepoints (`common_*`) first."""
        body = self.text[: self._printed[0]]
        fields = (FormatField.parse(found, self.long_size) for found in _FIELD.finditer(body))
        return tuple(field for field in fields if field)

    @property
    def print_format(self) -> str:
        """How the tracepoint prints, the text behind `print fmt:`: see printformat.py."""
        return self.text[self._printed[1] :].strip()

    @cached_property
    def _printed(self) -> tuple[int, int]:
        found = _PRINT.search(self.text)
        return found.span() if found else (len(self.text), len(self.text))

    @classmethod
    def parse(cls, system: str, raw: bytes, endian: Endian = "<", long_size: int = 8) -> Format:
        """From the text of a `format` file. ValueError where it is none."""
        text = raw.decode("utf-8", "backslashreplace")
        name, id = _NAME.search(text), _ID.search(text)
        if name is None or id is None:
            raise ValueError(f"a format of system {system!r} without name or ID")
        return cls(system, name[1], int(id[1]), text, endian, long_size)


@dataclass(frozen=True)
class TracingData:
    """What TRACING_DATA holds. `events` is by id, which is attr.config of a tracepoint event.

    kallsyms, printk formats and saved command lines are kept as they are; `problems` tells of
    formats that could not be read, one line each.
    """

    version: str
    endian: Endian
    long_size: int
    page_size: int
    events: dict[int, Format]
    kallsyms: bytes
    printk: bytes
    cmdlines: bytes
    problems: list[str] = field(default_factory=list)


class _Cursor(Cursor):
    """Numbers in the byte order of the recording machine."""

    order: Literal["little", "big"] = "little"

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), self.order)


@lru_cache(maxsize=4)
def parse(payload: bytes) -> TracingData:
    """ValueError where the payload is damaged or cut off; what pads its end is ignored."""
    if not payload.startswith(MAGIC):
        raise ValueError(f"begins with {payload[: len(MAGIC)]!r}, not {MAGIC!r}")
    cursor = _Cursor(payload)
    cursor.take(len(MAGIC))
    version = cursor.terminated()
    endian: Endian = ">" if cursor.number(1) else "<"
    cursor.order = "big" if endian == ">" else "little"
    long_size = cursor.number(1)
    if long_size not in (4, 8):
        raise ValueError(f"a long of {long_size} bytes")
    page_size = cursor.number(4)
    for header in ("header_page", "header_event"):
        if (found := cursor.terminated()) != header:
            raise ValueError(f"{found!r} where {header} was to be")
        cursor.take(cursor.number(8))
    texts = [("ftrace", cursor.take(cursor.number(8))) for _ in range(cursor.number(4))]
    for _ in range(cursor.number(4)):
        system = cursor.terminated()
        texts += [(system, cursor.take(cursor.number(8))) for _ in range(cursor.number(4))]
    kallsyms = cursor.take(cursor.number(4))
    printk = cursor.take(cursor.number(4))
    cmdlines = cursor.take(cursor.number(8)) if _at_least_0_6(version) else b""
    events: dict[int, Format] = {}
    problems: list[str] = []
    for system, text in texts:
        try:
            format = Format.parse(system, text, endian, long_size)
        except ValueError as error:
            problems.append(str(error))
        else:
            events[format.id] = format
    return TracingData(
        version, endian, long_size, page_size, events, kallsyms, printk, cmdlines, problems
    )


def _at_least_0_6(version: str) -> bool:
    try:
        return float(version) >= 0.6
    except ValueError:
        raise ValueError(f"version {version[:16]!r} of TRACING_DATA") from None
