"""A view of a recording as a dashboard: what it is of, what it shows, and how much fits."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kvmperf_magic.errors import QueryError
from kvmperf_magic.facets import Facets
from kvmperf_magic.filters import Filter
from kvmperf_magic.flamegraphs import flamegraph
from kvmperf_magic.modes import MODES, mode_codes
from kvmperf_magic.profile.cells import FACETS, Gathering, Steps
from kvmperf_magic.profile.cutting import CUT, RARE, Cut, cut
from kvmperf_magic.profile.report import SAMPLE_KEYS
from kvmperf_widgets import dashboard as pictures

if TYPE_CHECKING:
    from kvmperf_magic.heatmap import RecordingHeatMap
    from kvmperf_magic.recording import Recording
    from kvmperf_widgets import FlameGraph
    from kvmperf_widgets.dashboard import LiveDashboard
    from kvmperf_widgets.picture import Picture
    from kvmperf_widgets.theme import ThemeName

MOST_STEPS = 300
HEAT_STEPS = 2000  # where a heat map shows what is shorter
MOST_LIVE = 12_000_000  # bytes that a live page is sent
MOST_PAGE = 1_200_000  # bytes of a page's data, deflated: as base64 a third more
_MOST_HEAT = 20_000  # cells of a heat map that a page has among its data
# steps of time, and the samples of the rarest stack that is not cut
_LEAST = [1 << power for power in range(24)]
_PAGE = [(MOST_STEPS, 1), (MOST_STEPS, 2), (120, 2), (120, 3), (60, 4), (60, 6)]
_PAGE += [(60 if power < 11 else 30, 1 << power) for power in range(3, 24)]
_CONTROLS = {"comm": "comm", "machine": "vm", "vcpu": "vcpu"}  # facets, and what filters them


class Dashboard:
    """The samples of `recording`, of all events, and the `filter` through which they are seen.

    `sort` are the keys that the table begins with, the largest of `order` ("self" or "children")
    above; of several events `event` is shown first.
    """

    def __init__(
        self,
        recording: Recording,
        sort: Sequence[str],
        event: str | None = None,
        order: str = "self",
        heat: RecordingHeatMap | None = None,
    ) -> None:
        self.recording = recording
        self._heat = heat
        self._most_steps = MOST_STEPS if heat is None else HEAT_STEPS
        self._sort = tuple(sort)
        self._order = order
        self._filter = self._checked(
            Filter(event=event if event in self._facets.names["event"] else None)
        )
        self._live: list[LiveDashboard] = []
        if heat is not None:
            heat.on_select(lambda _: self._follow())

    @property
    def filter(self) -> Filter:
        """What is shown. Setting it changes the page; a range of time grows to whole steps."""
        return self._filter

    @filter.setter
    def filter(self, wanted: Filter) -> None:
        self._filter = self._checked(wanted)
        self._tell()

    @property
    def selection(self) -> Recording:
        """The recording of what is shown."""
        return self.recording.filter(**self._filter.arguments)

    def live(self, picture: Picture) -> LiveDashboard:
        """The dashboard in the place of this picture of a live notebook. Of several all show the
        same."""
        live = pictures.LiveDashboard(
            picture, lambda: self.packed(picture.theme), self.state, self._over_time
        )
        live.widget.observe(lambda change: self._heard(change["new"]), "filter")
        self._live.append(live)
        return live

    def _over_time(self, state: Mapping[str, Any]) -> FlameGraph:
        """What the page shows when it asks: one that is being typed is no filter yet."""
        wanted = self._filter_of(state)
        try:
            re.compile(wanted.symbol or "")
        except re.error:
            wanted = replace(wanted, symbol=None)
        return flamegraph(self.recording.filter(**wanted.arguments))

    def _follow(self) -> None:
        """The time that is selected in the heat map."""
        assert self._heat is not None
        wanted = replace(self._filter, time=self._heat.selected)
        if wanted != self._filter:
            self.filter = wanted

    @property
    def with_heat(self) -> bool:
        """Whether a page that holds its data itself has the heat map among them."""
        return self._heat is not None and self._heat.samples.size <= _MOST_HEAT

    def _tell(self) -> None:
        if self._heat is not None:
            self._heat.select(*(self._filter.time or ()))
        state = self.state
        for live in self._live:
            live.widget.filter = state

    def packed(self, theme: ThemeName = "auto") -> bytes:
        """The data for a live page, of all steps of time."""
        attempts = [(self._most_steps, least) for least in _LEAST]
        return self._fitting(attempts, MOST_LIVE, len, theme, self._heat)

    def deflated(self, theme: ThemeName = "auto") -> bytes:
        """The data for a page that holds them itself."""
        heat = self._heat if self.with_heat else None
        attempts = [(self._most_steps, 1), *_PAGE] if heat else _PAGE
        data = self._fitting(
            attempts, MOST_PAGE, lambda data: len(zlib.compress(data, 1)), theme, heat
        )
        return zlib.compress(data, 9)

    @cached_property
    def _facets(self) -> Facets:
        return Facets(self.recording.profile, self._more)

    @property
    def _more(self) -> list[str]:
        """The keys of samples that the table is by and that no filter is of."""
        return [key for key in self._sort if key in SAMPLE_KEYS and key not in FACETS]

    @cached_property
    def _gathering(self) -> Gathering:
        return Gathering(self.recording.profile, self._more)

    @cached_property
    def _steps(self) -> Steps:
        return self._at_most(self._most_steps)

    def _at_most(self, steps: int) -> Steps:
        return Steps.of(self.recording.profile.time, self.recording.origin, steps)

    def _checked(self, wanted: Filter) -> Filter:
        """A filter that can be, of whole steps of time; QueryError for another."""
        mode_codes(wanted.modes or ())
        for key, name in _CONTROLS.items():
            known = [self._facets.names[key][i] for i in self._facets.choices(key)]
            for one in getattr(wanted, name) or ():
                if str(one) not in known:
                    raise QueryError(f"no {name} {one!r}", f"there are: {', '.join(known)}")
        if wanted.symbol:
            try:
                re.compile(wanted.symbol)
            except re.error as error:
                raise QueryError(f"{wanted.symbol!r} is no regular expression: {error}") from None
        names = self._facets.names["event"]
        if wanted.event is not None and wanted.event not in names:
            raise QueryError(f"no event {wanted.event!r}", f"there are: {', '.join(names)}")
        event = (wanted.event or names[0]) if len(names) > 1 else None
        time = None if wanted.time is None else self._whole_steps(wanted.time)
        return replace(wanted, event=event, time=time)

    def _whole_steps(self, time: tuple[float | None, float | None]) -> tuple[float, float]:
        ends = (self._steps.second(0), self._steps.second(self._steps.count))
        start, end = (default if at is None else at for at, default in zip(time, ends, strict=True))
        if not (math.isfinite(start) and math.isfinite(end) and start < end):
            raise QueryError(f"no time from second {start:g} to second {end:g}")
        return self._seconds(*self._steps.around(start, end))

    def _seconds(self, first: int, last: int) -> tuple[float, float]:
        return self._steps.second(first), self._steps.second(last + 1)

    @property
    def state(self) -> dict[str, Any]:
        """The filter as a live page has it."""
        return self._state_in(self._steps)

    def _state_in(self, steps: Steps) -> dict[str, Any]:
        found: dict[str, Any] = {}
        shown = self._filter
        if shown.modes:
            wanted = mode_codes(shown.modes).tolist()
            found["modes"] = [MODES[code] for code in wanted]
        for key, name in _CONTROLS.items():
            if values := getattr(shown, name):
                found[key] = [self._facets.names[key].index(str(value)) for value in values]
        if shown.event is not None and (event := self._facets.names["event"].index(shown.event)):
            found["event"] = event
        if shown.symbol:
            found["symbol"] = shown.symbol
        if shown.time is not None:
            start, end = shown.time
            assert start is not None  # of whole steps since it was checked
            assert end is not None
            found["time"] = list(steps.around(start, end))
        return found

    def _heard(self, state: Mapping[str, Any]) -> None:
        """Takes over what the page has set."""
        self._filter = self._filter_of(state)
        self._tell()

    def _filter_of(self, state: Mapping[str, Any]) -> Filter:
        """What the page has set; what it cannot have set is left out."""
        modes = [mode for mode in _strings(state.get("modes")) if mode in MODES]
        values: dict[str, Any] = {"modes": tuple(modes) or None}
        for key, name in _CONTROLS.items():
            names = self._facets.names[key]
            chosen = [names[i] for i in _numbers(state.get(key), len(names))]
            values[name] = tuple(map(int, chosen) if key == "vcpu" else chosen) or None
        names = self._facets.names["event"]
        event = (_numbers([state.get("event")], len(names)) or [0])[0]
        values["event"] = names[event] if len(names) > 1 else None
        symbol = state.get("symbol")
        values["symbol"] = symbol if isinstance(symbol, str) and symbol else None
        time = sorted(_numbers(state.get("time"), self._steps.count))
        values["time"] = self._seconds(*time) if len(time) == 2 else None
        return Filter(**values)

    def _fitting(
        self,
        attempts: Sequence[tuple[int, int]],
        most: int,
        size: Callable[[bytes], int],
        theme: ThemeName,
        heat: RecordingHeatMap | None,
    ) -> bytes:
        """The data in at most `most` bytes, as `size` measures them: the first of the `attempts`,
        steps of time and samples of the rarest stack, that gives so few, or the last."""
        data, cells, enough = b"", None, np.inf
        for count, least in attempts:
            if cells is None or cells.steps.width < self._at_most(count).width:
                cells = self._gathering.cells(self._at_most(count))
            made = cut(cells, least, least // 8)
            items = len(made.cells) + len(made.cells.depth)
            if items > enough and (count, least) != attempts[-1]:
                continue
            data = self._packed(made, least, theme, heat)
            measured = size(data)
            if measured <= most:
                break
            enough = 1.1 * items * most / measured  # what does not come near is not packed
        return data

    def _packed(
        self, made: Cut, least: int, theme: ThemeName, heat: RecordingHeatMap | None
    ) -> bytes:
        words = pictures.Words(
            f"{self.recording.name}: where the time went",
            self._notes(made, least),
            self._by,
            self._order,
            theme,
        )
        return pictures.packed(
            self._facets.sums(made.cells), words, self._state_in(made.cells.steps), heat
        )

    @property
    def _by(self) -> list[str]:
        """The columns that the table begins with."""
        more = ["mode"] if "symbol" in self._sort and "mode" not in self._sort else []
        return [key for key in (*self._sort, *more) if key != "event"]

    def _notes(self, made: Cut, least: int) -> list[str]:
        """What of the recording is not told apart in these data."""
        whole, notes = max(len(self.recording), 1), []
        if made.shortened:
            notes.append(
                f"To keep this page small, stacks of fewer than {least} samples "
                f"({made.shortened / whole:.1%} of all) are cut to the callers that they share "
                f"with others, {CUT} and the function they ended in."
            )
        if made.renamed:
            notes.append(
                f"Functions of such stacks with fewer than {least // 8} samples "
                f"({made.renamed / whole:.1%} of all) stand together as {RARE}."
            )
        steps = made.cells.steps
        if steps.width > self._steps.width:
            notes.append(f"Time is told apart in steps of {steps.width / 1e9:g} s.")
        return notes


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _numbers(value: Any, most: int) -> list[int]:
    """The whole numbers of a list that are below `most`."""
    if not isinstance(value, list):
        return []
    return [one for one in value if type(one) is int and 0 <= one < most]
