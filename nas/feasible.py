"""Limit and Region: which parameters keep known cost limits; random ones and nearest ones that do.

Works on any dict of Optuna distributions with nothing but cost functions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from random import Random

Params = dict[str, Any]
Key = tuple[Any, ...]

UNIFORM_DRAWS = 50  # before `Region.random` turns to descent
DESCENTS, DESCENT_STEPS = 8, 200
BISECTIONS = 12
STEPS = (0.1, 0.01)  # of a continuous or logarithmic range, to a neighbour


@dataclass(frozen=True)
class Limit:
    """A cost that is known before anything is evaluated, and the range it must lie in.

    Attributes:
        name: What the cost is, such as `num_params`.
        cost: A dict of parameters to a number. The sampler `default` asks some 500 times a proposal
            (4,000 at its first model), more where parameters have many choices, and where hardly
            anything fits up to 30,000 (180,000 at its first): count in closed form, or remember
            what took long.
        maximum: The largest cost allowed.
        minimum: The smallest cost wanted, or `None`.
    """

    name: str
    cost: Callable[[Mapping[str, Any]], float]
    maximum: float
    minimum: float | None = None

    def __post_init__(self) -> None:
        """Refuse (ValueError) a minimum above the maximum, and bounds that are not numbers."""
        bounds = [self.maximum] if self.minimum is None else [self.minimum, self.maximum]
        if not all(isinstance(bound, Real) for bound in bounds):
            raise ValueError(f"{self.name}: bounds are numbers, not {bounds}")
        if not (self.maximum >= (-math.inf if self.minimum is None else self.minimum)):
            raise ValueError(f"{self.name}: nothing is {self.minimum} to {self.maximum}")

    def excess(self, cost: float) -> float:
        """Give how far a cost lies outside, relative to the bound: 0.1 is 10 % over, -0.1 under."""
        if math.isnan(cost) or cost > self.maximum:
            excess = (cost - self.maximum) / (abs(self.maximum) or 1)
            return math.inf if math.isnan(excess) else excess
        if self.minimum is not None and cost < self.minimum:
            return (cost - self.minimum) / (abs(self.minimum) or 1)
        return 0.0


class Region:
    """The parameters of a search space that keep every limit.

    Raises:
        TypeError: A parameter that is no distribution of Optuna's, or has choices such as lists,
            which cannot be hashed.
        ValueError: Two limits of one name.

    Attributes:
        seen: The smallest and the largest cost seen so far, by the limit's name.
    """

    def __init__(
        self, search_space: Mapping[str, BaseDistribution], limits: tuple[Limit, ...]
    ) -> None:
        self.search_space = dict(search_space)
        for name, dist in self.search_space.items():
            if not isinstance(dist, BaseDistribution):
                raise TypeError(f"{name!r} is {dist!r}: no distribution of Optuna's")
            if isinstance(dist, CategoricalDistribution):
                _check_hashable(name, dist)
        if len({limit.name for limit in limits}) < len(limits):
            raise ValueError(f"two limits of one name: {[limit.name for limit in limits]}")
        self.limits = limits
        self.seen: dict[str, tuple[float, float]] = {}
        self._stepped = {
            name: dist
            for name, dist in self.search_space.items()
            if isinstance(dist, FloatDistribution) and dist.step is not None
        }

    def key(self, params: Mapping[str, Any]) -> Key:
        """Give what tells full sets of parameters apart: 0.3 and 3 * 0.1 are the same step."""
        if self._stepped:
            snapped = {name: snap(params[name], dist) for name, dist in self._stepped.items()}
            params = {**params, **snapped}
        return tuple(map(params.__getitem__, self.search_space))

    def excesses(self, params: Mapping[str, Any]) -> list[float]:
        """Give each limit's excess."""
        excesses = []
        for limit in self.limits:
            cost = limit.cost(params)
            low, high = self.seen.get(limit.name, (cost, cost))
            self.seen[limit.name] = min(cost, low), max(cost, high)
            excesses.append(limit.excess(cost))
        return excesses

    def verdict(self, params: Mapping[str, Any]) -> str | None:
        """Say "over" or "under", or `None` for parameters that keep every limit."""
        excesses = self.excesses(params)
        if any(excess > 0 for excess in excesses):
            return "over"
        return "under" if any(excess < 0 for excess in excesses) else None

    def violation(self, params: Mapping[str, Any]) -> float:
        """Sum the excesses; 0 inside."""
        return sum(map(abs, self.excesses(params)))

    def uniform(self, rng: Random) -> Params:
        """Draw parameters uniformly (in the logarithm where a distribution says so)."""
        return {name: draw(rng, dist) for name, dist in self.search_space.items()}

    def random(self, rng: Random) -> Params | None:
        """Draw parameters inside: by rejection, then by descent from draws that lie outside.

        Returns:
            `None` if a bounded effort (1,658 evaluations of the costs) found none.
        """
        for _ in range(UNIFORM_DRAWS):
            params = self.uniform(rng)
            if self.verdict(params) is None:
                return params
        for _ in range(DESCENTS):
            if (found := self._descend(self.uniform(rng), rng)) is not None:
                return found
        return None

    def repair(self, params: Params, rng: Random) -> Params | None:
        """Find parameters inside near ones outside.

        Bisects on the line to a random point inside, then puts back one parameter after another
        where that stays inside.

        Returns:
            `None` if no point inside was found at all.
        """
        inside = self.random(rng)
        if inside is None:
            return None
        turning = {name: rng.random() for name in params}
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            candidate = self._between(params, inside, middle, turning)
            if self.verdict(candidate) is None:
                high, inside_nearest = middle, candidate
            else:
                low = middle
        nearest = inside if high == 1.0 else inside_nearest
        for name in rng.sample(sorted(params), len(params)):
            closer = {**nearest, name: params[name]}
            if self.verdict(closer) is None:
                nearest = closer
        return nearest

    def neighbours(self, params: Params, rng: Random) -> Iterator[Params]:
        """Yield parameters inside that differ in one entry by one step, in random order."""
        moves = [(name, value) for name in params for value in self._steps(name, params[name])]
        for name, value in rng.sample(moves, len(moves)):
            moved = {**params, name: value}
            if self.verdict(moved) is None:
                yield moved

    def describe_seen(self) -> str:
        """Say for each limit which costs were seen and which are allowed."""
        parts = []
        for limit in self.limits:
            low, high = (shown(cost) for cost in self.seen.get(limit.name, (math.nan, math.nan)))
            window = f"at most {shown(limit.maximum)}"
            if limit.minimum is not None:
                window = f"{shown(limit.minimum)} to {shown(limit.maximum)}"
            parts.append(f"{limit.name} {low} to {high}, allowed {window}")
        return "; ".join(parts)

    def cardinality(self) -> float:
        """Count the points of the search space; infinite with a continuous parameter."""
        numbers = [num_values(dist) for dist in self.search_space.values()]
        return math.inf if math.inf in numbers else math.prod(numbers)

    def enumerate(self) -> Iterator[Params]:
        """Yield every point inside, for a finite search space."""
        grids = [grid(dist) for dist in self.search_space.values()]
        for point in itertools.product(*grids):
            params = dict(zip(self.search_space, point, strict=True))
            if self.verdict(params) is None:
                yield params

    def _descend(self, params: Params, rng: Random) -> Params | None:
        violation = self.violation(params)
        names = list(self.search_space)
        for _ in range(DESCENT_STEPS):
            name = rng.choice(names)
            value = draw(rng, self.search_space[name])
            if rng.random() < 0.5:
                value = rng.choice(self._steps(name, params[name]) or [value])
            moved = {**params, name: value}
            after = self.violation(moved)
            if after == 0:
                return moved
            if after <= violation:
                params, violation = moved, after
        return None

    def _steps(self, name: str, value: Any) -> list[Any]:  # noqa: ANN401 - Optuna's parameter
        dist = self.search_space[name]
        if isinstance(dist, CategoricalDistribution):
            return [choice for choice in dist.choices if choice != value]
        assert isinstance(dist, IntDistribution | FloatDistribution)
        if dist.log:
            factors = [(dist.high / dist.low) ** share for share in STEPS]
            moved = [value * each for factor in factors for each in (1 / factor, factor)]
        else:
            steps = [dist.step] if dist.step else [(dist.high - dist.low) * s for s in STEPS]
            moved = [value + each for step in steps for each in (-step, step)]
        if isinstance(dist, IntDistribution):
            moved += [value - dist.step, value + dist.step]
        return [v for v in dict.fromkeys(snap(v, dist) for v in moved) if v != value]

    def _between(
        self, start: Params, end: Params, share: float, turning: Mapping[str, float]
    ) -> Params:
        return {
            name: end[name]
            if value == end[name] or (share >= turning[name] and _is_categorical(dist))
            else value
            if _is_categorical(dist)
            else snap(_mixed(value, end[name], share, dist), dist)
            for name, dist in self.search_space.items()
            for value in [start[name]]
        }


