"""Dashboards of big recordings: what a page weighs, what it says was left out, how fast it is."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_page import ROWS, Seen
from numpy.typing import NDArray

from kvmperf_magic.decoding import Decoded
from kvmperf_magic.facets import Facets
from kvmperf_magic.profile.cells import Gathering, Steps
from kvmperf_magic.profile.profile import Sample, profile_of
from kvmperf_magic.recording import Recording, open_recording
from kvmperf_magic.reportview import ReportView
from kvmperf_magic.source import Source
from kvmperf_widgets import Page
from kvmperf_widgets.dashboard import Words, packed

READY = "document.documentElement.dataset.ready"
SAMPLES = 1_000_000
HOSTILE = [
    "<script>alert(1)</script>",
    "a\"b'c&d",
    "</script><!--<script>",
    "\x1b[31mred\x00\x07",
    "\u202egnp.exe",
    "x" * 4096,
    "\udcff\ufffe",
    "<img src=x onerror=alert(1)>",
    "]]><b>",
    "__proto__",
    "constructor",
    "",
]
WORK = """
import ast, json, re, glob
for name in glob.glob(ast.__file__[:-6] + "*.py")[:25]:
    text = open(name, errors="replace").read()
    ast.dump(ast.parse(text)), json.dumps(re.findall(r"\\w+", text)), sorted(text.split())
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> ReportView:
    """A real recording of whatever runs, with callchains, grown to SAMPLES: each sample comes
    again at other times and with other periods."""
    folder = tmp_path_factory.mktemp("big")
    (folder / "work.py").write_text(WORK)
    command = ["perf", "record", "-q", "-B", "-N", "-a", "-g", "-e", "cpu-clock", "-F", "20000"]
    command += ["-o", str(folder / "x.data"), "--", "sh", "-c"]
    load = (
        "python3 work.py & find /usr/share -name '*.py' | xargs grep -l import | xz -9 >/dev/null"
    )
    subprocess.run([*command, f"{load}; wait"], cwd=folder, check=True, capture_output=True)
    recording = Recording(Grown(open_recording(folder / "x.data", cache=False)))
    return recording.report(sort="comm,symbol")


