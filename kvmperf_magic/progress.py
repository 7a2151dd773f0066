"""Bars that show themselves only when work takes a while, and only to people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvmperf_magic.frontend import in_notebook

_DELAY = 1.0  # seconds
_SOONER = 0.5  # of work that others wait for


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[], object]]:
    """Gives a function to be called after each of `total` steps."""
    if not _seen():
        yield lambda: None
        return
    from tqdm import tqdm  # as text: of a widget a saved notebook keeps an error message

    with tqdm(total=total, desc=what, unit=" steps", delay=_DELAY, leave=False) as bar:
        yield bar.update


@contextmanager
def share(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to be told how many bytes of how many are done."""
    if not _seen():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm

    with tqdm(
        total=0,
        desc=what,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        delay=_SOONER,
        leave=False,
        file=sys.stdout if in_notebook() else sys.stderr,  # a notebook paints stderr red
    ) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def _seen() -> bool:
    """Whether somebody looks."""
    return (sys.stderr is not None and sys.stderr.isatty()) or in_notebook()
