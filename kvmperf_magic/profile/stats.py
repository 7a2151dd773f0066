"""How sure a share is: intervals for the part of a profile that a row takes.

A share is a ratio of two sums of periods. Samples are draws, but not independent ones: a lock
that is contended now is contended a moment later. So the variance of a share is estimated twice
and the larger one believed:

- by the delete-one-block jackknife of the ratio over blocks in the order of time (Quenouille;
  B. Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982, chapters 2 and 3),
  which sees what is correlated within a block: over 30 blocks and over 10 and 6 longer ones, the
  largest counts, so that swings nearly as long as a tenth of the recording are still seen;
- as binomial with one success and one failure added a side (A. Agresti, B. Caffo, The American
  Statistician 54(4), 2000), with the effective sample size (sum w)^2 / sum w^2 of L. Kish,
  "Survey Sampling", 1965, which sees what the blocks cannot: that a symbol met three times, or
  never, may be met again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.profile.groups import sums

MOST_BLOCKS = 30
_MERGES = (3, 5)  # of the 30 blocks, to 10 and to 6
_LEAST_IN_BLOCK = 4  # samples: fewer blocks where a profile is short
_CELLS = 4_000_000  # rows x blocks held at a time


@dataclass(frozen=True)
class Shares:
    """Shares of r rows (0..1), their variances, samples, sums of periods; degrees of freedom."""

    share: NDArray[np.float64]
    variance: NDArray[np.float64]
    weight: NDArray[np.float64]
    samples: NDArray[np.int64]
    freedom: float


def time_blocks(time: NDArray[np.uint64]) -> tuple[NDArray[np.int64], int]:
    """Blocks of equally many samples in the order of time: the block of each, how many."""
    n = len(time)
    blocks = max(1, min(MOST_BLOCKS, n // _LEAST_IN_BLOCK))
    block = np.arange(n) * blocks // max(n, 1)
    if bool((time[1:] < time[:-1]).any()):
        unordered = np.empty(n, dtype=np.int64)
        unordered[np.argsort(time, kind="stable")] = block
        block = unordered
    return block, blocks


def estimate_shares(
    row: NDArray[np.int64],
    rows: int,
    weight: NDArray[np.float64],
    time: NDArray[np.uint64],
    stratum: NDArray[np.int64] | None = None,
    row_stratum: NDArray[np.int64] | None = None,
) -> Shares:
    """The share of each row of the sum of all weights, from n samples.

    row: the row of each sample, below `rows`. stratum, row_stratum: int64, of each sample and of
    each row, whose samples must all be in it; shares are then of the total of the row's stratum.
    """
    block, blocks = time_blocks(time)
    if stratum is None or row_stratum is None:
        stratum, row_stratum = np.zeros(len(row), np.int64), np.zeros(rows, np.int64)
    strata = int(max(stratum.max(initial=0), row_stratum.max(initial=0))) + 1
    row_weight = sums(row, weight, rows)
    samples = np.bincount(row, minlength=rows).astype(np.int64)
    totals = sums(stratum, weight, strata)[row_stratum]
    squares = sums(stratum, weight**2, strata)[row_stratum]
    share = _ratio(row_weight, totals)

    size = _ratio(totals**2, squares)
    # of a total without samples nothing is known: the share may be anything from 0 to 1
    variance = np.where(size > 0, binomial_variance(share, size), 1.0)
    freedom = float(max(size.max(initial=0.0) - 1, 1.0))
    if blocks > 1:
        block_totals = sums(stratum * blocks + block, weight, strata * blocks)
        block_totals = block_totals.reshape(strata, blocks)
        cell = row * blocks + block
        for start in range(0, rows, _CELLS // blocks):
            stop = min(start + _CELLS // blocks, rows)
            here = slice(None) if stop - start == rows else (row >= start) & (row < stop)
            cells = sums(cell[here] - start * blocks, weight[here], (stop - start) * blocks)
            cells = cells.reshape(-1, blocks)
            spread = block_variance(cells, block_totals[row_stratum[start:stop]])
            variance[start:stop] = np.maximum(variance[start:stop], spread)
        freedom = blocks - 1.0
    return Shares(share, variance, row_weight, samples, freedom)


def binomial_variance(
    share: NDArray[np.float64], size: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """The variance of shares of `size` independent draws, one success and one failure added."""
    smoothed = (share * size + 1) / (size + 2)
    return np.asarray(smoothed * (1 - smoothed) / (size + 2))


def block_variance(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variance of r shares by what they are in each block of time, and in longer ones.

    part: float64[r, blocks], sums of weights of each row; whole: of all, float64[r, blocks] or
    float64[1, blocks], in the blocks of `time_blocks`, at least two.
    """
    spread = _jackknife(part, whole)
    if part.shape[-1] == MOST_BLOCKS:
        for merge in _MERGES:
            longer = [c.reshape(len(c), -1, merge).sum(axis=-1) for c in (part, whole)]
            spread = np.maximum(spread, _jackknife(longer[0], longer[1]))
    return spread