class Grown(Source):
    """The samples of a recording again and again, in the order of time."""

    def __init__(self, recording: Recording) -> None:
        small = recording._source
        super().__init__(small.file, small.options)
        self._small = small.decoded

    @cached_property
    def decoded(self) -> Decoded:
        profile, random = self._small.profile, np.random.default_rng(1)
        rows = random.integers(0, len(profile), SAMPLES)
        grown = replace(
            profile.select(rows),
            time=np.sort(profile.time[rows]),
            period=random.integers(1, 1 << 34, SAMPLES).astype(np.uint64),
        )
        return Decoded(grown, self._small.machine_pid[rows], lambda: self._small.addresses)

    @property
    def weights(self) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        profile = self.decoded.profile
        return profile.event.codes, profile.period


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.chromium
def test_a_page_of_a_million_samples_is_small_and_keeps_its_totals(
    browser: Any, big: ReportView, tmp_path: Path
) -> None:
    html, recording = big.to_html(tmp_path / "x.html"), big.recording
    assert len(html.encode()) < 2_000_000
    seen = Seen(
        browser.new_page(viewport={"width": 1280, "height": 1100}), tmp_path / "x.html", READY
    )
    assert seen.words().startswith(f"{SAMPLES:,} of {SAMPLES:,} samples, 100.00 % of the weight")
    for modes in ("host-kernel", "host-user"):
        seen.tick("mode", modes)
        assert seen.samples() == len(recording.filter(modes=modes))
        seen.clear()
    # of unknown ones in rare files the page says that they are rare
    named = [name for name in big.table["symbol"].tolist() if name != "[unknown]"]
    for symbol in named[:2]:
        seen.symbol(f"^{re.escape(symbol)}$")
        assert seen.samples() == len(recording.filter(symbol=f"^{re.escape(symbol)}$"))
    seen.symbol("")
    assert seen.errors == []
    seen.page.close()


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.chromium
def test_thousands_of_rows_are_few_in_the_page(
    browser: Any, big: ReportView, tmp_path: Path
) -> None:
    path = tmp_path / "x.html"
    data = zlib.compress(big.dashboard.packed(), 1)
    Page("all of it").dashboard(data, Page("still", heading=False)).save(path)
    seen = Seen(browser.new_page(viewport={"width": 1280, "height": 1100}), path, READY)
    rows = int(seen.table.get_attribute("aria-rowcount")) - 1
    assert rows > 2000
    assert 10 < seen.page.locator(ROWS).count() < 40
    seen.table.focus()
    seen.page.keyboard.press("End")
    seen.page.wait_for_timeout(80)
    last = seen.page.locator(ROWS).last
    assert last.get_attribute("aria-rowindex") == str(rows + 1)
    assert last.is_visible()
    assert 10 < seen.page.locator(ROWS).count() < 40
    took = []
    for pattern in ("a", "mem", "lock|page", ""):
        seen.symbol(pattern)
        took.append(float(seen.page.locator(".kvmp-d").get_attribute("data-took")))
    assert min(took) < 100  # ms
    assert sorted(took)[2] < 300  # whatever else this machine does
    assert seen.errors == []
    seen.page.close()


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.chromium
def test_what_does_not_fit_is_cut_and_said(
    browser: Any, big: ReportView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmperf_magic.dashboard.MOST_PAGE", 50_000)
    data = big.dashboard.deflated()
    assert len(data) < 50_000
    path = Page("little").dashboard(data, Page("still")).save(tmp_path / "x.html")
    seen = Seen(browser.new_page(), path, READY)
    said = str(seen.page.locator(".kvmp-d").inner_text())
    assert "stacks of fewer than" in said
    assert "stand together as [rare symbols]" in said
    assert "Time is told apart in steps of" in said
    assert seen.words().startswith(f"{SAMPLES:,} of {SAMPLES:,} samples, 100.00 % of the weight")
    seen.tick("mode", "host-kernel")
    view = big.recording.filter(modes="host-kernel")
    share = 100 * view.profile.total / big.recording.profile.total
    assert seen.samples() == len(view)
    assert f"{share:.2f} % of the weight" in seen.words()
    assert seen.errors == []
    seen.page.close()


def sizes(data: bytes) -> tuple[int, int]:
    """The nodes and the cells of packed data."""
    (length,) = struct.unpack_from("<I", data)
    told = re.findall(rb'"name":"(depth|node)","length":(\d+)', data[4 : 4 + length])
    found = {name: int(count) for name, count in told}
    return found[b"depth"], found[b"node"]


@pytest.mark.perf
@pytest.mark.root
def test_a_live_page_gets_all_of_it(big: ReportView) -> None:
    data, recording = big.dashboard.packed(), big.recording
    assert len(data) < 12_000_000
    profile = recording.profile
    cells = Gathering(profile).cells(Steps.of(profile.time, recording.origin, 300))
    assert sizes(data) == (len(cells.depth), len(cells))


@pytest.mark.chromium
def test_hostile_names_are_text_and_nothing_runs(browser: Any, tmp_path: Path) -> None:
    bad = HOSTILE
    samples = [
        Sample(
            [(name, name, "host-user" if i % 2 else "guest-user")], comm=name, time=i * 10**8,
            machine=name if i % 2 == 0 else "host", vcpu=i % 3, event=bad[i % 2],
        )
        for i, name in enumerate(bad)
        for _ in range(2)
    ]  # fmt: skip
    profile = profile_of(samples)
    sums = Facets(profile).sums(Gathering(profile).cells(Steps.of(profile.time, 0, 50)))
    words = Words(bad[0], [bad[7], bad[8]], ["symbol", "dso", "comm", "machine"])
    data = zlib.compress(packed(sums, words, {"event": 1}))
    path = Page("harmless").dashboard(data, Page("still")).save(tmp_path / "x.html")
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    seen = Seen(page, path, READY)
    for control in ("VM", "command"):
        seen.tick(control, bad[8])
        seen.tick(control, bad[8])
    seen.page.get_by_label("event").select_option(index=0)
    for row in range(seen.page.locator(ROWS).count()):
        seen.page.locator(ROWS).nth(row).click()
    assert bad[0] in {row[3] for row in seen.rows()}
    seen.strip.hover()
    assert page.title() == "harmless"
    assert page.locator("img, a, svg, iframe").count() == 0
    assert page.locator("script").count() == 2  # the data and its own
    assert seen.errors == []
    page.close()
