"""Warping: values on a scale on which the distance from the best counts by its logarithm.

Scores pile up below a best one with a long tail of bad networks; a model of the plain values would
spend itself on the tail. Snelson, Rasmussen and Ghahramani, "Warped Gaussian processes" (2004).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


REACHES = (math.inf, 3.0, 1.0, 0.3, 0.1)  # from no warping to a strong one


@dataclass(frozen=True)
class Warping:
    """Maps y to `-scale * log(1 + (top - y) / scale)`, an increasing function.

    Attributes:
        top: Mapped to 0, where the slope is 1.
        scale: The distance below `top` from which values are compressed; infinite: none are.
    """

    top: float
    scale: float

    @classmethod
    def of(cls, values: Array, reach: float) -> Warping:
        """Make one for (N,) values, its scale so many distances of the best from the median.

        Or from the thousandth part of the way to the worst, where half of all is as good as the
        best: on a scale of no length a model's doubts would have no measure.
        """
        top = float(values.max())
        distance = top - float(np.median(values)) or (top - float(values.min())) / 1000
        return cls(top, reach * (distance or 1.0))

    def __call__(self, values: Array) -> Array:
        """Map values of any shape."""
        below = self.top - values
        if math.isinf(self.scale):
            return -below
        warped: Array = -self.scale * np.log1p(below / self.scale)
        return warped

    def log_slope(self, values: Array) -> float:
        """Sum the logarithms of the slopes at (N,) values, the Jacobian of an evidence."""
        return -float(np.log1p((self.top - values) / self.scale).sum())

    def inverse(self, warped: Array) -> Array:
        """Map back."""
        if math.isinf(self.scale):
            return self.top + warped
        values: Array = self.top - self.scale * np.expm1(-warped / self.scale)
        return values
