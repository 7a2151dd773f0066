"""Delta bars as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmperf_widgets.axis import ticks
from kvmperf_widgets.paint import STEPS, diverging_shade
from kvmperf_widgets.svg import (
    CHARACTER,
    WIDTH,
    document,
    element,
    header,
    label,
    line,
    rectangle,
)
from kvmperf_widgets.text import clean, columns_of, escape, fit
from kvmperf_widgets.theme import Theme, ThemeName, diverging, mix

if TYPE_CHECKING:
    from kvmperf_widgets.delta import DeltaRow, DeltaView

ROW = 24
TOP = 100
FOOT = 40
_TOLD = 8  # rows that are told to those who cannot see them


def _rules(theme: Theme) -> dict[str, str]:
    rules = {".d0": f"fill:{diverging(0, theme)}"}
    for step in range(1, STEPS + 1):
        rules[f".dp{step}"] = f"fill:{diverging(step / STEPS, theme)}"
        rules[f".dm{step}"] = f"fill:{diverging(-step / STEPS, theme)}"
    rules[".base"] = f"fill:{mix(theme.neutral, theme.background, 0.35)}"
    rules[".tag"] = f"font-weight:700;fill:{theme.muted}"
    rules[".row:hover .hot"] = f"fill:{theme.grid};fill-opacity:.5"
    rules[".row.picked .hot"] = f"fill:{theme.grid};fill-opacity:1"
    rules[".row:focus-visible"] = f"outline:2px solid {theme.ink}"
    rules[".row[role]"] = "cursor:pointer"
    rules[".hot"] = "fill-opacity:0"
    return rules


def delta_svg(view: DeltaView, theme: ThemeName, standalone: bool) -> str:
    """The whole document: labels, bars and whiskers, both percentages and the change."""
    rows = view.rows
    names = [fit(row.label, 44) for row in rows]
    name_room = max([columns_of(name) for name in names] + [10]) * CHARACTER
    kind_room = max([columns_of(row.kind) for row in rows] + [0]) * CHARACTER
    kind_room += 12 if kind_room else 0
    tag_room = 68 if any(row.status for row in rows) else 0
    share_room = max([columns_of(row.shares) for row in rows] + [14]) * CHARACTER
    name_end = 12 + name_room
    left = name_end + 12 + kind_room + tag_room
    right = WIDTH - 12 - share_room - 76
    low, high = view.reach
    scale = (right - left) / (high - low)

    def at(value: float) -> float:
        return left + (value - low) * scale

    bottom = TOP + max(len(rows), 1) * ROW
    parts = [header(view.title, view.subtitle), _legend(view)]
    parts.append(label(WIDTH - 88, TOP - 8, f"{view.names[0]} → {view.names[1]}", "end mu"))
    parts.append(label(WIDTH - 12, TOP - 8, "change", "end mu"))
    for value in ticks(low, high):
        parts.append(line(at(value), TOP, at(value), bottom, "axis" if value == 0 else "grid"))
        text = f"{value:g} %" if view.pairs else f"{value:+g}" if value else "0"
        parts.append(label(at(value), bottom + 16, text, "mid mu"))
    if not view.pairs:
        parts.append(label((left + right) / 2, bottom + 32, "percent points", "mid mu"))
    if not rows:
        parts.append(label((left + right) / 2, TOP + 15, "no rows", "mid mu"))
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = TOP + i * ROW
        drawn = _pair(row, at, y) if view.pairs else _bar(row, at, y)
        texts = [
            rectangle(4, y, WIDTH - 8, ROW, "hot"),
            label(name_end, y + 16, name, "end"),
            label(name_end + 12, y + 16, row.kind, "mu") if row.kind else "",
            label(left - tag_room - 2, y + 16, row.status, "tag") if row.status else "",
            label(WIDTH - 88, y + 16, row.shares, "end"),
            label(WIDTH - 12, y + 16, row.change, "end" if row.significant else "end mu"),
        ]
        hover = element("title", {}, "&#10;".join(map(escape, row.hover)))
        marked: dict[str, str | float] = {"class": "row", "data-name": clean(row.label, 300)}
        parts.append(element("g", marked, hover + "".join(texts) + drawn))
    return document(
        parts,
        bottom + FOOT,
        theme=theme,
        description=f"{view.title}. {view.subtitle}",
        rules=_rules,
        kind="kvmp-delta",
        title=view.title,
        text=_largest(view),
        standalone=standalone,
    )


def _largest(view: DeltaView) -> str:
    """The picture in words, for those who cannot see it."""
    told = (f"{row.label} {row.shares} ({row.change})" for row in view.rows[:_TOLD])
    return f"The largest changes: {', '.join(told)}."


def _legend(view: DeltaView) -> str:
    other = view.names[1]
    entries = [("dp6", f"more in {other}"), ("dm6", f"less in {other}"), ("d0", "not significant")]
    if view.pairs:
        entries.append(("base", view.names[0]))
    parts, x = [], 12.0
    for shade, text in entries:
        parts += [rectangle(x, 55, 12, 12, shade), label(x + 17, 65, text, "mu")]
        x += 17 + columns_of(text) * CHARACTER + 20
    return "".join(parts)


def _bar(row: DeltaRow, at: Callable[[float], float], y: float) -> str:
    if not math.isfinite(row.delta):
        return ""
    zero, end = at(0), at(row.delta)
    drawn = rectangle(
        min(zero, end),
        y + 5,
        max(abs(end - zero), 0.8),
        ROW - 10,
        diverging_shade(row.strength).css,
    )
    if math.isfinite(row.low) and math.isfinite(row.high):
        ends, middle = row.whisker, y + ROW / 2
        drawn += line(at(ends[0]), middle, at(ends[1]), middle, "ink")
        for drawn_end, end in zip(ends, (row.low, row.high), strict=True):
            if drawn_end == end:  # without a cap it goes on
                drawn += line(at(end), middle - 4, at(end), middle + 4, "ink")
    return drawn


def _pair(row: DeltaRow, at: Callable[[float], float], y: float) -> str:
    zero = at(0)
    drawn = ""
    if math.isfinite(row.baseline):
        drawn += rectangle(zero, y + 3, max(at(row.baseline) - zero, 0), 8, "base")
    if math.isfinite(row.other):
        drawn += rectangle(
            zero, y + 12, max(at(row.other) - zero, 0), 8, diverging_shade(row.strength).css
        )
    return drawn
