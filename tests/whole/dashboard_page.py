"""A dashboard in a browser: what can be read and done there, as people do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from browser import until

from kvmperf_magic.recording import Recording

ROWS = ".kvmp-d-body .kvmp-d-row"


class Seen:
    """A page with a dashboard, by a report's `to_html()` or of a widget."""

    def __init__(self, page: Any, path: Path, ready: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else 0)
        page.on("request", lambda one: self.asked.append(one.url))
        page.goto(path.as_uri())
        until(page, ready)
        self.strip = page.locator(".kvmp-d-strip canvas")
        self.table = page.get_by_role("grid")

    def words(self) -> str:
        self.page.wait_for_timeout(40)
        return str(self.page.locator(".kvmp-d-words").text_content())

    def samples(self) -> int:
        """How many samples the page says are left."""
        found = re.match(r"([\d,]+) of ", self.words())
        assert found is not None
        return int(found[1].replace(",", ""))

    def tick(self, control: str, *names: str) -> None:
        """Opens a list, ticks choices (or takes their ticks away) and closes it."""
        box = self.page.locator("details", has=self.page.locator(f"summary:text('{control}: ')"))
        box.locator("summary").click()
        for name in names:
            box.get_by_text(name, exact=True).click()
        self.page.keyboard.press("Escape")
        assert box.get_attribute("open") is None

    def symbol(self, pattern: str) -> None:
        self.page.get_by_placeholder("symbol: regex").fill(pattern)
        self.page.wait_for_timeout(200)

    def clear(self) -> None:
        self.page.get_by_role("button", name="clear").click()

    def drag(self, start: float, end: float) -> None:
        """From a share (0..1) of the strip of time to another."""
        box = self.strip.bounding_box()
        y = box["y"] + 30
        self.page.mouse.move(box["x"] + start * box["width"], y)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], y, steps=4)
        self.page.mouse.up()

    def range(self) -> tuple[float, float]:
        """The seconds that the page says it shows."""
        found = re.search(r"from ([\d.]+) s to ([\d.]+) s$", self.words())
        assert found is not None
        return float(found[1]), float(found[2])

    def rows(self) -> list[list[str]]:
        """The cells of the rows that are in the page."""
        self.page.wait_for_timeout(60)
        read = "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        found = self.page.locator(ROWS).evaluate_all(read)
        return [list(map(str, row)) for row in found]

    def flame(self) -> str:
        """What the flame graph says of itself."""
        self.page.wait_for_timeout(60)
        return str(self.page.locator(".kvmp-d-flame .kvmp-x-about").first.text_content())


def shares(view: Recording, sort: str, most: int = 10) -> set[tuple[str, ...]]:
    """The rows of the report with the largest self, as the page writes them."""

    def percent(value: float) -> str:
        return f"{value:.{2 if value >= 0.01 or value == 0 else 4}f} %"

    report = view.report(sort=sort)
    table = report.table
    columns = [table[key].tolist() for key in sort.split(",")]
    numbers = [
        [percent(v) for v in table["overhead"].tolist()],
        [percent(v) for v in table["children_overhead"].tolist()],
        [f"{v:,}" for v in table["samples"].tolist()],
    ]
    rows = list(zip(*numbers, *columns, strict=True))
    by_self = sorted(range(len(rows)), key=lambda i: -float(table["self"][i]))
    return {tuple(map(str, rows[i])) for i in by_self[:most] if table["self"][i] > 0}
