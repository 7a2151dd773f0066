"""/proc/kallsyms, its copies, and System.map: the kernel's own list of symbols.

What counts follows tools/perf/util/symbol.c: symbol_type__filter() takes T, W, D and B of
either case, map__process_kallsym_symbol() leaves out names that begin with `$`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kvmperf_magic.errors import SymbolError
from kvmperf_magic.symbols.aliases import best_aliases
from kvmperf_magic.symbols.symboltable import SymbolTable, fill_ends, find_marks
from kvmperf_magic.table import Categorical

_COUNTED = np.zeros(256, np.bool_)
_COUNTED[list(b"TtWwDdBb")] = True
_HEX = np.full(256, 255, np.uint8)
_HEX[list(b"0123456789")] = np.arange(10)
_HEX[list(b"abcdef")] = np.arange(10, 16)
_HEX[list(b"ABCDEF")] = np.arange(10, 16)
_FIRST_LINE = re.compile(rb"^([0-9a-fA-F]{8}|[0-9a-fA-F]{16}) \S \S", re.MULTILINE)


@dataclass(frozen=True)
class Listing:
    """n symbols as a kernel lists them, in any order; names lie in `strings` as in SymbolTable."""

    address: NDArray[np.uint64]
    types: NDArray[np.uint8]
    strings: bytes
    name_at: NDArray[np.int64]
    name_length: NDArray[np.int64]
    modules: Categorical

    def __len__(self) -> int:
        return len(self.address)

    def counted(self) -> Listing:
        """Those that perf counts: functions and data, without the assembler's own marks."""
        kept = _COUNTED[self.types]
        text = np.frombuffer(self.strings, np.uint8)
        rows = np.flatnonzero(kept & (self.name_length > 0))
        return self.take(rows[text[self.name_at[rows]] != ord("$")])

    def take(self, rows: NDArray[np.intp]) -> Listing:
        return Listing(
            self.address[rows],
            self.types[rows],
            self.strings,
            self.name_at[rows],
            self.name_length[rows],
            self.modules.take(rows),
        )

    def table(self) -> SymbolTable:
        """Sorted, one name an address."""
        order = np.argsort(self.address, kind="stable")
        start, module = self.address[order], self.modules.codes[order]
        name_at, length = self.name_at[order], self.name_length[order]
        types = self.types[order]
        end = fill_ends(start, start, module)
        keep, _, _ = best_aliases(  # names of C are readable as they stand
            start,
            end,
            self.strings,
            name_at,
            length,
            label=np.zeros(len(start), np.bool_),
            weak=(types | 0x20) == ord("w"),
            local=types >= ord("a"),
        )
        return SymbolTable(
            start[keep],
            end[keep],
            self.strings,
            name_at[keep],
            length[keep],
            types[keep],
            Categorical(module[keep], self.modules.categories),
            find_marks(start, self.strings, name_at, length),
        )


def parse(source: str | Path | bytes) -> SymbolTable:
    """The symbols of a kallsyms file, or of its text (anything with a line end in it).

    Lines that are not of the form `ADDRESS TYPE NAME[\\t[MODULE]]` are passed over.

    Raises:
        SymbolError: the file cannot be read, holds no symbols, or hides every address.
    """
    text, where = _text_of(source)
    first = _FIRST_LINE.search(text)
    if first is None:
        raise SymbolError(
            f"{where} holds no symbols", "expected lines such as 'ffffffff81000000 T _text'"
        )
    width = len(first.group(1))
    buffer = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero(buffer == ord("\n"))
    line = np.concatenate([[0], breaks + 1])
    stop = np.append(breaks, len(buffer))
    # address, blank, type, blank and at least one letter
    room = stop - line >= width + 4
    line, stop = line[room], stop[room]
    shaped = (
        (buffer[line + width] == ord(" "))
        & (buffer[line + width + 2] == ord(" "))
        & (buffer[line + width + 3] != ord("$"))
    )
    shaped &= _COUNTED[buffer[line + width + 1]]
    line, stop = line[shaped], stop[shaped]
    digits = _HEX[sliding_window_view(buffer, width)[line]]
    good = (digits < 16).all(axis=1)
    line, stop, digits = line[good], stop[good], digits[good]
    pairs = (digits[:, 0::2] << 4) | digits[:, 1::2]
    start = pairs.copy().view(f">u{width // 2}").ravel().astype(np.uint64)
    if not start.any():
        raise SymbolError(
            f"{where} shows no addresses" if len(start) else f"{where} holds no functions",
            "the kernel hides them: run as root, or 'sysctl kernel.kptr_restrict=0'",
        )
    modules, name_stop = _modules(text, buffer, line, stop)
    name_at = (line + width + 3).astype(np.int64)
    return Listing(
        start,
        buffer[line + width + 1],
        text,
        name_at,
        name_stop.astype(np.int64) - name_at,
        modules,
    ).table()


def _text_of(source: str | Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "the kallsyms text"
    if isinstance(source, str) and "\n" in source:
        return source.encode("utf-8", "surrogateescape"), "the kallsyms text"
    try:
        return Path(source).read_bytes(), str(source)
    except OSError as error:
        raise SymbolError(f"cannot read {source}: {error.strerror}") from None


def _modules(
    text: bytes, buffer: NDArray[np.uint8], line: NDArray[np.intp], stop: NDArray[np.intp]
) -> tuple[Categorical, NDArray[np.intp]]:
    """The module of each line, and where its name ends: at the tab where there is one."""
    tabs = np.flatnonzero(buffer == ord("\t"))
    codes = np.zeros(len(line), np.int32)
    names = {"": 0}
    name_stop = stop.copy()
    if len(tabs) and len(line):
        row = np.searchsorted(line, tabs, side="right") - 1
        held = (row >= 0) & (tabs < stop[row])
        row, tabs = row[held], tabs[held]
        row, firsts = np.unique(row, return_index=True)
        tabs = tabs[firsts]
        name_stop[row] = tabs
        found = [
            text[a:b].strip(b" \t[]\r").decode("utf-8", "replace")
            for a, b in zip(tabs.tolist(), stop[row].tolist(), strict=True)
        ]
        codes[row] = [names.setdefault(name, len(names)) for name in found]
    return Categorical(codes, list(names)), name_stop


def parse_modules(source: str | Path | bytes) -> dict[str, tuple[int, int]]:
    """The (address, size) of each module in a /proc/modules file; {} where it hides them.

    Raises:
        SymbolError: the file cannot be read.
    """
    text, _ = _text_of(source)
    found = {}
    for line in text.decode("utf-8", "replace").splitlines():
        # name size references users state address
        words = line.split()
        if len(words) < 6 or not words[1].isdigit():
            continue
        try:
            address = int(words[5], 16)
        except ValueError:
            continue
        if address:
            found[words[0]] = (address, int(words[1]))
    return found
