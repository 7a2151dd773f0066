"""A live view of a real guest in a page that really clicks and types."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import driven
from guest import running_guest
from live_kernel import Kernel
from live_page import write_live

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.live import Top
from kvmperf_widgets.top_widget import TopWidget, colours

pytestmark = [pytest.mark.kvm, pytest.mark.root, pytest.mark.chromium, pytest.mark.alone]
SEARCH = {"bitmap_search_next_usable_block", "ext3_test_allocatable"}


class Shown:
    """The page of a live view."""

    def __init__(self, top: Top, page: Any, folder: Path) -> None:
        self.top, self.page = top, page
        self.kernel = Kernel(top)
        self.errors: list[str] = []
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.expose_function("kernel", self.kernel)
        path = write_live(TopWidget, ({}, []), folder / "live.html", look=colours())
        page.goto(path.as_uri())
        page.locator("tbody tr").nth(2).wait_for()

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def column(self, name: str) -> list[str]:
        """The cells of a column, as they are read."""
        heads = [re.sub(r"\W", "", one) for one in self.page.locator("th").all_text_contents()]
        at = heads.index(name) + 1
        return list(self.page.locator(f"tbody td:nth-child({at})").all_text_contents())

    def until(self, true: Callable[[], object], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.page.locator(".kvmp-l").inner_text()
            self.page.wait_for_timeout(50)

    def pressed(self, name: str) -> bool:
        return str(self.button(name).get_attribute("aria-pressed")) == "true"

    def tab(self) -> str:
        selected = self.page.locator("[role=tab][aria-selected=true]").text_content()
        return re.sub(r" [\d.]+ %$", "", selected)


@pytest.fixture(scope="module")
def guest() -> Iterator[demo.MicroGuest]:
    with running_guest(1, "web1", phase="search") as vm:
        yield vm


@pytest.fixture(scope="module")
def shared(guest: demo.MicroGuest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One view for all tests here."""
    folder = tmp_path_factory.mktemp("live")
    with driven() as browser, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where snapshots go
        page = browser.new_page(viewport={"width": 1150, "height": 800})
        top = kvm.top(frequency=1000, delay=0.25, guest_elf=demo.guest_elf())
        try:
            yield Shown(top, page, folder)
        finally:
            top.stop()


@pytest.fixture
def shown(shared: Shown) -> Iterator[Shown]:
    """The view as it was in the beginning, going on."""
    top = shared.top
    top.machine, top.filter, top.sort, top.count_filter, top.decay = (
        "all",
        "",
        "overhead",
        None,
        True,
    )
    top.resume()
    shared.until(lambda: not shared.pressed("freeze"))  # the page knows it too
    shared.until(lambda: shared.tab() == "all")
    shared.until(lambda: len(shared.column("symbol")) > 2)
    yield shared
    assert shared.errors == []
    assert top.error is None


def test_the_guests_symbols_have_their_tab_and_a_trend(shown: Shown) -> None:
    shown.page.get_by_role("tab", name="web1").click()
    shown.until(lambda: shown.tab() == "web1")
    shown.until(lambda: set(shown.column("machine")) == {"web1"})
    assert shown.column("symbol")[0] in SEARCH
    assert sum(float(cell.split()[0]) for cell in shown.column("overhead")) > 99
    path = lambda: str(shown.page.locator("td path").first.get_attribute("d"))  # noqa: E731
    shown.until(lambda: len(re.findall(r"[ML][\d.]+ [\d.]+", path())) > 3)
    assert shown.top.machine == "web1"
    shown.page.keyboard.press("ArrowLeft")
    shown.until(lambda: shown.tab() == "host")
    assert {"web1"}.isdisjoint(shown.column("machine"))
    assert "guest-user" not in shown.page.locator(".kvmp-l-legend").text_content()


def test_a_vm_brings_its_tab_and_takes_it_away(shown: Shown) -> None:
    names = lambda: " ".join(shown.page.locator("[role=tab]").all_text_contents())  # noqa: E731
    with running_guest(1, "late"):
        shown.until(lambda: "late" in names())
        shown.page.get_by_role("tab", name="late").click()
        shown.until(lambda: set(shown.column("machine")) == {"late"})
    shown.until(lambda: "late" not in names())
    assert shown.tab() == "all"
    assert "late" not in shown.top.machines
    with pytest.raises(kvm.KvmperfError, match=r"no machine 'late' .*web1"):
        shown.top.machine = "late"


