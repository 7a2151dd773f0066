"""Text on its way into a picture: cleaned, escaped, cut to a width, numbers made short."""

from __future__ import annotations

import math
import re
import unicodedata
from html import escape as _html_escape

# Not allowed in XML 1.0 (https://www.w3.org/TR/xml/#charsets), terminal controls (C0, DEL, C1),
# line separators, and the bidirectional overrides that make one name read as another.
_UNWANTED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
    "|[\U0001fffe\U0001ffff\U0010fffe\U0010ffff]"
)
ELLIPSIS = "…"


def clean(text: object, most: int = 400) -> str:
    """One printable line of at most `most` characters; what cannot be shown becomes U+FFFD."""
    line = str(text)
    if len(line) > most:
        line = line[: most - 1] + ELLIPSIS
    return _UNWANTED.sub("\ufffd", line)


def escape(text: object, most: int = 400) -> str:
    """`clean`, and safe as content and as attribute value of HTML and XML."""
    return _html_escape(clean(text, most), quote=True)


def columns_of(text: str) -> int:
    """The width of a clean text in terminal columns: 2 for wide characters, 0 for combining."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, columns: int) -> str:
    """The clean text cut to this many columns, the last of them an ellipsis where it was cut."""
    if columns_of(text) <= columns:
        return text
    if columns < 1:
        return ""
    if text.isascii():
        return text[: columns - 1] + ELLIPSIS
    kept, used = [], 0
    for character in text:
        used += _columns_of(character)
        if used > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + ELLIPSIS


def pad(text: str, columns: int, right: bool = False) -> str:
    """The clean text filled with blanks to this many columns (`right`: aligned right)."""
    blanks = " " * (columns - columns_of(text))
    return blanks + text if right else text + blanks


def percent(share: float, sign: bool = False) -> str:
    """A percentage with as many digits as it deserves: 28.04 %, 0.0031 %, 0 %."""
    if not math.isfinite(share):
        return "? %"
    digits = 2 if abs(share) >= 0.01 or share == 0 else 4
    return f"{share:{'+' if sign else ''}.{digits}f} %"


def amount(value: float) -> str:
    """A count or weight in four digits and a suffix: 950, 12.3k, 4.51M, 1.2G."""
    if not math.isfinite(value):
        return "?"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / min(limit, 1e3 if suffix == 'k' else limit):.4g}{suffix}"
    return f"{value:.4g}" if value != round(value) else f"{value:.0f}"


def weight(value: float, unit: str) -> str:
    """A sum of periods with its unit; nanoseconds ("cpu-clock ns") as time: 4.51 s cpu-clock."""
    words = clean(unit).split()
    if words[-1:] != ["ns"]:
        return " ".join([amount(value), *words])
    for limit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(value) >= limit:
            return " ".join([f"{value / limit:.4g}", name, *words[:-1]])
    return " ".join([f"{value:.4g}", "ns", *words[:-1]])
