"""The differential flame graph: two profiles in one tree, coloured by what changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.boxes import Words, share_of
from kvmperf_widgets.layout import Order
from kvmperf_widgets.paint import STEPS, Paint, Shade, diverging_shade, strengths
from kvmperf_widgets.text import clean, fit, percent
from kvmperf_widgets.theme import ThemeName
from kvmperf_widgets.tree import Tree
from kvmperf_widgets.tree_picture import MOST_ROWS, TreePicture

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


class DiffFlameGraph(TreePicture):
    """Frames as wide as the weight of `tree`, in shades of blue where there is less of them in
    the second profile, of vermillion where there is more, grey where that is not certain.

    `width` says in words what the weight is.
    """

    def __init__(
        self,
        tree: Tree,
        changes: Changes,
        title: str = "",
        subtitle: str = "",
        *,
        width: str = "",
        theme: ThemeName = "auto",
        rows: int = MOST_ROWS,
        order: Order = "name",
    ) -> None:
        before, after = (clean(name, 40) for name in changes.names)
        title = title or f"{before} → {after}"
        super().__init__(tree, title, subtitle, theme=theme, rows=rows, order=order)
        self.changes = changes
        self.unit = width
        certain = np.abs(changes.delta[changes.significant])
        self.largest = float(certain.max(initial=0.0))

    def _paint(self, frames: NDArray[np.bool_]) -> Paint:
        changes, largest = self.changes, self.largest
        delta = np.where(changes.significant, changes.delta, 0.0)
        strength = np.where(changes.significant, strengths(delta, largest), 0.0)
        step = np.sign(strength) * np.minimum(np.ceil(np.abs(strength) * STEPS), STEPS)
        shades = [diverging_shade(n / STEPS) for n in range(-STEPS, STEPS + 1)]
        return Paint(shades, (step + STEPS).astype(np.int32), self._legend(frames))

    def _legend(self, frames: NDArray[np.bool_]) -> list[tuple[str, Shade]]:
        """The scale with its ends, and what outlines mean where there are any."""
        changes, (before, after) = self.changes, (fit(clean(n), 18) for n in self.changes.names)
        entries: list[tuple[str, Shade]] = []
        certain = changes.delta[changes.significant & frames]
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
        marks = set(changes.status[frames].tolist())
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
