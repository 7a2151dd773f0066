"""One profile against another, host against guest first of all, and how sure every delta is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import GUEST_KERNEL, HOST_KERNEL, HYPERVISOR, MODES
from kvmperf_magic.profile.pairing import (
    DESCRIPTION,
    Side,
    counterpart,
    is_across,
    pair_profiles,
    row_keys,
)
from kvmperf_magic.profile.profile import Profile, categorical
from kvmperf_magic.profile.show import TableView, counted
from kvmperf_magic.profile.stats import Shares, difference, estimate_shares
from kvmperf_magic.table import Categorical, Column, Table

COMPUTES = ("delta-abs", "delta", "ratio", "wdiff")
TOTALS = ("all", "kernel", "mode")

_KERNEL_CODES = (HOST_KERNEL, HYPERVISOR, GUEST_KERNEL)


@dataclass(frozen=True, repr=False)
class Diff(TableView):
    """A diff. `table` has the keys of the rows (symbol, dso, mode, unless paired by other keys;
    of the other side where it is there, the baseline's in baseline_dso, baseline_mode), and

    - baseline, other: percent of the side's total; delta: percent points, other - baseline;
    - ci_low, ci_high: the interval of delta; all intervals hold together with `confidence`;
    - significant: the interval excludes 0; status: "", "new" or "vanished";
    - ratio: of the sums of periods, NaN for new and vanished; wdiff: weighted difference of these;
    - baseline_period, other_period, baseline_samples, other_samples.
    """

    table: Table
    keys: tuple[str, ...]
    compute: str
    total: str
    confidence: float
    names: tuple[str, str]
    totals: tuple[float, float]
    units: tuple[str, str]
    bars = ("baseline", "other")

    @property
    def shown(self) -> list[str]:
        computed = [self.compute] if self.compute in {"ratio", "wdiff"} else []
        numbers = ["baseline", "other", "delta", "ci_low", "ci_high", *computed]
        return [*numbers, "significant", "status", *self.keys]

    @property
    def headline(self) -> str:
        whole = [
            f"{name} 100 % = {total:,.0f} {unit or 'events'}"
            for name, total, unit in zip(self.names, self.totals, self.units, strict=True)
        ]
        of = {"all": "", "kernel": " of the kernel only", "mode": " of each mode by itself"}
        rows = counted(len(self.table), "row")
        found = int(self.table["significant"].sum())
        return (
            f"{' → '.join(self.names)}: {rows}, {found:,} significant at "
            f"{self.confidence:.4g} together; {', '.join(whole)}{of[self.total]}"
        )


def compare(
    a: Profile,
    b: Profile,
    *,
    pair: str | Sequence[str] = "auto",
    compute: str = "delta-abs",
    total: Literal["all", "kernel", "mode"] | str = "all",
    confidence: float = 0.95,
    percent_limit: float = 0.0,
    names: tuple[str, str] = ("baseline", "other"),
) -> Diff:
    """Profile b against the baseline a, row by row.

    pair: "auto" or sort keys, see `pair_profiles`. compute: delta-abs, delta, ratio or
    wdiff:w1,w2 (as `perf diff -c`, tools/perf/builtin-diff.c), by which rows are sorted; wdiff is
    other * w2 - baseline * w1, in sums of periods. total: what is 100 % of a side: all of its
    samples, those of kernel modes (then only these are rows), or those of the row's own mode.
    percent_limit drops rows that are under it on both sides.
    Raises QueryError for unknown words and for a side without samples.
    """
    compute, weights = _parse_compute(compute)
    if total not in TOTALS:
        raise QueryError(f"no total {total!r}", f"total: {', '.join(TOTALS)}")
    if not 0 < confidence < 1:
        raise QueryError(f"confidence {confidence} is not between 0 and 1")
    if total == "kernel":
        a, b = (p.select(np.isin(p.mode, _KERNEL_CODES)) for p in (a, b))
    for name, profile in zip(names, (a, b), strict=True):
        if not profile.total:
            kind = "kernel samples" if total == "kernel" else "samples"
            raise QueryError(
                f"{name} has no {kind} to compare", "filter less, or record for longer"
            )
    left, right = pair_profiles(a, b, pair, split_modes=total == "mode")
    before, after = _shares(a, b, left, right, by_mode=total == "mode")
    delta, low, high = difference(before, after, confidence)
    rows = _describe(a, b, left, right, row_keys(pair))
    keys = tuple(rows)
    if "symbol" in rows:
        rows["baseline_dso"] = _label(a, left.sample, "dso")
        rows["baseline_mode"] = _label(a, left.sample, "mode")
    paired = (before.samples > 0) & (after.samples > 0)
    ratio = np.full(len(delta), np.nan)
    np.divide(after.weight, before.weight, out=ratio, where=paired & (before.weight > 0))
    status = np.where(paired, 0, np.where(before.samples > 0, 2, 1)).astype(np.int32)
    rows |= {
        "baseline": 100 * before.share,
        "other": 100 * after.share,
        "delta": 100 * delta,
        "ci_low": 100 * low,
        "ci_high": 100 * high,
        "significant": (low > 0) | (high < 0),
        "status": Categorical(status, ["", "new", "vanished"]),
        "ratio": ratio,
        "wdiff": after.weight * weights[1] - before.weight * weights[0],
        "baseline_period": before.weight,
        "other_period": after.weight,
        "baseline_samples": before.samples,
        "other_samples": after.samples,
    }
    table = Table(rows)
    by = {"delta-abs": np.abs(delta), "delta": delta}.get(compute)
    order = np.lexsort((-np.abs(delta), -(table[compute] if by is None else by)))
    larger = 100 * np.maximum(before.share, after.share)
    table = table[order[larger[order] >= percent_limit]]
    return Diff(
        table,
        keys,
        compute,
        total,
        confidence,
        names,
        (a.total, b.total),
        (a.unit, b.unit),
    )


def _parse_compute(text: str) -> tuple[str, tuple[float, float]]:
    name, _, rest = text.partition(":")
    if name not in COMPUTES or (rest and name != "wdiff"):
        raise QueryError(f"no compute {text!r}", f"compute: {', '.join(COMPUTES)}:w1,w2")
    try:
        first, second = map(float, rest.split(",")) if rest else (1.0, 1.0)
    except ValueError:
        raise QueryError(f"the weights of {text!r} are not two numbers", "wdiff:1,2") from None
    return name, (first, second)


def _shares(
    a: Profile, b: Profile, left: Side, right: Side, *, by_mode: bool
) -> tuple[Shares, Shares]:
    across = is_across(a, b)
    opposite = np.array([counterpart(m, across) for m in range(len(MODES))], dtype=np.int64)
    found = []
    for profile, side, other, other_profile in ((a, left, right, b), (b, right, left, a)):
        stratum = row_stratum = None
        if by_mode:
            stratum = profile.mode.astype(np.int64)
            row_stratum = np.where(
                side.sample >= 0,
                profile.mode[side.sample],
                opposite[other_profile.mode[other.sample]],
            )
        found.append(
            estimate_shares(
                side.row,
                len(side.sample),
                profile.period.astype(np.float64),
                profile.time,
                stratum,
                row_stratum,
            )
        )
    return found[0], found[1]


def _describe(
    a: Profile, b: Profile, left: Side, right: Side, keys: Sequence[str]
) -> dict[str, Column]:
    """The columns that say what a row is: of the other side, of the baseline what vanished."""
    wanted = dict.fromkeys((*(DESCRIPTION if "symbol" in keys else ()), *keys))
    columns: dict[str, Column] = {}
    for key in wanted:
        if isinstance(getattr(a, key), Categorical) or key == "mode":
            before, after = _label(a, left.sample, key), _label(b, right.sample, key)
            values = np.where(right.sample >= 0, after.values(), before.values())
            columns[key] = categorical(values.tolist())
        else:
            columns[key] = np.where(
                right.sample >= 0, getattr(b, key)[right.sample], getattr(a, key)[left.sample]
            )
    return columns


def _label(profile: Profile, sample: NDArray[np.int64], key: str) -> Categorical:
    """A column of strings of these samples, "" for -1."""
    column = getattr(profile, key)
    if key == "mode":
        column = Categorical(column.astype(np.int32), list(MODES))
    present = sample >= 0
    codes = np.where(present, column.codes[sample], len(column.categories))
    values = Categorical(codes, [*column.categories, ""]).values()
    return categorical(values.tolist())
