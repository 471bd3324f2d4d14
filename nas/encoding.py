"""Encoding: parameters of a search space as rows of numbers that a model can learn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

    Features = Callable[[Mapping[str, Any]], Sequence[float]]

MAX_STEPS = 7  # of a numeric range that get a column each
REMEMBERED = 1024  # values of a range


class Encoding:
    """Encodes parameters as columns of [0, 1], and `features`.

    A choice has a column each. A number of few values has a column a step, 1 from there on, for
    neighbouring values are alike; one of many has its place in its range, and its logarithm's, for
    much of what grows helps ever less. Parameters of the same range, such as the kernel sizes of
    all stages, have the mean of their columns besides: what helps in one mostly does in others.

    Args:
        search_space: The parameters; those with one value have no column.
        features: Maps parameters to more columns, for instance the logarithms of costs.
    """

    def __init__(
        self, search_space: Mapping[str, BaseDistribution], features: Features | None = None
    ) -> None:
        self._features = features
        groups: dict[BaseDistribution, list[str]] = {}
        for name, dist in search_space.items():
            if not dist.single():
                groups.setdefault(dist, []).append(name)
        self._groups = [(names, _Columns(dist)) for dist, names in groups.items()]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Encode N sets of parameters as (N, D)."""
        if not rows:
            return np.empty((0, 0))
        parts = [np.empty((len(rows), 0))]
        for names, columns in self._groups:
            own = np.array([[columns[params[name]] for name in names] for params in rows])
            parts.append(own.reshape(len(rows), -1))
            if len(names) > 1:
                parts.append(own.mean(axis=1))
        if self._features is not None:
            parts.append(_numbers([self._features(params) for params in rows]))
        return np.hstack(parts)


def _numbers(given: Sequence[Any]) -> NDArray[np.float64]:
    """Read what `features` gave for N sets of parameters as (N, D)."""
    try:
        columns = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        columns = np.empty(0)
    if columns.ndim != 2 or not np.isfinite(columns).all():
        raise UserError(
            "features must give a list of finite numbers, as many for all parameters; "
            f"it gave {given[0]!r} first"
        )
    return columns


class _Columns(dict[Any, list[float]]):
    """The columns of each value of a range, worked out when first asked for."""

    def __init__(self, dist: BaseDistribution) -> None:
        self.dist = dist

    def __missing__(self, value: Any) -> list[float]:  # noqa: ANN401 - Optuna's parameter
        columns = _columns(self.dist, value)
        if len(self) < REMEMBERED:
            self[value] = columns
        return columns


def _columns(dist: BaseDistribution, value: Any) -> list[float]:  # noqa: ANN401
    if isinstance(dist, CategoricalDistribution):
        return [float(value == choice) for choice in dist.choices]
    assert isinstance(dist, IntDistribution | FloatDistribution)
    low, high, step = dist.low, dist.high, dist.step
    if step and not dist.log and (num_steps := round((high - low) / step)) <= MAX_STEPS:
        return [float(value > low + step * (before + 0.5)) for before in range(num_steps)]
    span = math.log(high) - math.log(low) if low > 0 else 0.0  # 0 of large numbers close together
    places = [] if dist.log and span else [(value - low) / (high - low)]
    if span:
        places.append((math.log(max(value, low)) - math.log(low)) / span)
    return places
