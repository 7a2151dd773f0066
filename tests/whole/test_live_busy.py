"""A live view whose kernel is busy and hears no page meanwhile: the page filters, sorts, switches
and freezes by itself, as the kernel would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_kernel import Kernel
from live_page import write_live

from kvmperf_magic.liveview import LiveView
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.tally import News
from kvmperf_magic.ranking import KEYS, Look
from kvmperf_widgets.top_widget import TopWidget, colours

pytestmark = pytest.mark.chromium
NAMES = [f"{kind}_{i}" for i in range(9) for kind in ("lock", "copy", "Idle")]
VMS = {1: "web1", 17: "db"}  # by pids that run


class Counted(LiveView):
    """Two VMs and a host; every refresh brings samples of some symbols."""

    running = True

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(Look(keys, entries=12), delay=1.0, decay=True, modes=MODES)
        self._random = np.random.default_rng(1)
        self._know({pid: name for pid, name in VMS.items() if pid == 1})
        self._vms = [*VMS]
        self._names |= VMS
        for _ in range(3):
            self.count()

    def note(self) -> str:
        return ""

    def count(self) -> None:
        rows: dict[tuple[str | int, ...], int] = {}
        for _ in range(60):
            pid = int(self._random.choice([0, *VMS]))
            name = NAMES[min(int(self._random.pareto(1)), len(NAMES) - 1)]
            mode = "guest-user" if pid else "host-user"
            whole = {"symbol": name, "dso": f"/lib/{name[:4]}.so", "mode": mode}
            row = (*(whole[key] for key in self._look.keys if key != "machine"), pid)
            rows[row] = rows.get(row, 0) + 1
        samples = np.array([*rows.values()], np.int64)
        modes = {pid: np.zeros(len(MODES)) for pid in (0, *VMS)}
        for row, count in rows.items():
            modes[int(row[-1])][MODES.index("guest-user" if row[-1] else "host-user")] += count
        self._count(News([*rows], 1000 * samples, samples, modes), f"refresh {self.refreshes}")


class Busy:
    """A page of such a view."""

    def __init__(self, page: Any, folder: Path, keys: tuple[str, ...]) -> None:
        self.page, self.live = page, Counted(keys)
        self.kernel = Kernel(self.live, apart=False)  # type: ignore[arg-type]
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.expose_function("kernel", self.kernel)
        page.goto(write_live(TopWidget, ({}, []), folder / "x.html", look=colours()).as_uri())
        page.locator("tbody tr").nth(2).wait_for()
        self.live.count()  # the page has been heard: this comes with all that it needs
        page.locator(".kvmp-l-head", has_text="refresh 3").wait_for()
        self.kernel.busy = True

    def rows(self) -> list[list[str]]:
        read = "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        return list(self.page.locator("tbody tr").evaluate_all(read))

    def waits(self, true: str) -> None:
        self.page.wait_for_function(true)

    def agrees(self, **look: Any) -> None:
        """The page shows what another one, whose kernel has heard, would show."""
        other = Counted(self.live._look.keys)
        other._tally = other._frozen = self.live._frozen
        for name, value in look.items():
            setattr(other, name, value)
        view = other.view()
        expected = [
            [f"{share:.2f} %", "", f"{count:,}", *map(str, names)]
            for share, count, *names in zip(*view.values, strict=True)
        ]
        # of equal ones the order is nobody's
        assert sorted(self.rows()) == sorted(expected)
        at = view.columns.index(view.sort.lstrip("-")) + (view.sort.lstrip("-") != "overhead")
        assert [row[at] for row in self.rows()] == [row[at] for row in expected]
        said = str(self.page.locator(".kvmp-x-about").nth(2).text_content())
        assert f"{len(expected)} of {view.found} rows of the" in said
        if view.filter:
            assert said.startswith(f"{view.matched:.2f} % matched")


@pytest.fixture(params=[KEYS, ("symbol", "dso")], ids=["machines", "merged"])
def busy(request: Any, browser: Any, tmp_path: Path) -> Iterator[Busy]:
    page = browser.new_page(viewport={"width": 1150, "height": 700})
    yield Busy(page, tmp_path, request.param)
    page.close()


def test_the_page_does_by_itself_what_the_kernel_would(busy: Busy) -> None:
    page, live = busy.page, busy.live
    text = "document.querySelector('.kvmp-l').textContent"
    page.get_by_role("tab", name="web1").click()
    busy.agrees(machine=1)
    trend = page.locator("td path").first.get_attribute("d")
    assert trend.startswith("M56 ")  # four refreshes of 60: of what was before nothing is known
    page.locator("th button", has_text="symbol").click()
    busy.agrees(machine=1, sort="symbol")
    page.locator("th button", has_text="symbol").click()
    busy.agrees(machine=1, sort="-symbol")
    page.get_by_role("tab", name="all").click()
    page.locator("input[type=search]").fill("(?i)lock_|IDLE")
    busy.waits(f"{text}.includes('% matched')")
    busy.agrees(filter="(?i)lock_|IDLE", sort="-symbol")
    page.locator("input[type=number]").fill("3")
    busy.waits(f"!{text}.includes('lock_8')")
    page.wait_for_function("window.model.asked.at(-1).value === 3")
    busy.agrees(filter="(?i)lock_|IDLE", sort="-symbol", count_filter=3)
    assert live.filter == ""  # nobody has heard any of it
    assert live.machine == "all"

    live.count()  # what is counted still comes
    busy.waits(f"{text}.includes('refresh 4')")
    busy.agrees(filter="(?i)lock_|IDLE", sort="-symbol", count_filter=3)
    page.get_by_role("button", name="freeze").click()
    frozen = busy.rows()
    live.count()
    page.wait_for_timeout(150)  # some polls of its messages
    assert busy.rows() == frozen
    page.get_by_role("button", name="freeze").click()
    live.count()
    busy.waits(f"{text}.includes('refresh 6')")
    assert busy.rows() != frozen

    busy.kernel.busy = False  # the cell is done: all is heard, in order
    busy.waits(f"!{text}.includes('heaviest')")
    assert (live.filter, live.sort, live.count_filter) == ("(?i)lock_|IDLE", "-symbol", 3)
    assert live.machine == "all"
    assert not live.paused


def test_what_is_no_regular_expression_changes_nothing(busy: Busy) -> None:
    before = busy.rows()
    busy.page.locator("input[type=search]").fill("(")
    busy.page.locator("input.kvmp-x-bad").wait_for()
    assert busy.rows() == before
    busy.kernel.busy = False
    busy.page.locator(".kvmp-l-told", has_text="no regular expression").wait_for()
    assert busy.rows() == before
