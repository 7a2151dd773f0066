"""What samples have one of, by name; and samples summed up, as plain arrays for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.decoding import unit_of
from kvmperf_magic.modes import mode_codes
from kvmperf_magic.profile.cells import FACETS, Cells, parents_of
from kvmperf_magic.profile.groups import distinct
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.profile.tree import KINDS
from kvmperf_magic.table import Categorical
from kvmperf_widgets import dashboard as pictures


class Facets:
    """Of every facet of a profile its names, each once: commands, machines, events, and numbers
    as text. `more` are the sort keys that there are besides FACETS."""

    def __init__(self, profile: Profile, more: Sequence[str] = ()) -> None:
        self._profile = profile
        self.names: dict[str, list[str]] = {}
        for key in (*FACETS, *more):
            column = getattr(profile, key)
            if isinstance(column, Categorical):
                used = np.flatnonzero(np.bincount(column.codes)).tolist()
                self.names[key] = list(dict.fromkeys(column.categories[i] for i in used))
            else:
                self.names[key] = [str(number) for number in distinct(column).tolist()]

    def choices(self, key: str) -> list[int]:
        """The numbers of the names of a facet that can be filtered by."""
        names = self.names[key]
        if key == "machine":
            guest = np.isin(self._profile.mode, mode_codes(["guest"]))
            vms = np.bincount(self._profile.machine.codes[guest])
            known = {self._profile.machine.categories[i] for i in np.flatnonzero(vms).tolist()}
            return [i for i, name in enumerate(names) if name in known]
        if key == "vcpu":
            return [i for i, name in enumerate(names) if name != "-1"]
        return list(range(len(names))) if key == "comm" else []

    def sums(self, cells: Cells) -> pictures.Sums:
        """The cells as plain arrays; names that no frame has are left out."""
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
            [pictures.Event(name, unit_of([name])) for name in self.names["event"]],
            steps.second(0),
            steps.width / 1e9,
            steps.count,
        )

    def _facet(self, key: str, column: Categorical | NDArray[Any]) -> pictures.Facet:
        number = {name: i for i, name in enumerate(self.names[key])}
        values = column.values() if isinstance(column, Categorical) else column
        of = np.array([number[str(value)] for value in values.tolist()], np.int32)
        return pictures.Facet(key, self.names[key], of, self.choices(key))


def _numbered(
    codes: NDArray[np.integer], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The codes that are there, ascending, and which of them stands in each row."""
    used = np.flatnonzero(np.bincount(codes, minlength=length))
    place = np.zeros(length, np.int32)
    place[used] = np.arange(len(used))
    return used, place[codes]
