"""Encoding: parameters of a search space as rows of numbers that a model can learn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

    Features = Callable[[Mapping[str, Any]], Sequence[float]]

ONE_HOT_UP_TO = 8  # values of a numeric range that also get a column each


class Encoding:
    """Encodes parameters as a column of [0, 1] a range, a column a choice, and `features`.

    A range of few values has both: a trend, and what departs from it.

    Args:
        search_space: The parameters; those with one value have no column.
        features: Maps parameters to more columns, for instance the logarithms of costs.
    """

    def __init__(
        self, search_space: Mapping[str, BaseDistribution], features: Features | None = None
    ) -> None:
        self._features = features
        self._tables: dict[str, dict[Any, list[float]]] = {}
        self._ranges: dict[str, IntDistribution | FloatDistribution] = {}
        for name, dist in search_space.items():
            if dist.single():
                continue
            if isinstance(dist, IntDistribution | FloatDistribution):
                self._ranges[name] = dist
            if (choices := _choices(dist)) is not None:
                rows = np.eye(len(choices)).tolist()
                self._tables[name] = dict(zip(choices, rows, strict=True))

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Encode N sets of parameters as (N, D)."""
        encoded = np.array([self._row(params) for params in rows], dtype=np.float64)
        return encoded.reshape(len(rows), -1) if rows else np.empty((0, 0))

    def _row(self, params: Mapping[str, Any]) -> list[float]:
        row = [_place(params[name], dist) for name, dist in self._ranges.items()]
        for name, table in self._tables.items():
            row += table.get(params[name]) or [0.0] * len(table)  # enqueued from outside a range
        return row if self._features is None else [*row, *self._features(params)]


def _choices(dist: BaseDistribution) -> Sequence[Any] | None:
    if isinstance(dist, CategoricalDistribution):
        return dist.choices
    if isinstance(dist, IntDistribution) and not dist.log:
        values = range(dist.low, dist.high + 1, dist.step)
        return values if 2 < len(values) <= ONE_HOT_UP_TO else None
    return None


def _place(value: float, dist: IntDistribution | FloatDistribution) -> float:
    """Give where in its range a value lies, in [0, 1]."""
    if dist.log:
        return math.log(value / dist.low) / math.log(dist.high / dist.low)
    return float(value - dist.low) / (dist.high - dist.low)
