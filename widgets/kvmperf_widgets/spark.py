"""Values over time in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float], most: float, columns: int) -> str:
    """One block a bucket, or the mean of several where there is no room for all."""
    groups = max(1, math.ceil(len(values) / columns))
    blocks = []
    for i in range(0, len(values), groups):
        known = [v for v in values[i : i + groups] if math.isfinite(v)]
        if not known:
            blocks.append(" ")
            continue
        step = sum(known) / len(known) / most * (len(_BLOCKS) - 1)
        blocks.append(_BLOCKS[min(max(round(step), 0), len(_BLOCKS) - 1)])
    return "".join(blocks)
