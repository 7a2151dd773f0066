"""A live view for a terminal, drawn by rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvmperf_widgets.flame_text import bar
from kvmperf_widgets.spark import spark
from kvmperf_widgets.tables import cells
from kvmperf_widgets.text import clean, columns_of, percent
from kvmperf_widgets.theme import KINDS, LIGHT, mode_colour
from kvmperf_widgets.top import SHARE, TopView, peak

_BAR, _BLOCKS = 10, 16
_NARROW = 110  # columns under which the bars are left out
_LEAST = {"symbol": 16, "dso": 8, "machine": 6, "comm": 6}  # columns that names keep


def rendered(view: TopView, size: ConsoleDimensions) -> RenderableType:
    """All of a view that fits into a terminal of this size. Names are text, never markup."""
    wide = size.width >= _NARROW
    above: list[RenderableType] = [Text(clean(view.header), no_wrap=True, overflow="ellipsis")]
    above.append(_tabs(view))
    now = view.now()
    for kind, row in zip(KINDS, view.strip, strict=False):
        if peak(row):
            above.append(_mode(kind, row[-60 if wide else -40 :], now[kind]))
    above += [Text(one, style="italic", overflow="ellipsis") for one in view.notes()]
    room = size.height - len(above) - 2  # the table's head, the line of the cursor
    return Group(*above, _table(view, max(1, room), size.width, wide))


def _tabs(view: TopView) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for tab in view.tabs:
        share = "" if tab.key is None else f" {tab.share:.1f} %"
        line.append(f" {clean(tab.name, 40)}{share} ", "reverse" if tab.key == view.machine else "")
        line.append(" ")
    return line


def _mode(kind: str, row: Sequence[float], now: float) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{kind:13}", "bold")
    line.append(spark(row, 100.0, len(row)), mode_colour(kind, LIGHT))
    return line.append(f" {percent(now)}")


def _table(view: TopView, rows: int, width: int, wide: bool) -> Table:
    blocks = _BLOCKS if wide else _BLOCKS // 2
    names, columns = view.drawn(blocks, blocks)
    shown = [cells(name, column[:rows]) for name, column in zip(names, columns, strict=True)]
    needed = [
        max(map(columns_of, (clean(name), *texts)))
        for name, (texts, _) in zip(names, shown, strict=True)
    ]
    widths = _widths(names, needed, width - 2 * len(names) - wide * (_BAR + 2))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold underline")
    drawn = []
    for name, column, (texts, number), columns_wide in zip(
        names, columns, shown, widths, strict=True
    ):
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(
            clean(name), justify=justify, no_wrap=True, overflow="ellipsis", width=columns_wide
        )
        drawn.append([Text(text) for text in texts])
        if name == SHARE and wide:
            table.add_column("", no_wrap=True, width=_BAR)
            drawn.append([Text(bar((v or 0.0) / 100, _BAR), "yellow") for v in column[:rows]])
    for row in zip(*drawn, strict=True):
        table.add_row(*row)
    return table


def _widths(names: Sequence[str], needed: Sequence[int], room: int) -> list[int]:
    """The columns' widths: what is missing is taken from the widest names first."""
    widths = list(needed)
    giving = [i for i, name in enumerate(names) if name in _LEAST]
    while giving and sum(widths) > room:
        widest = max(giving, key=lambda i: widths[i])
        if widths[widest] <= _LEAST[names[widest]]:
            giving.remove(widest)
        else:
            widths[widest] -= 1
    return widths
