"""A recording's samples as a flame graph, siblings by name, by weight or in the order of time."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import kvmperf_widgets as pictures
from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.lanes import Lane, lanes_of
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.profile.timeorder import time_tree
from kvmperf_magic.profile.tree import KINDS, CallTree, build_tree
from kvmperf_widgets.layout import ORDERS

if TYPE_CHECKING:
    from kvmperf_magic.profile.difftree import DiffTree
    from kvmperf_magic.profile.profile import Profile
    from kvmperf_magic.recording import Recording
    from kvmperf_widgets import FlameGraph, Tree
    from kvmperf_widgets.layout import Order


def flamegraph(
    view: Recording, roots: Any = "auto", title: str = "", order: Order = "name", **options: Any
) -> FlameGraph:
    """The samples of this view as a flame graph, siblings in this order."""
    if order not in ORDERS:
        raise QueryError(f"no order {order!r}", f"order: {', '.join(ORDERS)}")
    profile = view.profile
    clock = RecordingClock(profile, roots)
    tree = clock.tree(None) if order == "time" else drawn_calls(build_tree(profile, roots))
    return pictures.FlameGraph(
        tree,
        title=title or f"{view.name}: {' and '.join(view.sides)}",
        unit=profile.unit,
        subtitle=clock.about(None) + (", over time" if order == "time" else ""),
        order=order,
        clock=clock,
        **options,
    )


def drawn_calls(tree: CallTree) -> Tree:
    """A call tree as plain arrays."""
    return drawn(tree, tree.self)


def drawn(tree: CallTree | DiffTree, own: NDArray[np.float64]) -> Tree:
    """A tree of frames as plain arrays, with these own weights."""
    return pictures.Tree(
        parent=tree.parent,
        name=tree.name.codes,
        names=tree.name.categories,
        self_value=own,
        kind=tree.mode.astype(np.int32),
        kinds=list(KINDS),
        detail=tree.dso.codes,
        details=[short_dso(dso) for dso in tree.dso.categories],
    )


class RecordingClock:
    """When the samples of a profile were: its flame graph in the order of time."""

    def __init__(self, profile: Profile, roots: Any) -> None:
        self._profile = profile
        self._roots = roots

    @cached_property
    def _lanes(self) -> list[Lane]:
        return lanes_of(self._profile)[0]

    @cached_property
    def lanes(self) -> list[str]:
        """Threads and vCPUs, the heaviest first."""
        return [lane.name for lane in self._lanes]

    def tree(self, lane: int | None) -> Tree:
        """The frames of all of them or of one."""
        profile = self._profile
        if lane is not None:
            profile = profile.select(self._lanes[lane].rows)
        return drawn_calls(time_tree(profile, self._roots))

    def about(self, lane: int | None) -> str:
        """How many samples there are."""
        return f"{len(self._profile if lane is None else self._lanes[lane].rows):,} samples"
