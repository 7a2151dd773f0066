"""A live view for a terminal, drawn by rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvmperf_widgets.flame_text import bar
from kvmperf_widgets.spark import spark
from kvmperf_widgets.tables import cells
from kvmperf_widgets.text import clean, percent
from kvmperf_widgets.theme import KINDS, LIGHT, mode_colour
from kvmperf_widgets.top import SHARE, TREND, TopView, peak

_BAR, _SPARK = 12, 20
_NARROW = 110  # columns under which the bars are left out


def rendered(view: TopView, size: ConsoleDimensions) -> RenderableType:
    """All of a view that fits into a terminal of this size. Names are text, never markup."""
    above: list[RenderableType] = [Text(clean(view.header), no_wrap=True, overflow="ellipsis")]
    above.append(_tabs(view))
    now = view.now()
    for kind, row in zip(KINDS, view.strip, strict=False):
        if peak(row):
            above.append(_mode(kind, row, now[kind]))
    above += [Text(one, style="italic", overflow="ellipsis") for one in view.notes()]
    room = size.height - len(above) - 3  # the table's head, its rule, the line of the cursor
    return Group(*above, _table(view, max(1, room), size.width >= _NARROW))


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
    line.append(spark(row[-60:], 100.0, 60), mode_colour(kind, LIGHT))
    return line.append(f" {percent(now)}")


def _table(view: TopView, rows: int, bars: bool) -> Table:
    names, columns = view.drawn(_SPARK)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold underline", expand=False)
    drawn = []
    for name, column in zip(names, columns, strict=True):
        some = column[:rows]
        texts, number = cells(name, some)
        wide = name in {"symbol", SHARE, TREND}
        table.add_column(
            clean(name),
            justify="right" if number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None,
            min_width=_SPARK if name == TREND else 8 if wide else None,
        )
        drawn.append([Text(text) for text in texts])
        if name == SHARE and bars:
            table.add_column("", no_wrap=True, min_width=_BAR)
            drawn.append([Text(bar((v or 0.0) / 100, _BAR), "yellow") for v in some])
    for row in zip(*drawn, strict=True):
        table.add_row(*row)
    return table
