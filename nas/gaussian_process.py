"""GaussianProcess: a model of noisy values, a trend and a smooth departure from it, plus noise.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5. The
covariance is the sum of a linear kernel (Bayesian ridge), a Gaussian kernel of the distance
(interactions) and white noise; their shares and the length are those of the largest evidence.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

EVIDENCE_POINTS = 200  # rows, evenly spread, that the evidence is computed of
JITTER = 1e-6


@dataclass(frozen=True)
class Kernel:
    """The shares of a covariance; the linear and the Gaussian part sum to one.

    Attributes:
        linear: Share of the linear part, in [0, 1].
        length: Of the Gaussian part, in root mean square distances between rows.
        noise: Variance of the noise relative to both.
    """

    linear: float
    length: float
    noise: float

    def neighbours(self) -> Iterator[Kernel]:
        """Yield kernels a step away in one setting."""
        for factor in (2.0, 0.5):
            yield replace(self, noise=min(max(self.noise * factor, 1e-4), 100.0))
            odds = self.linear / (1 - self.linear) * factor**2
            yield replace(self, linear=min(max(odds / (1 + odds), 0.01), 0.99))
            yield replace(self, length=min(max(self.length * factor**0.5, 0.5), 4.0))


START = Kernel(linear=0.5, length=1.0, noise=0.25)


class _Scale:
    """Maps columns to [0, 1], those that do not vary to 0, and gives the unscaled covariances."""

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

    def linear(self, left: Array, right: Array) -> Array:
        """Give the linear kernel of scaled rows; its diagonal is 1 on average."""
        product: Array = (left - self._centre) @ (right - self._centre).T
        return product / self._variance

    def norms(self, rows: Array) -> Array:
        """Give the diagonal of the linear kernel."""
        squares: Array = ((rows - self._centre) ** 2).sum(axis=1) / self._variance
        return squares

    def distances(self, left: Array, right: Array) -> Array:
        """Give squared distances of scaled rows; 1 on average."""
        squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
        distances: Array = np.maximum(squares, 0.0) / (2 * self._variance)
        return distances


class GaussianProcess:
    """A Gaussian process fitted to (N, D) features and (N,) values.

    Attributes:
        kernel: The covariance of largest evidence.
        residuals: (N,) value minus what the other rows predict for it.
    """

    def __init__(self, features: Array, values: Array, kernel: Kernel | None = None) -> None:
        self._scale = _Scale(features)
        self._rows = self._scale(features)
        self._offset = float(values.mean())
        self._centred = values - self._offset
        self._linear = self._scale.linear(self._rows, self._rows)
        self._distances = self._scale.distances(self._rows, self._rows)
        self.kernel = kernel or self._climb()
        covariance = _mix(self._linear, self._distances, self.kernel)
        covariance[np.diag_indices_from(covariance)] += self.kernel.noise + JITTER
        self._precision = np.linalg.inv(covariance)
        self._weights = self._precision @ self._centred
        self._variance = max(float(self._centred @ self._weights) / len(values), 1e-300)
        self.residuals = self._weights / np.diag(self._precision)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Give mean and standard deviation, of the value without noise, for (M, D) features."""
        rows = self._scale(features)
        cross = _mix(
            self._scale.linear(rows, self._rows),
            self._scale.distances(rows, self._rows),
            self.kernel,
        )
        own = self.kernel.linear * self._scale.norms(rows) + (1 - self.kernel.linear)
        left = own - ((cross @ self._precision) * cross).sum(axis=1)
        spread = np.sqrt(np.maximum(left, 0.0) * self._variance)
        return self._offset + cross @ self._weights, spread

    def _climb(self) -> Kernel:
        """Follow the evidence uphill from `START`, one setting at a time."""
        picked = np.linspace(0, len(self._rows) - 1, min(len(self._rows), EVIDENCE_POINTS))
        picked = np.unique(picked.astype(int))
        square = np.ix_(picked, picked)
        linear, distances, values = (
            self._linear[square],
            self._distances[square],
            self._centred[picked],
        )
        seen: dict[Kernel, float] = {}

        def evidence(kernel: Kernel) -> float:
            if kernel not in seen:
                seen[kernel] = _evidence(linear, distances, values, kernel)
            return seen[kernel]

        best = START
        for _ in range(12):
            after = max(itertools.chain([best], best.neighbours()), key=evidence)
            if after == best:
                break
            best = after
        return best


def _mix(linear: Array, distances: Array, kernel: Kernel) -> Array:
    gaussian = np.exp(distances / (-2 * kernel.length**2))
    return kernel.linear * linear + (1 - kernel.linear) * gaussian


def _evidence(linear: Array, distances: Array, values: Array, kernel: Kernel) -> float:
    """Give the log marginal likelihood at the best overall variance, up to a constant."""
    covariance = _mix(linear, distances, kernel)
    covariance[np.diag_indices_from(covariance)] += kernel.noise + JITTER
    factor = np.linalg.cholesky(covariance)
    fit = max(float(values @ np.linalg.solve(covariance, values)), 1e-300)
    log_determinant = 2 * float(np.log(np.diag(factor)).sum())
    prior = math.log(kernel.noise / START.noise) ** 2 / 8  # a factor of e**2 is one deviation
    return -0.5 * (len(values) * math.log(fit) + log_determinant + prior)
