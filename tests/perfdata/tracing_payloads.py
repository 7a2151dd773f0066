"""TRACING_DATA payloads of machines that are not at hand: another byte order, another long."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

COMMON = """\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
"""


def format_text(name: str, id: int, fields: str, printed: str = '""') -> str:
    """A `format` file."""
    return f"name: {name}\nID: {id}\nformat:\n{COMMON}\n{fields}\nprint fmt: {printed}\n"


def field(declared: str, offset: int, size: int, signed: int = 0) -> str:
    return f"\tfield:{declared};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"


def payload(
    systems: Mapping[str, Sequence[str]],
    *,
    endian: str = "<",
    long_size: int = 8,
    version: str = "0.6",
    ftrace: Sequence[str] = (),
) -> bytes:
    """trace-event-info.c: read_tracing_data()."""

    def sized(text: str) -> bytes:
        return struct.pack(f"{endian}Q", len(text)) + text.encode()

    def number(value: int) -> bytes:
        return struct.pack(f"{endian}I", value)

    parts = [b"\x17\x08\x44tracing", version.encode() + b"\0"]
    parts += [bytes([endian == ">", long_size]), number(4096)]
    parts += [b"header_page\0", sized("\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n")]
    parts += [b"header_event\0", sized("# compressed entry header\n")]
    parts += [number(len(ftrace)), *map(sized, ftrace)]
    parts.append(number(len(systems)))
    for system, texts in systems.items():
        parts += [system.encode() + b"\0", number(len(texts)), *map(sized, texts)]
    parts += [number(4), b"syms", number(6), b'0x1 "a']
    if version >= "0.6":
        parts += [struct.pack(f"{endian}Q", 7), b"1 init\n"]
    return b"".join(parts)
