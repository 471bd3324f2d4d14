"""estimate: scores without their luck. recommend: the trial that they would name.

The best of many noisy scores flatters itself: of 100 networks scored once, it is the luckiest as
much as the best. A model of the scores tells one from the other, as far as it fits; where it does
not, its estimates are the raw scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nas.encoding import Encoding
from nas.gaussian_process import LARGEST, GaussianProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.encoding import Features

    Array = NDArray[np.float64]

MIN_ROWS = 10  # below, there is no model
BINS = 6
FAR_BELOW = 5 * 1.4826  # median absolute deviations: five deviations, were it normal


@dataclass(frozen=True)
class Estimates:
    """What the values are without their noise, in their unit.

    Attributes:
        mean: (N,) posterior means.
        std: (N,) posterior standard deviations, to the side where there is more room, and none
            wider than the values; NaN for a single value and where all are equal.
        cv_error: Root mean square error of the model for values it has not seen (leave-one-out).
        trust: Share of the variance of unseen values that the model predicts, in [0, 1], cautious
            by one standard error and corrected for a search's gathering at the top; values far
            below the others do not count. A mean is the model's, plus the share `(1 - trust)**2` of
            what it left unexplained of the value.
    """

    mean: Array
    std: Array
    cv_error: float
    trust: float


def estimate(features: Array, values: Array) -> Estimates:
    """Estimate (N,) noisy values of the rows of (N, D) features.

    With fewer than 10 rows, or values that are all equal, the means are the values. So are those of
    values far below what the others predict for them, which are left out of the model: a tenth of
    100 networks stuck at 10 %, the others at 65 +- 3 %, else has the named one 1.0 points below the
    best, as the luckiest is, instead of 0.2.

    Raises:
        ValueError: Shapes that do not fit, or numbers that are not finite.
    """
    features, values = np.asarray(features, np.float64), np.asarray(values, np.float64)
    if features.ndim != 2 or values.shape != features.shape[:1]:
        raise ValueError(f"(N, D) features and (N,) values, not {features.shape}, {values.shape}")
    if not (np.isfinite(features).all() and np.isfinite(values).all()):
        raise ValueError("features and values must be finite")
    is_varied = len(values) > 1 and np.ptp(values) > 0  # the deviation of equal ones is rounded
    spread = float(values.std(ddof=1)) if is_varied else 0.0
    if len(values) < MIN_ROWS or spread == 0:
        return Estimates(values, np.full_like(values, spread or math.nan), spread, 0.0)
    model = GaussianProcess(features, values)
    near = ~_is_far_below(model, values)
    if near.all() or near.sum() < MIN_ROWS or np.ptp(values[near]) == 0:
        return _estimates(model, values)
    found = _estimates(GaussianProcess(features[near], values[near]), values[near])
    mean, std = values.copy(), np.full_like(values, found.cv_error)
    mean[near], std[near] = found.mean, found.std
    return replace(found, mean=mean, std=std)


def _is_far_below(model: GaussianProcess, values: Array) -> NDArray[np.bool_]:
    """Mark values 5 deviations below what the others predict for them, by the median deviation.

    On tables of trained networks that neither helps nor harms (search_quality.md).
    """
    errors = values - model.warping.inverse(model.targets - model.residuals)
    errors -= np.median(errors)
    is_far: NDArray[np.bool_] = errors < -FAR_BELOW * np.median(abs(errors))
    return is_far


def _estimates(model: GaussianProcess, values: Array) -> Estimates:
    unseen = model.targets - model.residuals
    near = values >= _fence(values)
    trust = _share_predicted(unseen[near], model.targets[near])
    left = (1 - trust) ** 2
    mean = model.means + left * (model.targets - model.means)
    std = np.hypot(model.deviations, left * math.sqrt((model.residuals**2).mean()))
    warping = model.warping
    cv_error = math.sqrt(((values - warping.inverse(unseen)) ** 2).mean())
    means = warping.inverse(mean)
    low, high = (warping.inverse(mean + side * std) for side in (-1, 1))
    below = means - np.maximum(low, np.minimum(means, values.min()))
    above = np.minimum(high, np.maximum(means, values.max())) - means
    return Estimates(means, np.maximum(below, above), cv_error, trust)


def _fence(values: Array) -> float:
    """Give below what values lie far out: Tukey's outer fence (1977), of the upper half mirrored.

    To tell networks that diverged from the others is no skill in telling the others apart.
    """
    median, upper = np.quantile(values, [0.5, 0.75])
    return float(median - 7 * (upper - median)) if upper > median else -math.inf


def _share_predicted(predicted: Array, values: Array) -> float:
    """Give the share of the values' variance that is predicted, less one standard error, >= 0.

    As if the rows were spread evenly over the predictions: a search gathers them at the top, where
    hardly anything is left to predict.
    """
    counts, edges = np.histogram(predicted, bins=BINS)
    weights = 1 / counts[np.clip(np.digitize(predicted, edges) - 1, 0, BINS - 1)]
    weights /= weights.sum()
    error = float(weights @ (values - predicted) ** 2)
    variance = float(weights @ (values - weights @ values) ** 2)
    luck = 1 + math.sqrt(2 * float(weights @ weights))
    return max(0.0, 1 - luck * error / max(variance, 1e-300))


def recommend(
    study: Study,
    search_space: Mapping[str, BaseDistribution],
    *,
    features: Features | None = None,
) -> FrozenTrial:
    """Name the best scored trial, by its estimate rather than by its luck.

    Args:
        study: Of one objective. Trials without all parameters, such as a network from outside
            the search space, and those whose score is infinite, are not named; those that break
            limits, such as enqueued ones, may be.
        search_space: The parameters.
        features: Maps parameters to further features, such as logarithms of costs.

    Raises:
        ValueError: No trial is scored.
    """
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE"
        and search_space.keys() <= trial.params.keys()
        and abs(trial.value or 0.0) <= LARGEST
    ]
    if not trials:
        raise ValueError("no trial of the search space is scored")
    sign = 1.0 if study.direction.name == "MAXIMIZE" else -1.0
    rows = Encoding(search_space, features).encode([trial.params for trial in trials])
    mean = estimate(rows, np.array([sign * (trial.value or 0.0) for trial in trials])).mean
    return trials[int(np.argmax(mean))]