def _check_hashable(name: str, dist: CategoricalDistribution) -> None:
    try:
        hash(dist.choices)
    except TypeError as error:
        raise TypeError(f"the choices of {name!r}: {error}; use tuples") from None


def shown(cost: float) -> str:
    """Write a cost: 4,978,810 or 0.0125."""
    is_whole = math.isfinite(cost) and abs(cost) >= 1 and cost == round(cost)
    return f"{round(cost):,}" if is_whole else f"{cost:.6g}"


def _mixed(start: float, end: float, share: float, dist: BaseDistribution) -> float:
    """Give the number at a share of the way, on a logarithmic scale where the distribution is."""
    if getattr(dist, "log", False):
        return math.exp(math.log(start) + share * (math.log(end) - math.log(start)))
    return start + share * (end - start)


def _is_categorical(dist: BaseDistribution) -> bool:
    return isinstance(dist, CategoricalDistribution)


def draw(rng: Random, dist: BaseDistribution) -> Any:  # noqa: ANN401 - Optuna's parameter
    """Draw one value of a distribution."""
    if isinstance(dist, CategoricalDistribution):
        return rng.choice(dist.choices)
    assert isinstance(dist, IntDistribution | FloatDistribution)
    if dist.log:
        half = 0.5 if isinstance(dist, IntDistribution) else 0.0  # whole bins for the ends, too
        low, high = math.log(dist.low - half), math.log(dist.high + half)
        return snap(math.exp(rng.uniform(low, high)), dist)
    if dist.step is None:
        return rng.uniform(dist.low, dist.high)
    return snap(dist.low + dist.step * rng.randrange(round(num_values(dist))), dist)


