"""The differential flame graph: two profiles in one tree, coloured by what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.boxes import Words, joined, share_of
from kvmperf_widgets.layout import Order
from kvmperf_widgets.paint import STEPS, Paint, Shade, diverging_shade, strengths
from kvmperf_widgets.text import clean, fit, percent
from kvmperf_widgets.theme import ThemeName
from kvmperf_widgets.tree import Tree
from kvmperf_widgets.tree_picture import MOST_ROWS, TreePicture

if TYPE_CHECKING:
    from kvmperf_widgets.sandwich import Sandwich

NEW, VANISHED = 1, 2  # values of `Changes.status`
_MARKS = {NEW: "new", VANISHED: "vanished"}
_WEAKEST = 3  # the first step of the scale that a certain change is coloured with


@dataclass(frozen=True)
class Changes:
    """What is known of each of the k frames of a tree: shares of the side's total with all that
    is beneath, in percent; the difference and its interval in percent points."""

    baseline: NDArray[np.float64]
    other: NDArray[np.float64]
    delta: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    significant: NDArray[np.bool_]
    status: NDArray[np.int8]  # NEW, VANISHED, else 0
    names: tuple[str, str]  # of the sides
    confidence: float  # with which all intervals hold together

    def largest(self) -> float:
        """The largest change that is certain, in percent points."""
        return float(np.abs(self.delta[self.significant]).max(initial=0.0))


@dataclass(frozen=True)
class Grown:
    """A tree of frames with what is known of them. `key`, i64[k], is a number that what is the same
    has in all trees of the same stacks."""

    tree: Tree
    changes: Changes
    key: NDArray[np.int64]


class Stacks(Protocol):
    """What trees of two profiles are made of. How certain a change is depends on the samples that
    meet in a frame: where frames become one it cannot be told from theirs."""

    def grown(self, *, reverse: bool, collapse: bool) -> Grown:
        """All stacks: turned round, without frames that call themselves directly."""
        ...

    def between(self, keys: Sequence[int], *, collapse: bool) -> tuple[Grown, Grown]:
        """What frames of these keys call, and what calls them; LookupError for unknown ones."""
        ...


class DiffFlameGraph(TreePicture):
    """Frames as wide as the weight of `tree`, in shades of blue where there is less of them in
    the second profile, of vermillion where there is more, grey where that is not certain.

    `width` says in words what the weight is. `stacks` are what `reverse()`, `sandwich()` and
    `collapse_recursion()` ask for other trees, `key` numbers the frames of this one for them.
    """

    def __init__(
        self,
        tree: Tree,
        changes: Changes,
        title: str = "",
        subtitle: str = "",
        *,
        key: NDArray[np.int64] | None = None,
        stacks: Stacks | None = None,
        width: str = "",
        theme: ThemeName = "auto",
        rows: int = MOST_ROWS,
        order: Order = "name",
    ) -> None:
        before, after = (clean(name, 40) for name in changes.names)
        title = title or f"{before} → {after}"
        super().__init__(tree, title, subtitle, theme=theme, rows=rows, order=order)
        self.unit = width
        self.key = np.zeros(len(tree), np.int64) if key is None else key
        self.changes = changes
        self.largest = changes.largest()  # of what the scale of colours reaches to
        self._stacks = stacks
        self.reversed = self.collapsed = False
        self._given = Grown(tree, changes, self.key)
        self._certain: int | None = None  # certain changes, where it is one of two halves

    @property
    def about(self) -> str:
        count = self._certain
        count = int(self.changes.significant.sum()) if count is None else count
        certain = f"{count:,} significant at {self.changes.confidence:.4g} together"
        return joined([certain, super().about])

    def reverse(self) -> Self:
        """Callers above callees turned round: where the weight ended stands at the top edge,
        beneath it who called it. Of all stacks, whatever the focus; LookupError where these are
        not known."""
        return self.shaped(reverse=True, collapse=self.collapsed)

    def collapse_recursion(self) -> Self:
        """Frames that call themselves directly become one; as `reverse()`."""
        return self.shaped(reverse=self.reversed, collapse=True)

    def shaped(self, *, reverse: bool, collapse: bool) -> Self:
        """The picture of all stacks, turned round or not, with recursion collapsed or not."""
        if (reverse, collapse) == (self.reversed, self.collapsed):
            return self
        said = {"callers beneath callees": reverse, "recursion collapsed": collapse}
        notes = tuple(words for words, is_so in said.items() if is_so)
        other = self._of(self._known.grown(reverse=reverse, collapse=collapse))
        return other._with(
            reversed=reverse, collapsed=collapse, _icicle=reverse or self._icicle, _notes=notes
        )

    def sandwich(self, symbol: str) -> Sandwich:
        """All callers above a symbol, all that it calls beneath it, from every place it is in.

        LookupError where there is no such frame, or where the stacks are not known.
        """
        from kvmperf_widgets.sandwich import Sandwich

        callees, callers = self.between(np.unique(self.key[self._places(symbol)]).tolist())
        title = f"{self.title}: {clean(symbol, 120)}, its callers and what it calls"
        words = callees._words().frame(0, float(callees.tree.total[0]), 0.0, None)
        return Sandwich(callers, callees, title, joined([callees.about, *words[:2]]))

    def between(self, keys: Sequence[int]) -> tuple[Self, Self]:
        """What frames of these keys call, and what calls them, in the same colours."""
        found = [self._of(one) for one in self._known.between(keys, collapse=self.collapsed)]
        largest = max(one.largest for one in found)
        certain = sum(int(one.changes.significant.sum()) for one in found)
        certain -= int(found[0].changes.significant[0])  # their root is in both
        callees, callers = (one._with(largest=largest, _certain=certain) for one in found)
        return callees, callers

    def _of(self, grown: Grown) -> Self:
        """Another tree of the same stacks."""
        return self._with(
            tree=grown.tree,
            changes=grown.changes,
            key=grown.key,
            largest=grown.changes.largest(),
            _root=0,
            _notes=(),
        )

    @property
    def can_regrow(self) -> bool:
        """Whether other trees can be made of its stacks."""
        return self._stacks is not None

    @property
    def _known(self) -> Stacks:
        if self._stacks is None:
            raise LookupError("it is not known which stacks this flame graph is of")
        return self._stacks

    def reset(self) -> Self:
        plain = super().reset()._of(self._given)
        return plain._with(reversed=False, collapsed=False)

    def _paint(self, frames: NDArray[np.bool_]) -> Paint:
        changes, largest = self.changes, self.largest
        delta = np.where(changes.significant, changes.delta, 0.0)
        strength = np.where(changes.significant, strengths(delta, largest), 0.0)
        step = np.sign(strength) * np.minimum(np.ceil(np.abs(strength) * STEPS), STEPS)
        shades = [diverging_shade(n / STEPS) for n in range(-STEPS, STEPS + 1)]
        return Paint(shades, (step + STEPS).astype(np.int32), self._legend(frames))

    def _legend(self, frames: NDArray[np.bool_]) -> list[tuple[str, Shade]]:
        """The scale with its ends, and what outlines mean where there are any."""
        changes = self.changes
        certain = changes.delta[changes.significant & frames]
        return self._entries(certain, set(changes.status[frames].tolist()))

    def joint_legend(
        self, frames: NDArray[np.bool_], beside: TreePicture, others: NDArray[np.bool_]
    ) -> list[tuple[str, Shade]]:
        certain, marks = [], set[int]()
        for picture, shown in ((self, frames), (beside, others)):
            assert isinstance(picture, DiffFlameGraph)
            changes = picture.changes
            certain.append(changes.delta[changes.significant & shown])
            marks |= set(changes.status[shown].tolist())
        return self._entries(np.concatenate(certain), marks)

    def _entries(self, certain: NDArray[np.float64], marks: set[int]) -> list[tuple[str, Shade]]:
        before, after = (fit(clean(n), 18) for n in self.changes.names)
        entries: list[tuple[str, Shade]] = []
        for sign, word in ((-1, "less"), (1, "more")):
            ends = certain[np.sign(certain) == sign]
            if len(ends):
                most = ends[np.argmax(np.abs(ends))]
                strongest = np.ceil(np.abs(strengths(most, self.largest)) * STEPS)
                scale = [diverging_shade(sign * n / STEPS) for n in range(_WEAKEST, STEPS + 1)]
                scale = scale[: max(1, int(strongest) - _WEAKEST + 1)]
                entries += [("", shade) for shade in scale[:-1]]
                words = f"{word}, {percent(float(most), True)[:-2]} points"
                entries.append((words, scale[-1]))
        grey = diverging_shade(0)
        entries.append(("not significant", grey))
        if NEW in marks:
            entries.append((f"only in {after}", grey._replace(css=f"{grey.css} new")))
        if VANISHED in marks:
            entries.append((f"only in {before}", grey._replace(css=f"{grey.css} vanished")))
        return entries

    def _words(self) -> Words:
        return ChangeWords(self.tree, self.changes, self.unit)

    def palettes(self, frames: NDArray[np.bool_]) -> list[tuple[str, Paint]]:
        return [("change", self._paint(frames))]

    def significant_share(self) -> float:
        """Percent of the frames with a width whose change is certain."""
        there = self.tree.total > 0
        return share_of(float((there & self.changes.significant).sum()), float(there.sum()))


class ChangeWords(Words):
    """Both percentages, the change and how certain it is."""

    def __init__(self, tree: Tree, changes: Changes, width: str) -> None:
        super().__init__(tree, width)
        self.changes = changes

    def _values(self, node: int) -> tuple[str, str]:
        changes = self.changes
        status = int(changes.status[node])
        before = "—" if status == NEW else percent(float(changes.baseline[node]))
        after = "—" if status == VANISHED else percent(float(changes.other[node]))
        return f"{before} → {after}", percent(float(changes.delta[node]), True)[:-2]

    def dots(self, total: float, base: float | None) -> str:
        width = f"{percent(share_of(total, self.whole))} of the width"
        return width + (f", {percent(share_of(total, base))} of {self.of}" if base else "")

    def frame(self, node: int, total: float, own: float, base: float | None) -> list[str]:
        changes, tree = self.changes, self.tree
        shares, change = self._values(node)
        names = " → ".join(clean(name, 40) for name in changes.names)
        interval = f"{changes.low[node]:+.2f} … {changes.high[node]:+.2f}"
        certain = "" if changes.significant[node] else ", not significant"
        status = int(changes.status[node])
        only = {NEW: changes.names[1], VANISHED: changes.names[0]}.get(status)
        where = (tree.kinds[tree.kind[node]], clean(tree.details[tree.detail[node]], 200))
        return [
            f"{shares} ({change} points, {names})",
            f"{100 * changes.confidence:.4g} % interval {interval} points{certain}",
            f"{_MARKS[status]}: only in {clean(only, 40)}" if only else "",
            self.dots(total, base),
            " · ".join(filter(None, where)),
        ]

    def mark(self, node: int) -> str:
        return _MARKS.get(int(self.changes.status[node]), "")

    def note(self, node: int) -> str:
        shares, change = self._values(node)
        certain = "" if self.changes.significant[node] else " ~"
        return f"{shares}  {change}{certain}"

    def sum(self, base: float) -> str:
        return f"width is {clean(self.unit)}" if self.unit else ""
