"""A view of a recording as a dashboard: what it is of, what it shows, and how much fits."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.decoding import unit_of
from kvmperf_magic.errors import QueryError
from kvmperf_magic.filters import Filter
from kvmperf_magic.modes import MODES, mode_codes
from kvmperf_magic.profile.cells import FACETS, Cells, Gathering, Steps, parents_of
from kvmperf_magic.profile.cutting import CUT, RARE, Cut, cut
from kvmperf_magic.profile.groups import distinct
from kvmperf_magic.profile.report import SAMPLE_KEYS
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.profile.tree import KINDS
from kvmperf_magic.table import Categorical
from kvmperf_widgets import dashboard as pictures

if TYPE_CHECKING:
    from kvmperf_magic.recording import Recording
    from kvmperf_widgets.dashboard import LiveDashboard
    from kvmperf_widgets.picture import Picture
    from kvmperf_widgets.theme import ThemeName

MOST_STEPS = 300
MOST_LIVE = 12_000_000  # bytes that a live page is sent
MOST_PAGE = 1_200_000  # bytes of a page's data, deflated: as base64 a third more
# steps of time, and the samples of the rarest stack that is not cut
_LIVE = [(MOST_STEPS, 1 << power) for power in range(24)]
_PAGE = [(240, 1), (240, 2), (120, 2), (120, 3), (60, 4), (60, 6)]
_PAGE += [(60 if power < 9 else 30, 1 << power) for power in range(3, 24)]
_CONTROLS = {"comm": "comm", "machine": "vm", "vcpu": "vcpu"}  # facets, and what filters them


class Dashboard:
    """The samples of `recording`, of all events, and the `filter` through which they are seen.

    `sort` are the keys that the table begins with; of several events `event` is shown first.
    """

    def __init__(self, recording: Recording, sort: Sequence[str], event: str | None = None) -> None:
        self.recording = recording
        self._sort = tuple(sort)
        self._filter = self._checked(Filter(event=event if event in self._names["event"] else None))
        self._live: list[LiveDashboard] = []

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
        live = pictures.LiveDashboard(picture, lambda: self.packed(picture.theme), self.state)
        live.widget.observe(lambda change: self._heard(change["new"]), "filter")
        self._live.append(live)
        return live

    def _tell(self) -> None:
        state = self.state
        for live in self._live:
            live.widget.filter = state

    def packed(self, theme: ThemeName = "auto") -> bytes:
        """The data for a live page, of all steps of time."""
        return self._fitting(_LIVE, MOST_LIVE, len, theme)

    def deflated(self, theme: ThemeName = "auto") -> bytes:
        """The data for a page that holds them itself."""
        data = self._fitting(_PAGE, MOST_PAGE, lambda data: len(zlib.compress(data, 1)), theme)
        return zlib.compress(data, 9)

    @cached_property
    def _gathering(self) -> Gathering:
        more = [key for key in self._sort if key in SAMPLE_KEYS and key not in FACETS]
        return Gathering(self.recording.profile, more)

    @cached_property
    def _steps(self) -> Steps:
        return self._at_most(MOST_STEPS)

    def _at_most(self, steps: int) -> Steps:
        return Steps.of(self.recording.profile.time, self.recording.origin, steps)

    @cached_property
    def _events(self) -> list[pictures.Event]:
        """Those that have samples."""
        table = self.recording.events
        names = table["name"][table["samples"] > 0].tolist()
        return [pictures.Event(name, unit_of([name])) for name in dict.fromkeys(names)]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Of every facet its names: commands, machines, and numbers as text."""
        profile = self.recording.profile
        names = {}
        for key in (*FACETS, *(key for key in self._sort if key in SAMPLE_KEYS)):
            column = getattr(profile, key)
            if isinstance(column, Categorical):
                used = np.flatnonzero(np.bincount(column.codes)).tolist()
                names[key] = list(dict.fromkeys(column.categories[i] for i in used))
            else:
                names[key] = [str(number) for number in distinct(column).tolist()]
        names["event"] = [event.name for event in self._events]
        return names

    def _choices(self, key: str) -> list[int]:
        """The numbers of the names of a facet that can be filtered by."""
        names = self._names[key]
        if key == "machine":
            guest = np.isin(self.recording.profile.mode, mode_codes(["guest"]))
            vms = set(self.recording.profile.machine.take(guest).values().tolist())
            return [i for i, name in enumerate(names) if name in vms]
        if key == "vcpu":
            return [i for i, name in enumerate(names) if name != "-1"]
        return list(range(len(names))) if key == "comm" else []

    def _checked(self, wanted: Filter) -> Filter:
        """A filter that can be, of whole steps of time; QueryError for another."""
        mode_codes(wanted.modes or ())
        for key, name in _CONTROLS.items():
            known = [self._names[key][i] for i in self._choices(key)]
            for one in getattr(wanted, name) or ():
                if str(one) not in known:
                    raise QueryError(f"no {name} {one!r}", f"there are: {', '.join(known)}")
        if wanted.symbol:
            try:
                re.compile(wanted.symbol)
            except re.error as error:
                raise QueryError(f"{wanted.symbol!r} is no regular expression: {error}") from None
        names = self._names["event"]
        if wanted.event is not None and wanted.event not in names:
            raise QueryError(f"no event {wanted.event!r}", f"there are: {', '.join(names)}")
        event = names[0] if wanted.event is None and len(names) > 1 else wanted.event
        time = None if wanted.time is None else self._seconds(*self._steps.around(*wanted.time))
        return replace(wanted, event=event, time=time)

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
                found[key] = [self._names[key].index(str(value)) for value in values]
        if shown.event is not None and (event := self._names["event"].index(shown.event)):
            found["event"] = event
        if shown.symbol:
            found["symbol"] = shown.symbol
        if shown.time is not None:
            found["time"] = list(steps.around(*shown.time))
        return found

    def _heard(self, state: Mapping[str, Any]) -> None:
        """Takes over what the page has set; what it cannot have set is left out."""
        modes = [mode for mode in _strings(state.get("modes")) if mode in MODES]
        values: dict[str, Any] = {"modes": tuple(modes) or None}
        for key, name in _CONTROLS.items():
            names = self._names[key]
            chosen = [names[i] for i in _numbers(state.get(key), len(names))]
            values[name] = tuple(map(int, chosen) if key == "vcpu" else chosen) or None
        names = self._names["event"]
        event = (_numbers([state.get("event")], len(names)) or [0])[0]
        values["event"] = names[event] if len(names) > 1 else self._filter.event
        symbol = state.get("symbol")
        values["symbol"] = symbol if isinstance(symbol, str) and symbol else None
        time = _numbers(state.get("time"), self._steps.count)
        values["time"] = self._seconds(*time) if len(time) == 2 else None
        self._filter = Filter(**values)
        self._tell()

    def _fitting(
        self,
        attempts: Sequence[tuple[int, int]],
        most: int,
        size: Callable[[bytes], int],
        theme: ThemeName,
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
            data = self._packed(made, least, theme)
            measured = size(data)
            if measured <= most:
                break
            enough = 1.1 * items * most / measured  # what does not come near is not packed
        return data

    def _packed(self, made: Cut, least: int, theme: ThemeName) -> bytes:
        words = pictures.Words(
            f"{self.recording.name}: where the time went", self._notes(made, least), self._by, theme
        )
        return pictures.packed(self._sums(made.cells), words, self._state_in(made.cells.steps))

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

    def _sums(self, cells: Cells) -> pictures.Sums:
        """The cells as plain arrays; names that no frame has any more are left out."""
        used, frame = _numbered(cells.frame, len(cells.frames))
        frames = cells.frames.take(used)
        names, name = _numbered(frames.symbol.codes, len(frames.symbol.categories))
        dsos, dso = _numbered(frames.dso.codes, len(frames.dso.categories))
        steps = cells.steps
        return pictures.Sums(
            parents_of(cells.depth),
            frame,
            name,
            [frames.symbol.categories[i] for i in names.tolist()],
            frames.mode,
            KINDS,
            dso,
            [short_dso(frames.dso.categories[i]) for i in dsos.tolist()],
            cells.node,
            cells.facet,
            cells.step,
            cells.weight,
            cells.samples,
            [self._facet(key, column) for key, column in cells.facets.items()],
            self._events,
            steps.second(0),
            steps.width / 1e9,
            steps.count,
        )

    def _facet(self, key: str, column: Categorical | NDArray[Any]) -> pictures.Facet:
        number = {name: i for i, name in enumerate(self._names[key])}
        values = column.values() if isinstance(column, Categorical) else column
        of = np.array([number[str(value)] for value in values.tolist()], np.int32)
        return pictures.Facet(key, self._names[key], of, self._choices(key))


def _numbered(
    codes: NDArray[np.integer], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The codes that are there, ascending, and which of them stands in each row."""
    used = np.flatnonzero(np.bincount(codes, minlength=length))
    place = np.zeros(length, np.int32)
    place[used] = np.arange(len(used))
    return used, place[codes]


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _numbers(value: Any, most: int) -> list[int]:
    """The whole numbers of a list that are below `most`."""
    if not isinstance(value, list):
        return []
    return [one for one in value if type(one) is int and 0 <= one < most]
