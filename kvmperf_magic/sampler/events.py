"""Event strings as perf spells them: `cycles:u,{a,b}:G,r01c2,cpu/event=0x3c/pp,kvm:kvm_exit`.

tools/perf/util/parse-events.l and .y, and get_event_modifier() of parse-events.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvmperf_magic.errors import EventError
from kvmperf_magic.perfdata.abi import AttrFlag
from kvmperf_magic.sampler import eventnames
from kvmperf_magic.sampler.eventnames import Code, list_events

__all__ = ["EventSpec", "list_events", "parse_events"]

MAX_PRECISE = 3  # attr.precise_ip is two bits
_MODIFIERS = frozenset("ukhGHpPDIe")
_PMU = re.compile(r"(?P<pmu>[A-Za-z0-9_.\-]+)/(?P<terms>[^/]*)/:?(?P<modifiers>[A-Za-z]*)")
_TRACEPOINT = re.compile(r"(?P<system>[\w\-*?]+):(?P<event>[\w\-*?]+)(:(?P<modifiers>[A-Za-z]+))?")
_PLAIN = re.compile(r"(?P<name>[A-Za-z][\w.\-]*)(:(?P<modifiers>[A-Za-z]+))?")
_EXCLUDES = AttrFlag.EXCLUDE_USER | AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV
_SIDES = AttrFlag.EXCLUDE_HOST | AttrFlag.EXCLUDE_GUEST


@dataclass(frozen=True)
class EventSpec:
    """One event to open. `flags` are exclude bits, pinned, exclusive; `group` numbers braces.

    `precise` counts the p's; `precise_max` (:P) takes the most that the PMU grants. `period` and
    `frequency` are set where the event itself says so (`cpu/.../period=1000/`).
    """

    name: str
    type: int
    config: int
    config1: int = 0
    config2: int = 0
    flags: int = 0
    precise: int = 0
    precise_max: bool = False
    group: int | None = None
    period: int | None = None
    frequency: int | None = None


def parse_events(
    text: str | Sequence[str], *, host: bool = True, guest: bool = False
) -> list[EventSpec]:
    """The events that `text` names, in order.

    `host` and `guest` are the sides to be sampled: an event whose modifiers do not say (:G, :H)
    excludes the other side, none where both are wanted, as under `perf kvm --host --guest`.
    Raises EventError naming the part that is not understood, NotPermittedError for tracefs.
    """
    sides = AttrFlag(0)
    if not guest:
        sides |= AttrFlag.EXCLUDE_GUEST
    if not host:
        sides |= AttrFlag.EXCLUDE_HOST
    specs: list[EventSpec] = []
    groups = 0
    for whole in [text] if isinstance(text, str) else text:
        for part in _split(whole):
            if not part.startswith("{"):
                specs += _one(part, "", sides, guest)
                continue
            inside, closed, modifiers = part[1:].rpartition("}")
            if not closed or not inside.strip() or "{" in inside:
                raise EventError(f"{part!r} is not a group of events", "groups are {a,b}:modifiers")
            members = [
                spec
                for member in _split(inside)
                for spec in _one(member, modifiers.removeprefix(":"), sides, guest)
            ]
            specs += [replace(s, group=groups) for s in members]
            groups += 1
    if not specs:
        raise EventError("no event is named", "e.g. cycles, cpu-clock, kvm:kvm_exit")
    return specs


def _split(text: str) -> list[str]:
    """At the commas that stand neither in braces nor between slashes."""
    parts = [""]
    braces = 0
    slashed = False
    for char in text:
        if char == "/":
            slashed = not slashed
        elif not slashed:
            braces += (char == "{") - (char == "}")
        if char == "," and not braces and not slashed:
            parts.append("")
        else:
            parts[-1] += char
    if braces or slashed:
        raise EventError(f"{text!r} has an unclosed {'{' if braces else '/'}")
    return [p.strip() for p in parts if p.strip()]


def _one(text: str, group_modifiers: str, sides: AttrFlag, guest: bool) -> list[EventSpec]:
    codes: list[tuple[str, Code]]
    if (met := _PMU.fullmatch(text)) is not None:
        named, terms = met["pmu"], met["terms"]
        plain = eventnames.symbolic(named)
        if plain is not None:
            plain = replace(
                plain, terms=dict(t.split("=", 1) for t in terms.split(",") if "=" in t)
            )
        codes = [(text, plain or eventnames.pmu(named, terms))]
    elif (met := _PLAIN.fullmatch(text)) is not None and (code := _code(met["name"])) is not None:
        codes = [(text, code)]
    elif (met := _TRACEPOINT.fullmatch(text)) is not None:
        codes = eventnames.tracepoints(met["system"], met["event"])
        if met["modifiers"]:
            codes = [(f"{name}:{met['modifiers']}", code) for name, code in codes]
    else:
        raise EventError(
            f"{text!r} is not an event known here",
            "cycles, cpu-clock, cache-misses, r01c2, pmu/term=value/, system:tracepoint; "
            "all there are: perf list",
        )
    modifiers = (met["modifiers"] or "") + group_modifiers
    return [_spec(name, code, modifiers, text, sides, guest) for name, code in codes]


def _code(name: str) -> Code | None:
    return eventnames.symbolic(name) or eventnames.raw(name) or eventnames.pmu_alias(name)


def _spec(
    name: str, code: Code, modifiers: str, text: str, sides: AttrFlag, guest: bool
) -> EventSpec:
    wrong = set(modifiers) - _MODIFIERS
    if wrong:
        raise EventError(
            f"{text!r}: no modifier {''.join(sorted(wrong))!r}", "modifiers are u k h G H p P D I e"
        )
    precise = modifiers.count("p")
    if precise > MAX_PRECISE:
        raise EventError(f"{text!r}: more than {MAX_PRECISE} p's", "ppp is the most precise")
    flags = sides
    only = {"u": AttrFlag.EXCLUDE_USER, "k": AttrFlag.EXCLUDE_KERNEL, "h": AttrFlag.EXCLUDE_HV}
    if set(modifiers) & set(only):
        flags |= _EXCLUDES
        for letter in set(modifiers) & set(only):
            flags &= ~only[letter]
    if set(modifiers) & set("GH"):
        flags |= _SIDES
        if "G" in modifiers:
            flags &= ~AttrFlag.EXCLUDE_GUEST
        if "H" in modifiers:
            flags &= ~AttrFlag.EXCLUDE_HOST
    elif precise and not guest:
        flags |= AttrFlag.EXCLUDE_GUEST  # PEBS and IBS cannot see a guest
    for letter, flag in (
        ("D", AttrFlag.PINNED),
        ("I", AttrFlag.EXCLUDE_IDLE),
        ("e", AttrFlag.EXCLUSIVE),
    ):
        if letter in modifiers:
            flags |= flag
    terms = code.terms
    try:
        period = int(terms["period"], 0) if "period" in terms else None
        frequency = int(terms["freq"], 0) if "freq" in terms else None
    except ValueError:
        raise EventError(f"{text!r}: period and freq are numbers") from None
    return EventSpec(
        terms.get("name", name),
        code.type,
        code.config,
        code.config1,
        code.config2,
        flags,
        precise,
        "P" in modifiers,
        period=period,
        frequency=frequency,
    )
