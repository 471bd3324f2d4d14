"""GaussianProcess: a model of noisy values, a trend and a smooth departure from it, plus noise.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5. The
covariance is the sum of a linear kernel (Bayesian ridge), a Gaussian kernel of the distance
(interactions) and white noise; its settings and the warping of the values are those of the largest
evidence.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nas.warping import REACHES, Warping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

EVIDENCE_ROWS = 128  # evenly spread, of which the evidence is computed
MAX_CLIMB = 15  # steps up the evidence
JITTER = 1e-6


@dataclass(frozen=True)
class Kernel:
    """The settings of a model; the linear and the Gaussian share sum to one.

    Attributes:
        linear: Share of the linear part, in [0, 1].
        length: Of the Gaussian part, in root mean square distances between rows.
        noise: Variance of the noise relative to both.
        reach: Of the values' warping.
    """

    linear: float = 0.5
    length: float = 1.0
    noise: float = 0.25
    reach: float = math.inf

    def covariance(self, products: Array, distances: Array) -> Array:
        """Mix both parts, without the noise."""
        gaussian = np.exp(distances / (-2 * self.length**2))
        return self.linear * products + (1 - self.linear) * gaussian

    def with_noise(self, products: Array, distances: Array) -> Array:
        """Give the covariance of the rows themselves."""
        covariance = self.covariance(products, distances)
        covariance[np.diag_indices_from(covariance)] += self.noise + JITTER
        return covariance

    def steps(self) -> Iterator[Kernel]:
        """Yield the kernels that differ by a step in one setting."""
        for factor in (2.0, 0.5):
            odds = self.linear / (1 - self.linear) * factor**2
            yield replace(self, linear=min(max(odds / (1 + odds), 0.01), 0.99))
            yield replace(self, length=min(max(self.length * factor**0.5, 0.5), 4.0))
            for further in (factor, factor**3):
                yield replace(self, noise=min(max(self.noise * further, 1e-3), 100.0))

    def log_prior(self) -> float:
        """Give the noise's: log-normal, a factor of e**2 is one deviation."""
        return -((math.log(self.noise / Kernel().noise) / 2) ** 2) / 2


