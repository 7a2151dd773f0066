"""A small writer of self-contained SVG: everything that goes in is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvmperf_widgets.text import ELLIPSIS, columns_of, escape, fit
from kvmperf_widgets.theme import Theme, ThemeName, css

WIDTH = 1040
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
_ROOM, _MOST = 148, 220  # characters of a subtitle: in its usual size, and at the most
_SUBTITLE = 12.5  # px, that size
CHARACTER = 6.75  # the advance of an 11px monospaced character in px, with a little to spare


def _rules(theme: Theme) -> dict[str, str]:
    return {
        "text": f"font:11px {MONO};fill:{theme.ink}",
        ".h1": f"font:600 17px {SANS}",
        ".h2": f"font:12.5px {SANS};fill:{theme.muted}",
        ".mu": f"fill:{theme.muted}",
        ".end": "text-anchor:end",
        ".mid": "text-anchor:middle",
        ".bg": f"fill:{theme.background}",
        ".grid": f"stroke:{theme.grid};stroke-width:1",
        ".axis": f"stroke:{theme.muted};stroke-width:1",
        ".ink": f"stroke:{theme.ink};stroke-width:1.3;fill:none",
    }


def number(value: float) -> str:
    """A coordinate in hundredths of a pixel, without trailing zeros."""
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def element(
    tag: str, attributes: dict[str, str | float], inner: str = "", *, text: object = None
) -> str:
    """One element; `inner` is markup made here before, `text` anything at all."""
    written = "".join(
        f' {name}="{escape(value, 4000) if isinstance(value, str) else number(value)}"'
        for name, value in attributes.items()
    )
    content = inner if text is None else escape(text)
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def label(x: float, y: float, text: object, kind: str = "", size: float = 0) -> str:
    """A line of text whose baseline starts (or, by its class, ends) at (x, y); in a `size` of so
    many px if that is given."""
    attributes: dict[str, str | float] = {"x": x, "y": y}
    if size:
        attributes["style"] = f"font-size:{number(size)}px"
    if kind:
        attributes["class"] = kind
    return element("text", attributes, text=text)


def rectangle(x: float, y: float, width: float, height: float, kind: str = "") -> str:
    """A filled box with slightly round corners."""
    attributes: dict[str, str | float] = {"x": x, "y": y, "width": width, "height": height, "rx": 1}
    if kind:
        attributes["class"] = kind
    return element("rect", attributes)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def legend(entries: Sequence[tuple[str, str]], x: float, y: float, end: float = WIDTH - 12) -> str:
    """Squares with words, from (x, y) on to the right, none beyond `end`: (words, class of the
    square's group). Squares without words are steps of a scale."""
    parts = []
    for full, kind in entries:
        words = fit(full, 34)
        width = 17 + columns_of(words) * CHARACTER
        if x + width > end:
            parts.append(label(x, y, ELLIPSIS, "mu"))
            break
        parts.append(element("g", {"class": kind}, rectangle(x, y - 10, 12, 12)))
        if words:
            parts.append(label(x + 17, y, words, "mu"))
        x += width + 20 if words else 13
    return "".join(parts)


def header(title: str, subtitle: str) -> str:
    """The two lines on top of a picture; they take 46 px. What is long is written smaller."""
    said = fit(subtitle, _MOST)
    wide = columns_of(said)
    size = _SUBTITLE * _ROOM / wide if wide > _ROOM else 0
    return label(12, 23, title, "h1") + label(12, 41, said, "h2", size)


def document(
    parts: Iterable[str],
    height: float,
    *,
    theme: ThemeName,
    description: str,
    standalone: bool,
    rules: Callable[[Theme], dict[str, str]] | None = None,
    attributes: dict[str, str | float] | None = None,
    kind: str = "",
    script: str = "",
    title: str = "",
    text: str = "",
) -> str:
    """The whole SVG: background, style (`rules` added), parts, script. `description` names it to
    those who cannot see it, `text` is told them of it; `title` is that of a file.

    `standalone` gives it a size. Without one it takes the width it is given, as the <img> that
    nbconvert makes of it too.
    """
    own = css(theme, rules) if rules else ""
    inner = (
        (element("title", {}, text=title) if title and standalone else "")
        + (f"<desc>{escape(text, 2000)}</desc>" if text else "")
        + f"<style>{css(theme, _rules)}{own}</style>"
        + rectangle(0, 0, WIDTH, height, "bg")
        + "".join(parts)
        + (f"<script><![CDATA[{script}]]></script>" if script else "")
    )
    size: dict[str, str | float] = {"width": "100%", "style": "max-width:1500px"}
    if standalone:
        size = {"width": WIDTH, "height": height, "style": "max-width:100%"}
    outer: dict[str, str | float] = {
        "xmlns": "http://www.w3.org/2000/svg",
        "class": f"kvmp kvmp-{theme} {kind}".rstrip(),
        "preserveAspectRatio": "xMinYMin meet",
        "viewBox": f"0 0 {WIDTH} {number(height)}",
        **size,
        "role": "img",
        "aria-label": description,
        **(attributes or {}),
    }
    return element("svg", outer, inner)
