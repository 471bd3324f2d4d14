"""Hypothesis strategies: random architectures, search spaces, Optuna distributions and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS
from nas.feasible import Limit
from nas.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution


def odd(maximum: int) -> st.SearchStrategy[int]:
    return st.sampled_from(range(1, maximum + 1, 2))


def stages(blocks: Sequence[str] | None = None) -> st.SearchStrategy[Stage]:
    return st.builds(
        Stage,
        depth=st.integers(1, 3),
        width=st.integers(1, 40),
        kernel_size=odd(7),
        shortcut_kernel_size=odd(5),
        block=st.sampled_from(sorted(blocks or BLOCKS)),
    )


def architectures(blocks: Sequence[str] | None = None) -> st.SearchStrategy[Architecture]:
    """One to six stages of the given block types, by default of every one mixed."""
    return st.builds(
        Architecture,
        stages=st.lists(stages(blocks), min_size=1, max_size=6).map(tuple),
        num_classes=st.integers(2, 20),
        in_channels=st.integers(1, 4),
        stem_stride=st.integers(1, 2),
    )


@st.composite
def ranges(draw: st.DrawFn, lowest: int, step: int | None = None, longest: int = 3) -> range:
    """A range of one to `longest` numbers."""
    low = lowest + 2 * draw(st.integers(0, 3))
    step = draw(st.integers(1, 4)) if step is None else step
    return range(low, low + step * draw(st.integers(1, longest)), step)


def stage_choices(longest: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "depth": ranges(1, longest=longest),
            "width": ranges(2, longest=longest),
            "kernel_size": ranges(1, step=2, longest=longest),
            "shortcut_kernel_size": ranges(1, step=2, longest=longest),
            "block": st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, unique=True).map(tuple),
        }
    )


def spaces(longest: int = 3, max_stages: int = 4) -> st.SearchStrategy[SearchSpace]:
    return st.builds(
        SearchSpace,
        stages=st.lists(stage_choices(longest), min_size=1, max_size=max_stages).map(tuple),
        num_classes=st.integers(2, 12),
        in_channels=st.integers(1, 4),
        stem_stride=st.integers(1, 2),
    )


@st.composite
def spaces_with_architectures(draw: st.DrawFn) -> tuple[SearchSpace, Architecture]:
    """A space and one of its architectures."""
    space = draw(spaces())
    chosen = (
        Stage(**{name: draw(st.sampled_from(choices)) for name, choices in stage.items()})
        for stage in space.stages
    )
    return space, Architecture(
        tuple(chosen), space.num_classes, space.in_channels, space.stem_stride
    )


def categoricals() -> st.SearchStrategy[CategoricalDistribution]:
    choices = st.sampled_from([None, "a", "b", 3, 5, 0.5])
    return st.lists(choices, min_size=1, max_size=4, unique=True).map(CategoricalDistribution)


@st.composite
def integers(draw: st.DrawFn) -> IntDistribution:
    low, step = draw(st.integers(-5, 20)), draw(st.integers(1, 7))
    return IntDistribution(low, low + step * draw(st.integers(0, 5)), step=step)


@st.composite
def log_integers(draw: st.DrawFn) -> IntDistribution:
    low = draw(st.integers(1, 8))
    return IntDistribution(low, low + draw(st.integers(0, 20)), log=True)


@st.composite
def decimal_steps(draw: st.DrawFn) -> FloatDistribution:
    """Steps such as 0.1, at which 0.1 + 2 * 0.1 is not 0.3."""
    low, step = draw(st.integers(0, 9)), draw(st.integers(1, 3))
    high = low + step * draw(st.integers(0, 5))
    return FloatDistribution(low / 10, high / 10, step=step / 10)


@st.composite
def floats(draw: st.DrawFn) -> FloatDistribution:
    low = draw(st.floats(0.001, 10))
    high = low + draw(st.floats(0.001, 100))
    return FloatDistribution(low, high, log=draw(st.booleans()))


FINITE = st.one_of(integers(), log_integers(), decimal_steps(), categoricals())


def finite_spaces(max_size: int = 3) -> st.SearchStrategy[dict[str, BaseDistribution]]:
    return st.dictionaries(st.sampled_from("abcdef"), FINITE, min_size=1, max_size=max_size)


def any_spaces(max_size: int = 4) -> st.SearchStrategy[dict[str, BaseDistribution]]:
    return st.dictionaries(
        st.sampled_from("abcdef"), FINITE | floats(), min_size=1, max_size=max_size
    )


def position(dist: BaseDistribution, value: Any) -> float:
    """Where a value lies in its distribution, 0 at the lowest and 1 at the highest."""
    if isinstance(dist, CategoricalDistribution):
        return dist.choices.index(value) / max(1, len(dist.choices) - 1)
    assert isinstance(dist, IntDistribution | FloatDistribution)
    return (value - dist.low) / (dist.high - dist.low) if dist.high > dist.low else 0.0


@st.composite
def limits_on(
    draw: st.DrawFn, space: Mapping[str, BaseDistribution], *, satisfiable: bool = False
) -> tuple[Limit, ...]:
    """One or two limits, costs from 1 to 2: the mean position, and a weighted one reversed.

    A satisfiable pair admits every parameter at its lowest.
    """

    def mean(params: Mapping[str, Any]) -> float:
        return 1 + sum(position(space[name], params[name]) for name in space) / len(space)

    def of_first(params: Mapping[str, Any]) -> float:
        first = min(space)
        return 2 - position(space[first], params[first]) * (0 if satisfiable else 1)

    maximum = draw(st.floats(1, 2))
    minimum = None if satisfiable else draw(st.none() | st.floats(0.5, maximum))
    limits = [Limit("mean", mean, maximum, minimum)]
    if draw(st.booleans()):
        limits.append(Limit("first", of_first, 2.0 if satisfiable else draw(st.floats(1, 2))))
    return tuple(limits)


def is_inside(
    params: Mapping[str, Any], space: Mapping[str, BaseDistribution], limits: Sequence[Limit]
) -> bool:
    """Whether Optuna admits every value and every cost is within its bounds; the slow truth."""
    return params.keys() == space.keys() and all(
        [dist._contains(dist.to_internal_repr(params[name])) for name, dist in space.items()]
        + [(limit.minimum or 0) <= limit.cost(params) <= limit.maximum for limit in limits]
    )
