"""Where answers are shown: a notebook, a terminal's IPython, or a plain script."""

from __future__ import annotations

import sys


def in_notebook() -> bool:
    """True in a Jupyter kernel. Imports nothing that is not there already."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")
