"""Build ids: of the kernel and its modules from sysfs, of programs from their ELF notes."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_NT_GNU_BUILD_ID = 3
_PT_NOTE = 4
_LONGEST_NOTES = 1 << 16  # a segment of notes is some hundred bytes; more is not believed
_MOST_SEGMENTS = 256
_MOST_FILES = 20_000


def kernel() -> bytes:
    """The running kernel's; empty where sysfs does not tell."""
    return _of_notes_file(Path("/sys/kernel/notes"))


def module(name: str) -> bytes:
    return _of_notes_file(Path("/sys/module") / name / "notes/.note.gnu.build-id")


def _of_notes_file(path: Path) -> bytes:
    try:
        return from_notes(path.read_bytes(), 4)
    except OSError:
        return b""


def from_notes(notes: bytes, align: int) -> bytes:
    """The descriptor of the NT_GNU_BUILD_ID note of "GNU", at most 20 bytes; empty without one."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        body_at = at + (12 + name_size + align - 1) // align * align
        at += ((body_at - at + size) + align - 1) // align * align
        if at > len(notes) + align:
            break
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            return notes[body_at : body_at + size][:20]
    return b""


def of_elf(file: BinaryIO) -> bytes:
    """The build id of a little-endian ELF file by its program headers; empty where there is none.

    Elf64_Ehdr and Elf64_Phdr (or the 32-bit ones) of elf(5).
    """
    ident = file.read(64)
    if ident[:4] != b"\x7fELF" or ident[5:6] != b"\x01" or len(ident) < 52:
        return b""
    wide = ident[4] == 2
    header_at = struct.unpack_from("<Q" if wide else "<I", ident, 32 if wide else 28)[0]
    entry_size, count = struct.unpack_from("<HH", ident, 54 if wide else 42)
    if entry_size != (56 if wide else 32) or count > _MOST_SEGMENTS:
        return b""
    file.seek(header_at)
    table = file.read(entry_size * count)
    for at in range(0, len(table) - entry_size + 1, entry_size):
        if wide:
            kind, offset, size, align = struct.unpack_from("<I4xQ16xQ8xQ", table, at)
        else:
            kind, offset, size, align = struct.unpack_from("<II8xI8xI", table, at)
        if kind == _PT_NOTE and size <= _LONGEST_NOTES:
            file.seek(offset)
            found = from_notes(file.read(size), 8 if align == 8 else 4)
            if found:
                return found
    return b""


@dataclass
class BuildIds:
    """Build ids of mapped files, each read once; `found` is by the name in the map."""

    found: dict[str, bytes] = field(default_factory=dict)

    def of_record(self, filename: str, device_and_inode: bytes) -> None:
        """Of a file that a MMAP2 record names, if it is the same file under that name here."""
        major, minor, inode = struct.unpack("<IIQ", device_and_inode)
        try:
            here = Path(filename).stat()
        except (OSError, ValueError):
            return
        if (here.st_dev, here.st_ino) == (os.makedev(major, minor), inode):
            self.of_map(0, filename, own_root=False)

    def of_map(self, pid: int, filename: str, *, own_root: bool) -> bytes:
        """Of a file as process `pid` has it mapped; empty where it cannot be read.

        `own_root`: the process sees another file system than we do (a container).
        """
        if not filename.startswith("/") or filename.startswith("//"):
            return b""
        known = self.found.get(filename)
        if known is not None:
            return known
        if len(self.found) >= _MOST_FILES:
            return b""
        path = Path(f"/proc/{pid}/root{filename}" if own_root else filename)
        build_id = b""
        try:
            if path.is_file():  # never open a device or a fifo
                with path.open("rb") as file:
                    build_id = of_elf(file)
        except (OSError, ValueError, OverflowError, struct.error):
            pass  # unreadable or damaged: it has none
        self.found[filename] = build_id
        return build_id
