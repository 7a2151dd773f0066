"""The five modes a frame can run in, spelled so in columns, options and legends.

Codes are `uint8` and index `MODES`; `UNKNOWN` is a sample whose cpumode is 0
(include/uapi/linux/perf_event.h: PERF_RECORD_MISC_CPUMODE_UNKNOWN).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError

HOST_KERNEL, HOST_USER, HYPERVISOR, GUEST_KERNEL, GUEST_USER, UNKNOWN = range(6)
MODES = ("host-kernel", "host-user", "hypervisor", "guest-kernel", "guest-user", "unknown")
HOST_MODES = ("host-kernel", "host-user", "hypervisor")
GUEST_MODES = ("guest-kernel", "guest-user")
KERNEL_MODES = ("host-kernel", "hypervisor", "guest-kernel")
USER_MODES = ("host-user", "guest-user")


def mode_codes(names: Iterable[str]) -> NDArray[np.uint8]:
    """The codes of these mode names; `host` and `guest` stand for all modes of that side."""
    codes: list[int] = []
    for name in names:
        wanted = {"host": HOST_MODES, "guest": GUEST_MODES}.get(name, (name,))
        for one in wanted:
            if one not in MODES:
                raise QueryError(f"no mode {one!r}", f"modes: host, guest, {', '.join(MODES)}")
            codes.append(MODES.index(one))
    return np.unique(np.array(codes, dtype=np.uint8))
