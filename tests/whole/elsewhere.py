"""`unshare -m python elsewhere.py RECORDING OUTPUT HIDDEN...`: the report of a recording on a
machine that has none of the HIDDEN files and folders: in a mount namespace, they are empty."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

MS_BIND = 4096


def answers(path: str) -> dict[str, Any]:
    """All that is shown of a recording, as text."""
    import kvmperf_magic as kvm

    recording = kvm.open(path, cache=False)
    report = recording.report()
    return {
        "report": repr(report),
        "page": report.to_html(),
        "sorted": repr(recording.report("dso,symbol,mode").report),
        "folded": recording.to_folded(modes=("host", "guest")),
        "speedscope": recording.to_speedscope(),
        "warnings": recording.warnings,
        "symbols": recording.symbols.to_csv(),
    }


def hide(paths: list[str]) -> None:
    """What is loaded already goes on; libc itself may be among them."""
    libc = ctypes.CDLL(None, use_errno=True)
    empty = Path(tempfile.mkdtemp())
    (empty / "file").touch()
    (empty / "folder").mkdir()
    for path in paths:
        over = empty / ("folder" if Path(path).is_dir() else "file")
        if libc.mount(os.fsencode(over), os.fsencode(path), None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), path)
        assert not (any(Path(path).iterdir()) if Path(path).is_dir() else Path(path).read_bytes())


if __name__ == "__main__":
    import kvmperf_magic.reportview  # noqa: F401  while its libraries can be loaded

    answers(sys.argv[1])
    hide(sys.argv[3:])
    Path(sys.argv[2]).write_text(json.dumps(answers(sys.argv[1])))