def test_the_filter_is_typed(shown: Shown) -> None:
    shown.page.locator("tbody tr").first.focus()
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("^(ext3|bitmap)_")
    shown.until(lambda: shown.top.filter == "^(ext3|bitmap)_")
    shown.until(lambda: all(re.match("ext3|bitmap", one) for one in shown.column("symbol")))
    matched = str(shown.page.locator(".kvmp-x-matched").text_content())
    assert re.fullmatch(r"\d+\.\d+ % matched", matched)
    shown.page.keyboard.type("(")
    said = shown.page.locator(".kvmp-l-told")
    shown.until(lambda: "no regular expression" in said.text_content())
    assert shown.page.locator("input.kvmp-x-bad").count() == 1
    assert shown.top.filter == "^(ext3|bitmap)_"  # what works goes on
    shown.page.keyboard.press("Escape")
    shown.until(lambda: len(shown.column("symbol")) == 20)
    assert shown.page.locator("input.kvmp-x-bad").count() == 0
    assert said.text_content() == ""
    shown.page.keyboard.press("Enter")  # on the row that has the focus
    shown.until(lambda: len(set(shown.column("symbol"))) == 1)


def test_headers_sort(shown: Shown) -> None:
    head = shown.page.locator("th button", has_text="symbol")
    head.click()
    shown.until(lambda: shown.top.sort == "symbol")
    shown.button("freeze").click()
    shown.until(lambda: shown.top.paused)
    assert shown.column("symbol") == sorted(shown.column("symbol"))
    assert head.locator("..").get_attribute("aria-sort") == "ascending"
    head.click()
    shown.until(lambda: shown.column("symbol") == sorted(shown.column("symbol"), reverse=True))
    shown.page.locator("th button", has_text="samples").click()
    counts = lambda: [int(one.replace(",", "")) for one in shown.column("samples")]  # noqa: E731
    shown.until(lambda: counts() == sorted(counts(), reverse=True))


def test_a_frozen_view_stands_still_and_can_be_looked_at(shown: Shown) -> None:
    shown.page.locator("tbody tr").first.focus()
    shown.page.keyboard.press("f")
    shown.until(lambda: shown.top.paused)
    shown.page.wait_for_timeout(100)
    before, samples = shown.column("overhead"), shown.top._tally.samples.sum()
    shown.page.wait_for_timeout(800)
    assert shown.column("overhead") == before
    assert shown.top._tally.samples.sum() != samples  # counting goes on
    assert shown.pressed("freeze")
    shown.page.get_by_role("tab", name="web1").click()
    shown.until(lambda: set(shown.column("machine")) == {"web1"})
    shown.page.keyboard.press(" ")  # on a tab it is the tab's
    shown.page.locator("tbody tr").first.focus()
    shown.page.keyboard.press(" ")
    shown.until(lambda: not shown.top.paused)
    assert not shown.pressed("freeze")


def test_zero_forgets_and_decay_can_be_left(shown: Shown) -> None:
    count = lambda: int(shown.top.table["samples"].sum())  # noqa: E731
    passed = shown.top.refreshes
    shown.until(lambda: shown.top.refreshes > passed + 10)
    full = count()
    shown.button("zero").click()
    shown.until(lambda: count() < 0.6 * full)
    shown.page.locator("tbody tr").first.focus()
    shown.page.keyboard.press("d")
    shown.until(lambda: not shown.top.decay)
    shown.until(lambda: not shown.pressed("decay"))
    single = []  # what one refresh brings
    for _ in range(8):
        shown.page.wait_for_timeout(100)
        single.append(count())
    shown.button("decay").click()
    shown.until(lambda: count() > 2 * max(single))
    shown.until(lambda: shown.pressed("decay"))


def test_rows_of_few_samples_can_be_left_out(shown: Shown) -> None:
    shown.page.locator("input[type=number]").fill("30")
    shown.until(lambda: shown.top.count_filter == 30)
    shown.until(lambda: all(int(one.replace(",", "")) > 30 for one in shown.column("samples")))
    shown.page.locator("input[type=number]").fill("")
    shown.until(lambda: shown.top.count_filter is None)


def test_it_is_a_widget_for_other_front_ends(shown: Shown) -> None:
    widget, sent = shown.top.widget, list[str]()
    widget.send = lambda content, _=None: sent.append(content["type"])
    assert "application/vnd.jupyter.widget-view+json" in widget._repr_mimebundle_()[0]
    shown.until(lambda: sent.count("view") > 1)
    assert shown.top.widget is widget


def test_messages_are_small(shown: Shown) -> None:
    assert max(shown.kernel.sizes) < 8000
    assert sorted(shown.kernel.sizes)[len(shown.kernel.sizes) // 2] < 6000


def test_a_snapshot_is_saved_and_the_view_ends(shown: Shown) -> None:
    shown.page.locator("tbody tr").first.focus()
    shown.page.keyboard.press("p")
    said = shown.page.locator(".kvmp-l-told")
    shown.until(lambda: said.text_content() == "saved as perf.data.top")
    assert "web1" in set(kvm.open("perf.data.top").samples["machine"])
    shown.button("stop").click()
    shown.until(lambda: not shown.top.running)
    shown.until(lambda: "stopped" in shown.page.locator(".kvmp-x-about").first.text_content())
    assert shown.button("freeze").is_disabled()
    assert shown.button("stop").is_disabled()
    shown.page.get_by_role("tab", name="web1").click()  # what was counted can still be looked at
    shown.until(lambda: set(shown.column("machine")) == {"web1"})
