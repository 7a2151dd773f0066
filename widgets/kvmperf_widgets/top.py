"""The live table: perf top's header line, the mode shares, a row a symbol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmperf_widgets.flame_text import bar, terminal_width
from kvmperf_widgets.tables import html_table, text_table
from kvmperf_widgets.text import clean, escape, fit, percent
from kvmperf_widgets.theme import KINDS, LIGHT, ink_on, mode_colour

SHARE = "overhead"  # the column that gets bars
_BAR = 16


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


def render_text(
    header: str,
    columns: list[str],
    values: list[list[Any]],
    length: int,
    *,
    note: str = "",
    width: int | None = None,
) -> str:
    """For a terminal: header between rules, then the table, its shares as bars too."""
    width = terminal_width(width)
    rule = "-" * width
    names, cells = list(columns), list(values)
    if SHARE in columns:
        at = columns.index(SHARE)
        names.insert(at + 1, "")
        cells.insert(at + 1, [bar((share or 0.0) / 100, _BAR) for share in values[at]])
    table = [fit(line, width) for line in text_table(names, cells, length).splitlines()]
    return "\n".join([rule, *filter(None, (header, note)), rule, *table])


def render_html(
    header: str,
    columns: list[str],
    values: list[list[Any]],
    length: int,
    *,
    modes: Mapping[str, float] | None = None,
    note: str = "",
) -> str:
    """For a notebook: header, the modes as one stacked strip, the table with share bars."""
    mono = "font:12px/1.5 ui-monospace,Menlo,Consolas,monospace"
    look = f"{mono};margin:0;white-space:pre-wrap;word-break:normal"
    head = f'<pre style="{look}">{escape(header)}</pre>'
    parts = [f'<div class="kvmp-top">{head}']
    if note:
        parts.append(f'<div style="{mono};opacity:.75">{escape(note)}</div>')
    if modes is not None:
        parts.append(_strip(modes))
    parts.append(html_table(columns, values, length, bars=(SHARE,)))
    return "".join([*parts, "</div>"])


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
