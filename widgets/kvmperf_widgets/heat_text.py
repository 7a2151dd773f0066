"""A heat map of time for terminals: blocks of shade, a few cells each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.flame_text import terminal_width
from kvmperf_widgets.heat import LEVELS, NONE, HeatMap, span_words
from kvmperf_widgets.text import fit, pad

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_SHADES = "·░▒▓█"
_LINES, _FEWEST = 10, 4
_LABEL = 9  # columns beside the map


def heat_text(heat: HeatMap, width: int | None = None) -> str:
    width = terminal_width(width)
    lines = [fit(text, width) for text in heat.head() if text]
    if not heat.columns:
        return "\n".join([*lines, "no samples"])
    small = _smaller(heat, width - _LABEL)
    wide = max(1, min(4, (width - _LABEL) // small.columns))  # characters a column
    for row in reversed(range(small.rows)):
        name = span_words(row * small.cell) if row else "0"
        shown = "".join(_shade(level) * wide for level in small.levels[:, row].tolist())
        lines.append(f"{pad(name, _LABEL - 2, right=True)}  {shown}")
    until = heat.time_words(heat.columns * heat.rows)
    room = small.columns * wide - len(until)
    lines.append(f"{pad('', _LABEL)}{pad(fit(heat.time_words(0), room), room)}{until}")
    lines.append(
        fit(f"{pad('', _LABEL)}{_SHADES}  {small.scale_words()}; blank: no samples", width)
    )
    return "\n".join(lines)


def _smaller(heat: HeatMap, width: int) -> HeatMap:
    """Cells put together until they fit into as many characters and lines."""
    along = math.ceil(heat.columns / width)
    least = math.ceil(heat.rows / _LINES)
    # equally many cells in every line, where that leaves enough lines
    even = [up for up in range(least, heat.rows // _FEWEST + 1) if heat.rows % up == 0]
    up = (even or [least])[0]

    def summed(cells: ArrayLike | None) -> NDArray[np.float64] | None:
        if cells is None:
            return None
        found = np.asarray(cells, np.float64)
        room = ((0, -heat.columns % along), (0, -heat.rows % up))
        padded = np.pad(found, room)
        shape = (padded.shape[0] // along, along, padded.shape[1] // up, up)
        return np.asarray(padded.reshape(shape).sum(axis=(1, 3)))

    weight, samples = summed(heat.weight), summed(heat.samples)
    assert weight is not None
    assert samples is not None
    return HeatMap(
        weight,
        samples,
        cell=heat.cell * up,
        unit=heat.unit,
        part=summed(heat.part),
        part_samples=summed(heat.part_samples),
        name=heat.name,
    )


def _shade(level: int) -> str:
    return " " if level == NONE else _SHADES[level * len(_SHADES) // LEVELS]
