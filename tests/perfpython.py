"""A Python that writes perf maps: 3.12 or later, on a machine where that works."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

_ASKED = "import sys; sys.exit(not sys.is_stack_trampoline_active())"


@cache
def perf_python() -> str | None:
    """The first that is found, None where there is none."""
    found = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    found += map(str, Path("~/.pyenv/versions").expanduser().glob("3.1[2-9]*/bin/python3"))
    for one in filter(None, found):
        command = [one, "-X", "perf", "-c", _ASKED]
        if not subprocess.run(command, check=False, capture_output=True).returncode:
            return one
    return None
