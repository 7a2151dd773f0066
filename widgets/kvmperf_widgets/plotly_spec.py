"""What the plotly renderers share. Figures are plain dicts: plotly itself is not needed."""

from __future__ import annotations

from typing import Any

from kvmperf_widgets.text import clean, columns_of
from kvmperf_widgets.theme import Theme

TOP, FOOT = 92, 24


def plotly_text(text: str) -> str:
    """Text that plotly shows as it is: it reads some HTML tags, entities and, between dollar
    signs, TeX."""
    return (
        clean(text)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("$", "&#36;")
    )


def base_layout(title: str, subtitle: str, theme: Theme, height: float) -> dict[str, Any]:
    """Title and subtitle, colours, a legend beneath them, `height` px of plot."""
    return {
        "title": {
            "text": plotly_text(title),
            "subtitle": {
                "text": plotly_text(subtitle),
                # what is long is smaller, to fit into a cell
                "font": {"size": 12 if columns_of(subtitle) < 120 else 11, "color": theme.muted},
            },
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 12, "l": 12},
            "font": {"size": 17, "weight": 600},
        },
        "height": round(height + TOP + FOOT),
        "margin": {"l": 12, "r": 12, "t": TOP, "b": FOOT, "autoexpand": False},
        "paper_bgcolor": theme.background,
        "plot_bgcolor": theme.background,
        "font": {"color": theme.ink, "family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left", "font": {"family": "monospace", "size": 12}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "bargap": 0,
    }


def marker_legend(name: str, colour: str, outline: str = "") -> dict[str, Any]:
    """A trace that draws nothing and stands in the legend, with an outline of this colour."""
    line = {"line": {"width": 1.5, "color": outline}} if outline else {}
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "marker": {"symbol": "square", "size": 12, "color": colour, **line},
        "name": plotly_text(name),
        "showlegend": True,
        "hoverinfo": "skip",
    }
