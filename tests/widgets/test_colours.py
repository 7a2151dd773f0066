"""The colours of frames: told apart by colour-blind eyes, and every label on them readable."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from kvmperf_widgets.paint import _PALETTE, STEPS
from kvmperf_widgets.theme import (
    DARK,
    KINDS,
    LESS,
    LIGHT,
    MATCH,
    MORE,
    TINTS,
    Theme,
    contrast,
    diverging,
    ink_on,
    mix,
    mode_colour,
)

# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency" (2009), severity 1.0, on linear RGB
EYES = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
THEMES = [LIGHT, DARK]


def seen(colour: str, eyes: str) -> NDArray[np.float64]:
    """A colour in CIE L*a*b*, as these eyes see it."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    shown = np.clip(np.array(EYES[eyes]) @ linear, 0, 1)
    x, y, z = np.array(_XYZ) @ shown / [0.95047, 1.0, 1.08883]
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(colours: list[str], eyes: str) -> float:
    """How far the two nearest of them are; 2.3 is a just noticeable difference."""
    return min(
        float(np.linalg.norm(seen(one, eyes) - seen(other, eyes)))
        for one, other in combinations(colours, 2)
    )


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
def test_modes_groups_and_changes_are_told_apart(theme: Theme, eyes: str) -> None:
    modes = [mode_colour(kind, theme) for kind in KINDS]
    assert apart(modes, eyes) > 15
    assert apart(list(_PALETTE), eyes) > 15
    assert apart([MATCH, *modes[:-1]], eyes) > 15
    assert apart([LESS, MORE, theme.neutral], eyes) > 20
    # the weakest change that is certain is not the grey of one that is not
    weakest = [diverging(sign * 3 / STEPS, theme) for sign in (-1, 1)]
    assert apart([*weakest, theme.neutral], eyes) > 9
    if eyes == "no red":  # the oracle: what such eyes are known to confuse
        assert apart(["#0072b2", "#8c6bb1"], eyes) < 5 < apart(["#0072b2", "#8c6bb1"], "all cones")


def fills(theme: Theme) -> list[str]:
    """Every colour that a frame can have."""
    modes = [mode_colour(kind, theme, tint) for kind in (*KINDS, "") for tint in range(TINTS)]
    warm = [mix("#d55e00", "#f5e663", i / 9) for i in range(10)]
    changes = [diverging(n / STEPS, theme) for n in range(-STEPS, STEPS + 1)]
    return [*modes, *_PALETTE, *warm, *changes, MATCH]


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
def test_every_label_can_be_read(theme: Theme) -> None:
    assert len(fills(theme)) > 40
    for fill in fills(theme):
        assert contrast(fill, ink_on(fill)) >= 4.5
        # what a search did not find: pale in SVG, paler on the canvas, half in plotly
        for share in (0.62, 0.7):
            assert contrast(theme.ink, mix(fill, theme.background, share)) >= 4.5, fill
        faded = mix(fill, theme.background, 0.5)
        assert contrast(faded, ink_on(faded)) >= 4.5
    for text in (theme.ink, theme.muted):
        assert contrast(text, theme.background) >= 4.5
