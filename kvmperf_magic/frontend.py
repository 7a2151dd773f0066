"""Where answers are shown: a notebook, a terminal's IPython, or a plain script."""

from __future__ import annotations

import os
import sys


def in_notebook() -> bool:
    """True in a Jupyter kernel. Imports nothing that is not there already."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")


def write_nowhere() -> None:
    """Nobody reads stdout any more, not even what is still to be flushed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
