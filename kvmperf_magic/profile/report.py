"""Who used the time: samples summed by sort keys, by themselves and with what they called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.groups import (
    codes_of,
    distinct,
    group,
    group_rows,
    keys_of,
    sums,
    within,
)
from kvmperf_magic.profile.profile import Pairs, Profile, Stacks, pairs_of
from kvmperf_magic.profile.show import TableView, counted
from kvmperf_magic.table import Categorical, Column, Table

FRAME_KEYS = ("dso", "symbol", "mode")
GUEST_KEYS = ("guest_comm", "guest_pid")  # the process that a guest's CPU ran
SAMPLE_KEYS = ("comm", "pid", "tid", "cpu", "machine", "vcpu", "event", *GUEST_KEYS)
SORT_KEYS = (*SAMPLE_KEYS, *FRAME_KEYS)
SURE = "guest_sure"  # the column that comes with GUEST_KEYS
LINE_KEY = "srcline"  # of profiles whose frames have lines

_ADDENDS = 4_000_000  # (sample group, stack, frame) summed at a time: bounds the memory


@dataclass(frozen=True, repr=False)
class Report(TableView):
    """A report. `table` has the sort keys, then

    - overhead, children_overhead: percent of `total`, of the symbol alone and with its callees,
    - self, children: the same as sums of periods, in `unit`,
    - samples: the number of samples whose leaf it is,
    - guest_sure: by guest_comm or guest_pid only: of which percentage of the row (of `children`
      where there are) the process is sure, seen before and after the sample.

    The two of children are missing where children=False.
    """

    table: Table
    sort: tuple[str, ...]
    total: float
    samples: int
    unit: str
    bars = ("overhead", "children_overhead")

    @property
    def shown(self) -> list[str]:
        numbers = [c for c in (*self.bars, "samples", SURE) if c in self.table]
        return [*numbers, *self.sort]

    @property
    def headline(self) -> str:
        weight = f"{self.total:,.0f} {self.unit or 'events'}"
        rows, samples = counted(len(self.table), "row"), counted(self.samples, "sample")
        return f"{rows}, {samples}, 100 % = {weight}"


def report(
    profile: Profile,
    sort: str | Sequence[str] = ("comm", "dso", "symbol"),
    *,
    modes: Iterable[str] | str | None = None,
    children: bool = True,
    order: Literal["self", "children"] = "self",
    percent_limit: float = 0.0,
) -> Report:
    """The profile by sort keys (`SORT_KEYS`, also as perf's "comm,dso,sym"; LINE_KEY).

    As perf counts (tools/perf/builtin-report.c, util/hist.c: iter_add_next_cumulative_entry()):
    every frame of a sample's stack makes a row of its own with the sample's comm, pid ... and the
    frame's symbol, dso and mode; a sample adds to the children of a row once, however often the
    row is in its stack. `modes` filters by the leaf's mode; percents are of what is left.
    Rows are sorted by self or children periods and dropped under `percent_limit` of that.
    """
    keys = keys_of(sort, (*SORT_KEYS, LINE_KEY))
    if LINE_KEY in keys and profile.srcline is None:
        raise QueryError("these samples have no source lines", "recording.report() looks them up")
    if order not in {"self", "children"}:
        raise QueryError(f"no order {order!r}", "order: self, children")
    if order == "children" and not children:
        raise QueryError("sorting by children needs children=True")
    profile = profile.in_modes(modes)
    if not children:
        return _flat(profile, keys, percent_limit)
    sample_keys = [getattr(profile, k) for k in keys if k in SAMPLE_KEYS]
    groups = group_rows([codes_of(c) for c in sample_keys], len(profile))
    pairs = pairs_of(profile, groups.ids, len(groups))
    entry = frame_groups(profile, [k for k in keys if k not in SAMPLE_KEYS])
    entries = int(entry.max(initial=0)) + 1

    # rows are (sample group, frame entry), written as one number
    leaf_code = pairs.group * entries + entry[pairs.stacks.leaves[pairs.stack]]
    rows, inclusive = _inclusive(pairs, pairs.stacks, entry, entries)
    leaf_row = np.searchsorted(rows, leaf_code)
    own = sums(leaf_row, pairs.weight, len(rows))
    samples = np.bincount(leaf_row, pairs.samples, minlength=len(rows)).astype(np.int64)

    ranked_by = inclusive if order == "children" else own
    everything = profile.total
    scale = 100.0 / everything if everything else 0.0
    ranking = np.lexsort((-inclusive, -ranked_by))
    ranking = ranking[ranked_by[ranking] * scale >= percent_limit]

    sample_row = groups.row[rows[ranking] // entries]
    frame_row = _some_frame(entry, entries)[rows[ranking] % entries]
    columns: dict[str, Column] = {}
    for key in keys:
        if key in SAMPLE_KEYS:
            column = getattr(profile, key)
            columns[key] = _take(column, sample_row)
        else:
            columns[key] = _take(_frame_column(profile, key), frame_row)
    columns["overhead"] = own[ranking] * scale
    columns["children_overhead"] = inclusive[ranking] * scale
    columns["self"] = own[ranking]
    columns["children"] = inclusive[ranking]
    columns["samples"] = samples[ranking]
    if told_of_guests(keys):
        certain = pairs_of(profile, groups.ids, len(groups), sure_weight(profile))
        _, surely = _inclusive(certain, certain.stacks, entry, entries)
        columns[SURE] = percent_of(surely[ranking], inclusive[ranking])
    return Report(Table(columns), keys, everything, len(profile), profile.unit)


def _flat(profile: Profile, keys: tuple[str, ...], percent_limit: float) -> Report:
    """The report without children: of the samples' own columns, no stack is looked at."""
    by: list[Categorical | NDArray[Any]] = [getattr(profile, key) for key in keys]
    groups = group_rows([codes_of(column) for column in by], len(profile))
    own = sums(groups.ids, profile.period.astype(np.float64), len(groups))
    samples = np.bincount(groups.ids, minlength=len(groups)).astype(np.int64)
    everything = profile.total
    scale = 100.0 / everything if everything else 0.0
    ranking = np.argsort(-own, kind="stable")
    ranking = ranking[own[ranking] * scale >= percent_limit]
    columns: dict[str, Column] = {}
    if "mode" in keys:
        by[keys.index("mode")] = Categorical(profile.mode.astype(np.int32), list(MODES))
    for key, column in zip(keys, by, strict=True):
        columns[key] = _take(column, groups.row[ranking])
    columns |= {"overhead": own[ranking] * scale, "self": own[ranking], "samples": samples[ranking]}
    if told_of_guests(keys):
        surely = sums(groups.ids, sure_weight(profile), len(groups))
        columns[SURE] = percent_of(surely[ranking], own[ranking])
    return Report(Table(columns), keys, everything, len(profile), profile.unit)


def told_of_guests(keys: Iterable[str]) -> bool:
    """Whether rows are by what ran in guests, which is not sure of every sample."""
    return not set(keys).isdisjoint(GUEST_KEYS)


def sure_weight(profile: Profile) -> NDArray[np.float64]:
    """The period of each sample whose guest process is sure, 0 of the others."""
    return np.where(profile.guest_sure == 1, profile.period.astype(np.float64), 0.0)


def percent_of(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """The percentage of each row; 0 of nothing."""
    return np.where(whole > 0, 100.0 * part / np.where(whole > 0, whole, 1), 0.0)


def frame_groups(profile: Profile, keys: Sequence[str]) -> NDArray[np.int64]:
    """Numbers the frames of the profile: frames equal in these of dso, symbol, mode are one."""
    columns = [codes_of(_frame_column(profile, key)) for key in keys]
    return group_rows(columns, len(profile.frames)).ids


def _inclusive(
    pairs: Pairs, stacks: Stacks, entry: NDArray[np.int64], entries: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The codes of all rows, ascending, and what each holds with its callees."""
    used, rank = np.unique(pairs.stack, return_inverse=True)
    lengths = stacks.offsets[used + 1] - stacks.offsets[used]
    owner = np.repeat(np.arange(len(used)), lengths)
    # sorting (stack, entry) drops an entry's repeats within a stack: recursion counts once
    code = distinct(owner * entries + entry[stacks.frames[within(stacks.offsets, used)]])
    owner, member = np.divmod(code, entries)
    offsets = np.searchsorted(owner, np.arange(len(used) + 1))
    repeats = np.diff(offsets)[rank]
    part = np.cumsum(repeats) // _ADDENDS
    parts = []
    for chosen in np.split(np.arange(len(rank)), np.flatnonzero(np.diff(part)) + 1):
        times = repeats[chosen]
        member_of = member[within(offsets, rank[chosen])]
        codes = np.repeat(pairs.group[chosen], times) * entries + member_of
        found = group(codes)
        total = sums(found.ids, np.repeat(pairs.weight[chosen], times), len(found))
        parts.append((codes[found.row], total))
    rows = np.concatenate([codes for codes, _ in parts])
    found = group(rows)
    total = sums(found.ids, np.concatenate([total for _, total in parts]), len(found))
    return rows[found.row], total


def _some_frame(entry: NDArray[np.int64], entries: int) -> NDArray[np.int64]:
    frame = np.zeros(entries, dtype=np.int64)
    frame[entry] = np.arange(len(entry))
    return frame


def _frame_column(profile: Profile, key: str) -> Categorical:
    if key == "mode":
        return Categorical(profile.frames.mode.astype(np.int32), list(MODES))
    column: Categorical = getattr(profile.frames, key)
    return column


def _take(column: Categorical | NDArray[Any], rows: NDArray[np.int64]) -> Column:
    return column.take(rows) if isinstance(column, Categorical) else column[rows]
