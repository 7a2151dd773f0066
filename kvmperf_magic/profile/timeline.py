"""The share of a symbol over time: a mean hides that a lock swings between 9 % and 28 %."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.show import TableView
from kvmperf_magic.profile.stats import wilson
from kvmperf_magic.table import Table

_MOST_BUCKETS = 100_000


@dataclass(frozen=True, repr=False)
class Timeline(TableView):
    """The share of what `symbol` matched, by buckets of time.

    table: start, end (ns, of the recording's clock), share, low, high (percent of the bucket's
    periods; the band holds bucket by bucket with `confidence`; NaN where a bucket has no sample),
    samples (of the symbol), bucket_samples (of all). mean is the share of the whole time; min and
    max are of the buckets.
    """

    table: Table
    symbol: str
    matched: tuple[str, ...]
    mean: float
    min: float
    max: float
    confidence: float
    unit: str

    @property
    def headline(self) -> str:
        return (
            f"{self.symbol}: {self.mean:.1f} % of {self.unit or 'events'}, "
            f"between {self.min:.1f} % and {self.max:.1f} % in {len(self.table)} buckets"
        )


def timeline(
    profile: Profile,
    symbol: str | re.Pattern[str],
    *,
    buckets: int = 60,
    confidence: float = 0.95,
) -> Timeline:
    """The share over time of the samples whose leaf's symbol is `symbol`.

    A string is the name itself or, where no symbol has that name, a regular expression that is
    searched for, also written between slashes. Raises QueryError where nothing matches, or
    without samples.
    """
    if not 1 <= buckets <= _MOST_BUCKETS:
        raise QueryError(f"{buckets} buckets: must be 1 to {_MOST_BUCKETS}")
    if not len(profile):
        raise QueryError("there are no samples to lay out over time")
    mine = matching(profile, symbol)
    text = symbol if isinstance(symbol, str) else symbol.pattern
    first, last = int(profile.time.min()), int(profile.time.max())
    edges = first + np.arange(buckets + 1, dtype=np.uint64) * np.uint64(
        max(-(-(last - first + 1) // buckets), 1)
    )
    width = edges[1] - edges[0]
    bucket = ((profile.time - np.uint64(first)) // width).astype(np.int64)
    weight = profile.period.astype(np.float64)
    whole = np.bincount(bucket, weight, minlength=buckets)
    square = np.bincount(bucket, weight**2, minlength=buckets)
    part = np.bincount(bucket[mine], weight[mine], minlength=buckets)
    filled = whole > 0
    share, size = np.full(buckets, np.nan), np.full(buckets, np.nan)
    np.divide(part, whole, out=share, where=filled)
    np.divide(whole**2, square, out=size, where=filled)
    low, high = wilson(share, size, confidence)
    names = profile.symbol.categories
    matched = sorted({names[code] for code in np.unique(profile.symbol.codes[mine]).tolist()})
    table = Table(
        {
            "start": edges[:-1],
            "end": edges[1:],
            "share": 100 * share,
            "low": 100 * low,
            "high": 100 * high,
            "samples": np.bincount(bucket[mine], minlength=buckets),
            "bucket_samples": np.bincount(bucket, minlength=buckets),
        }
    )
    return Timeline(
        table,
        text,
        tuple(matched),
        100 * float(part.sum() / whole.sum()) if whole.any() else 0.0,
        100 * float(np.nanmin(share)) if filled.any() else 0.0,
        100 * float(np.nanmax(share)) if filled.any() else 0.0,
        confidence,
        profile.unit,
    )


def matching(profile: Profile, symbol: str | re.Pattern[str]) -> NDArray[np.bool_]:
    """The samples whose leaf's symbol it is, as `timeline()` takes it; QueryError for none."""
    if isinstance(symbol, str):
        mine = profile.symbol.where(lambda name: name == symbol)
        if mine.any():
            return mine
        inside = len(symbol) > 2 and symbol[0] == symbol[-1] == "/"
        try:
            symbol = re.compile(symbol[1:-1] if inside else symbol)
        except re.error as error:
            raise QueryError(f"no symbol {symbol!r}, and no regular expression: {error}") from None
    mine = profile.symbol.where(symbol.search)
    if not mine.any():
        raise QueryError(f"no symbol matches {symbol.pattern!r}", "see report() for the names")
    return mine
