"""Two recordings' stacks as differential flame graphs, whatever is made of the stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import kvmperf_widgets as pictures
from kvmperf_magic.errors import QueryError
from kvmperf_magic.flamegraphs import drawn
from kvmperf_widgets.diff_flame import Grown

if TYPE_CHECKING:
    from kvmperf_magic.profile.difftree import DiffStacks, DiffTree
    from kvmperf_widgets import DiffFlameGraph

WIDTHS = ("after", "before", "max", "common")
_KEPT = 4  # trees: a page that heard nothing for a while asks for the same again


class DiffedStacks:
    """What a picture can be of: `stacks` of two sides of these names, of which `tree` is known
    already, its frames as wide as `width` (of `WIDTHS`) says."""

    def __init__(
        self, stacks: DiffStacks, tree: DiffTree, names: tuple[str, str], width: str
    ) -> None:
        self._stacks = stacks
        self._tree = tree
        self._names = names
        self._width = width
        self._made: dict[object, Any] = {}

    def picture(self, **options: Any) -> DiffFlameGraph:
        """Both call trees in one."""
        words = {
            "after": f"the share of {self._names[1]}",
            "before": f"the share of {self._names[0]}",
            "max": "the larger of both shares",
            "common": "what both shares have in common",
        }[self._width]
        only = "innermost frames only, as one side has no stacks" if self._tree.leaves else ""
        return pictures.DiffFlameGraph(
            **vars(self._drawn(self._tree)), subtitle=only, width=words, stacks=self, **options
        )

    def grown(self, *, reverse: bool, collapse: bool) -> Grown:
        """Of all stacks: see `DiffStacks.tree()`."""
        if not reverse and not collapse:
            return self._drawn(self._tree)
        made = self._kept(
            (reverse, collapse), lambda: self._stacks.tree(callee=reverse, collapse=collapse)
        )
        return self._drawn(made)

    def between(self, keys: Sequence[int], *, collapse: bool) -> tuple[Grown, Grown]:
        """What frames of these keys call and what calls them; LookupError for unknown ones."""
        asked = (*keys, collapse)
        try:
            callees, callers = self._kept(
                asked, lambda: self._stacks.between(keys, collapse=collapse)
            )
        except QueryError as error:
            raise LookupError(str(error)) from None
        return self._drawn(callees), self._drawn(callers)

    def _kept(self, asked: object, make: Callable[[], Any]) -> Any:
        if asked not in self._made:
            self._made = dict([*self._made.items()][1 - _KEPT :])
            self._made[asked] = make()
        return self._made[asked]

    def _drawn(self, tree: DiffTree) -> Grown:
        own = (tree.baseline_self, tree.other_self)
        width = {
            "after": own[1],
            "before": own[0],
            "max": np.maximum(*own),
            "common": np.minimum(*own),
        }[self._width]
        changes = pictures.Changes(
            tree.baseline,
            tree.other,
            tree.delta,
            tree.low,
            tree.high,
            tree.significant,
            tree.status,
            self._names,
            tree.confidence,
        )
        return Grown(drawn(tree, width), changes, tree.token)
