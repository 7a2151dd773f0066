"""BTF: the types of a kernel, from the kernel's own memory (Documentation/bpf/btf.rst).

Only what is asked for is read: where the members of a few structs lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0xEB9F
_HEADER = 24
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _ENUM64 = 1, 3, 4, 5, 6, 19
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG = 8, 9, 10, 11, 18
_NAMED_ELSEWHERE = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
_POINTER_SIZE = 8
_DEEPEST = 32
_MOST_PLACES = 8  # of a name among the strings: each is there once, unless it is a trap

# words behind the three every type has: so many at once, and so many for each of its `vlen`
_ONCE = np.zeros(32, np.int64)
_ONCE[[_INT, _ARRAY, 14, 17]] = [1, 3, 1, 1]  # 14: variable, 17: declaration tag
_EACH = np.zeros(32, np.int64)
_EACH[[_STRUCT, _UNION, _ENUM, 13, 15, _ENUM64]] = [3, 3, 2, 2, 3, 3]  # 13: prototype, 15: section


@dataclass(frozen=True)
class Member:
    """A member of a struct: where it begins, in bytes, and how large it is (0: not known)."""

    offset: int
    size: int


class Btf:
    """The types of one kernel. Whatever is asked for and not there is None."""

    def __init__(self, words: NDArray[np.uint32], strings: bytes) -> None:
        self._words = words
        self._strings = strings

    @classmethod
    def parse(cls, data: bytes) -> Btf | None:
        """None where it is no BTF of this byte order, or a damaged one."""
        if len(data) < _HEADER or int.from_bytes(data[:2], "little") != _MAGIC:
            return None
        header, types_at, types_size, strings_at, strings_size = np.frombuffer(
            data, np.uint32, 5, 4
        ).tolist()
        if header + max(types_at + types_size, strings_at + strings_size) > len(data):
            return None
        words = np.frombuffer(data, np.uint8, types_size // 4 * 4, header + types_at)
        strings = data[header + strings_at : header + strings_at + strings_size]
        return cls(words.copy().view(np.uint32), strings)

    def member(self, struct: str, *path: str) -> Member | None:
        """A member of a struct, and members of that one: `("module", "core_layout", "base")`."""
        found = self._named(struct, _STRUCT)
        offset = size = 0
        for name in path:
            below = None if found is None else self._member(found, name, set())
            if below is None:
                return None
            offset += below[0]
            found, size = self._layout(below[1])
        return Member(offset, size)

    def size(self, struct: str) -> int | None:
        found = self._named(struct, _STRUCT)
        return None if found is None else int(self._words[found + 2])

    def _member(self, at: int, name: str, seen: set[int]) -> tuple[int, int] | None:
        """Offset and type of a member of the struct whose record is at `at`."""
        seen.add(at)
        info = int(self._words[at + 1])
        records = self._words[at + 3 : at + 3 + (info & 0xFFFF) * 3].reshape(-1, 3)
        # with bit fields the offset has their size above it
        offsets = records[:, 2] & (0xFFFFFF if info >> 31 else 0xFFFFFFFF)
        for (name_at, kind, _), bits in zip(records.tolist(), offsets.tolist(), strict=True):
            if self._is(name_at, name):
                return bits // 8, kind
            if not name_at:  # what is in a struct without a name is its own
                inner, _ = self._layout(kind)
                if inner is None or inner in seen or len(seen) > _DEEPEST:
                    continue
                below = self._member(inner, name, seen)
                if below is not None:
                    return bits // 8 + below[0], below[1]
        return None

    def _layout(self, kind: int) -> tuple[int | None, int]:
        """The record of a struct type (None for others), and the size of a type."""
        count = 1
        for _ in range(_DEEPEST):
            if not 0 < kind <= len(self._records):
                break
            at = int(self._records[kind - 1])
            which = int(self._words[at + 1]) >> 24 & 31
            if which in _NAMED_ELSEWHERE:
                kind = int(self._words[at + 2])
            elif which == _ARRAY:
                count *= int(self._words[at + 5])
                kind = int(self._words[at + 3])
            elif which == 2:
                return None, _POINTER_SIZE * count
            else:
                is_struct = which in (_STRUCT, _UNION)
                return (at if is_struct else None), int(self._words[at + 2]) * count
        return None, 0

    @cached_property
    def _records(self) -> NDArray[np.int64]:
        """Where the record of each type begins, from type 1 on; what is cut off is none."""
        words = self._words
        if len(words) < 3:
            return np.zeros(0, np.int64)
        info = words[1:].astype(np.int64)
        which = info >> 24 & 31
        following = np.arange(len(info)) + 3 + _ONCE[which] + _EACH[which] * (info & 0xFFFF)
        steps = following.tolist()
        found: list[int] = []
        at = 0
        while at < len(steps) and steps[at] <= len(words):
            found.append(at)
            at = steps[at]
        return np.array(found, np.int64)

    def _named(self, name: str, kind: int) -> int | None:
        """The record of the type of this name and kind."""
        at = self._records
        info = self._words[at + 1]
        names = self._words[at]
        wanted = b"\0" + name.encode() + b"\0"
        place = -1
        for _ in range(_MOST_PLACES):
            place = self._strings.find(wanted, place + 1)
            if place < 0:
                break
            rows = np.flatnonzero((names == place + 1) & (info >> 24 & 31 == kind))
            if len(rows):
                return int(at[rows[0]])
        return None

    def _is(self, name_at: int, name: str) -> bool:
        wanted = name.encode() + b"\0"
        return self._strings[name_at : name_at + len(wanted)] == wanted
