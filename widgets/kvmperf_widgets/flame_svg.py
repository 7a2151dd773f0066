"""A flame graph as SVG: right without scripts; hover, zoom and search where they run."""

from __future__ import annotations

from kvmperf_widgets.boxes import Box, View
from kvmperf_widgets.scripts import source
from kvmperf_widgets.svg import (
    CHARACTER,
    WIDTH,
    document,
    element,
    header,
    label,
    legend,
    number,
)
from kvmperf_widgets.text import escape, fit, percent
from kvmperf_widgets.theme import MATCH, Theme, ThemeName, ink_on

ROW = 18
EDGE = 12
TOP = 76
FOOT = 30
LEAST_MARKED = 5.0  # the width of a box that is more than its outline
_TOLD = 12  # frames that are told to those who cannot see them
INSET = 3.5  # between the edge of a box and its label


def _rules(theme: Theme) -> dict[str, str]:
    pale = "fill-opacity:.38"
    return {
        ".f": "cursor:pointer",
        ".f rect": "rx:1px",
        ".f:hover rect": f"stroke:{theme.ink};stroke-width:1.2",
        ".f.at rect": f"stroke:{theme.ink};stroke-width:2.2",
        ".frames:focus": "outline:none",  # the frame that was moved to has one
        ".tool:focus-visible": f"outline:2px solid {theme.ink}",
        ".f.dots rect": "fill-opacity:.55",
        ".f.up rect": pale,
        ".f.up text": f"fill:{theme.ink}",
        ".dim .f rect": pale,
        ".dim .f text": f"fill:{theme.ink}",
        ".dim .f.hit rect": f"fill:{MATCH};fill-opacity:1",
        ".dim .f.hit text": f"fill:{ink_on(MATCH)}",
        ".tool": "cursor:pointer;text-decoration:underline",
        ".off": "display:none",
        # of two profiles: what is only in one of them
        ".root rect": f"stroke:{theme.ink};stroke-width:1.6",
        ".new rect": f"stroke:{theme.ink};stroke-width:1.2",
        ".vanished rect": f"stroke:{theme.ink};stroke-width:1.2;stroke-dasharray:4 3",
    }


def script() -> str:
    """The script that brings every flame graph of a document to life."""
    return source("flame.js").strip()


def flame_svg(view: View, theme: ThemeName, standalone: bool) -> str:
    """The whole document. A deep tree makes a high picture; the width is fixed."""
    height = TOP + view.rows * ROW + FOOT
    inner_width = WIDTH - 2 * EDGE
    top = [TOP + (d if view.icicle else view.rows - 1 - d) * ROW for d in range(view.rows)]
    dim = " dim" if view.query else ""
    boxes = "".join(
        _box(box, EDGE + box.x * inner_width, top[box.row], box.width * inner_width)
        for box in view.boxes
    )
    entries = [(words, shade.css) for words, shade in view.paint.legend]
    parts = [
        header(view.title, view.subtitle),
        legend(entries, EDGE, 63, WIDTH - 160),
        element("g", {"class": f"frames{dim}"}, boxes),
        label(EDGE, height - 11, "", "mu detail"),
        label(WIDTH - EDGE, 23, view.matched, "end found"),
        # only a script can serve these, so only a script shows them
        label(WIDTH - EDGE, 63, "search", "end tool search off"),
        label(WIDTH - EDGE - 60, 63, "reset zoom", "end tool reset off"),
    ]
    return document(
        parts,
        height,
        theme=theme,
        description=f"Flame graph: {view.title}. {view.subtitle}",
        rules=lambda theme: {**view.paint.rules(theme), **_rules(theme)},
        attributes={"data-character": CHARACTER, "data-query": view.query},
        title=view.title,
        text=_widest(view),
        kind="kvmp-flame",
        standalone=standalone,
        script=script() if standalone else "",
    )


def _widest(view: View) -> str:
    """The picture in words, for those who cannot see it."""
    named = [box for box in view.boxes if not box.above and box.merged <= 1]
    widest = sorted(named, key=lambda box: -box.width)[:_TOLD]
    told = (f"{box.name} {percent(100 * box.width)}" for box in widest)
    return f"The widest frames: {', '.join(told)}."


def _box(box: Box, x: float, y: float, width: float) -> str:
    # one f-string: there are hundreds of these in a picture, and element() takes its time
    marks = "".join(
        (
            " up" if box.above else "",
            " dots" if box.merged > 1 else "",
            " hit" if box.matched else "",
            f" {box.mark}" if box.mark and width >= LEAST_MARKED else "",
        )
    )
    room = int((width - 2 * INSET) / CHARACTER)
    drawn = fit(box.name, room) if room >= 3 or box.merged > 1 else ""
    shown = max(width - 0.6, 0.2)  # the gap parts neighbours of one colour
    text = f'<text x="{number(x + INSET)}" y="{y + 12.5}">{escape(drawn)}</text>' if drawn else ""
    return (
        f'<g class="f {box.shade.css}{marks}">'
        f"<title>{'&#10;'.join(map(escape, box.hover))}</title>"
        f'<rect x="{number(x)}" y="{y}" width="{number(shown)}" height="{ROW - 1}"/>{text}</g>'
    )