class GaussianProcess:
    """A Gaussian process fitted to (N, D) features and (N,) values.

    Args:
        features: (N, D) finite numbers.
        values: (N,) finite numbers.
        kernel: By default the one of largest evidence.

    Attributes:
        kernel: Its settings.
        warping: What the values are mapped with; means and deviations are of mapped values.
        targets: (N,) mapped values.
        residuals: (N,) mapped value minus what the other rows predict for it (leave-one-out).
    """

    def __init__(
        self,
        features: Array,
        values: Array,
        kernel: Kernel | None = None,
    ) -> None:
        self._values = values
        self._features = features
        self._scale = _Scale(features)
        rows = self._rows = self._scale(features)
        products, distances = self._scale.products(rows, rows), self._scale.distances(rows, rows)
        if kernel is None:
            found = _climb(products, distances, values)
            kernel = max(found, key=lambda each: found[each])
        self.kernel = kernel
        self.warping = Warping.of(values, self.kernel.reach)
        self.targets = self.warping(values)
        self._offset = float(self.targets.mean())
        centred = self.targets - self._offset
        self._precision = np.linalg.inv(self.kernel.with_noise(products, distances))
        self._weights = self._precision @ centred
        self._variance = max(float(centred @ self._weights) / len(values), 1e-300)
        self.residuals = self._weights / np.diag(self._precision)

    def mean(self, features: Array) -> Array:
        """Give the posterior means for (M, D) features."""
        return self._offset + self._cross(self._scale(features)) @ self._weights

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Give means and standard deviations, without noise, for (M, D) features."""
        rows = self._scale(features)
        cross = self._cross(rows)
        prior = self.kernel.linear * self._scale.norms(rows) + 1 - self.kernel.linear
        left = prior - ((cross @ self._precision) * cross).sum(axis=1)
        deviations = np.sqrt(np.maximum(left, 0.0) * self._variance)
        return self._offset + cross @ self._weights, deviations

    def believing(self, features: Array) -> GaussianProcess:
        """Give the model as if (M, D) features had been seen and were as predicted."""
        values = np.append(self._values, self.warping.inverse(self.mean(features)))
        rows = np.vstack([self._features, features])
        return GaussianProcess(rows, values, self.kernel)

    def _cross(self, rows: Array) -> Array:
        products = self._scale.products(rows, self._rows)
        return self.kernel.covariance(products, self._scale.distances(rows, self._rows))


class _Scale:
    """Maps columns to [0, 1], those that do not vary to 0; products and distances between rows."""

    def __init__(self, features: Array) -> None:
        self._low = features.min(axis=0)
        spans = features.max(axis=0) - self._low
        self._spans = np.where(spans > 0, spans, np.inf)
        scaled = self(features)
        self._centre = scaled.mean(axis=0)
        self._variance = max(float(((scaled - self._centre) ** 2).sum(axis=1).mean()), 1e-12)

    def __call__(self, features: Array) -> Array:
        scaled: Array = (features - self._low) / self._spans
        return scaled

    def products(self, left: Array, right: Array) -> Array:
        """Give the linear kernel of scaled rows; its diagonal is 1 on average."""
        products: Array = (left - self._centre) @ (right - self._centre).T / self._variance
        return products

    def norms(self, rows: Array) -> Array:
        """Give the diagonal of the linear kernel."""
        squares: Array = ((rows - self._centre) ** 2).sum(axis=1) / self._variance
        return squares

    def distances(self, left: Array, right: Array) -> Array:
        """Give squared distances of scaled rows; 1 on average."""
        squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
        distances: Array = np.maximum(squares, 0.0) / (2 * self._variance)
        return distances


def evidences(features: Array, values: Array) -> dict[Kernel, float]:
    """Give the log evidence of the best kernel for these values, and of those around it."""
    scale = _Scale(features)
    rows = scale(features)
    return _climb(scale.products(rows, rows), scale.distances(rows, rows), values)


def _climb(products: Array, distances: Array, values: Array) -> dict[Kernel, float]:
    """Climb the evidence one setting at a time; give it of all kernels seen on the way."""
    number = len(values)
    picked = np.linspace(0, number - 1, min(number, EVIDENCE_ROWS)).astype(int)
    square = np.ix_(picked, picked)
    products, distances, values = products[square], distances[square], values[picked]
    warpings = [Warping.of(values, reach) for reach in REACHES]
    targets = np.stack([warping(values) for warping in warpings], axis=1)
    targets -= targets.mean(axis=0)
    slopes = np.array([warping.log_slope(values) for warping in warpings])
    seen: dict[Kernel, Array] = {}

    def evidence(kernel: Kernel) -> float:
        if kernel not in seen:
            seen[kernel] = slopes + _evidence(kernel, products, distances, targets)
        return float(seen[kernel].max())

    best = Kernel()
    for _ in range(MAX_CLIMB):
        better = max(itertools.chain([best], best.steps()), key=evidence)
        if better == best:
            break
        best = better
    return {
        replace(kernel, reach=reach): float(value)
        for kernel, found in seen.items()
        for reach, value in zip(REACHES, found, strict=True)
    }


def _evidence(kernel: Kernel, products: Array, distances: Array, targets: Array) -> Array:
    """Give each column's log marginal likelihood at its best variance, up to a constant."""
    covariance = kernel.with_noise(products, distances)
    fits = np.maximum((targets * np.linalg.solve(covariance, targets)).sum(axis=0), 1e-300)
    log_determinant = np.linalg.slogdet(covariance)[1]
    likelihood: Array = -0.5 * (len(targets) * np.log(fits) + log_determinant)
    return likelihood + kernel.log_prior()
