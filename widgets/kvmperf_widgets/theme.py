"""The colours of every picture: one theme, light and dark, told apart by colour-blind eyes.

The mode colours are those of Okabe and Ito, "Color Universal Design" (2008): blues for the host,
orange and vermillion for the guest, green between them for the hypervisor.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ThemeName = Literal["auto", "light", "dark"]
KINDS = ("host-kernel", "host-user", "hypervisor", "guest-kernel", "guest-user", "unknown")
LABEL = ""  # the kind of a frame that is no code: a VM, a vCPU, a command name
TINTS = 3  # shades of one colour, so that neighbours can be told apart
MATCH = "#cc79a7"  # frames that a search found
LESS, MORE = "#0072b2", "#d55e00"  # the ends of the diverging scale

_MODE = {
    "host-kernel": "#0072b2",
    "host-user": "#56b4e9",
    "hypervisor": "#009e73",
    "guest-kernel": "#d55e00",
    "guest-user": "#e69f00",
    "unknown": "#a7adb5",
}


@dataclass(frozen=True)
class Theme:
    """Colours that depend on light or dark."""

    background: str
    ink: str
    muted: str
    grid: str
    label: str
    neutral: str


LIGHT = Theme("#ffffff", "#1f2328", "#57606a", "#d8dee4", "#e3e7ec", "#a9b1ba")
DARK = Theme("#16191d", "#e6e8ea", "#a3abb5", "#353b43", "#3d444e", "#727b86")
# from little to much: away from the background in lightness, so that it needs no hue to be read
_RAMPS = {
    LIGHT: ("#fbe6c0", "#f2b544", "#dd7a00", "#a84300", "#4d1800"),
    DARK: ("#3a2818", "#7a3b00", "#c65f0a", "#f0a531", "#fff0c4"),
}


def theme_of(name: ThemeName) -> Theme:
    """The theme of a renderer that cannot ask the reader's system: `auto` is light."""
    return DARK if name == "dark" else LIGHT


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, 0..1 (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1..21 (WCAG 2.2); text wants 4.5."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink_on(fill: str) -> str:
    """Black or white, whichever reads better on this colour."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, fill))


def mix(one: str, other: str, share: float) -> str:
    """`one` with this share (0..1) of `other` in it."""
    pairs = ((int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def mode_colour(kind: str, theme: Theme, tint: int = 0) -> str:
    """The colour of a frame of this kind; further tints move away from its ink."""
    base = _MODE.get(kind, theme.label if kind == LABEL else _MODE["unknown"])
    away = "#000000" if ink_on(base) == "#ffffff" else "#ffffff"
    return mix(base, away, 0.11 * tint)


def tint_of(name: str) -> int:
    """The tint of a frame: the same in every picture that has a frame of this name."""
    return zlib.crc32(name.encode("utf-8", "replace")) % TINTS


def diverging(value: float, theme: Theme) -> str:
    """Blue for -1 (less), neutral for 0, vermillion for +1 (more)."""
    strength = min(abs(value), 1.0)
    return mix(theme.neutral, LESS if value < 0 else MORE, strength)


def sequential(value: float, theme: Theme) -> str:
    """From little (0) to much (1)."""
    ramp = _RAMPS[theme]
    at = min(max(value, 0.0), 1.0) * (len(ramp) - 1)
    step = min(int(at), len(ramp) - 2)
    return mix(ramp[step], ramp[step + 1], at - step)


def css(name: ThemeName, rules: Callable[[Theme], dict[str, str]], scope: str = "kvmp") -> str:
    """Style rules (selector -> declarations) for this theme, kept inside `.<scope>-<name>`."""

    def block(theme: Theme) -> str:
        return "".join(f".{scope}-{name} {at}{{{what}}}" for at, what in rules(theme).items())

    if name != "auto":
        return block(theme_of(name))
    return f"{block(LIGHT)}@media(prefers-color-scheme:dark){{{block(DARK)}}}"


def mode_class(kind: str, tint: int = 0) -> str:
    known = kind if kind in KINDS or kind == LABEL else "unknown"
    return f"k{'L' if known == LABEL else KINDS.index(known)}t{tint}"
