"""How well scores rank networks: correlations, reliability, intervals by the bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 2000
LEAST_NETWORKS = 5  # below it no correlation and no regret is shown


def spearman(a: Array, b: Array) -> Array:
    """Correlate ranks along the last axis; equal values share the mean of their ranks."""
    return pearson(rankdata(a, axis=-1), rankdata(b, axis=-1))


def pearson(a: Array, b: Array) -> Array:
    """Correlate along the last axis; not a number where one side does not vary."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def partial_spearman(a: Array, b: Array, given: Array) -> Array:
    """Correlate ranks along the last axis, what follows from those of `given` taken away."""
    r, with_a, with_b = spearman(a, b), spearman(a, given), spearman(b, given)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (r - with_a * with_b) / np.sqrt((1 - with_a**2) * (1 - with_b**2))


def kendall(a: Array, b: Array) -> Array:
    """Give Kendall's tau-b along the last axis."""
    s, t = (np.sign(x[..., :, None] - x[..., None, :]) for x in (a, b))
    both, one, other = ((x * y).sum((-2, -1)) for x, y in ((s, t), (s, s), (t, t)))
    with np.errstate(invalid="ignore"):
        return both / np.sqrt(one * other)


def reliability(seeds: Array) -> Array:
    """Give that of the mean of k seeds, from (k, ..., networks) scores (Spearman-Brown)."""
    k = len(seeds)
    pairs = [spearman(seeds[i], seeds[j]) for i in range(k) for j in range(i)]
    r = np.mean(pairs, axis=0)
    with np.errstate(divide="ignore"):  # a resample may be reversed as a whole
        return k * r / (1 + (k - 1) * r)


def corrected(score: Array, seeds: Array) -> Array:
    """Divide the correlation with the mean of the seeds by the root of its reliability."""
    reliable = reliability(seeds)
    root = np.sqrt(np.where(reliable > 0, reliable, np.nan))
    return spearman(score, seeds.mean(0)) / root


def regret(score: Array, truth: Array) -> float:
    """Give what the network with the best score loses to the best one."""
    return float(truth.max() - truth[score.argmax()])


@dataclass(frozen=True)
class Estimate:
    """A statistic and the 95 % interval of its bootstrap over networks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write `0.81 [0.55, 0.93]`."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def estimate(statistic: Callable[..., Array], *columns: Array) -> Estimate:
    """Compute a statistic of columns (..., networks), and its interval by percentiles.

    Resampled networks that leave it undefined, because all are equal, are left out.
    """
    num_networks = columns[0].shape[-1]
    if num_networks < LEAST_NETWORKS or np.isnan(value := statistic(*columns)):
        return UNKNOWN
    rng = np.random.default_rng(0)
    draws = rng.integers(num_networks, size=(RESAMPLES, num_networks))
    resampled = statistic(*(column[..., draws] for column in columns))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
