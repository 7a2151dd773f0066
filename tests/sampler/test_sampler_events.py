"""Event strings: what perf itself would open for the same string is the oracle."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.errors import EventError
from kvmperf_magic.perfdata.abi import AttrFlag, PerfEventAttr
from kvmperf_magic.sampler import eventnames
from kvmperf_magic.sampler.events import list_events, parse_events
from kvmperf_magic.sampler.openevent import make_attr
from kvmperf_magic.sampler.options import SamplerOptions

_COMPARED = {
    "exclude_user": AttrFlag.EXCLUDE_USER,
    "exclude_kernel": AttrFlag.EXCLUDE_KERNEL,
    "exclude_hv": AttrFlag.EXCLUDE_HV,
    "exclude_idle": AttrFlag.EXCLUDE_IDLE,
    "exclude_host": AttrFlag.EXCLUDE_HOST,
    "exclude_guest": AttrFlag.EXCLUDE_GUEST,
    "pinned": AttrFlag.PINNED,
    "exclusive": AttrFlag.EXCLUSIVE,
}


def attrs_of_perf(*arguments: str) -> list[dict[str, int]]:
    """The attrs that perf tries, by its debug output."""
    done = subprocess.run(
        ["perf", *arguments, "true"],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    attrs = []
    for block in re.findall(r"^perf_event_attr:\n((?:  .*\n)+)", done.stderr, re.MULTILINE):
        pairs = re.findall(r"^  (\w+) +(0x[0-9a-f]+|\d+)$", block, re.MULTILINE)
        attrs.append({name: int(value, 0) for name, value in pairs})
    return attrs


def compared(attr: PerfEventAttr) -> dict[str, int]:
    flags = {name: 1 for name, flag in _COMPARED.items() if attr.flags & flag}
    precise = attr.flags // int(AttrFlag.PRECISE_IP_LOW) & 3
    told = {"type": attr.type, "config": attr.config, "precise_ip": precise, **flags}
    return {name: value for name, value in told.items() if value}


EVENTS = [
    "cycles",
    "cpu-cycles:u",
    "instructions:k",
    "branch-misses:uk",
    "stalled-cycles-backend",
    "ref-cycles:hu",
    "cycles:G",
    "cycles:H",
    "cycles:GH",
    "cycles:uG",
    "cycles:ppI",
    "cycles:D",
    "cycles:ukH",
    "cpu-clock",
    "task-clock:u",
    "faults",
    "cs",
    "migrations",
    "minor-faults",
    "dummy",
    "r01c2",
    "r1a8:k",
    "L1-dcache-load-misses",
    "LLC-loads",
    "dTLB-store-misses:u",
    "iTLB-load-misses",
    "branch-loads",
    "node-prefetch-misses",
    "msr/tsc/",
    "cpu-clock/period=77777/u",
    "sched:sched_switch",
    "kvm:kvm_exit",
]
SIDES = [
    ((), {}),
    (("kvm", "--guest"), {"host": False, "guest": True}),
    (("kvm", "--host", "--guest"), {"host": True, "guest": True}),
]


SIDED = ["cpu-clock", "page-faults:u", "page-faults:H", "page-faults:G", "cpu-clock:uG"]


@pytest.mark.perf
@pytest.mark.root
def test_attrs_are_perfs() -> None:
    names = {"type", "config", "precise_ip", *_COMPARED}
    tried = attrs_of_perf("stat", "-a", "-vv", "-e", ",".join(EVENTS))
    theirs = iter([{k: v for k, v in attr.items() if k in names and v} for attr in tried])
    for text in EVENTS:
        (spec,) = parse_events(text)
        ours = compared(make_attr(spec, SamplerOptions()))
        if text.partition(":")[2] in {"k", "D"}:
            # perf forgets which side is asked for once a modifier other than u, p, G, H is there
            assert ours.pop("exclude_guest") == 1
        assert ours in theirs, text  # each once, in order, between perf's retreats


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.parametrize(("before", "sides"), SIDES)
def test_sides_are_those_of_perf_kvm(before: tuple[str, ...], sides: dict[str, bool]) -> None:
    arguments = ["record", "-vv", "-a", "-o", "/dev/null", "-e", ",".join(SIDED)]
    theirs = attrs_of_perf(*before, *arguments)
    for text, their in zip(SIDED, theirs, strict=False):
        (spec,) = parse_events(text, **sides)
        names = {"exclude_host", "exclude_guest", "exclude_kernel", "exclude_user"}
        ours = {n for n in names if spec.flags & _COMPARED[n]}
        if text == "page-faults:u" and sides == {"host": False, "guest": True}:
            ours.remove("exclude_host")  # forgotten by perf as above
        assert ours == {k for k, v in their.items() if k in names and v}, text


def test_groups_and_globs() -> None:
    specs = parse_events("{cpu-clock,cs:u}:k,faults,{cs,cpu-clock}")
    assert [(s.name, s.group) for s in specs] == [
        ("cpu-clock", 0),
        ("cs:u", 0),
        ("faults", None),
        ("cs", 1),
        ("cpu-clock", 1),
    ]
    assert specs[0].flags & AttrFlag.EXCLUDE_USER
    assert not specs[1].flags & (AttrFlag.EXCLUDE_USER | AttrFlag.EXCLUDE_KERNEL)


PLAIN = st.sampled_from(
    ["cycles", "cpu-clock", "r1f", "LLC-loads", "msr/tsc/", "cpu-clock/name=a/"]
)
MODIFIERS = st.text(st.sampled_from("ukhGHDI"), max_size=4)


@given(
    st.lists(st.lists(st.tuples(PLAIN, MODIFIERS), min_size=1, max_size=3), max_size=5), st.data()
)
def test_a_list_is_its_events_in_order(
    groups: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    """Commas, braces and slashes nest as they are written, whatever stands around them."""
    parts = []
    expected = []
    for group in groups:
        members = [f"{n}{':' if m else ''}{m}" for n, m in group]
        braced = len(group) > 1 or data.draw(st.booleans())
        parts.append("{" + ",".join(members) + "}" if braced else members[0])
        for member in members:
            (alone,) = parse_events(member)
            expected.append((alone.name, alone.type, alone.config, alone.flags, braced))
    if not parts:
        with pytest.raises(EventError):
            parse_events("")
        return
    specs = parse_events(" , ".join(parts))
    assert [(s.name, s.type, s.config, s.flags, s.group is not None) for s in specs] == expected


@pytest.mark.parametrize(
    "text",
    ["", "bogus", "cycles:q", "cycles:pppp", "{cycles", "cycles}", "cpu/x", "nopmu/x=1/", "{}",
     "msr/nothing/", "L1-dcache-load-load", "kvm:no_such_exit", "{a,{b}}", "rxyz", ":u"],
)  # fmt: skip
def test_nonsense_is_an_event_error_that_says_what_is_known(text: str) -> None:
    with pytest.raises(EventError) as caught:
        parse_events(text)
    assert caught.value.hint or "unclosed" in caught.value.message


def test_pmu_terms_are_placed_by_sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PMU with split fields, as x86's cpu and uncore PMUs have them."""
    pmu = tmp_path / "cpu"
    for name, text in {
        "type": "4",
        "format/event": "config:0-7,32-35",
        "format/umask": "config:8-15",
        "format/edge": "config:18",
        "format/ldlat": "config1:0-15",
        "events/mem-loads": "event=0xcd,umask=0x1,ldlat=3",
    }.items():
        (pmu / name).parent.mkdir(parents=True, exist_ok=True)
        (pmu / name).write_text(text + "\n")
    monkeypatch.setattr(eventnames, "PMUS", tmp_path)
    monkeypatch.setattr(eventnames, "pmu_types", lambda: {"cpu": 4})

    def codes(text: str) -> tuple[int, int, int]:
        (spec,) = parse_events(text)
        return spec.type, spec.config, spec.config1

    assert codes("cpu/event=0x3c/") == (4, 0x3C, 0)
    assert codes("cpu/event=0xa3c,umask=0x12,edge/u") == (4, 0xA_0004_123C, 0)
    assert codes("cpu/mem-loads,edge/pp") == (4, 0x401CD, 3)
    assert codes("mem-loads") == (4, 0x1CD, 3)
    assert codes("cpu/config=0x77,config1=9/") == (4, 0x77, 9)
    with pytest.raises(EventError, match="more than 12 bits"):
        parse_events("cpu/event=0x1000/")
    with pytest.raises(EventError, match="umsk") as caught:
        parse_events("cpu/umsk=1/")
    assert "umask" in caught.value.hint


def test_tracefs_that_is_not_mounted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventnames, "TRACEFS", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(EventError, match="not mounted") as caught:
        parse_events("kvm:kvm_exit")
    assert "mount -t tracefs" in caught.value.hint
    assert "cpu-clock" in list_events()


@pytest.mark.root
def test_what_is_listed_is_understood() -> None:
    names = list_events()
    assert len(names) > 50
    assert {"cycles", "cpu-clock", "sched:sched_switch", "LLC-load-misses"} <= set(names)
    for name in names[:: max(1, len(names) // 200)]:
        parse_events(name)
