"""How long a search may take, and who is told how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """So many seconds from now on; `progress` is told bytes searched and bytes in all."""

    def __init__(self, seconds: float, progress: Callable[[int, int], None] | None = None) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._progress = progress

    def spend(self, done: int, total: int) -> bool:
        """Whether there is time left."""
        if self._progress is not None:
            self._progress(done, total)
        return time.monotonic() < self._end
