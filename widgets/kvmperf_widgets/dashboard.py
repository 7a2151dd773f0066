"""The dashboard: filters, a strip of time, a table and a flame graph of the same samples.

Everything is worked out in the page, from samples summed by node, facet and step of time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import traitlets
from numpy.typing import NDArray

from kvmperf_widgets import explorer, heat_explorer
from kvmperf_widgets.explorer import SCRIPTS
from kvmperf_widgets.flame import FlameGraph
from kvmperf_widgets.heat import HeatMap
from kvmperf_widgets.live import LivePicture, LiveWidget, Marked, source
from kvmperf_widgets.packing import EXACT, packed_columns
from kvmperf_widgets.paint import COLOURS, Paint, Shade, paint
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.text import clean
from kvmperf_widgets.theme import DARK, KINDS, LIGHT, ThemeName, mode_colour
from kvmperf_widgets.tree import Tree

PARTS = (
    *(
        "asked.js",
        "live.js",
        *SCRIPTS,
        "dashboard_data.js",
        "dashboard_sums.js",
        "dashboard_filters.js",
    ),
    *("dashboard_strip.js", "dashboard_table.js", "heat.js", "dashboard_heat.js", "dashboard.js"),
)
STYLES = ("explorer.css", "dashboard.css")


@dataclass(frozen=True)
class Facet:
    """What samples have one of: `names[of[i]]` is that of facet row i.

    `choices` are the numbers of those names that can be filtered by, none where there is no
    control for it.
    """

    key: str
    names: Sequence[str]
    of: NDArray[np.integer]
    choices: Sequence[int] = ()


@dataclass(frozen=True)
class Event:
    """An event, and what its weight counts."""

    name: str
    unit: str


@dataclass(frozen=True)
class Sums:
    """What a dashboard is of. Nodes stand depth first: `parent` and `frame` have a row each.

    A frame has a row in `name`, `kind` and `detail`, which number `names`, `kinds` and `details`.
    `node`, `facet`, `step`, `weight` and `samples` have a row a cell: what ends in this node, of
    this row of the facets, in this step of time; the facet called "event" numbers `events`.
    Step i begins at `start + i * width` seconds.
    """

    parent: NDArray[np.integer]
    frame: NDArray[np.integer]
    name: NDArray[np.integer]
    names: Sequence[str]
    kind: NDArray[np.integer]
    kinds: Sequence[str]
    detail: NDArray[np.integer]
    details: Sequence[str]
    node: NDArray[np.integer]
    facet: NDArray[np.integer]
    step: NDArray[np.integer]
    weight: NDArray[np.float64]
    samples: NDArray[np.int64]
    facets: Sequence[Facet]
    events: Sequence[Event]
    start: float
    width: float
    steps: int

    def tree(self) -> Tree:
        """The nodes as a tree, with the weight of all cells."""
        return Tree(
            self.parent.astype(np.int32),
            self.name[self.frame].astype(np.int32),
            list(self.names),
            np.bincount(self.node, self.weight, len(self.parent)).astype(np.float64, copy=False),
            self.kind[self.frame].astype(np.int32),
            list(self.kinds),
            self.detail[self.frame].astype(np.int32),
            list(self.details),
        )


@dataclass(frozen=True)
class Words:
    """What a dashboard says: its title, what was left out, by which columns its table is and which
    of "self", "children" and "samples" it is sorted by."""

    title: str
    notes: Sequence[str] = ()
    columns: Sequence[str] = ("symbol", "dso", "mode")
    order: str = "self"
    theme: ThemeName = "auto"


def packed(sums: Sums, words: Words, state: dict[str, Any], heat: HeatMap | None = None) -> bytes:
    """All of it for the page: the length of a header, the header as JSON, and the columns. A
    range dragged over `heat` filters all else."""
    tree = sums.tree()
    seen = tree.total > 0
    palettes, shades = [], {}
    some = np.zeros(len(sums.name), np.int64)  # a node of each frame
    some[sums.frame] = np.arange(len(sums.frame))
    for by in COLOURS:
        colours = paint(tree, by, seen)
        of_nodes = by == "vm"  # all others are alike for all nodes of a frame
        shades[f"shade of {by}"] = colours.of if of_nodes else colours.of[some]
        palettes.append({"by": by, "of": "nodes" if of_nodes else "frames", **_palette(colours)})
    each = _usual(sums)
    columns = {
        "depth": tree.depth,
        "frame": sums.frame,
        "name": sums.name,
        "kind": sums.kind,
        "detail": sums.detail,
        "node": sums.node,
        "facet": sums.facet,
        "step": sums.step,
        "samples": sums.samples,
        "weight": sums.weight - each * sums.samples,
        **{f"facet {facet.key}": facet.of for facet in sums.facets},
        **shades,
    }
    if heat is not None:
        columns |= {f"heat {name}": one for name, one in heat_explorer.columns(heat).items()}
    told, data = packed_columns(columns)
    header = {
        "title": clean(words.title, 160),
        "notes": [clean(note, 300) for note in words.notes],
        "theme": words.theme,
        "by": list(words.columns),
        "order": words.order,
        "each": each,
        "names": [clean(name, 300) for name in sums.names],
        "kinds": [clean(kind, 40) for kind in sums.kinds],
        "details": [clean(detail, 200) for detail in sums.details],
        "facets": [
            {
                "key": facet.key,
                "names": [clean(name, 120) for name in facet.names],
                "choices": list(facet.choices),
            }
            for facet in sums.facets
        ],
        "events": [[clean(event.name, 120), clean(event.unit, 60)] for event in sums.events],
        "start": sums.start,
        "width": sums.width,
        "steps": sums.steps,
        "palettes": palettes,
        "modes": {kind: [mode_colour(kind, theme) for theme in (LIGHT, DARK)] for kind in KINDS},
        "themes": [asdict(LIGHT), asdict(DARK)],
        "columns": told,
        "state": state,
        "heat": None if heat is None else heat_explorer.told(heat),
    }
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"".join((struct.pack("<I", len(text)), text, data))


def _usual(sums: Sums) -> float:
    """The weight of most samples where it is a whole number, as of a clock; 0 where what is left
    of the weights without it would not be exact."""
    if not len(sums.weight) or sums.weight.max() >= EXACT or sums.samples.max() >= 1 << 20:
        return 0.0
    each = float(np.median(sums.weight / sums.samples))
    return each if each == round(each) and each < 1 << 31 else 0.0


def _palette(colours: Paint) -> dict[str, Any]:
    return {
        "shades": [_both(shade) for shade in colours.shades],
        "legend": [[words, _both(shade), ""] for words, shade in colours.legend],
    }


def _both(shade: Shade) -> list[str]:
    return [shade.light, shade.dark]


OverTime: TypeAlias = Callable[[dict[str, Any]], FlameGraph]


class DashboardWidget(LiveWidget):
    """The dashboard alive in a page; `filter` is what is shown, as `packed()` numbers it.

    modes: names; comm, machine, vcpu: numbers of names of that facet; event: its number; symbol:
    a regular expression; time: [first, last] step. What is not there is not filtered.
    """

    _esm = source("asked.js", "loader.js")
    _css = source(*STYLES)
    script: ClassVar[str] = source(*PARTS, "dashboard_widget.js")
    asked_for = "sums"
    filter = traitlets.Dict().tag(sync=True)
    # of the samples that pass a filter (as `filter` is) the flame graph in the order of time
    over_time: OverTime | None = None

    def _on_message(self, widget: Any, content: Any, buffers: list[Any]) -> None:
        super()._on_message(widget, content, buffers)
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "script":
            self.send({"type": "script", "script": self.script})
        elif kind == "over time" and self.over_time and isinstance(content.get("filter"), dict):
            header, columns = explorer.packed_lane(
                self.over_time(content["filter"]), content.get("lane")
            )
            self.send({"type": kind, "of": content.get("of"), **header}, columns)


class LiveDashboard(LivePicture):
    """A dashboard in the place of a picture, which stays what is saved. `widget` is it."""

    def __init__(
        self,
        picture: Picture,
        packed_now: Callable[[], bytes],
        filter: dict[str, Any],
        over_time: OverTime | None = None,
    ) -> None:
        super().__init__(picture)
        self.widget = DashboardWidget(
            lambda: ({}, [packed_now()]), theme=picture.theme, picture=self._id, filter=filter
        )
        self.widget.over_time = over_time

    @property
    def beside(self) -> str:
        """The class of what the dashboard takes the place of, too: the same answer as a table."""
        return f"kvmp-of-{self._id}"

    def instead(self, picture: Picture) -> Marked:
        """A picture that it takes the place of, too: one that it has a part for."""
        return Marked(picture, f"{self._id}-beside")
