"""WidthScaling: random networks inside the window, and over-budget ones repaired, by their widths.

Depths, kernels and the ratios of the widths stay as drawn; one scale is solved for. In the space
`resnet` 1 in 135 uniform draws lies in the window at 5M parameters and 1 in 150 at 250k,
of 60,000; scaled, 298 and 277 of 300 do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.feasible import Region, snap

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from nas.feasible import Limit, Params
    from nas.space import SearchSpace

ATTEMPTS = 20  # draws until `random_feasible` no longer goes by the first limit alone
BISECTIONS = 14
REPAIR_FILL = 0.9  # a repaired network fills at least this share where there is no minimum


class WidthScaling:
    """Solves for the scale of all widths at which a network fills a share of its first limit.

    Args:
        space: The search space; only widths that are parameters are scaled.
        limits: Limits on the space's parameters; the first decides the fill.
    """

    def __init__(self, space: SearchSpace, limits: tuple[Limit, ...]) -> None:
        self.space = space.distributions
        self.region = Region(self.space, limits)
        self.widths = [name for name in space.distributions if name.startswith("width_")]

    def random_feasible(self, rng: Random) -> Params | None:
        """Draw all but the scale uniformly, and the fill uniformly in the window.

        Where 20 draws give nothing that fits, for another limit is tight, as `Region.random` does.

        Returns:
            `None` if that found none either.
        """
        first = self.region.limits[0]
        for _ in range(ATTEMPTS):
            target = rng.uniform(first.minimum or 0, first.maximum)
            scaled = self._solve(self.region.uniform(rng), target, rng)
            if self.region.verdict(scaled) is None:
                return scaled
        return self.region.random(rng)

    def repair(self, params: Params, rng: Random) -> Params | None:
        """Scale the widths into the window, to a fill drawn uniformly in it.

        Returns:
            `None` if no scale fits, for instance at too great a depth.
        """
        first = self.region.limits[0]
        minimum = REPAIR_FILL * first.maximum if first.minimum is None else first.minimum
        scaled = self._solve(params, rng.uniform(minimum, first.maximum), rng)
        return scaled if self.region.verdict(scaled) is None else None

    def _solve(self, params: Params, target: float, rng: Random) -> Params:
        """Give the largest scale that keeps the limits and costs at most `target`."""
        low, high = self._scales(params)
        kept = refused = None  # what was last found at either end: widths are few, scales many
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            found = self._at(params, middle)
            if found == kept or (found != refused and self._keeps(found, target)):
                low, kept = middle, found
            else:
                high, refused = middle, found
        return self._fill_up(self._at(params, low), rng)

    def _fill_up(self, params: Params, rng: Random) -> Params:
        """Widen single stages by a step while the first limit's minimum is not reached."""
        first = self.region.limits[0]
        for name in rng.sample(self.widths, len(self.widths)):
            if first.minimum is None or first.cost(params) >= first.minimum:
                break
            dist = self.space[name]
            wider = {**params, name: snap(params[name] + dist.step, dist)}
            if self._keeps(wider, first.maximum):
                params = wider
        return params

    def _scales(self, params: Mapping[str, int]) -> tuple[float, float]:
        """Give the scales at which every width is at its lowest, and at its highest."""
        dists = self.space
        lowest = min((dists[name].low / params[name] for name in self.widths), default=1.0)
        highest = max((dists[name].high / params[name] for name in self.widths), default=1.0)
        return lowest, highest

    def _at(self, params: Params, scale: float) -> Params:
        dists = self.space
        return params | {name: snap(params[name] * scale, dists[name]) for name in self.widths}

    def _keeps(self, params: Params, target: float) -> bool:
        first, *others = self.region.limits
        return first.cost(params) <= min(target, first.maximum) and all(
            limit.cost(params) <= limit.maximum for limit in others
        )
