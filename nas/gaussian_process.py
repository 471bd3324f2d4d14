"""GaussianProcess: a model of noisy values, a trend and a smooth departure from it, plus noise.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5. The
covariance is the sum of a linear kernel (Bayesian ridge), a Gaussian kernel of the distance
(interactions) and white noise. How much each column counts in both (automatic relevance
determination, section 5.1), the other settings and the warping of the values are those of the
largest posterior density.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.warping import REACHES, Warping

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

EVIDENCE_ROWS = 128  # evenly spread, of which the evidence is computed
STEPS = 25  # of each climb up the evidence for the first warping
FURTHER_STEPS = 8  # for each other, from where the one before ended
JITTER = 1e-6
FAR = 1e4  # deviations below the incumbent from where the leading term is as exact as can be
LARGEST = 1e100  # of a value; its square must be a number

# The logarithms of the last settings, after those of the relevances: the odds of the linear share,
# the inverse square of the length, the noise. Their priors are normal, as is that of a relevance's.
MEANS, DEVIATIONS = (0.0, 0.0, math.log(0.25)), (2.0, 1.0, 2.0)
QUIET = (-2.0, 0.0, math.log(0.01))  # the evidence may have a second peak, where little is noise
LOW, HIGH = (-4.0, -3.0, -6.0), (4.0, 3.0, 3.0)
RELEVANCE_DEVIATION, RELEVANCE_BOUND = 0.7, 4.0


@dataclass(frozen=True)
class Kernel:
    """The settings of a model; the linear and the Gaussian share sum to one.

    Attributes:
        relevances: How much each column counts in products and squared distances.
        linear: Share of the linear part, in (0, 1).
        steepness: Inverse square of the Gaussian part's length, in mean squared distances.
        noise: Variance of the noise relative to both.
        reach: Of the values' warping.
    """

    relevances: tuple[float, ...]
    linear: float
    steepness: float
    noise: float
    reach: float

    @classmethod
    def of(cls, logarithms: Array, reach: float) -> Kernel:
        """Make one of the logarithms of its settings, (D + 3,): D relevances, then as `MEANS`."""
        *relevances, odds, steepness, noise = np.exp(logarithms).tolist()
        return cls(tuple(relevances), odds / (1 + odds), steepness, noise, reach)

    def covariance(self, left: Array, right: Array) -> Array:
        """Mix both parts for all pairs of (M, D) and (N, D) rows, without the noise: (M, N)."""
        products, distances = _compared(left, right, np.array(self.relevances))
        gaussian = np.exp(-self.steepness * distances / 2)
        return self.linear * products + (1 - self.linear) * gaussian

    def with_noise(self, rows: Array) -> Array:
        """Give the (N, N) covariance of (N, D) rows themselves."""
        covariance = self.covariance(rows, rows)
        covariance[np.diag_indices_from(covariance)] += self.noise + JITTER
        return covariance

    def variances(self, rows: Array) -> Array:
        """Give the (N,) own variances of (N, D) rows, without the noise."""
        variances: Array = self.linear * rows**2 @ np.array(self.relevances) + 1 - self.linear
        return variances


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
        means: (N,) posterior means of the rows themselves.
        deviations: (N,) posterior standard deviations of the rows themselves, without noise.
        residuals: (N,) mapped value minus what the other rows predict for it (leave-one-out).
    """

    def __init__(
        self,
        features: Array,
        values: Array,
        kernel: Kernel | None = None,
    ) -> None:
        self._scale = _Scale(features)
        self._rows = self._seen = self._scale(features)
        if kernel is None:
            found = evidences(features, values)
            kernel = max(found, key=lambda each: found[each])
        self.kernel = kernel
        self.warping = Warping.of(values, self.kernel.reach)
        self.targets = self.warping(values)
        self._offset = float(self.targets.mean())
        centred = self.targets - self._offset
        self._precision = _inverse(self.kernel.with_noise(self._rows))
        self._weights = self._precision @ centred
        self._variance = max(float(centred @ self._weights) / len(values), 1e-300)
        noise, precisions = self.kernel.noise + JITTER, np.diag(self._precision)
        self.means = self.targets - noise * self._weights
        left = np.maximum(noise - noise**2 * precisions, 0.0)
        self.deviations = np.sqrt(left * self._variance)
        self.residuals = self._weights / precisions

    @property
    def predicts(self) -> bool:
        """Whether it predicts values it has not seen better than their mean does."""
        return bool((self.residuals**2).mean() < self.targets.var())

    def mean(self, features: Array) -> Array:
        """Give the posterior means for (M, D) features."""
        rows = self._scale(features)
        return self._offset + self.kernel.covariance(rows, self._rows) @ self._weights

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Give means and standard deviations, without noise, for (M, D) features."""
        rows = self._scale(features)
        cross = self.kernel.covariance(rows, self._seen)
        left = self.kernel.variances(rows) - ((cross @ self._precision) * cross).sum(axis=1)
        deviations = np.sqrt(np.maximum(left, 0.0) * self._variance)
        return self._offset + cross[:, : len(self._rows)] @ self._weights, deviations

    def believing(self, features: Array) -> GaussianProcess:
        """Give the model as if (M, D) features had been seen and were as predicted.

        Its means are the same, for nothing was learned; its deviations are smaller there.
        """
        model, seen = copy.copy(self), np.vstack([self._seen, self._scale(features)])
        vars(model).update(_seen=seen, _precision=_inverse(self.kernel.with_noise(seen)))
        return model


class _Scale:
    """Maps columns to spans of one, those that do not vary to 0; rows to a mean square of one."""

    def __init__(self, features: Array) -> None:
        self._low = features.min(axis=0)
        spans = features.max(axis=0) - self._low
        self._spans = np.where(spans > 0, spans, np.inf)
        scaled = (features - self._low) / self._spans
        self._centre = scaled.mean(axis=0)
        variance = float(((scaled - self._centre) ** 2).sum(axis=1).mean())
        self._deviation = math.sqrt(max(variance, 1e-12))

    def __call__(self, features: Array) -> Array:
        scaled: Array = ((features - self._low) / self._spans - self._centre) / self._deviation
        return scaled


def _compared(left: Array, right: Array, relevances: Array) -> tuple[Array, Array]:
    """Give the products of rows and their squared distances, which are 1 on average at first."""
    products = (left * relevances) @ right.T
    squares = (left**2 @ relevances)[:, None] + right**2 @ relevances
    return products, np.maximum(squares / 2 - products, 0.0)


def _inverse(covariance: Array) -> Array:
    """Invert a positive definite matrix, in half the time that any other takes."""
    from scipy.linalg import inv  # here, for it takes a moment to import

    inverse: Array = inv(covariance, assume_a="pos", check_finite=False)
    return inverse


def evidences(features: Array, values: Array) -> dict[Kernel, float]:
    """Give for each warping the kernel of the largest posterior density, and its logarithm.

    Args:
        features: (N, D) finite numbers.
        values: (N,) finite numbers.
    """
    from scipy.optimize import minimize

    number, num_columns = features.shape
    picked = np.linspace(0, number - 1, min(number, EVIDENCE_ROWS)).astype(int)
    rows, values = _Scale(features)(features)[picked], values[picked]
    starts = [np.append(np.zeros(num_columns), each) for each in (MEANS, QUIET)]
    bounds = [(-RELEVANCE_BOUND, RELEVANCE_BOUND)] * num_columns + list(zip(LOW, HIGH, strict=True))
    steps, found = STEPS, {}
    for reach in REACHES:
        warping = Warping.of(values, reach)
        targets = warping(values)
        deviation = max(float(targets.std()), 1e-300)
        climbs = [
            minimize(
                _loss,
                start,
                (rows, (targets - targets.mean()) / deviation),
                method="L-BFGS-B",
                jac=True,
                bounds=bounds,
                options={"maxiter": steps},
            )
            for start in starts
        ]
        best = min(climbs, key=lambda climb: float(climb.fun))
        starts, steps = [best.x], FURTHER_STEPS
        log_slope = warping.log_slope(values) - len(values) * math.log(deviation)
        found[Kernel.of(best.x, reach)] = log_slope - float(best.fun)
    return found


def _loss(logarithms: Array, rows: Array, targets: Array) -> tuple[float, Array]:
    """Give the negative log posterior density at its best variance, up to a constant; its gradient.

    Equations 5.8 and 5.9 of Rasmussen and Williams; the derivative by the covariance is symmetric,
    so that of a column's relevance needs no matrix of its own.
    """
    kernel = Kernel.of(logarithms, math.inf)
    relevances, linear = np.array(kernel.relevances), kernel.linear
    products, distances = _compared(rows, rows, relevances)
    gaussian = np.exp(-kernel.steepness * distances / 2)
    covariance = linear * products + (1 - linear) * gaussian
    covariance[np.diag_indices_from(covariance)] += kernel.noise + JITTER
    precision = _inverse(covariance)
    weights = precision @ targets
    fit = max(float(targets @ weights), 1e-300)
    loss = (len(targets) * math.log(fit) + np.linalg.slogdet(covariance)[1]) / 2
    by_covariance = (precision - np.outer(weights, weights) * (len(targets) / fit)) / 2
    by_distance = by_covariance * gaussian * ((linear - 1) * kernel.steepness / 2)
    by_product = linear * by_covariance - by_distance
    by_relevance = ((by_product @ rows) * rows).sum(axis=0) + by_distance.sum(axis=1) @ rows**2
    gradient = [
        *(relevances * by_relevance),
        linear * (1 - linear) * (by_covariance * (products - gaussian)).sum(),
        (by_distance * distances).sum(),
        kernel.noise * by_covariance.trace(),
    ]
    num_columns = len(relevances)
    means = np.append(np.zeros(num_columns), MEANS)
    deviations = np.append(np.full(num_columns, RELEVANCE_DEVIATION), DEVIATIONS)
    away = (logarithms - means) / deviations
    return float(loss + away @ away / 2), np.array(gradient) + away / deviations


def log_expected_improvement(means: Array, deviations: Array, incumbent: float) -> Array:
    """Give the logarithm of the expected improvement, which orders also what hardly improves.

    Ament et al. 2023 (arXiv 2310.20708).

    Args:
        means: (N,) of predictions.
        deviations: (N,) standard deviations of these.
        incumbent: What is to be exceeded.
    """
    deviations = np.maximum(deviations, 1e-12 * (deviations.max() or 1.0))
    gain: Array = np.log(deviations) + _log_gain((means - incumbent) / deviations)
    return gain


def _log_gain(z: Array) -> Array:
    """Give log(z * Phi(z) + phi(z)), far below 0 by its leading term, phi(z) / z**2."""
    from scipy.special import erfcx, log_ndtr  # here, for it takes a moment to import

    log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = math.sqrt(math.pi / 2) * erfcx(np.maximum(-z, 0) / math.sqrt(2))  # Phi / phi
        below = log_density + np.log1p(z * ratio)
        above = np.logaddexp(np.log(z) + log_ndtr(z), log_density)
        far = log_density - 2 * np.log(-z)
    gain: Array = np.where(z > 0, above, np.where(z > -FAR, below, far))
    return gain
