"""A bar that shows itself only when work takes longer than a second, and only to people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvmperf_magic.frontend import in_notebook

_DELAY = 1.0  # seconds


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[], object]]:
    """Gives a function to be called after each of `total` steps."""
    if not (sys.stderr is not None and sys.stderr.isatty()) and not in_notebook():
        yield lambda: None
        return
    from tqdm import tqdm  # as text: of a widget a saved notebook keeps an error message

    with tqdm(total=total, desc=what, unit=" steps", delay=_DELAY, leave=False) as bar:
        yield bar.update
