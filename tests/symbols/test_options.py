"""What a recording remembers of the symbols' files that were named for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmperf_magic.errors import SymbolError
from kvmperf_magic.symbols.options import SymbolOptions


def test_a_side_that_nothing_is_said_of_is_remembered(tmp_path: Path) -> None:
    elf, kallsyms = tmp_path / "elf", tmp_path / "kallsyms"
    elf.touch()
    kallsyms.touch()
    told = SymbolOptions(guest_elf=elf, kallsyms=kallsyms, guest_symbols="none").to_json()
    again = SymbolOptions().remembered(told)
    assert again.guest_elfs() == {"": str(elf)}
    assert again.kallsyms == str(kallsyms)
    assert again.guest_symbols == "none"
    other = SymbolOptions(guest_vmlinux=elf).remembered(told)
    assert (other.guest_elf, other.guest_symbols, other.kallsyms) == (None, None, str(kallsyms))
    elf.unlink()
    assert SymbolOptions().remembered(told).guest_elf is None


def test_each_vm_keeps_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    named = SymbolOptions(guest_elf={"web1": tmp_path / "a", 7: tmp_path / "b"})
    assert SymbolOptions().remembered(named.to_json()).guest_elfs() == {
        "web1": str(tmp_path / "a"),
        "7": str(tmp_path / "b"),
    }


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"unknown": "x", "demangle": False, "debuginfod": "http://x"},
        {"kallsyms": 5, "symfs": [], "guest_elf": "/etc/passwd", "guest_symbols": ["host"]},
        {"kallsyms": "\0", "vmlinux": "x" * 9999, "symfs": "\0", "guest_elf": {"": {}}},
        {"kallsyms": "/", "symfs": "/etc/passwd", "guest_symbols": "all"},
    ],
)
def test_what_a_recording_tells_may_be_anything(told: object) -> None:
    assert SymbolOptions().remembered(told) == SymbolOptions()


@pytest.mark.parametrize("options", [{"guest_elf": 5}, {"symfs": 5}, {"kallsyms": []}])
def test_what_is_no_path_is_said(options: dict[str, object]) -> None:
    with pytest.raises(SymbolError, match="path"):
        SymbolOptions.of(options).check()
