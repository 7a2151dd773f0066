"""Rewrites a perf.data as a big-endian machine would have written it, field by field.

An oracle, so it shares nothing with the reader: plain struct code over one record after the
other, from include/uapi/linux/perf_event.h and tools/perf/Documentation/perf.data-file-format.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

IP, TID, TIME, ADDR, READ, CALLCHAIN, ID, CPU, PERIOD, STREAM_ID, RAW = (1 << i for i in range(11))
BRANCH_STACK, REGS_USER, STACK_USER, WEIGHT, DATA_SRC, IDENTIFIER = (1 << i for i in range(11, 17))
TRANSACTION, REGS_INTR, PHYS_ADDR, AUX, CGROUP = (1 << i for i in range(17, 22))
DATA_PAGE_SIZE, CODE_PAGE_SIZE, WEIGHT_STRUCT = (1 << i for i in range(22, 25))
# widths of the branch flags' bit fields, low end first
BRANCH_BITS = (1, 1, 1, 1, 16, 4, 2, 4, 3, 28)


class Attr:
    def __init__(self, raw: bytes, ids: set[int]) -> None:
        self.ids = ids
        raw = raw.ljust(136, b"\0")
        (self.sample_type, self.read_format, self.flags) = struct.unpack_from("<QQQ", raw, 24)
        (self.branch_type, self.regs_user) = struct.unpack_from("<QQ", raw, 72)
        (self.regs_intr,) = struct.unpack_from("<Q", raw, 96)


class BigEndian:
    """`data` in, `out` out. `long`: bytes of an unsigned long there (of the feature mask)."""

    def __init__(self, data: bytes, long: int = 8) -> None:
        self.data, self.out, self.long = data, bytearray(data), long
        self.attrs: list[Attr] = []
        self.cpus = 0
        if self.u64(8) == 16:
            self.turn(0, 8)
            self.turn(8, 8)
            self.records(16, len(data))
        else:
            self.file()

    def u16(self, at: int) -> int:
        return struct.unpack_from("<H", self.data, at)[0]

    def u32(self, at: int) -> int:
        return struct.unpack_from("<I", self.data, at)[0]

    def u64(self, at: int) -> int:
        return struct.unpack_from("<Q", self.data, at)[0]

    def turn(self, at: int, size: int) -> int:
        """One number; its end."""
        self.out[at : at + size] = self.data[at : at + size][::-1]
        return at + size

    def many(self, at: int, size: int, count: int) -> int:
        for _ in range(count):
            at = self.turn(at, size)
        return at

    def file(self) -> None:
        self.many(0, 8, 9)
        self.many(72, self.long, 32 // self.long)
        attr_size, attrs, attrs_size, data, data_size = (self.u64(at) for at in range(16, 56, 8))
        for at in range(attrs, attrs + attrs_size, attr_size):
            self.many(at + attr_size - 16, 8, 2)
            ids, size = self.u64(at + attr_size - 16), self.u64(at + attr_size - 8)
            self.attr(at, attr_size - 16, ids, size // 8)
        mask = int.from_bytes(self.data[72:104], "little")
        features = [bit for bit in range(256) if mask >> bit & 1]
        for i, feature in enumerate(features):
            entry = data + data_size + 16 * i
            self.many(entry, 8, 2)
            self.feature(feature, self.u64(entry), self.u64(entry) + self.u64(entry + 8))
        self.records(data, data + data_size)

    def attr(self, at: int, size: int, ids: int, count: int) -> None:
        numbers = {self.u64(ids + 8 * i) for i in range(count)}
        self.many(ids, 8, count)
        self.attrs.append(Attr(self.data[at : at + size], numbers))
        self.raw_attr(at, size)

    def raw_attr(self, at: int, size: int) -> None:
        end = at + size
        at = self.many(self.many(at, 4, 2), 8, 4)
        for i in range(at, at + 8):  # each byte's bits change places, the bytes stay
            self.out[i] = int(f"{self.data[i]:08b}"[::-1], 2)
        at = self.many(self.many(at + 8, 4, 2), 8, 2)
        for step in (8, 8, 4, 4, 8, 4, 2, 2, 4, 4, 8, 8, 8):
            if at >= end:
                return
            at = self.turn(at, step)

    def string(self, at: int) -> int:
        self.turn(at, 4)
        return at + 4 + self.u32(at)

    def strings(self, at: int, count: int = 1) -> int:
        for _ in range(count):
            at = self.string(at)
        return at

    def listed(self, at: int, item: Callable[[int], int]) -> int:
        count = self.u32(at)
        at = self.turn(at, 4)
        for _ in range(count):
            at = item(at)
        return at

    def feature(self, feature: int, at: int, end: int) -> None:
        if at == end:
            return
        if feature in (3, 4, 5, 6, 8, 9):
            self.string(at)
        elif feature == 7:
            self.cpus = self.u32(at)
            self.many(at, 4, 2)
        elif feature in (10, 21, 23, 24, 18, 22):
            self.many(at, 8, (end - at) // 8)
        elif feature == 11:
            self.listed(at, self.string)
        elif feature == 12:
            count, size = self.u32(at), self.u32(at + 4)
            at = self.many(at, 4, 2)
            for _ in range(count):
                self.raw_attr(at, size)
                ids = self.u32(at + size)
                at = self.strings(self.turn(at + size, 4))
                at = self.many(at, 8, ids)
        elif feature == 13:
            at = self.listed(self.listed(at, self.string), self.string)
            if end - at >= 8 * self.cpus:
                at = self.many(at, 4, 2 * self.cpus)
            if end - at >= 4:
                at = self.listed(at, self.string)
                self.many(at, 4, (end - at) // 4)
        elif feature == 14:
            self.listed(at, lambda at: self.string(self.many(self.turn(at, 4), 8, 2)))
        elif feature == 16:
            self.listed(at, lambda at: self.string(self.turn(at, 4)))
        elif feature == 17:
            self.listed(at, lambda at: self.many(self.string(at), 4, 2))
        elif feature == 20:
            at = self.turn(at, 4)
            self.listed(at, lambda at: self.strings(self.many(at, 4, 4), 3))
        elif feature in (27, 33, 34):
            self.many(at, 4, (end - at) // 4)
        elif feature in (28, 30):
            self.listed(at, lambda at: self.strings(at, 2))
        elif feature == 31:
            self.listed(at, lambda at: self.string(self.listed(at, lambda at: self.strings(at, 2))))
        elif feature == 29:
            self.many(self.many(at, 4, 2), 8, 2)
        elif feature == 2:
            while end - at >= 36:
                size = self.header(at)
                self.turn(at + 8, 4)
                at += size
        elif feature not in (1, 15, 19, 25, 26, 32) and feature < 128:
            raise NotImplementedError(feature)

    def header(self, at: int) -> int:
        self.turn(at, 4)
        self.turn(at + 4, 2)
        self.turn(at + 6, 2)
        return self.u16(at + 6)

    def records(self, at: int, end: int) -> None:
        while at + 8 <= end:
            kind, size = self.u32(at), self.header(at)
            at = self.record(kind, at, at + size)

    def record(self, kind: int, at: int, end: int) -> int:
        """One record; where the next one begins."""
        body = at + 8
        if kind == 9:
            self.sample(body, end)
        elif kind < 64:
            trailer = self.trailer(end)
            self.kernel(kind, body, end, trailer)
        elif kind == 64:
            size = self.u32(body + 4) or 64
            self.attr(body, size, body + size, (end - body - size) // 8)
        elif kind == 66:
            self.turn(body, 4)
            return end + -(-self.u32(body) // 8) * 8
        elif kind == 67:
            self.turn(body, 4)
        elif kind == 69:
            self.many(body, 8, (end - body) // 8)
        elif kind == 70:
            self.many(self.many(body, 4, 2), 8, (end - body - 8) // 8)
        elif kind == 71:
            self.many(self.many(body, 8, 3), 4, 4)
            return end + self.u64(body)
        elif kind == 73:
            for i in range(self.u64(body)):
                self.turn(body + 8 + 24 * i, 8)
            self.turn(body, 8)
        elif kind == 78:
            self.many(body, 8, 2)
        elif kind == 79:
            self.many(body, 8, 5 if end - body >= 40 else 3)
        elif kind == 80:
            self.turn(body, 8)
            self.feature(self.u64(body), body + 8, end)
        elif kind not in (65, 68, 74, 82):
            raise NotImplementedError(kind)
        return end

    def trailer(self, end: int) -> int:
        """Turns the trailer (sample_id_all); where it begins."""
        attr = self.attrs[0]
        if len({(a.sample_type, a.flags >> 18 & 1) for a in self.attrs}) > 1:
            attr = next((a for a in self.attrs if self.u64(end - 8) in a.ids), attr)
        if not attr.flags >> 18 & 1:
            return end
        kinds = (TID, TIME, ID, STREAM_ID, CPU, IDENTIFIER)
        has = [bit for bit in kinds if attr.sample_type & bit]
        at = begin = end - 8 * len(has)
        for bit in has:
            at = self.many(at, 4, 2) if bit in (TID, CPU) else self.turn(at, 8)
        return begin

    def kernel(self, kind: int, at: int, end: int, trailer: int) -> None:
        plain = {2: 2, 5: 3, 6: 3, 11: 3, 13: 1, 14: 0, 21: 1}
        if kind == 1:
            self.many(self.many(at, 4, 2), 8, 3)
        elif kind == 10:
            self.many(self.many(at, 4, 2), 8, 3)
            if not self.u16(at - 4) >> 14 & 1:
                self.many(self.many(at + 32, 4, 2), 8, 2)
            self.many(at + 56, 4, 2)
        elif kind in (3, 12, 15):
            self.many(at, 4, 2)
        elif kind in (4, 7):
            self.turn(self.many(at, 4, 4), 8)
        elif kind in (8, 16):
            self.many(self.many(at, 4, 2), 8, (trailer - at - 8) // 8)
        elif kind == 17:
            self.many(self.turn(self.turn(at, 8), 4), 2, 2)
        elif kind == 18:
            self.turn(self.many(at, 2, 2), 4)
        elif kind == 19:
            self.turn(at, 8)
        elif kind == 20:
            self.many(self.turn(at, 8), 2, 2)
        elif kind in plain:
            self.many(at, 8, plain[kind])
        else:
            raise NotImplementedError(kind)

    def attr_of(self, at: int) -> Attr:
        for attr in self.attrs if len(self.attrs) > 1 else []:
            place, kind = at, attr.sample_type
            if not kind & IDENTIFIER:
                place += 8 * (kind & (IP | TID | TIME | ADDR)).bit_count()
            if kind & (IDENTIFIER | ID) and self.u64(place) in attr.ids:
                return attr
        return self.attrs[0]

    def sample(self, at: int, end: int) -> None:
        attr = self.attr_of(at)
        kind = attr.sample_type
        for bit in (IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD):
            if kind & bit:
                at = self.many(at, 4, 2) if bit in (TID, CPU) else self.turn(at, 8)
        if kind & READ:
            form = attr.read_format
            count = self.u64(at) if form & 8 else 1
            words = bool(form & 8) + (form & 3).bit_count()
            at = self.many(at, 8, words + count * (1 + (form & 0x14).bit_count()))
        if kind & CALLCHAIN:
            at = self.many(at, 8, 1 + self.u64(at))
        if kind & RAW:
            size = self.u32(at)
            self.turn(at, 4)
            at += (4 + size + 7) // 8 * 8
        if kind & BRANCH_STACK:
            count = self.u64(at)
            at = self.many(at, 8, 1 + (attr.branch_type >> 17 & 1))
            for _ in range(count):
                at = self.branch_flags(self.many(at, 8, 2))
            at = self.many(at, 8, count * (attr.branch_type >> 19 & 1))
        if kind & REGS_USER:
            at = self.many(at, 8, 1 + (attr.regs_user.bit_count() if self.u64(at) else 0))
        if kind & STACK_USER:
            size = self.u64(at)
            at = self.turn(at, 8) + size
            at = self.turn(at, 8) if size else at
        for bit in (WEIGHT | WEIGHT_STRUCT, DATA_SRC, TRANSACTION):
            at = self.turn(at, 8) if kind & bit else at
        if kind & REGS_INTR:
            at = self.many(at, 8, 1 + (attr.regs_intr.bit_count() if self.u64(at) else 0))
        for bit in (PHYS_ADDR, CGROUP, DATA_PAGE_SIZE, CODE_PAGE_SIZE):
            at = self.turn(at, 8) if kind & bit else at
        if kind & AUX:
            at = self.turn(at, 8) + self.u64(at)
        assert at == end, (at, end)

    def branch_flags(self, at: int) -> int:
        """The bit fields of struct perf_branch_entry, laid from the top."""
        value, low, theirs = self.u64(at), 0, 0
        for width in BRANCH_BITS:
            part = value >> low & ((1 << width) - 1)
            low += width
            theirs |= part << (64 - low)
        self.out[at : at + 8] = theirs.to_bytes(8, "big")
        return at + 8
