"""What every picture of a tree of frames can do: focus, search, be laid out and be drawn."""

from __future__ import annotations

import copy
import difflib
import re
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kvmperf_widgets.boxes import (
    View,
    Words,
    boxes_of,
    hits_of,
    matched_share,
    shown_frames,
    subtitle,
)
from kvmperf_widgets.flame_plotly import flame_spec
from kvmperf_widgets.flame_svg import flame_svg
from kvmperf_widgets.flame_text import LEAST_LINE, flame_text
from kvmperf_widgets.layout import ORDERS, Layout, Order, layout
from kvmperf_widgets.paint import Paint, Shade
from kvmperf_widgets.picture import Picture
from kvmperf_widgets.text import clean, percent
from kvmperf_widgets.theme import ThemeName
from kvmperf_widgets.tree import Tree

if TYPE_CHECKING:
    from kvmperf_widgets.explorer import Explorer

MOST_BOXES = 800
MOST_LINES = 40
MOST_ROWS = 45
MOST_CALLERS = 8  # rows beneath a focused frame


class TreePicture(Picture):
    """A tree of frames, as wide as their weight. Its kinds say which colours and words it has.

    Every method gives a new picture and leaves this one as it is. `rows` bounds its height:
    what is deeper becomes a "..." on top, which `focus()` on its caller opens.
    """

    unit: str  # what the weight is, in words

    def __init__(
        self,
        tree: Tree,
        title: str = "",
        subtitle: str = "",
        *,
        theme: ThemeName = "auto",
        rows: int = MOST_ROWS,
        order: Order = "name",
    ) -> None:
        if rows < 2:
            raise ValueError("a flame graph has at least 2 rows")
        self.tree = tree
        self.title = title or "Flame graph"
        self.subtitle = subtitle
        self.theme: ThemeName = theme
        self.rows = rows
        self._whole = tree  # as given: what reset() goes back to
        self._root = 0
        self._query = ""
        self._icicle = False
        self._order = self._given_order = known_order(order)
        self._notes: tuple[str, ...] = ()  # what was asked of it, for the subtitle

    def _with(self, **changes: Any) -> Self:
        other = copy.copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    def focus(self, frame: str | int) -> Self:
        """One frame as the whole width, pruned anew from the full tree; its callers beneath it.

        Of a name that stands in several places the widest. LookupError where there is no such
        frame.
        """
        if isinstance(frame, int):
            return self._with(_root=self._checked(frame), _notes=self._noted(self.tree.name[frame]))
        places = np.flatnonzero(self._places(frame))
        return self.focus(int(places[np.argmax(self.tree.total[places])]))

    def _places(self, name: str) -> NDArray[np.bool_]:
        """The frames of this name that have weight, as a mask; LookupError without any."""
        codes = [i for i, known in enumerate(self.tree.names) if known == name]
        places = np.isin(self.tree.name, codes) & (self.tree.total > 0)
        if not places.any():
            near = difflib.get_close_matches(name, self.tree.names, 3, 0.5)
            raise LookupError(
                f"no frame is named {name!r}" + (f"; near it: {', '.join(near)}" if near else "")
            )
        return places

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < len(self.tree):
            raise LookupError(f"no frame {frame}: there are {len(self.tree)}")
        return frame

    def _noted(self, name: int, more: str = "") -> tuple[str, ...]:
        return (*self._notes, f"focus on {clean(self.tree.names[name], 80)}{more}")

    @property
    def focused(self) -> int:
        """The frame of the tree that is the whole width; 0 is the root."""
        return self._root

    def search(self, pattern: str) -> Self:
        """Lights up the frames whose name holds this regular expression; "" ends the search."""
        re.compile(pattern)  # a bad one is refused here, not when the picture is drawn
        return self._with(_query=pattern)

    @property
    def matched(self) -> float:
        """Percent of the focused frame's weight in frames that match the search.

        A matched frame beneath a matched frame counts once. 0 without a search.
        """
        mask = self._matches()
        if mask is None:
            return 0.0
        return matched_share(self.tree, self._root, mask)

    def icicle(self, on: bool = True) -> Self:
        """The root at the top, callees downwards."""
        return self._with(_icicle=on)

    def order(self, by: Order) -> Self:
        """Siblings by their "name", the heaviest first ("heavy"), or as the tree has them, which
        is that of "time" where it was made so."""
        return self._with(_order=known_order(by))

    def reset(self) -> Self:
        """The whole tree again, without focus, search or any other change."""
        order = self._given_order
        return self._with(
            tree=self._whole, _root=0, _query="", _icicle=False, _order=order, _notes=()
        )

    @property
    def about(self) -> str:
        """What it is of, and what was asked of it."""
        return " · ".join(filter(None, (self.subtitle, *self._notes)))

    @property
    def query(self) -> str:
        """What is searched for; "" without a search."""
        return self._query

    @property
    def ordered(self) -> Order:
        """The order of siblings."""
        return self._order

    @property
    def downwards(self) -> bool:
        """Whether the root is at the top."""
        return self._icicle

    def explore(self, link: str = "") -> Explorer:
        """All frames on a canvas of a live notebook: wheel, drag, keys and search. Pictures of one
        `link` belong together: a click in one is a search in the others."""
        from kvmperf_widgets.explorer import Explorer

        return Explorer(self, link)

    def palettes(self, frames: NDArray[np.bool_]) -> list[tuple[str, Paint]]:
        """The ways to colour it, the chosen one first; legends name what these frames have."""
        raise NotImplementedError

    def _matches(self) -> NDArray[np.bool_] | None:
        return self.tree.named(re.compile(self._query)) if self._query else None

    def layout(self, most: int = MOST_BOXES) -> Layout:
        """The boxes of this picture."""
        # half a pixel of a wide screen: what is narrower cannot be seen
        return self._layout(most, self.rows, 0.0003)

    def _layout(self, most: int, rows: int | None, least: float) -> Layout:
        return layout(
            self.tree,
            self._root,
            most=most,
            least=least,
            rows=rows,
            callers=MOST_CALLERS,
            order=self._order,
        )

    def _paint(self, frames: NDArray[np.bool_]) -> Paint:
        """The colours; their legend names those of these frames."""
        raise NotImplementedError

    def joint_legend(
        self, frames: NDArray[np.bool_], beside: TreePicture, others: NDArray[np.bool_]
    ) -> list[tuple[str, Shade]]:
        """The legend for these frames and `others` of another picture of the same kind."""
        mine, theirs = self._paint(frames).legend, beside._paint(others).legend
        return [*dict([*mine, *theirs]).items()]

    def _words(self) -> Words:
        """What hover texts say."""
        raise NotImplementedError

    def _view(self, laid: Layout) -> View:
        tree, matches, words = self.tree, self._matches(), self._words()
        colours = self._paint(shown_frames(tree, laid))
        found = ""
        if matches is not None:
            found = f"{percent(matched_share(tree, int(laid.node[laid.above]), matches))} matched"
        return View(
            clean(self.title, 160),
            subtitle(self.about, words, laid),
            boxes_of(tree, laid, colours, words, hits_of(tree, laid, matches)),
            int(laid.row.max()) + 1,
            colours,
            self._query,
            found,
            self._icicle,
        )

    def to_svg(self, *, standalone: bool = True) -> str:
        return flame_svg(self._view(self.layout()), self.theme, standalone)

    def to_spec(self) -> dict[str, Any]:
        return flame_spec(self._view(self.layout()), self.theme)

    def to_text(self, width: int | None = None) -> str:
        # chains of one name take one line: as many boxes and rows as the lines have room for
        for most, rows in ((4, None), (4, self.rows), (2, MOST_LINES), (1, MOST_LINES // 2)):
            laid = self._layout(most * MOST_LINES, rows, LEAST_LINE)
            text = flame_text(self._view(laid), laid.parent.tolist(), width)
            if text.count("\n") < MOST_LINES + 3:  # three lines of header
                break
        return text


def known_order(by: Order) -> Order:
    if by not in ORDERS:
        raise ValueError(f"no order {by!r}: {', '.join(ORDERS)}")
    return by