def _jackknife(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variance of sum(part) / sum(whole) along the blocks of the last axis."""
    without_part = part.sum(axis=-1, keepdims=True) - part
    without_whole = whole.sum(axis=-1, keepdims=True) - whole
    left = _ratio(without_part, without_whole)
    count = part.shape[-1]
    spread = left - left.mean(axis=-1, keepdims=True)
    return np.asarray((count - 1) / count * (spread**2).sum(axis=-1))


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def difference(
    a: Shares, b: Shares, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """b - a with simultaneous intervals: (difference, low, high), each float64[r].

    All r intervals hold together with at least this confidence (Bonferroni), so an interval
    that excludes 0 is a finding even when it was looked for in many rows. Degrees of freedom
    after B. L. Welch, Biometrika 34, 1947.
    """
    delta = b.share - a.share
    variance = a.variance + b.variance
    freedom = _ratio(variance**2, a.variance**2 / a.freedom + b.variance**2 / b.freedom)
    tail = (1 - confidence) / 2 / max(len(delta), 1)
    reach = t_quantile(tail, np.maximum(freedom, 1.0)) * np.sqrt(variance)
    return delta, np.maximum(delta - reach, -1.0), np.minimum(delta + reach, 1.0)


def wilson(
    share: NDArray[np.float64], size: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The score interval of proportions from `size` draws (E. B. Wilson, JASA 22, 1927)."""
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (share * size + z2 / 2) / (size + z2)
    reach = np.sqrt(z2 * (share * (1 - share) * size + z2 / 4)) / (size + z2)
    # rounding must not leave a share of all or of nothing outside
    return np.clip(centre - reach, 0.0, share), np.clip(centre + reach, share, 1.0)


def t_quantile(tail: float, freedom: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper `tail` (< 0.5) point of Student's t with `freedom` >= 1 degrees of freedom.

    G. W. Hill, "Algorithm 396: Student's t-quantiles", CACM 13(10), 1970; right to more than
    six digits from five degrees of freedom on, exact at one and two.
    """
    n = np.asarray(freedom, dtype=np.float64)
    p = 2 * tail  # Hill's P is of both tails
    a = 1 / (n - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * np.sqrt(a * pi / 2) * n
    y = (d * p) ** (2 / n)
    x = NormalDist().inv_cdf(tail)
    x2 = x * x
    # Hill's two expansions: about the normal quantile, and for far tails
    c = c + np.where(n < 5, 0.3 * (n - 4.5) * (x + 0.6), 0.0)
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
    near = (((((0.4 * x2 + 6.3) * x2 + 36) * x2 + 94.5) / c - x2 - 3) / b + 1) * x
    near = np.expm1(np.minimum(a * near**2, 700.0))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        far = (1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1
        far = far * (n + 1) / (n + 2) + 1 / y
    quantile = np.sqrt(n * np.where(y > 0.05 + a, near, far))
    quantile = np.where(n == 1, 1 / np.tan(p * pi / 2), quantile)
    return np.asarray(np.where(n == 2, sqrt(2 / (p * (2 - p)) - 2), quantile))
