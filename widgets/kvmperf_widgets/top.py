"""A moment of a live view: perf top's header line, the modes over time, a row a symbol.

`TopView` is what the renderers draw: text and HTML here, rich in `top_terminal`, the page in
`top_widget`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kvmperf_widgets.flame_text import bar, terminal_width
from kvmperf_widgets.spark import spark
from kvmperf_widgets.svg import element
from kvmperf_widgets.tables import html_table, text_table
from kvmperf_widgets.text import clean, columns_of, escape, fit, percent
from kvmperf_widgets.theme import KINDS, LIGHT, ink_on, mode_colour

SHARE = "overhead"  # the column that gets bars
TREND = "trend"  # the column that is drawn of TopView.trend, behind SHARE
_BAR = 12
_SPARK = 12  # blocks of a trend in text


class Tab(NamedTuple):
    """A machine by the VMM's pid (0 the host, None all machines), and its percentage of all, NaN
    where that is not known."""

    key: int | None
    name: str
    share: float = math.nan


@dataclass(frozen=True)
class TopView:
    """What a live view shows now. Names are hostile text.

    `trend` holds for each row its percentage in each bucket of `second` seconds, the running one
    last, NaN where nothing was sampled; `strip` the same for each mode of `KINDS`.
    `machine` is the key of a tab. `sort` is a column, with a `-` in front the other
    way round; `found` rows and `matched` percent pass the filters.
    """

    header: str
    columns: Sequence[str] = ()
    values: Sequence[Sequence[Any]] = ()
    trend: Sequence[Sequence[float]] = ()
    second: float = 1.0
    strip: Sequence[Sequence[float]] = ()
    tabs: Sequence[Tab] = ()
    machine: int | None = None
    sort: str = SHARE
    filter: str = ""
    matched: float = 100.0
    found: int = 0
    count_filter: int | None = None
    decay: bool = True
    paused: bool = False
    running: bool = True
    note: str = ""

    def now(self) -> dict[str, float]:
        """The percentages of the modes in the last bucket that has any."""
        for values in reversed(list(zip(*self.strip, strict=True))):
            if math.isfinite(values[0]):
                return dict(zip(KINDS, values, strict=True))
        return {}

    def chosen(self) -> str:
        """What is shown of all there is, in words; empty where it is all."""
        words = [f"only {clean(tab.name, 80)}" for tab in self.tabs if tab.key == self.machine]
        if self.machine is None:
            words = []
        if self.filter:
            words.append(f"/{clean(self.filter, 80)}/ matches {percent(self.matched)}")
        if self.count_filter is not None:
            words.append(f"more than {self.count_filter} samples")
        if self.sort != SHARE:
            words.append(f"by {clean(self.sort, 40)}")
        return ", ".join(words)

    def notes(self) -> list[str]:
        """Lines under the header."""
        return [clean(one) for one in (self.chosen(), self.note) if one]

    def drawn(self, blocks: int, last: int = 0) -> tuple[list[str], list[list[Any]]]:
        """Columns with the trend, of all or the `last` buckets, among them as so many blocks of
        text."""
        names, cells = list(self.columns), [list(column) for column in self.values]
        at = names.index(SHARE) + 1 if SHARE in names else 0
        names.insert(at, TREND)
        cells.insert(at, [spark(row[-last:], peak(row) or 1.0, blocks) for row in self.trend])
        return names, cells


def peak(row: Sequence[float]) -> float:
    """The largest value that is known; 0 without any."""
    return max((v for v in row if math.isfinite(v)), default=0.0)


def header_line(
    *,
    irqs: float,
    modes: Mapping[str, float],
    event: str,
    frequency: int | None = None,
    period: int | None = None,
    target: str = "all",
    cpus: int = 1,
) -> str:
    """As `perf kvm top` writes it (tools/perf/util/top.c: perf_top__header_snprintf(), guest).

    `irqs` is samples a second, `modes` percent by mode name (missing ones are 0), `event` its
    name, `target` "all", "target_pid: 17", "target_tid: 17" ... perf's "exact" is left out.
    """
    rate = f"{frequency}Hz " if frequency else f"{period} " if period else ""
    kernel = modes.get("host-kernel", 0.0) + modes.get("hypervisor", 0.0)
    return (
        f"   PerfTop:{irqs:8.0f} irqs/sec"
        f"  kernel:{kernel:4.1f}% us:{modes.get('host-user', 0.0):4.1f}%"
        f" guest kernel:{modes.get('guest-kernel', 0.0):4.1f}%"
        f" guest us:{modes.get('guest-user', 0.0):4.1f}%"
        f" [{rate}{clean(event, 80)}],  ({clean(target, 80)}, {cpus} CPU{'s'[: cpus != 1]})"
    )


def render_text(view: TopView, width: int | None = None) -> str:
    """For a terminal: header between rules, then the table, its shares as bars too; bars and trends
    where nothing else has to go for them."""
    width = terminal_width(width)
    rule = "-" * width
    columns = dict(zip(*view.drawn(_SPARK), strict=True))
    bars = [bar((share or 0.0) / 100, _BAR) for share in columns.get(SHARE, [])]
    table: list[str] = []
    for extra in ({"", TREND}, {TREND}, set[str]()):
        shown = {}
        for name, cells in columns.items():
            if name != TREND or TREND in extra:
                shown[name] = cells
            if name == SHARE and "" in extra:
                shown[""] = bars
        table = text_table([*shown], [*shown.values()], view.found).splitlines()
        if max(map(columns_of, table)) <= width:
            break
    return "\n".join([rule, view.header, *view.notes(), rule, *(fit(row, width) for row in table)])


def render_html(view: TopView, mark: str = "") -> str:
    """For a notebook: header, the modes over time and now, the table with bars and trends.

    Nothing here needs a script; what sanitizers take away is the curve over time alone. `mark`
    is a class by which the page's side of a widget finds the place.
    """
    mono = "font:12px/1.5 ui-monospace,Menlo,Consolas,monospace"
    look = f"{mono};margin:0;white-space:pre-wrap;word-break:normal"
    parts = [
        f'<div class="kvmp-top {escape(mark)}"><pre style="{look}">{escape(view.header)}</pre>',
        *(f'<div style="{mono};opacity:.75">{escape(one)}</div>' for one in view.notes()),
        _curve(view),
        _strip(view.now()),
    ]
    names, cells = view.drawn(_SPARK)
    at = names.index(TREND)
    cells[at] = [blocks.replace(" ", "\u00a0") for blocks in cells[at]]  # or it would move left
    parts.append(html_table(names, cells, view.found, bars=(SHARE,)))
    return "".join([*parts, "</div>"])


def _curve(view: TopView) -> str:
    """The modes over time, stacked, the newest at the right."""
    if not view.strip:
        return ""
    reached = [0.0] * len(view.strip[0])
    paths = []
    for kind, row in zip(KINDS, view.strip, strict=True):
        if not peak(row):
            continue
        reached = [a + b for a, b in zip(reached, row, strict=True)]
        colour = mode_colour(kind, LIGHT)
        paths.append(element("path", {"fill": colour, "d": _area(reached)}))
    words = f"shares of the modes over the last {_span(len(reached) * view.second)}"
    attributes: dict[str, str | float] = {
        "viewBox": f"0 0 {len(reached)} 100",
        "preserveAspectRatio": "none",
        "role": "img",
        "aria-label": words,
        "style": "display:block;width:100%;max-width:760px;height:56px;margin:4px 0 0;"
        "background-color:rgba(128,128,128,.12)",
    }
    return element("svg", attributes, "".join(reversed(paths)))


def _area(heights: Sequence[float]) -> str:
    """A path from the bottom up to these percentages, a column each; none where it is NaN."""
    parts, x, up = ["M0 100"], 0, 0
    for height in [*(round(h) if math.isfinite(h) else 0 for h in heights), 0]:
        if height != up:
            parts.append(f"h{x}v{up - height}" if x else f"v{up - height}")
            x, up = 0, height
        x += 1
    return "".join(parts)


def _span(seconds: float) -> str:
    return f"{seconds / 60:.3g} minutes" if seconds >= 120 else f"{seconds:.3g} seconds"


def _strip(modes: Mapping[str, float]) -> str:
    pieces = []
    for kind in KINDS:
        share = min(max(modes.get(kind, 0.0), 0.0), 100.0)
        if not share:
            continue
        colour = mode_colour(kind, LIGHT)
        words = f"{kind} {percent(share)}"
        drawn = words if share >= 22 else kind if share >= 14 else ""
        pieces.append(
            f'<div title="{words}" style="width:{share:.2f}%;background-color:{colour};'
            f'color:{ink_on(colour)};overflow:hidden;padding:1px 0;text-align:center">{drawn}</div>'
        )
    look = (
        "display:flex;max-width:760px;font:11px/16px system-ui,sans-serif;white-space:nowrap;"
        "margin:4px 0;border-radius:3px;overflow:hidden"
    )
    return f'<div style="{look}">{"".join(pieces)}</div>'
