"""What the page of a dashboard works out, in a browser: against the report of the same samples.

Profiles, filters and the columns of the table are drawn by hypothesis.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import driven
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmperf_magic.facets import Facets
from kvmperf_magic.modes import GUEST_MODES, MODES
from kvmperf_magic.profile.cells import FACETS, Gathering, Steps
from kvmperf_magic.profile.profile import Sample, profile_of
from kvmperf_magic.profile.report import report
from kvmperf_widgets.dashboard import PARTS, Words, packed
from kvmperf_widgets.live import source

pytestmark = pytest.mark.chromium

ANSWER = """
window.sumsOf = sumsOf;
window.answer = (text, filter, by) => {
  const data = sumsOf(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
  const found = filtered(data, filter), group = grouping(data, by);
  const { self, children, samples } = rowSums(data, group, found.passed), rows = [];
  for (let row = 0; row < group.count; row++) {
    const frame = group.frame[row], { frames } = data;
    const words = by.map((key) => key === "symbol" ? data.names[frames.name[frame]]
      : key === "dso" ? data.details[frames.detail[frame]]
      : key === "mode" ? data.kinds[frames.kind[frame]]
      : facetOf(data, key).names[facetOf(data, key).of[group.facet[row]]]);
    rows.push([words, self[row], children[row], samples[row]]);
  }
  const listed = (sums, names) => Object.fromEntries(names.map((name, i) => [name, sums[i]]));
  return { rows, left: found.left, whole: found.whole, modes: listed(found.modes, data.kinds),
    strip: found.strip.map((of) => [...of]), tree: found.self.reduce((a, b) => a + b, 0),
    facets: data.facets.map(({ names }, i) => listed(found.facets[i], names)) };
};
"""
frames = st.tuples(
    st.sampled_from(["main", "lock", "unlock", "a.b(c)"]),
    st.sampled_from(["[kernel.kallsyms]", "libc.so"]),
    st.sampled_from(MODES[:5]),
)
samples = st.builds(
    Sample,
    frames=st.lists(frames, min_size=1, max_size=6),
    period=st.integers(1, 1 << 40),
    time=st.integers(0, 5_000_000_000),
    comm=st.sampled_from(["sh", "lock", "CPU 0/KVM"]),
    pid=st.integers(1, 3),
    vcpu=st.integers(-1, 1),
    machine=st.sampled_from(["vm1", "vm2"]),
    event=st.sampled_from(["cycles", "cpu-clock"]),
)
KEYS = ("symbol", "dso", "mode", "comm", "machine", "vcpu", "pid")
filters = st.fixed_dictionaries(
    {"event": st.sampled_from(["cycles", "cpu-clock"])},
    optional={
        "modes": st.sets(st.sampled_from(MODES[:5]), min_size=1),
        "comm": st.sets(st.sampled_from(["sh", "lock", "CPU 0/KVM"]), min_size=1),
        "machine": st.sets(st.sampled_from(["host", "vm1", "vm2"]), min_size=1),
        "vcpu": st.sets(st.integers(-1, 1), min_size=1),
        "symbol": st.sampled_from(["lock", "^lock$", r"a\.b\(", "(?i)MAIN|UN", "nothing"]),
        "time": st.tuples(st.integers(0, 20), st.integers(0, 20)),
    },
)
EXPRESSIONS = {
    "lock": ("lock", "unlock"),
    "^lock$": ("lock",),
    r"a\.b\(": ("a.b(c)",),
    "(?i)MAIN|UN": ("main", "unlock"),
    "nothing": (),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path: Path = tmp_path_factory.mktemp("sums") / "x.html"
    path.write_text(f'<script type="module">{source(*PARTS)}{ANSWER}</script>')
    with driven() as browser:
        made = browser.new_page()
        made.goto(path.as_uri())
        made.wait_for_function("Boolean(window.answer)")
        yield made


def as_seen(sample: Sample) -> Sample:
    """A guest's stack without what the VMM's thread did to get there, the host's on no VM."""
    if sample.frames[-1][2] not in GUEST_MODES:
        return replace(sample, machine="host")
    return replace(sample, frames=[f for f in sample.frames if f[2] in GUEST_MODES])


def passes(sample: Sample, wanted: dict[str, Any], steps: Steps, but: str = "") -> bool:
    """Whether a sample satisfies a filter, all of it or all but one part."""
    step = (sample.time - steps.start) // steps.width
    first, last = sorted(min(one, steps.count - 1) for one in wanted.get("time", (0, 10**9)))
    checks = {
        "event": sample.event == wanted["event"],
        "modes": sample.frames[-1][2] in wanted.get("modes", MODES),
        "comm": sample.comm in wanted.get("comm", [sample.comm]),
        "machine": sample.machine in wanted.get("machine", [sample.machine]),
        "vcpu": sample.vcpu in wanted.get("vcpu", [sample.vcpu]),
        "symbol": "symbol" not in wanted
        or sample.frames[-1][0] in EXPRESSIONS[wanted["symbol"]],
        "time": first <= step <= last,
    }  # fmt: skip
    return all(value for name, value in checks.items() if name != but)


def summed(drawn: list[Sample], key: Any) -> Counter[Any]:
    found = Counter[Any]()
    for sample in drawn:
        found[key(sample)] += sample.period
    return found


@settings(max_examples=70, deadline=None)
@given(
    drawn=st.lists(samples, min_size=1, max_size=40),
    wanted=filters,
    by=st.sets(st.sampled_from(KEYS), min_size=1),
    most=st.sampled_from([1, 7, 200]),
)
def test_the_page_answers_as_the_report_does(
    page: Any, drawn: list[Sample], wanted: dict[str, Any], by: set[str], most: int
) -> None:
    drawn = sorted(map(as_seen, drawn), key=lambda sample: sample.time)
    profile = profile_of(drawn)
    steps = Steps.of(profile.time, 0, most)
    facets = Facets(profile, ["pid"])
    sums = facets.sums(Gathering(profile, ["pid"]).cells(steps))
    state: dict[str, Any] = {key: wanted[key] for key in ("symbol",) if key in wanted}
    if "modes" in wanted:
        state["modes"] = sorted(wanted["modes"])
    for key in ("comm", "machine", "vcpu"):
        if key in wanted:
            known = facets.names[key]
            # 99: a name that no sample has
            state[key] = [known.index(str(one)) if str(one) in known else 99 for one in wanted[key]]
    if "time" in wanted:
        state["time"] = sorted(min(one, steps.count - 1) for one in wanted["time"])
    known = facets.names["event"]
    wanted["event"] = wanted["event"] if wanted["event"] in known else known[0]
    state["event"] = known.index(wanted["event"])
    columns = [key for key in KEYS if key in by]
    text = base64.b64encode(packed(sums, Words("x"), {})).decode()
    answer = page.evaluate("(given) => answer(...given)", [text, state, columns])

    mask = np.array([passes(sample, wanted, steps) for sample in drawn])
    table = report(profile.select(mask), columns).table
    names = zip(*([str(v) for v in table[key].tolist()] for key in columns), strict=True)
    numbers = zip(*(table[n].tolist() for n in ("self", "children", "samples")), strict=True)
    expected = dict(zip(names, numbers, strict=True))
    found = {tuple(words): tuple(rest) for words, *rest in answer["rows"]}
    assert {key: value for key, value in found.items() if value[1]} == expected
    chosen = [sample for sample in drawn if sample.event == wanted["event"]]
    left = [sample for sample, one in zip(drawn, mask, strict=True) if one]
    assert answer["left"] == {"weight": sum(s.period for s in left), "samples": len(left)}
    assert answer["whole"] == {"weight": sum(s.period for s in chosen), "samples": len(chosen)}
    assert answer["tree"] == answer["left"]["weight"]

    # what a control would leave: everything else holds
    but = {
        name: [s for s in drawn if passes(s, wanted, steps, but=name)]
        for name in ("modes", "comm", "machine", "vcpu", "time")
    }
    modes = summed(but["modes"], lambda s: s.frames[-1][2])
    assert {k: v for k, v in answer["modes"].items() if v} == modes
    for key, one in zip((*FACETS, "pid"), answer["facets"], strict=True):
        if key in but:
            there = summed(but[key], lambda s, key=key: str(getattr(s, key)))
            assert {k: v for k, v in one.items() if v} == there
    strip = np.array(answer["strip"]).sum(axis=0)
    over_time = summed(but["time"], lambda s: (s.time - steps.start) // steps.width)
    assert {int(i): strip[i] for i in np.flatnonzero(strip)} == over_time


def test_numbers_of_all_sizes_arrive(page: Any) -> None:
    read = """(text) => {
      const data = sumsOf(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
      return [...data.weight];
    }"""
    for periods in ([1, 255, 256, 65536], [2**40, 3, 2**51], [2**60, 2**63, 7], [2**64 - 1] * 3):
        drawn = [
            Sample([(f"f{i}", "a", "host-user")], period=period) for i, period in enumerate(periods)
        ]
        profile = profile_of(drawn)
        cells = Gathering(profile).cells(Steps.of(profile.time, 0, 1))
        data = packed(Facets(profile).sums(cells), Words("x"), {})
        weight = page.evaluate(read, base64.b64encode(data).decode())
        assert sorted(map(float, weight)) == sorted(map(float, periods))
