"""Delta bars alive in a page: a click on a bar searches the pictures that are linked with them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import traitlets

from kvmperf_widgets.live import LivePicture, LiveWidget, source

if TYPE_CHECKING:
    from kvmperf_widgets.delta import DeltaBars
    from kvmperf_widgets.theme import ThemeName


class DeltaWidget(LiveWidget):
    """The widget itself, to be put among others; `DeltaExplorer` is what a cell shows."""

    _esm = source("asked.js", "live.js", "pattern.js", "delta.js", "delta_widget.js")
    asked_for = "bars"
    link = traitlets.Unicode("").tag(sync=True)

    def __init__(self, bars: DeltaBars, picture: str = "", link: str = "") -> None:
        super().__init__(lambda: packed(bars), theme=bars.theme, picture=picture, link=link)


class DeltaExplorer(LivePicture):
    """Delta bars whose rows can be clicked, or reached by Tab and chosen by Enter: what they are
    of is searched for in the pictures of the same `link`. A second click ends it."""

    def __init__(self, bars: DeltaBars, link: str) -> None:
        super().__init__(bars)
        self.widget = DeltaWidget(bars, self._id, link)


def packed(bars: DeltaBars) -> tuple[dict[str, Any], list[bytes]]:
    """The picture as SVG in both themes."""

    def drawn(theme: ThemeName) -> str:
        themed = copy.copy(bars)
        themed.theme = theme
        return themed.to_svg(standalone=False)

    return {"light": drawn("light"), "dark": drawn("dark")}, []
