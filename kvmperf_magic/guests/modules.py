"""The modules that a guest's kernel has loaded, and their symbols, read from its memory.

Each module is a `struct module` in the list `modules` and keeps the symbols it was loaded with
(include/linux/module.h, kernel/module/kallsyms.c). Where its members lie, BTF tells: code and
data are `core_layout` before 6.4, an array `mem` since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.btf import Btf, Member
from kvmperf_magic.guests.paging_x86 import PagingX86
from kvmperf_magic.symbols.kallsyms import Listing
from kvmperf_magic.table import Categorical

_LIVE, _COMING, _GOING, _UNFORMED = range(4)  # enum module_state
_MOST_MODULES = 4096
_MOST_SYMBOLS = 1 << 20  # of one module, and about as many of all
_MOST_TEXT = 32 << 20
_MOST_PARTS = 16  # enum mod_mem_type has seven
_LONGEST_NAME = 511  # KSYM_NAME_LEN without its NUL: kallsyms shows no more of a name
_SYMBOL = 24  # Elf64_Sym: st_name u32, st_info u8, st_other u8, st_shndx u16, st_value, st_size
_RECORD = b"__ksymtab_"


@dataclass(frozen=True)
class Module:
    """One module: `ranges` are its parts of memory, (address, size) each, the code first."""

    name: str
    ranges: list[tuple[int, int]]
    symbols: Listing


@dataclass(frozen=True)
class _Shape:
    """Where the members of `struct module` lie."""

    links: Member
    state: Member
    name: Member
    kallsyms: Member
    symtab: Member
    count: Member
    strtab: Member
    typetab: Member | None
    syms: Member | None
    num_syms: Member | None
    each_sym: int

    @classmethod
    def of(cls, btf: Btf) -> _Shape | None:
        links, state = btf.member("module", "list"), btf.member("module", "state")
        name, kallsyms = btf.member("module", "name"), btf.member("module", "kallsyms")
        symtab, strtab = (btf.member("mod_kallsyms", part) for part in ("symtab", "strtab"))
        count = btf.member("mod_kallsyms", "num_symtab")
        if not (links and state and name and kallsyms and symtab and count and strtab):
            return None
        return cls(
            *(links, state, name, kallsyms, symtab, count, strtab),
            btf.member("mod_kallsyms", "typetab"),
            btf.member("module", "syms"),
            btf.member("module", "num_syms"),
            btf.size("kernel_symbol") or 0,
        )


def loaded_modules(paging: PagingX86, head: int, btf: Btf) -> list[Module] | None:
    """All modules in the list that begins at `head`; None where BTF does not know them."""
    shape = _Shape.of(btf)
    if shape is None:
        return None
    found: list[Module] = []
    seen = {head}
    symbols = text = 0
    at = paging.number(head)
    while at and at not in seen and len(seen) <= _MOST_MODULES:
        if symbols > _MOST_SYMBOLS or text > _MOST_TEXT:
            break
        seen.add(at)
        module = at - shape.links.offset
        if paging.number(module + shape.state.offset, 4) != _UNFORMED:
            one = _module(paging, module, shape, btf)
            if one is not None:
                found.append(one)
                symbols, text = symbols + len(one.symbols), text + len(one.symbols.strings)
        at = paging.number(at)
    return found


def _module(paging: PagingX86, module: int, shape: _Shape, btf: Btf) -> Module | None:
    name = paging.string(module + shape.name.offset, min(shape.name.size, _LONGEST_NAME))
    ranges = _ranges(paging, module, btf)
    if not name or not ranges:
        return None
    return Module(name, ranges, _symbols(paging, module, shape, name))


def _ranges(paging: PagingX86, module: int, btf: Btf) -> list[tuple[int, int]]:
    layouts: list[tuple[int, Member | None, Member | None]] = []
    core, parts = btf.member("module", "core_layout"), btf.member("module", "mem")
    each = btf.size("module_memory")
    if core is not None:
        inside = btf.member("module_layout", "base"), btf.member("module_layout", "size")
        layouts.append((module + core.offset, *inside))
    elif parts is not None and each:
        inside = btf.member("module_memory", "base"), btf.member("module_memory", "size")
        places = range(parts.offset, parts.offset + parts.size, each)[:_MOST_PARTS]
        layouts += [(module + place, *inside) for place in places]
    found = []
    for place, base, size in layouts:
        if base is not None and size is not None:
            address, length = (
                paging.number(place + base.offset),
                paging.number(place + size.offset, 4),
            )
            if address and length:
                found.append((address, length))
    return found


def _symbols(paging: PagingX86, module: int, shape: _Shape, name: str) -> Listing:
    """What /proc/kallsyms lists of the module, with the types it shows."""
    none = Listing(
        np.zeros(0, np.uint64),
        np.zeros(0, np.uint8),
        b"",
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        Categorical.constant(name, 0),
    )
    table = paging.number(module + shape.kallsyms.offset)
    count = paging.number(table + shape.count.offset, 4) if table else 0
    if not 0 < count <= _MOST_SYMBOLS:
        return none
    symbols = paging.read(paging.number(table + shape.symtab.offset), count * _SYMBOL)
    if not symbols:
        return none
    columns = np.frombuffer(symbols, np.uint8).reshape(count, _SYMBOL)
    name_at = columns[:, :4].copy().view("<u4").ravel().astype(np.int64)
    address = columns[:, 8:16].copy().view("<u8").ravel()
    if shape.typetab is not None:
        types = paging.read(paging.number(table + shape.typetab.offset), count)
    else:  # before 5.2 the type stood in the symbol itself
        types = columns[:, 4].tobytes()
    text = _strings(paging, paging.number(table + shape.strtab.offset), int(name_at.max()))
    if not types or not text:
        return none
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)
    inside = name_at <= ends[-1] if len(ends) else np.zeros(count, np.bool_)
    rows = np.flatnonzero(inside)
    length = np.minimum(ends[np.searchsorted(ends, name_at[rows])] - name_at[rows], _LONGEST_NAME)
    rows, length = rows[length > 0], length[length > 0]
    listed = Listing(
        address[rows],
        np.frombuffer(types, np.uint8)[rows],
        text,
        name_at[rows],
        length,
        Categorical.constant(name, len(rows)),
    )
    return replace(listed, types=_as_shown(listed, _exports(paging, module, shape)))


def _exports(paging: PagingX86, module: int, shape: _Shape) -> tuple[int, int]:
    """Where the records of the exported symbols are, from and until."""
    if shape.syms is None or shape.num_syms is None:
        return 0, 0
    start = paging.number(module + shape.syms.offset)
    count = paging.number(module + shape.num_syms.offset, 4)
    return start, min(start + count * shape.each_sym, 2**64 - 1)


def _strings(paging: PagingX86, start: int, last: int) -> bytes:
    """The string table as far as the end of the string that begins at `last`."""
    if not start or last > _MOST_TEXT:
        return b""
    rest = paging.string(start + last).encode("utf-8", "replace")
    return paging.read(start, last + len(rest) + 1)


def _as_shown(listed: Listing, exports: tuple[int, int]) -> NDArray[np.uint8]:
    """Capital letters for what is exported to all: `__ksymtab_NAME` is among the records of that
    (kernel/module/kallsyms.c: is_exported() does not look at those for the GPL only)."""
    pieces = zip(listed.name_at.tolist(), listed.name_length.tolist(), strict=True)
    names = [listed.strings[at : at + size] for at, size in pieces]
    inside = (listed.address >= np.uint64(exports[0])) & (listed.address < np.uint64(exports[1]))
    records = [names[row] for row in np.flatnonzero(inside).tolist()]
    exported = {name.removeprefix(_RECORD) for name in records if name.startswith(_RECORD)}
    large = np.fromiter((name in exported for name in names), np.bool_, len(names))
    lower = listed.types | np.uint8(0x20)
    letter = (lower >= ord("a")) & (lower <= ord("z"))
    shown = np.where(large, lower & np.uint8(0xDF), lower)
    return np.where(letter, shown, listed.types).astype(np.uint8)


def joined(kernel: Listing, modules: list[Module]) -> Listing:
    """The kernel's symbols and its modules' as one listing."""
    every = [kernel, *(module.symbols for module in modules)]
    shift = np.cumsum([0, *(len(one.strings) for one in every)])[:-1]
    codes = [np.full(len(one), i, np.int32) for i, one in enumerate(every)]
    return Listing(
        np.concatenate([one.address for one in every]),
        np.concatenate([one.types for one in every]),
        b"".join(one.strings for one in every),
        np.concatenate([one.name_at + at for one, at in zip(every, shift, strict=True)]),
        np.concatenate([one.name_length for one in every]),
        Categorical(np.concatenate(codes), ["", *(module.name for module in modules)]),
    )
