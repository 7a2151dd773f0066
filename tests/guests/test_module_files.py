"""Kernel modules' own files name what the kernel's list names: stock kernels are the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmperf_magic.symbols import kallsyms, modules
from kvmperf_magic.symbols.elf import ElfImage

linuxguest = pytest.importorskip("linuxguest")
if TYPE_CHECKING:
    from linuxguest import LinuxGuest

pytestmark = pytest.mark.kernels


def test_names_from_a_modules_file_are_the_kernels(linux_guest: LinuxGuest) -> None:
    """At every function's first and last byte, and where nothing is."""
    listed = kallsyms.parse(linux_guest.kallsyms())
    loaded = kallsyms.parse_modules(linux_guest.modules().encode())
    module = listed.modules.values()
    code = np.isin(listed.types | 0x20, (ord("t"), ord("w")))
    checked = 0
    for path in sorted((Path(linuxguest.CACHE) / linux_guest.suite).glob("*.ko")):
        name = path.stem.split("-", 1)[-1]
        base, _ = loaded[name]
        table = modules.symbols(ElfImage(path), name, base)
        rows = np.flatnonzero((module == name) & code)
        found = table.find(listed.start[rows])
        assert (found >= 0).all()
        ours = [table.name(row) for row in found.tolist()]
        theirs = [listed.name(row) for row in rows.tolist()]
        assert ours == theirs
        assert (table.start[found] == listed.start[rows]).all()
        assert set(table.modules.values()) == {name}
        # a symbol ends within its function: the kernel's list knows no sizes
        assert (table.end[found] <= listed.end[rows]).all()
        checked += len(rows)
    assert checked > 50
