"""A table as text for terminals and as HTML for notebooks.

`values` holds the first rows of each column, `length` says how many rows there are in all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from kvmperf_widgets.text import clean, columns_of, escape, fit, pad

MOST_ROWS = 60
_ADDRESSES = frozenset({"ip", "addr", "address", "pgoff"})
_SIGNED = frozenset({"delta", "ci_low", "ci_high"})
_CELL_TEXT = 60  # columns of a cell in a terminal
_CELL_HTML = 120  # characters of a cell in a page; the rest is in its tooltip

# more specific than the rules of notebook front ends for `table`, `tr`, `th` and `td`
_TABLE = ".kvmp-scroll table.kvmp-table"
STYLE = f"""\
.kvmp-scroll{{overflow-x:auto;max-width:100%}}
{_TABLE}{{border-collapse:collapse;border:0;font:12px/1.45 ui-monospace,SFMono-Regular,Menlo,\
Consolas,monospace;font-variant-numeric:tabular-nums;margin:.3em 0;table-layout:auto;width:auto}}
{_TABLE} th,{_TABLE} td{{padding:2px 10px;border:0;text-align:left;vertical-align:baseline;\
white-space:nowrap;line-height:1.45;background-color:transparent}}
{_TABLE} thead th{{border-bottom:1px solid rgba(128,128,128,.6);font-weight:600}}
{_TABLE} tbody tr{{background:none}}
{_TABLE} tbody tr:nth-child(even){{background:rgba(128,128,128,.09)}}
{_TABLE} tbody tr:hover{{background:rgba(86,180,233,.22)}}
{_TABLE} th.n,{_TABLE} td.n{{text-align:right}}
{_TABLE} td.b{{min-width:90px;background-repeat:no-repeat;background-position:0 50%}}
.kvmp-note{{font:12px/1.6 system-ui,sans-serif;opacity:.75}}"""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cells(name: str, values: Sequence[Any]) -> tuple[list[str], bool]:
    """A column as clean text, and whether it is one of numbers (to be aligned right).

    The floats of a column share their number of decimals; addresses are hexadecimal, deltas
    have a sign; None and NaN are blank.
    """
    present = [v for v in values if v is not None]
    number = bool(present) and all(map(_is_number, present))
    decimals = 0
    if any(isinstance(v, float) for v in present):
        finite = [abs(v) for v in present if _is_number(v) and math.isfinite(v)]
        largest = max(finite, default=0.0)
        decimals = 0 if largest >= 1e5 else 2 if largest >= 1 else 4
    sign = "+" if name in _SIGNED else ""

    def shown(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            if not math.isfinite(value):
                return "" if math.isnan(value) else str(value)
            return f"{value:{sign}.{decimals}f}"
        if isinstance(value, int):
            return f"{value:#x}" if name in _ADDRESSES and value >= 0 else f"{value:{sign}d}"
        return clean(value)

    return [shown(v) for v in values], number


def _note(shown: int, length: int) -> str:
    if shown < length:
        return f"the first {shown} of {length:,} rows"
    return "no rows" if not length else ""


def text_table(columns: list[str], values: list[list[Any]], length: int) -> str:
    """Columns aligned with blanks, numbers to the right; long cells are cut with an ellipsis."""
    drawn: list[list[str]] = []
    for name, column in zip(columns, values, strict=True):
        texts, number = cells(name, column[:MOST_ROWS])
        lines = [fit(text, _CELL_TEXT) for text in (clean(name), *texts)]
        width = max(map(columns_of, lines))
        drawn.append([pad(line, width, number) for line in (lines[0], "-" * width, *lines[1:])])
    lines = ["  ".join(row).rstrip() for row in zip(*drawn, strict=True)]
    note = _note(max(len(lines) - 2, 0), length)
    return "\n".join([*lines, f"({note})"] if note else lines)


def html_table(
    columns: list[str],
    values: list[list[Any]],
    length: int,
    *,
    bars: Collection[str] = (),
    style: bool = True,
) -> str:
    """An HTML table with its own style sheet (`style=False`: the page has it already).

    The cells of the columns named in `bars` hold percentages, drawn as bars behind the numbers.
    """
    head, body = [], []
    for name, column in zip(columns, values, strict=True):
        some = column[:MOST_ROWS]
        texts, number = cells(name, some)
        kind = ' class="n"' if number else ""
        head.append(f"<th{kind}>{escape(name)}</th>")
        drawn = name in bars and number
        body.append(
            [
                _bar_cell(text, value) if drawn else _cell(text, kind)
                for text, value in zip(texts, some, strict=True)
            ]
        )
    rows = ["".join(row) for row in zip(*body, strict=True)]
    note = _note(len(rows), length)
    return "".join(
        (
            f"<style>{STYLE}</style>" if style else "",
            '<div class="kvmp-scroll"><table class="kvmp-table"><thead><tr>',
            *head,
            "</tr></thead><tbody>",
            *(f"<tr>{row}</tr>\n" for row in rows),
            "</tbody></table></div>",
            f'<div class="kvmp-note">{note}</div>' if note else "",
        )
    )


def _cell(text: str, kind: str) -> str:
    if len(text) <= _CELL_HTML:
        return f"<td{kind}>{escape(text)}</td>"
    return f'<td{kind} title="{escape(text)}">{escape(fit(text, _CELL_HTML))}</td>'


def _bar_cell(text: str, value: float | None) -> str:
    share = value if value is not None and math.isfinite(value) else 0.0
    share = min(max(share, 0.0), 100.0)
    # background-image and -size: what the sanitizers of notebook front ends let through
    paint = "linear-gradient(rgba(230,159,0,.45),rgba(230,159,0,.45))"
    look = f"background-image:{paint};background-size:{share:.1f}% 80%"
    return f'<td class="n b" style="{look}">{escape(text)}</td>'
