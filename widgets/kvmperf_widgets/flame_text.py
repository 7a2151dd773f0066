"""A flame graph for terminals: an indented tree, heaviest first, with bars."""

from __future__ import annotations

import shutil

from kvmperf_widgets.boxes import Box, View
from kvmperf_widgets.text import fit, pad

LEAST_LINE = 0.005  # of the weight: what is less gets no line of its own
_BAR = 12
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_MARKS = {  # as perf marks them (tools/perf/util/map_symbol, "hist" column of perf report)
    "host-kernel": "[k]",
    "host-user": "[.]",
    "hypervisor": "[H]",
    "guest-kernel": "[g]",
    "guest-user": "[u]",
    "unknown": "[?]",
}


def bar(share: float, width: int) -> str:
    """`share` (0..1) of `width` columns, to the eighth of a column."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    return pad("█" * full + (_EIGHTHS[part] if part else ""), width)


def terminal_width(width: int | None) -> int:
    """The columns there are to write in: those asked for, else the terminal's; at least 40."""
    return max(40, width or shutil.get_terminal_size((100, 24)).columns)


def flame_text(view: View, parents: list[int], width: int | None = None) -> str:
    """One line a box: percent, bar, name, mode.

    A chain of only children is not indented; those of one name share a line (x 34).
    """
    width = terminal_width(width)
    children: dict[int, list[int]] = {}
    for i, parent in enumerate(parents):
        if view.boxes[i].merged > 1 and view.boxes[i].width < LEAST_LINE:
            continue  # "...": as many of them as there are lines
        children.setdefault(parent, []).append(i)
    for siblings in children.values():
        siblings.sort(key=lambda i: (view.boxes[i].merged > 1, -view.boxes[i].total))
    lines = [fit(line, width) for line in (view.title, view.subtitle, view.matched) if line]
    pending = [(0, "", "")]
    while pending:
        i, lead, beneath = pending.pop()
        box, times = view.boxes[i], 1
        below = children.get(i, [])
        while len(below) == 1 and _alike(box, view.boxes[below[0]]):
            times += 1
            below = children.get(below[0], [])
        lines.append(_line(box, times, lead, width))
        branches = len(below) > 1
        for n, child in enumerate(reversed(below)):
            last = n == 0
            corner, bridge = (("└─", "  ") if last else ("├─", "│ ")) if branches else ("", "")
            pending.append((child, beneath + corner, beneath + bridge))
    return "\n".join(lines)


def _alike(box: Box, child: Box) -> bool:
    return (box.name, box.kind, box.above, box.matched) == (
        child.name,
        child.kind,
        child.above,
        child.matched,
    )


def _line(box: Box, times: int, lead: str, width: int) -> str:
    mark = f" {_MARKS[box.kind]}" if box.kind in _MARKS else ""
    mark += f" × {times}" if times > 1 else ""
    head = f"{100 * box.width:6.2f}% {bar(box.width, _BAR)} "
    lead = lead[: max(0, width - len(head) - 16)]
    name = f"▶ {box.name}" if box.matched else box.name
    mark += f"  {box.note}" if box.note else ""
    return f"{head}{lead}{fit(name, width - len(head) - len(lead) - len(mark))}{mark}".rstrip()
