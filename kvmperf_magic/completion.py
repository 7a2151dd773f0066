"""Completion of the magics' lines: options, their choices, events, VM names, files, recordings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from kvmperf_magic.errors import KvmperfError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.magic import Magics

# the magic of a line, also behind an assignment, and all of the line up to the cursor
_LINE = re.compile(r"(?:^|[\s=(])%%?(\w+) (.*)$", re.DOTALL)
_IDENTIFIER = "kvmperf_magic.completion"


def load(shell: InteractiveShell, magics: type[Magics]) -> None:
    """Add our matcher to the shell's; it answers only on lines of our magics."""
    parsers: dict[str, argparse.ArgumentParser] = {
        name: getattr(magics, attribute).parser
        for name, attribute in magics.magics["line"].items()
        if hasattr(getattr(magics, attribute), "parser")
    }

    @context_matcher(identifier=_IDENTIFIER)
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        line = _LINE.search(context.text_until_cursor)
        parser = parsers.get(line[1]) if line else None
        if line is None or parser is None or " -- " in line[2]:
            return SimpleMatcherResult(completions=[], suppress=False)
        *words, typed = line[2].split(" ")
        words = ["", *filter(None, words)]
        values = _candidates(parser, words[-1], typed, shell.user_ns)
        # the frontend replaces `token`, which may be only the end of what was typed
        kept = len(typed) - len(context.token) if typed.endswith(context.token) else 0
        found = [
            SimpleCompletion(v[kept:] if kept or " " not in v else f'"{v}"', type="param")
            for v in values
            if v.startswith(typed)
        ]
        return SimpleMatcherResult(completions=found, suppress=bool(found))

    shell.Completer.custom_matchers.append(matcher)


def unload(shell: InteractiveShell) -> None:
    """Take our matcher away again."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", "") != _IDENTIFIER]


def _candidates(
    parser: argparse.ArgumentParser, before: str, typed: str, variables: dict[str, Any]
) -> Iterable[str]:
    """What can stand here: the value of the option before, an option, or a recording."""
    actions = parser._option_string_actions
    option = actions.get(before)
    if option is not None and option.nargs != 0:
        return sorted(_values(option, typed))
    name, equals, value = typed.partition("=")
    if equals and name in actions and actions[name].nargs != 0:
        return sorted(f"{name}={one}" for one in _values(actions[name], value))
    if typed.startswith("-"):
        return sorted(actions)
    if any(not action.option_strings for action in parser._actions):
        return sorted({*_files(typed), *_recordings(variables)})
    return []


def _values(option: argparse.Action, typed: str) -> Iterable[str]:
    if option.choices is not None:
        return [str(choice) for choice in option.choices]
    if option.dest == "vm":
        return _vms()
    if option.metavar in {"FILE", "DIR"}:
        return _files(typed)
    if option.metavar == "[VM=]FILE":
        vm, equals, path = typed.rpartition("=")
        named = [] if equals else [f"{name}=" for name in _vms()]
        return [*named, *(f"{vm}{equals}{found}" for found in _files(path))]
    if option.dest == "call_graph":
        return ["fp", "dwarf", "lbr"]
    if option.dest == "compute":
        from kvmperf_magic.profile.diff import COMPUTES

        return COMPUTES
    if option.dest == "order":
        from kvmperf_magic.ranking import KEYS, NUMBERS

        return [*NUMBERS, *KEYS]
    head, comma, _ = typed.rpartition(",")
    return [f"{head}{comma}{one}" for one in _listed(option)]


def _listed(option: argparse.Action) -> Iterable[str]:
    """What a list behind this option can be of."""
    if option.dest in {"events", "event"}:
        from kvmperf_magic.sampler.events import list_events

        return list_events()
    if option.dest == "modes":
        from kvmperf_magic.modes import MODES

        return ["host", "guest", *MODES]
    if option.metavar == "KEYS":
        from kvmperf_magic.profile.report import LINE_KEY, SORT_KEYS

        return [*SORT_KEYS, *([LINE_KEY] if option.default == "comm,dso,symbol" else [])]
    return []


def _vms() -> list[str]:
    from kvmperf_magic.guests.discovery import machines

    try:
        return [machine.name for machine in machines() if machine.kind == "guest"]
    except KvmperfError:
        return []


def _files(typed: str) -> list[str]:
    folder, _, start = typed.rpartition("/")
    place = Path(f"{folder}/" if "/" in typed else ".").expanduser()
    try:
        entries = [entry for entry in place.iterdir() if entry.name.startswith(start)]
    except OSError:
        return []
    head = f"{folder}/" if "/" in typed else ""
    return [f"{head}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries]


def _recordings(variables: dict[str, Any]) -> list[str]:
    from kvmperf_magic.recording import Recording

    return [
        name
        for name, value in variables.items()
        if isinstance(value, Recording) and not name.startswith("_")
    ]
