"""What every picture can do: show itself wherever it is, and be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvmperf_widgets.theme import ThemeName

PLOTLY = "application/vnd.plotly.v1+json"


class Picture(ABC):
    """A picture of plain arrays. Nothing is drawn before it is asked for."""

    title: str
    theme: ThemeName

    @abstractmethod
    def to_svg(self, *, standalone: bool = True) -> str:
        """Self-contained SVG; to be put into a page (`standalone=False`) it has neither a size nor
        a script of its own."""

    @abstractmethod
    def to_spec(self) -> dict[str, Any]:
        """The plotly figure as plain JSON-able dicts: `data` and `layout`. Needs no plotly."""

    @abstractmethod
    def to_text(self, width: int | None = None) -> str:
        """For a terminal `width` columns wide (None: as wide as this one)."""

    def to_plotly(self) -> Any:
        """A plotly.graph_objects.Figure of it."""
        import plotly.graph_objects as go

        return go.Figure(self.to_spec())

    def to_html(self) -> str:
        """A page of its own: one file, no network."""
        from kvmperf_widgets.page import Page

        return Page(self.title, theme=self.theme, heading=False).picture(self).html()

    def save(self, path: str | Path) -> Path:
        """Writes `x.svg`, `x.html` or `x.txt`; gives the path."""
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            ".svg": self.to_svg,
            ".html": self.to_html,
            ".txt": lambda: self.to_text(120),
        }
        writer = writers.get(path.suffix.lower())
        if writer is None:
            raise ValueError(f"cannot save as {path.name!r}: use .svg, .html or .txt")
        path.write_text(writer(), encoding="utf-8")
        return path

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Interactive where a front end knows plotly, else SVG, else text.

        nbconvert knows no plotly and writes the SVG into its page as an <img>, where (as in
        notebook front ends) no script of it would run: it is left out. There is no text/html,
        which nbconvert and code-hosting sites would prefer, and the latter strip of its SVG.
        """
        makers: dict[str, Any] = {
            "image/svg+xml": lambda: self.to_svg(standalone=False),
            "text/plain": self.to_text,
        }
        if find_spec("plotly") is not None:
            makers = {PLOTLY: self._plotly_bundle, **makers}
        return {
            mime: make()
            for mime, make in makers.items()
            if (not include or mime in include) and (not exclude or mime not in exclude)
        }

    def _plotly_bundle(self) -> dict[str, Any]:
        return {**self.to_spec(), "config": {"responsive": True, "displaylogo": False}}

    def __repr__(self) -> str:
        return self.to_text()
