"""diff(): which two sides to compare, out of what the user names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvmperf_magic.errors import FileError, QueryError
from kvmperf_magic.modes import GUEST_MODES, HOST_MODES
from kvmperf_magic.recording import Recording, open_recording

if TYPE_CHECKING:
    from kvmperf_magic.diffview import DiffView

_DEFAULT = ("perf.data.host", "perf.data.guest")


def diff(
    baseline: Recording | str | Path | None = None,
    other: Recording | str | Path | None = None,
    *,
    modes: str | Iterable[str] | None = None,
    event: str | None = None,
    filters: dict[str, Any] | None = None,
    symbol_options: dict[str, Any] | None = None,
    width: str = "after",
    names: tuple[str, str] | None = None,
    **options: Any,
) -> DiffView:
    """What changed from `baseline` to `other`: recordings or paths.

    With neither, perf.data.host against perf.data.guest of this folder: host -> guest slowdown.
    With one that holds both sides, its host samples against its guest samples. Without `event` the
    first of which both have samples. `filters` are the arguments of `Recording.filter`,
    `symbol_options` those of `open()`, for paths; `width` is that of the differential flame graph:
    after, before, max or common. `names` are what the sides are called in it all.

    Options: `pair`, what is paired ("auto": kernel functions of host and guest by name, else by
    DSO and symbol; or sort keys); `compute` (delta-abs, delta, ratio or wdiff:W1,W2); `total`, what
    100 % of a side is (all, kernel or mode); `confidence` of the intervals, together (0.95). See
    `profile.diff.compare`. Raises FileError, QueryError.
    """
    from kvmperf_magic.diffview import DiffView
    from kvmperf_magic.profile.diff import compare

    if baseline is None:
        for path in _DEFAULT:
            if not Path(path).exists():
                raise FileError(path, "not there", hint="record it first, or name two recordings")
        baseline, other = _DEFAULT
    first = _opened(baseline, symbol_options)
    if other is None:
        a, b = first.answerable(HOST_MODES, event), first.answerable(GUEST_MODES, event)
        if modes is not None:
            a, b = a.filter(modes=modes), b.filter(modes=modes)
        names = names or ("host", "guest")
    else:
        second = _opened(other, symbol_options)
        event = event or _common(first, second)
        a, b = first.answerable(modes, event), second.answerable(modes, event)
        names = names or _names(a, b)
    if filters:
        a, b = a.filter(**filters), b.filter(**filters)
    for view, name in ((a, names[0]), (b, names[1])):
        if not len(view):
            raise QueryError(f"no samples on the side {name!r} ({view.path}) to compare")
    found = compare(a.profile, b.profile, names=names, **options)
    return DiffView(a, b, found, width=width)


def _opened(one: Recording | str | Path, options: dict[str, Any] | None) -> Recording:
    return one if isinstance(one, Recording) else open_recording(one, **(options or {}))


def _common(a: Recording, b: Recording) -> str | None:
    """The first event of `a` that both have samples of, so that shares are of the same."""
    theirs = {*_sampled(b)}
    return next((name for name in _sampled(a) if name in theirs), None)


def _sampled(recording: Recording) -> list[str]:
    events = recording.events
    return [str(name) for name in events["name"][events["samples"] > 0]]


def _names(a: Recording, b: Recording) -> tuple[str, str]:
    """What to call the two sides in a picture."""
    sides = ["+".join(view.sides) for view in (a, b)]
    if sides[0] != sides[1]:
        return sides[0], sides[1]
    files = [Path(view.path).name for view in (a, b)]
    return (files[0], files[1]) if files[0] != files[1] else ("before", "after")
