"""One self-contained HTML page of paragraphs, tables and pictures: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from kvmperf_widgets import flame_svg
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.scripts import source
from kvmperf_widgets.tables import STYLE, html_table
from kvmperf_widgets.text import escape
from kvmperf_widgets.theme import Theme, ThemeName, css


def _rules(theme: Theme) -> dict[str, str]:
    return {
        "body": f"background:{theme.background};color:{theme.ink}",
        "pre": f"border:1px solid {theme.grid}",
        "figure": f"border:1px solid {theme.grid}",
    }


_LAYOUT = """\
body{margin:0 auto;max-width:1240px;padding:24px 16px 48px;font:15px/1.6 system-ui,sans-serif}
h1{font-size:26px;line-height:1.25;margin:.2em 0 .6em}h2{font-size:19px;margin:1.8em 0 .5em}
p{max-width:76ch;margin:.6em 0}
figure{margin:14px 0;border-radius:6px;overflow:hidden}figure svg{display:block;width:100%}
pre{padding:10px 12px;border-radius:6px;overflow:auto;font-size:12.5px;line-height:1.45}"""


class Page:
    """Built from top to bottom; every method but `html` and `save` gives the page itself."""

    def __init__(self, title: str, *, theme: ThemeName = "auto", heading: bool = True) -> None:
        self._title = title
        self._theme: ThemeName = theme
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"] if heading else []
        self._flames = self._links = False
        self._module = self._style = ""  # of a dashboard

    def heading(self, text: str) -> Page:
        self._parts.append(f"<h2>{escape(text)}</h2>")
        return self

    def paragraph(self, text: str) -> Page:
        self._parts.append(f"<p>{escape(text, 20_000)}</p>")
        return self

    def picture(self, picture: Picture, link: str = "") -> Page:
        """A click on a bar of one searches the flame graphs of the same `link`."""
        drawn = picture.to_svg(standalone=False)
        self._flames |= "kvmp-flame" in drawn
        self._links |= bool(link)
        linked = f' data-link="{escape(link)}"' if link else ""
        self._parts.append(f"<figure{linked}>{drawn}</figure>")
        return self

    def table(
        self, columns: list[str], values: list[list[Any]], length: int, **options: Any
    ) -> Page:
        """As `tables.html_table`."""
        self._parts.append(html_table(columns, values, length, style=False, **options))
        return self

    def dashboard(self, deflated: bytes, still: Page) -> Page:
        """A dashboard of `dashboard.packed()` data, one a page at most; `still` stands there where
        no script runs."""
        from kvmperf_widgets.dashboard import PARTS, STYLES

        self._flames |= still._flames
        self._module = source(*PARTS, "dashboard_page.js")
        self._style = source(*STYLES)
        data = base64.b64encode(deflated).decode("ascii")
        self._parts += [
            '<div id="kvmp-dashboard"></div><div id="kvmp-still">',
            *still._parts,
            f'</div><script type="application/octet-stream" id="kvmp-data">{data}</script>',
        ]
        return self

    def html(self) -> str:
        """The page. Its policy lets nothing load, and no script run but the pictures' own."""
        script = flame_svg.script() if self._flames else ""
        script += source("pattern.js", "delta.js", "delta_page.js") if self._links else ""
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        if own := list(filter(None, (script, self._module))):
            policy += f"; script-src {' '.join(map(_digest, own))}"
        return "\n".join(
            (
                f'<!DOCTYPE html>\n<html lang="en" class="kvmp-page-{self._theme}">',
                '<head><meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
                '<meta name="viewport" content="width=device-width">',
                f'<meta name="color-scheme" content="{_SCHEMES[self._theme]}">',
                f"<title>{escape(self._title)}</title>",
                f"<style>{_LAYOUT}{STYLE}{css(self._theme, _rules, 'kvmp-page')}{self._style}",
                "</style></head><body>",
                *self._parts,
                f"<script>{script}</script>" if script else "",
                f'<script type="module">{self._module}</script>' if self._module else "",
                "</body></html>\n",
            )
        )

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        path.write_text(self.html(), encoding="utf-8")
        return path


def _digest(script: str) -> str:
    """What a policy lets this script run by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


_SCHEMES: dict[ThemeName, str] = {"auto": "light dark", "light": "light", "dark": "dark"}
