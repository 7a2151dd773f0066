"""KVM host and guest performance, recorded, decoded, compared and seen from a notebook.

    %load_ext kvmperf_magic
    %kvm_list
    %kvm_record --guest --duration 10
    %kvm_record --host --duration 10
    %kvm_diff

Each magic is a thin line over a function of this module: `machines`, `record`, `open`, `report`
on what `open` gives, `diff`, `top`. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kvmperf_magic.errors import KvmperfError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from kvmperf_magic.comparison import diff
    from kvmperf_magic.filters import Filter
    from kvmperf_magic.guests.discovery import machines
    from kvmperf_magic.live import top
    from kvmperf_magic.recorder import record
    from kvmperf_magic.recording import Recording
    from kvmperf_magic.recording import open_recording as open

__version__ = "0.1.0"

__all__ = ["Filter", "KvmperfError", "Recording", "diff", "machines", "open", "record", "top"]

_FACE = {
    "Filter": "filters:Filter",
    "Recording": "recording:Recording",
    "diff": "comparison:diff",
    "machines": "guests.discovery:machines",
    "open": "recording:open_recording",
    "record": "recorder:record",
    "top": "live:top",
}


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _FACE[name].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    # what Tab shows: the face, not what importing left behind
    return sorted({*__all__, "__version__", "demo", "errors"})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext kvmperf_magic`: the magics and their completion."""
    from kvmperf_magic.magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext kvmperf_magic`: takes away what loading brought, and stops what still runs."""
    from kvmperf_magic.magics import unload

    unload(shell)
