"""Reads numbers and strings from a section of a file, and minds its end."""

from __future__ import annotations


class Cursor:
    """Goes through `data` (little endian). ValueError where more is wanted than there is."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise ValueError(f"{size} bytes wanted at {self.at} of {len(self.data)}")
        self.at += size
        return part

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self) -> str:
        """A u32 that counts the bytes, then the bytes: do_read_string()."""
        return text(self.take(self.u32()))

    def strings(self) -> list[str]:
        return [self.string() for _ in range(self.u32())]

    def terminated(self) -> str:
        """Bytes up to a NUL, which is stepped over."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError(f"a string at {self.at} of {len(self.data)} does not end")
        return text(self.take(end + 1 - self.at))

    @property
    def left(self) -> int:
        return len(self.data) - self.at


def text(raw: bytes) -> str:
    """Bytes up to the first NUL as a string that can always be shown and stored."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
