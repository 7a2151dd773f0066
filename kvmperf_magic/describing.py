"""Tables of what a recording is: its events, its records, and all of it in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import one_line
from kvmperf_magic.modes import MODES
from kvmperf_magic.perfdata.abi import AttrFlag, RecordType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.profile.groups import sums, whole_numbers
from kvmperf_magic.table import Categorical, Table

if TYPE_CHECKING:
    from kvmperf_magic.recording import Recording


def events_table(events: Sequence[Event], index: NDArray[np.int32], period: NDArray[Any]) -> Table:
    """One row an event, with how many of these samples are its, and their periods."""
    attrs = [event.attr for event in events]
    periods = sums(index, period.astype(np.float64), len(events))
    return Table(
        {
            "name": _strings([event.name for event in events]),
            "type": np.array([a.type for a in attrs], dtype=np.uint32),
            "config": np.array([a.config for a in attrs], dtype=np.uint64),
            "period": np.array([0 if a.freq else a.sample_period for a in attrs], np.uint64),
            "frequency": np.array([a.sample_period if a.freq else 0 for a in attrs], np.uint64),
            "exclude_host": np.array([a.has(AttrFlag.EXCLUDE_HOST) for a in attrs], np.bool_),
            "exclude_guest": np.array([a.has(AttrFlag.EXCLUDE_GUEST) for a in attrs], np.bool_),
            "samples": np.bincount(index, minlength=len(events)),
            "periods": whole_numbers(periods).astype(np.uint64),
        }
    )


def records_table(counts: Mapping[int, int], sizes: Mapping[int, int]) -> Table:
    """One row a type of record."""
    types = sorted(counts)
    known = {kind.value: kind.name for kind in RecordType}
    return Table(
        {
            "type": np.array(types, np.uint32),
            "name": _strings([known.get(kind, str(kind)) for kind in types]),
            "count": np.array([counts[kind] for kind in types], np.int64),
            "bytes": np.array([sizes.get(kind, 0) for kind in types], np.int64),
        }
    )


def summary_table(recording: Recording) -> Table:
    """What is in it, a line each."""
    lines = _summary(recording) | {"complete": str(recording.lost)}
    lines |= {f"warning {i}": w for i, w in enumerate(recording.warnings, 1)}
    return _two_columns(lines)


def summary_text(recording: Recording) -> str:
    """The same for a terminal: what a cell would cut off stands in lines of its own."""
    lost = recording.lost
    lines = _summary(recording) | {"complete": str(replace(lost, damage=[]))}
    below = [f"damaged at {d.offset:#x}: {d.message}" for d in lost.damage]
    below += [f"warning: {w}" for w in recording.warnings]
    return "\n".join([repr(_two_columns(lines)), *map(one_line, below)])


def _summary(recording: Recording) -> dict[str, str]:
    p, header = recording.profile, recording.header
    weights = np.bincount(p.mode, p.period, len(MODES))
    total = weights.sum() or 1
    shares = [f"{MODES[m]} {weights[m] / total:.1%}" for m in np.flatnonzero(weights)]
    pids = np.unique(p.machine.codes)
    unnamed = p.period[p.symbol.where("[unknown]".__eq__)].sum() / total
    events = recording.events
    return {
        "file": recording.name,
        "recorded on": " ".join(filter(None, (header.hostname, header.os_release))),
        "events": ", ".join(events["name"][(events["samples"] > 0) | (len(recording) == 0)]),
        "samples": f"{len(p.time):,} in {recording.duration:.2f} s",
        "modes": ", ".join(shares),
        "machines": ", ".join(p.machine.categories[i] for i in pids),
        "named": f"{1 - unnamed:.1%} of the weight" if len(recording) else "",
    }


def _two_columns(lines: Mapping[str, str]) -> Table:
    return Table({"what": _strings(list(lines)), "value": _strings(list(lines.values()))})


def _strings(values: Sequence[str]) -> Categorical:
    return Categorical(np.arange(len(values), dtype=np.int32), list(values))
