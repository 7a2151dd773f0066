"""What all answers that people see have in common: several outputs as one result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvmperf_magic.errors import one_line
from kvmperf_magic.table import Table


class View:
    """Several outputs as one result: in a notebook one under the other, else as text."""

    def parts(self) -> Sequence[Any]:
        """What is shown, in order."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for part in self.parts():
            display(part)

    def __repr__(self) -> str:
        return "\n\n".join(repr(part) for part in self.parts())


class TableAnswer(View):
    """A View whose substance is a table, which can be written."""

    @property
    def table(self) -> Table:
        raise NotImplementedError

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as CSV."""
        return self.table.to_csv(path)

    def to_json(self, path: str | Path | None = None) -> str:
        """The table as JSON."""
        return self.table.to_json(path)


class Lines:
    """Plain lines of text among pictures. Names in them cannot steer a terminal."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._text = "\n".join(map(one_line, lines))

    def __repr__(self) -> str:
        return self._text
