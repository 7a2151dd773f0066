"""Which colour a frame has: by its mode, its DSO, its VM or its name, or by how it changed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import (
    DARK,
    KINDS,
    LABEL,
    LIGHT,
    TINTS,
    Theme,
    diverging,
    ink_on,
    mix,
    mode_class,
    mode_colour,
)
from kvmperf_widgets.tree import Tree

ColourBy = Literal["mode", "dso", "vm", "hash"]
COLOURS: tuple[ColourBy, ...] = ("mode", "dso", "vm", "hash")
STEPS = 6  # shades of the diverging scale, on each side
# after Okabe and Ito as the modes are, without the colour of what a search finds
_PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#882255",
    "#9a6b3f",
)
_OTHERS = "others"
_WARM = 10  # shades from vermillion to yellow


class Shade(NamedTuple):
    """A colour in both themes, and the class that a style sheet knows it by."""

    css: str
    light: str
    dark: str

    def colour(self, theme: Theme) -> str:
        return self.dark if theme is DARK else self.light


@dataclass(frozen=True)
class Paint:
    """`shades[of[i]]` is the colour of frame i of a tree; `legend` says what they mean."""

    shades: list[Shade]
    of: NDArray[np.int32]
    legend: list[tuple[str, Shade]]

    def rules(self, theme: Theme) -> dict[str, str]:
        """Style rules of all shades, for the groups that have them as their class."""
        rules = {}
        for shade in dict.fromkeys((*self.shades, *(shade for _, shade in self.legend))):
            fill = shade.colour(theme)
            rules[f".{shade.css} rect"] = f"fill:{fill}"
            rules[f".{shade.css} text"] = f"fill:{ink_on(fill)}"
        return rules


def _mode_shade(kind: str, tint: int = 0) -> Shade:
    css = mode_class(kind, tint)
    return Shade(css, mode_colour(kind, LIGHT, tint), mode_colour(kind, DARK, tint))


PLAIN = _mode_shade(LABEL)  # of labels and of "..."


def paint(tree: Tree, by: ColourBy, frames: NDArray[np.bool_]) -> Paint:
    """The colours of a tree; the legend names those of `frames`."""
    label = np.array([kind == LABEL for kind in tree.kinds], dtype=np.bool_)[tree.kind]
    if by == "mode":
        return _by_mode(tree, frames)
    if by == "hash":
        return _by_name(tree, label)
    if by == "dso":
        weight = np.bincount(
            tree.detail[~label], tree.self_value[~label], len(tree.details)
        ).astype(np.float64)
        return _by_group(tree.detail, [clean(d, 60) for d in tree.details], weight, label, frames)
    vm, names = _vms(tree)
    weight = np.bincount(vm, tree.self_value, len(names)).astype(np.float64)
    return _by_group(vm, names, weight, label & (tree.depth == 0), frames)


def _by_mode(tree: Tree, frames: NDArray[np.bool_]) -> Paint:
    shades = [_mode_shade(kind, tint) for kind in tree.kinds for tint in range(TINTS)]
    present = {tree.kinds[i] for i in np.unique(tree.kind[frames]).tolist()}
    legend = [(kind, _mode_shade(kind)) for kind in KINDS if kind in present]
    return Paint(shades, (tree.kind * TINTS + tree.tints[tree.name]).astype(np.int32), legend)


def _by_name(tree: Tree, label: NDArray[np.bool_]) -> Paint:
    shades = [PLAIN]
    for i in range(_WARM):
        colour = mix("#d55e00", "#f5e663", i / (_WARM - 1))
        shades.append(Shade(f"w{i}", colour, colour))
    hashed = np.array(
        [1 + zlib.crc32(name.encode("utf-8", "replace")) % _WARM for name in tree.names],
        dtype=np.int32,
    )
    return Paint(shades, np.where(label, 0, hashed[tree.name]).astype(np.int32), [])


def _by_group(
    group: NDArray[np.int32],
    names: Sequence[str],
    weight: NDArray[np.float64],
    label: NDArray[np.bool_],
    frames: NDArray[np.bool_],
) -> Paint:
    """The heaviest groups in colours of their own, the others in one."""
    order = [i for i in np.argsort(-weight, kind="stable").tolist() if names[i]]
    shades = [PLAIN, *(Shade(f"g{i}", colour, colour) for i, colour in enumerate(_PALETTE))]
    others = _mode_shade("unknown")
    shades.append(others)
    place = np.full(len(names), len(shades) - 1, dtype=np.int32)
    for i, number in enumerate(order[: len(_PALETTE)], 1):
        place[number] = i
    of = np.where(label, 0, place[group]).astype(np.int32)
    there = np.bincount(of[frames], minlength=len(shades)) > 0
    words = {i: names[number] for i, number in enumerate(order[: len(_PALETTE)], 1)}
    legend = [(word, shades[i]) for i, word in words.items() if there[i]]
    if there[-1]:
        legend.append((_OTHERS, others))
    return Paint(shades, of, legend)


def _vms(tree: Tree) -> tuple[NDArray[np.int32], list[str]]:
    """Of every frame its VM, the outermost label above guest frames; 0 is the host."""
    guest = np.array([kind.startswith("guest-") for kind in tree.kinds], dtype=np.bool_)
    holds = tree.sum_up(guest[tree.kind].astype(np.float64)) > 0
    top = np.arange(len(tree))  # the frame of depth 1 at or above each
    for level in tree.levels[2:]:
        top[level] = top[tree.parent[level]]
    labels = np.array([kind == LABEL for kind in tree.kinds], dtype=np.bool_)[tree.kind]
    vms = holds & labels & (tree.depth == 1)
    names = ["host", *dict.fromkeys(clean(tree.names[i], 60) for i in tree.name[vms].tolist())]
    number = np.zeros(len(tree), dtype=np.int32)
    for frame in np.flatnonzero(vms).tolist():
        number[frame] = names.index(clean(tree.names[tree.name[frame]], 60), 1)
    return number[top], names


def diverging_shade(strength: float) -> Shade:
    """The step of the diverging scale for -1 (less) .. 0 .. 1 (more)."""
    step = min(math.ceil(abs(strength) * STEPS), STEPS)
    if not step:
        return Shade("d0", diverging(0, LIGHT), diverging(0, DARK))
    signed = math.copysign(step / STEPS, strength)
    css = f"d{'m' if strength < 0 else 'p'}{step}"
    return Shade(css, diverging(signed, LIGHT), diverging(signed, DARK))


def strengths(delta: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """How strongly certain changes are coloured: a small one still shows its colour."""
    return np.copysign(0.45 + 0.55 * np.minimum(np.abs(delta) / (largest or 1.0), 1.0), delta)
