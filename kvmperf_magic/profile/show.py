"""How an answer that is a headline and a table displays itself, in a terminal and a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

from kvmperf_magic.errors import one_line
from kvmperf_magic.table import Table

_MOST_ROWS = 60  # the renderers of tables want no more


def short_dso(dso: str) -> str:
    """A DSO as perf shows it: the file's name without its folders."""
    return dso if dso.startswith("[") else dso.rsplit("/", 1)[-1]


def counted(number: int, what: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"


class TableView:
    """Base of answers: gives `__repr__` and `_repr_html_`; `table` itself holds everything."""

    table: Table
    bars: tuple[str, ...] = ()  # columns of percentages that are drawn as bars in HTML

    @property
    def headline(self) -> str:
        raise NotImplementedError

    @property
    def shown(self) -> list[str]:
        """The columns worth a reader's eye, in the order in which they are shown."""
        return self.table.columns

    def __len__(self) -> int:
        return len(self.table)

    def _values(self) -> list[list[Any]]:
        head = self.table[:_MOST_ROWS]
        return [
            [*map(short_dso, head[name])] if name.endswith("dso") else head[name].tolist()
            for name in self.shown
        ]

    def __repr__(self) -> str:
        from kvmperf_widgets.tables import text_table

        return (
            f"{one_line(self.headline)}\n{text_table(self.shown, self._values(), len(self.table))}"
        )

    def _repr_html_(self) -> str:
        from kvmperf_widgets.tables import html_table

        table = html_table(self.shown, self._values(), len(self.table), bars=self.bars)
        return f"<p>{escape(one_line(self.headline))}</p>{table}"
