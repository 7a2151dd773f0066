"""ELF files: symbols, build-id, and where file offsets lie in memory.

Symbol tables are read as numpy records. What counts
as a symbol follows tools/perf/util/symbol-elf.c: dso__load_sym_internal(), the names of PLT
entries dso__synthesize_plt_symbols(), except that each entry's own jump is followed to its slot
so that .plt.sec and .plt.got are named too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import FileError
from kvmperf_magic.symbols.aliases import best_aliases
from kvmperf_magic.symbols.elfheaders import Section, read_headers
from kvmperf_magic.symbols.symboltable import SymbolTable, fill_ends, find_marks
from kvmperf_magic.table import Categorical

_NOTYPE, _OBJECT, _FUNC, _GNU_IFUNC = 0, 1, 2, 10
_LOCAL, _WEAK = 0, 2
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_SHF_ALLOC = 2
_LAST = 2**64 - 1
_R_X86_64_GLOB_DAT, _R_X86_64_JUMP_SLOT, _R_X86_64_IRELATIVE = 6, 7, 37


@dataclass(frozen=True)
class Segments:
    """The PT_LOAD headers: `offset` in the file, `address` in memory, sizes, all uint64."""

    offset: NDArray[np.uint64]
    address: NDArray[np.uint64]
    file_size: NDArray[np.uint64]
    memory_size: NDArray[np.uint64]
    executable: NDArray[np.bool_]

    def addresses(self, offset: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The link-time address of each file offset; an offset outside stays as it is."""
        result = offset.copy()
        done = np.zeros(len(offset), np.bool_)
        places = zip(self.offset.tolist(), self.file_size.tolist(), self.address, strict=True)
        for begin, size, address in places:
            end = min(begin + size, _LAST)
            # mmap works in pages, so the pages around a segment come along with it
            exact = (offset >= begin) & (offset < end)
            near = ~done & (offset >= begin & ~4095) & (offset < min(end + 4095 & ~4095, _LAST))
            here = exact | near
            result[here] = offset[here] - np.uint64(begin) + address
            done |= exact
        return result

    def runs(self, address: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether each link-time address lies in an executable segment."""
        found = np.zeros(len(address), np.bool_)
        for i in np.flatnonzero(self.executable):
            begin, size = int(self.address[i]), int(self.memory_size[i])
            found |= (address >= begin) & (address < min(begin + size, _LAST))
        return found


class ElfImage:
    """One ELF file, read on demand from a path or from bytes; it keeps no file open.

    Raises:
        FileError: the file cannot be read or is not an ELF file that can be understood.
    """

    def __init__(self, source: str | Path | bytes) -> None:
        self._source = source
        self._string_tables: dict[int, bytes] = {}
        self.path = "memory" if isinstance(source, bytes) else str(source)
        try:
            with self._open() as file:
                headers = read_headers(file)
        except OSError as error:
            raise FileError(self.path, f"cannot be read: {error.strerror}") from None
        except (ValueError, struct.error) as error:
            raise FileError(self.path, f"is not a sound ELF file: {error}") from None
        self.is_64, self.little = headers.is_64, headers.little
        self.machine, self.relocatable = headers.machine, headers.relocatable
        self.sections, self.size = headers.sections, headers.size
        load = headers.load
        self.segments = Segments(
            load["offset"].astype(np.uint64),
            load["vaddr"].astype(np.uint64),
            load["filesz"].astype(np.uint64),
            load["memsz"].astype(np.uint64),
            (load["flags"] & 1).astype(np.bool_),
        )
        notes = headers.notes
        self._notes = list(zip(notes["offset"].tolist(), notes["filesz"].tolist(), strict=True))
        self._notes += [(s.offset, s.size) for s in self.sections if s.type == "SHT_NOTE"]

    def _open(self) -> BinaryIO:
        if isinstance(self._source, bytes):
            return BytesIO(self._source)
        return Path(self._source).open("rb")

    def _read(self, offset: int, size: int) -> bytes:
        if offset >= self.size:
            return b""
        with self._open() as file:
            file.seek(offset)
            return file.read(min(size, self.size - offset))

    @property
    def in_memory(self) -> bool:
        """Whether it was given as bytes: then `path` names no file."""
        return isinstance(self._source, bytes)

    def whole(self) -> bytes:
        """All of the file."""
        return self._read(0, self.size)

    def section(self, name: str) -> Section | None:
        return next((s for s in self.sections if s.name == name), None)

    def content(self, section: Section) -> bytes:
        if section.type == "SHT_NOBITS":
            return b""
        return self._read(section.offset, section.size)

    @cached_property
    def build_id(self) -> str:
        """The build-id as hex digits, "" where there is none."""
        from kvmperf_magic.symbols.buildid import in_notes

        for offset, size in self._notes:
            found = in_notes(self._read(offset, min(size, 1 << 20)), little=self.little)
            if found:
                return found
        return ""

    @cached_property
    def debuglink(self) -> tuple[str, int] | None:
        """The name and CRC-32 of the file with the debug data (.gnu_debuglink)."""
        section = self.section(".gnu_debuglink")
        if section is None:
            return None
        data = self.content(section)
        name, _, _ = data.partition(b"\0")
        if not name or len(data) < 4 or b"/" in name:
            return None
        order: Literal["little", "big"] = "little" if self.little else "big"
        return name.decode("utf-8", "replace"), int.from_bytes(data[-4:], order)

    @property
    def has_symtab(self) -> bool:
        return self._first("SHT_SYMTAB") is not None

    def _first(self, kind: str) -> Section | None:
        return next((s for s in self.sections if s.type == kind and s.size), None)

    def symbols(
        self, runtime: ElfImage | None = None, sections: Mapping[int, int] | None = None
    ) -> SymbolTable:
        """Functions, objects and labels by link-time address, PLT entries included.

        `runtime` is the file that is mapped where this one only holds its debug data: it gives
        the PLT. A table that is damaged gives the symbols that can be read. `sections`: only
        symbols of these count, and they count from the address given.
        """
        if sections is not None:
            found = self._first("SHT_SYMTAB")
            return _table([] if found is None else [self._raw(found, sections)])
        tables = [(self, self._first("SHT_SYMTAB")), (self, self._first("SHT_DYNSYM"))]
        if runtime is not None and tables[1][1] is None:
            tables.append((runtime, runtime._first("SHT_DYNSYM")))
        parts = [image._raw(section) for image, section in tables if section is not None]
        with suppress(ValueError, IndexError):
            parts.append((runtime or self)._plt())
        return _table(parts)

    def records(self, section: Section) -> NDArray[Any]:
        """A symbol table as it stands: name, value, size, info, other, section."""
        o = "<" if self.little else ">"
        if self.is_64:
            fields = [
                ("name", o + "u4"),
                ("info", "u1"),
                ("other", "u1"),
                ("section", o + "u2"),
                ("value", o + "u8"),
                ("size", o + "u8"),
            ]
        else:
            fields = [
                ("name", o + "u4"),
                ("value", o + "u4"),
                ("size", o + "u4"),
                ("info", "u1"),
                ("other", "u1"),
                ("section", o + "u2"),
            ]
        dtype = np.dtype(fields)
        data = self.content(section)
        return np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)

    def _strings(self, section: Section) -> bytes:
        link = section.link
        if not 0 < link < len(self.sections):
            return b"\0"
        found = self._string_tables.get(link)
        if found is None:
            found = self.content(self.sections[link])
            found = self._string_tables[link] = found if found.endswith(b"\0") else found + b"\0"
        return found

    def _raw(self, section: Section, sections: Mapping[int, int] | None = None) -> _Raw:
        """The symbols of one table that perf counts; see `symbols()`."""
        records, strings = self.records(section), self._strings(section)
        # SHN_XINDEX and other reserved numbers name no section here
        index = records["section"].astype(np.int64)
        alloc = np.array([bool(s.flags & _SHF_ALLOC) for s in self.sections])
        coded = np.array([".text" in s.name or ".data" in s.name for s in self.sections])
        kind = records["info"] & 15
        known = (index != _SHN_UNDEF) & (index < len(self.sections)) & (records["name"] != 0)
        known &= records["name"] < len(strings)
        visible = (records["other"] & 3 != 1) & (records["other"] & 3 != 2)
        here = np.where(known, index, 0)
        moved = np.zeros(len(self.sections), np.uint64)
        if sections is not None:
            chosen = np.zeros(len(self.sections), np.bool_)
            chosen[list(sections)], moved[list(sections)] = True, list(sections.values())
            alloc &= chosen
        typed = (kind == _FUNC) | (kind == _GNU_IFUNC) | (kind == _OBJECT)
        label = (kind == _NOTYPE) & visible & coded[here]
        rows = np.flatnonzero(known & alloc[here] & (typed | label))
        records = records[rows]
        name_at = records["name"].astype(np.int64)
        stops = np.flatnonzero(np.frombuffer(strings, np.uint8) == 0)
        length = stops[np.searchsorted(stops, name_at)] - name_at
        value = records["value"].astype(np.uint64)
        value += moved[here[rows]]
        if self.machine == "EM_ARM":
            value[kind[rows] == _FUNC] &= ~np.uint64(1)
        raw = _Raw(
            value,
            records["size"].astype(np.uint64),
            kind[rows].astype(np.uint8),
            (records["info"] >> 4).astype(np.uint8),
            strings,
            name_at,
            length,
        )
        if self.machine in {"EM_ARM", "EM_AARCH64"}:
            # mapping symbols such as $x and $d.12 name no function
            raw = raw.take(np.frombuffer(strings, np.uint8)[name_at] != ord("$"))
        return raw

    def _plt(self) -> _Raw:
        """Names for the entries of the procedure linkage tables (x86-64)."""
        dynsym = self.section(".dynsym")
        if self.machine != "EM_X86_64" or not self.is_64 or dynsym is None:
            return _Raw.named([], [], b"", [])
        dtype = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
        slots: dict[int, str] = {}
        records, strings = self.records(dynsym), self._strings(dynsym)
        for section in filter(None, map(self.section, (".rela.plt", ".rela.dyn"))):
            data = self.content(section)
            relocations = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
            jumps = np.isin(relocations["type"], (_R_X86_64_GLOB_DAT, _R_X86_64_JUMP_SLOT))
            named = relocations[jumps & (relocations["symbol"] < len(records))]
            for slot, at in zip(
                named["offset"].tolist(), records["name"][named["symbol"]].tolist(), strict=True
            ):
                name = strings[at : strings.find(b"\0", at)].decode("utf-8", "replace")
                slots[slot] = f"{name}@plt"
            indirect = relocations[relocations["type"] == _R_X86_64_IRELATIVE]
            for slot, target in zip(
                indirect["offset"].tolist(), indirect["addend"].tolist(), strict=True
            ):
                slots[slot] = f"*ABS*+{target:#x}@plt"
        starts: list[int] = []
        sizes: list[int] = []
        names: list[str] = []
        for section in filter(None, map(self.section, (".plt", ".plt.sec", ".plt.got"))):
            for start, slot, size in _jumps(section, self.content(section)):
                if slot in slots:
                    starts.append(start)
                    sizes.append(size)
                    names.append(slots[slot])
        return _Raw.named(starts, sizes, b"\0".join(n.encode() for n in names), names)


def _jumps(section: Section, code: bytes) -> list[tuple[int, int, int]]:
    """The (address, slot, size) of each entry that has a `jmp *disp(%rip)`."""
    size = 8 if section.name == ".plt.got" else 16
    if section.name == ".plt.got" and code[:4] == b"\xf3\x0f\x1e\xfa":
        size = 16
    entries = np.frombuffer(code, np.uint8, count=len(code) // size * size).reshape(-1, size)
    found: list[tuple[int, int, int]] = []
    # `endbr64` and the `bnd` prefix may stand before the jump
    for skip in (0, 1, 4, 5):
        if skip + 6 > size:
            continue
        hits = np.flatnonzero((entries[:, skip] == 0xFF) & (entries[:, skip + 1] == 0x25))
        if section.name == ".plt" and skip == 0:
            # entry 0 begins with a push, its jump to the resolver stands at 6
            hits = hits[entries[hits, 0] == 0xFF]
        displacement = entries[hits, skip + 2 : skip + 6].copy().view("<i4").ravel()
        for entry, delta in zip(hits.tolist(), displacement.tolist(), strict=True):
            start = section.address + entry * size
            found.append((start, start + skip + 6 + delta, size))
    return found


@dataclass(frozen=True)
class _Raw:
    """Symbols of one source in file order, before perf's rules made them unambiguous."""

    value: NDArray[np.uint64]
    size: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    binding: NDArray[np.uint8]
    strings: bytes
    name_at: NDArray[np.int64]
    name_length: NDArray[np.int64]

    def take(self, rows: Any) -> _Raw:
        return _Raw(
            self.value[rows],
            self.size[rows],
            self.kind[rows],
            self.binding[rows],
            self.strings,
            self.name_at[rows],
            self.name_length[rows],
        )

    @classmethod
    def named(cls, starts: list[int], sizes: list[int], strings: bytes, names: list[str]) -> _Raw:
        """Functions whose names lie in `strings`, one byte apart."""
        length = np.array([len(name.encode()) for name in names], np.int64)
        return cls(
            np.array(starts, np.uint64),
            np.array(sizes, np.uint64),
            np.full(len(names), _FUNC, np.uint8),
            np.ones(len(names), np.uint8),
            strings,
            np.concatenate([[0], np.cumsum(length + 1)[:-1]]).astype(np.int64)
            if len(names)
            else length,
            length,
        )


def _table(parts: list[_Raw]) -> SymbolTable:
    named = [p.strings for p in parts if p.strings]
    strings = named[0] if len(named) == 1 else b"".join(named)
    base = np.cumsum([0, *(len(p.strings) for p in parts)])
    start = np.concatenate([np.zeros(0, np.uint64), *(p.value for p in parts)])
    size = np.concatenate([np.zeros(0, np.uint64), *(p.size for p in parts)])
    kind = np.concatenate([np.zeros(0, np.uint8), *(p.kind for p in parts)])
    binding = np.concatenate([np.zeros(0, np.uint8), *(p.binding for p in parts)])
    name_at = np.concatenate(
        [np.zeros(0, np.int64), *(p.name_at + b for p, b in zip(parts, base[:-1], strict=True))]
    )
    length = np.concatenate([np.zeros(0, np.int64), *(p.name_length for p in parts)])
    order = np.argsort(start, kind="stable")
    start, size, kind, binding = start[order], size[order], kind[order], binding[order]
    name_at, length = name_at[order], length[order]
    # a size that runs over the end of the address space is no size
    size = np.where(start + size < start, np.uint64(0), size)
    end = fill_ends(start, start + size)
    keep, rivalry, rivals = best_aliases(
        start,
        end,
        strings,
        name_at,
        length,
        label=kind == _NOTYPE,
        weak=binding == _WEAK,
        local=(binding == _LOCAL) | (binding == _WEAK),
    )
    # nm's letters, as far as they tell code from data
    code = (kind == _FUNC) | (kind == _GNU_IFUNC) | (kind == _NOTYPE)
    types = np.where(code, ord("T"), ord("D")) | np.where(binding == _LOCAL, 0x20, 0)
    return SymbolTable(
        start[keep],
        end[keep],
        strings,
        name_at[keep],
        length[keep],
        types[keep].astype(np.uint8),
        Categorical.constant("", len(keep)),
        find_marks(start, strings, name_at, length),
        rivals,
        rivalry,
    )