def snap(value: float, dist: BaseDistribution) -> float | int:
    """Give the nearest value of a numeric distribution; a categorical one's stays."""
    if isinstance(dist, IntDistribution):  # first: a search asks some 2,000 times a proposal
        value = min(max(value, dist.low), dist.high)
        return dist.low + dist.step * round((value - dist.low) / dist.step)
    if isinstance(dist, FloatDistribution):
        value = min(max(value, dist.low), dist.high)
        if dist.step is not None:
            value = min(dist.low + dist.step * round((value - dist.low) / dist.step), dist.high)
    return value


def num_values(dist: BaseDistribution) -> float:
    """Count the values of a distribution; infinite for a continuous one."""
    if isinstance(dist, CategoricalDistribution):
        return len(dist.choices)
    assert isinstance(dist, IntDistribution | FloatDistribution)
    if dist.step is None:
        return 1 if dist.single() else math.inf
    return math.floor((dist.high - dist.low) / dist.step + 1e-8) + 1


def grid(dist: BaseDistribution) -> list[Any]:
    """List the values of a finite distribution."""
    if isinstance(dist, CategoricalDistribution):
        return list(dist.choices)
    assert isinstance(dist, IntDistribution | FloatDistribution)
    step = dist.step or 1
    return [snap(dist.low + step * index, dist) for index in range(round(num_values(dist)))]
