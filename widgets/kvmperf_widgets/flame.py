"""The flame graph: an object that shows itself, and gives a new picture for every question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets import regrow
from kvmperf_widgets.boxes import Words, joined, share_of
from kvmperf_widgets.layout import Order
from kvmperf_widgets.paint import COLOURS, ColourBy, Paint, paint
from kvmperf_widgets.text import clean, percent, weight
from kvmperf_widgets.theme import ThemeName
from kvmperf_widgets.tree import Tree
from kvmperf_widgets.tree_picture import MOST_ROWS, TreePicture

if TYPE_CHECKING:
    from kvmperf_widgets.sandwich import Sandwich


class Clock(Protocol):
    """Knows when the weight of a flame graph fell."""

    @property
    def lanes(self) -> Sequence[str]:
        """The threads and vCPUs there are."""
        ...

    def tree(self, lane: int | None) -> Tree:
        """The frames of all or of one of them, siblings in the order of time."""
        ...

    def about(self, lane: int | None) -> str:
        """How much there is of it, in words."""
        ...


class FlameGraph(TreePicture):
    """A tree of frames, as wide as their weight.

    Every method gives a new picture and leaves this one as it is. `unit` says what the weight
    is ("cpu-clock ns", "cycles"); it is written on the picture. `rows` bounds its height: what
    is deeper becomes a "..." on top, which `focus()` on its caller opens. `clock` knows when the
    weight fell: `over_time()` asks it.
    """

    def __init__(
        self,
        tree: Tree,
        title: str = "",
        unit: str = "",
        subtitle: str = "",
        *,
        theme: ThemeName = "auto",
        rows: int = MOST_ROWS,
        colour: ColourBy = "mode",
        order: Order = "name",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(tree, title, subtitle, theme=theme, rows=rows, order=order)
        self.unit = unit
        self._colour = _known(colour)
        self._clock = clock
        self._of: float | None = None  # the weight of all, where the tree has a part of it

    def focus(self, frame: str | int) -> FlameGraph:
        """One frame as the whole width, pruned anew from the full tree; its callers beneath it.

        A name that stands in several places gives all that it calls, laid over each other.
        LookupError where there is no such frame.
        """
        if isinstance(frame, int):
            return self._with(_root=self._checked(frame), _notes=self._noted(self.tree.name[frame]))
        places = self._places(frame)
        outermost = np.flatnonzero(self.tree.outermost(places))
        if len(outermost) == 1:
            return self.focus(int(outermost[0]))
        notes = self._noted(self.tree.name[outermost[0]], f", {len(outermost)} places merged")
        return self._with(tree=regrow.merged(self.tree, places), _root=0, _notes=notes)

    def reverse(self) -> FlameGraph:
        """Callers above callees turned round: where the weight ended stands at the top edge,
        beneath it who called it."""
        return self._with(
            tree=regrow.reversed_tree(self.tree, self._root),
            _root=0,
            _icicle=True,
            _notes=(*self._notes, "callers beneath callees"),
        )

    def sandwich(self, symbol: str) -> Sandwich:
        """All callers above a symbol, all that it calls beneath it, from every place it is in.

        LookupError where there is no such frame.
        """
        from kvmperf_widgets.sandwich import Sandwich

        places, whole = self._places(symbol), float(self.tree.total[0])
        halves = (regrow.callers(self.tree, places), regrow.merged(self.tree, places))
        callers, callees = (self._with(tree=tree, _root=0, _of=whole) for tree in halves)
        total, count = float(callees.tree.total[0]), int(self.tree.outermost(places).sum())
        title = f"{self.title}: {clean(symbol, 120)}, its callers and what it calls"
        share = f"{weight(total, self.unit)}, {percent(share_of(total, whole))} of all"
        where = f"{share}, in {count:,} place{'s'[: count != 1]}"
        about = joined([clean(self.subtitle, 200), where])
        return Sandwich(callers, callees, title, about)

    def collapse_recursion(self) -> FlameGraph:
        """Frames that call themselves directly become one."""
        tree, new = regrow.without_recursion(self.tree)
        return self._changed(tree, new, "recursion collapsed")

    def merge(self, pattern: str) -> FlameGraph:
        """Takes the frames whose name holds this regular expression out of their stacks: their
        weight goes to their callers, what they call is called by these."""
        frames = self.tree.named(re.compile(pattern))
        tree, new = regrow.without(self.tree, frames)
        return self._changed(tree, new, f"merged into callers: {clean(pattern, 60)}")

    def drop(self, frame: str | int) -> FlameGraph:
        """Leaves out all weight in the frames whose name holds this regular expression, and in
        what they call; with a number, in that frame of the tree."""
        if isinstance(frame, int):
            frames = np.arange(len(self.tree)) == self._checked(frame)
            what = self.tree.names[self.tree.name[frame]]
        else:
            frames, what = self.tree.named(re.compile(frame)), frame
        left = regrow.dropped(self.tree, frames)
        share = 100 * (1 - left.total[0] / self.tree.total[0]) if self.tree.total[0] else 0.0
        note = f"left out: {clean(what, 60)}, {percent(share)}"
        return self._changed(left, np.arange(len(left)), note)

    def _changed(self, tree: Tree, new: NDArray[np.int64], note: str) -> FlameGraph:
        """Another tree, the focus where it was."""
        return self._with(tree=tree, _root=int(new[self._root]), _notes=(*self._notes, note))

    def colour(self, by: ColourBy) -> FlameGraph:
        """Colours by "mode", "dso", "vm" or by a "hash" of the name."""
        return self._with(_colour=_known(by))

    @property
    def coloured_by(self) -> ColourBy:
        return self._colour

    @property
    def lanes(self) -> Sequence[str]:
        """The threads and vCPUs that `over_time()` knows, the heaviest first; none of a tree that
        frames were taken out of, or that was turned round."""
        return self._clock.lanes if self._clock and self.tree is self._whole else ()

    def over_time(self, lane: int | None = None) -> FlameGraph:
        """The whole tree in the order of time: siblings stand as they came one after the other,
        and a caller that was left and entered again stands there again. Of all, or of one of
        `lanes`. LookupError where it is not known when the weight fell."""
        if self._clock is None:
            raise LookupError("it is not known when the weight of this flame graph fell")
        if lane is not None and not 0 <= lane < len(self.lanes):
            raise LookupError(f"no lane {lane}: there are {len(self.lanes)}")
        tree = self._clock.tree(lane)
        notes = ("over time" if lane is None else f"over time: {clean(self.lanes[lane], 80)}",)
        return self._with(
            tree=tree,
            subtitle=self._clock.about(lane),
            _whole=tree,
            _root=0,
            _order="time",
            _given_order="time",
            _notes=notes,
        )

    def palettes(self, frames: NDArray[np.bool_]) -> list[tuple[str, Paint]]:
        order = [self._colour, *(by for by in COLOURS if by != self._colour)]
        return [(by, paint(self.tree, by, frames)) for by in order]

    def _paint(self, frames: NDArray[np.bool_]) -> Paint:
        return paint(self.tree, self._colour, frames)

    def _words(self) -> Words:
        return Words(self.tree, self.unit, whole=self._of)


def _known(by: ColourBy) -> ColourBy:
    if by not in COLOURS:
        raise ValueError(f"no colours by {by!r}: {', '.join(COLOURS)}")
    return by
