"""Regions: whatever they draw, repair, neighbour or list keeps every limit."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from strategies import any_spaces, decimal_steps, finite_spaces, is_inside, limits_on

from nas.feasible import Limit, Region, draw, grid, num_values, snap

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = dict[str, "BaseDistribution"]


@st.composite
def regions(draw: st.DrawFn, spaces: st.SearchStrategy[Space]) -> Region:
    space = draw(spaces)
    return Region(space, draw(limits_on(space)))


def every_point(region: Region) -> list[dict[str, Any]]:
    grids = [grid(dist) for dist in region.search_space.values()]
    return [
        dict(zip(region.search_space, point, strict=True)) for point in itertools.product(*grids)
    ]


def inside(region: Region) -> list[dict[str, Any]]:
    space, limits = region.search_space, region.limits
    return [point for point in every_point(region) if is_inside(point, space, limits)]


BOX = {name: IntDistribution(1, 100) for name in ("width", "height", "depth")}


def volume(params: dict[str, Any]) -> float:
    return math.prod(params.values())


# Limits


@given(st.floats(0, 1e9), st.floats(0.001, 1e9), st.none() | st.floats(0.001, 1e9))
def test_excess_is_zero_exactly_within_the_bounds(
    cost: float, maximum: float, minimum: float | None
) -> None:
    assume(minimum is None or minimum <= maximum)
    excess = Limit("cost", volume, maximum, minimum).excess(cost)
    assert (excess == 0) == ((minimum or 0) <= cost <= maximum)


def test_excess_is_relative_to_the_bound_that_is_broken() -> None:
    limit = Limit("cost", volume, maximum=200, minimum=100)
    assert [limit.excess(cost) for cost in (250, 200, 150, 100, 75)] == [0.25, 0, 0, 0, -0.25]


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1), (-5, -2), (-5, 0)])
def test_bounds_at_and_below_zero_tell_over_from_under(minimum: float, maximum: float) -> None:
    region = Region(
        {"x": FloatDistribution(-10, 10)}, (Limit("x", lambda p: p["x"], maximum, minimum),)
    )
    verdicts = [region.verdict({"x": x}) for x in (minimum - 1, minimum, maximum, maximum + 1)]
    assert verdicts == ["under", None, None, "over"]


def test_bounds_may_be_numbers_of_numpy() -> None:
    limit = Limit("cost", lambda p: p["x"], maximum=np.int64(5), minimum=np.float32(1.0))
    assert limit.excess(10) == 1


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_choices_that_have_no_hash_are_refused_in_one_line() -> None:
    with pytest.raises(TypeError, match=r"^the choices of 'x': .*list.*; use tuples$"):
        Region({"x": CategoricalDistribution([[1, 2], [3]])}, ())  # type: ignore[list-item]


def test_a_cost_that_is_no_number_keeps_no_limit() -> None:
    region = Region(BOX, (Limit("cost", lambda _: math.nan, 10),))
    assert region.random(Random(0)) is None


def test_over_one_limit_and_under_another_is_over() -> None:
    limits = (Limit("volume", volume, 1000, 500), Limit("width", lambda p: p["width"], 10))
    region = Region(BOX, limits)
    assert region.verdict({"width": 20, "height": 1, "depth": 1}) == "over"


def test_the_smallest_and_largest_costs_seen_are_kept_for_each_limit() -> None:
    limits = (Limit("volume", volume, 1000), Limit("width", lambda p: p["width"], 10))
    region = Region(BOX, limits)
    for width, height in ((5, 9), (7, 2), (6, 100)):
        region.verdict({"width": width, "height": height, "depth": 1})
    assert region.seen == {"volume": (14, 600), "width": (5, 7)}


# Distributions


@given(any_spaces(max_size=1), st.randoms(use_true_random=False))
def test_a_draw_lies_in_its_distribution(space: Space, rng: Random) -> None:
    ((_, dist),) = space.items()
    assert dist._contains(dist.to_internal_repr(draw(rng, dist)))


@given(finite_spaces(max_size=1))
def test_a_grid_lists_every_value_of_its_distribution_once(space: Space) -> None:
    ((_, dist),) = space.items()
    values = grid(dist)
    assert len(set(values)) == len(values) == num_values(dist)
    assert all(dist._contains(dist.to_internal_repr(value)) for value in values)


@given(finite_spaces(max_size=1), st.randoms(use_true_random=False))
def test_a_draw_from_a_finite_distribution_is_on_its_grid(space: Space, rng: Random) -> None:
    ((_, dist),) = space.items()
    assert draw(rng, dist) in grid(dist)


def test_small_whole_numbers_are_likelier_on_a_logarithmic_scale() -> None:
    rng, dist = Random(0), IntDistribution(1, 8, log=True)
    found = Counter(draw(rng, dist) for _ in range(8000))
    counts = [found[value] for value in range(1, 9)]
    assert counts == sorted(counts, reverse=True)
    # A bin reaches half a step to either side, as Optuna's own do.
    assert counts[0] / 8000 == pytest.approx(math.log(1.5 / 0.5) / math.log(8.5 / 0.5), abs=0.02)


def test_draws_reach_every_value_of_a_grid() -> None:
    dist = IntDistribution(3, 13, step=5)
    rng = Random(0)
    assert {draw(rng, dist) for _ in range(100)} == {3, 8, 13}


@given(decimal_steps(), st.floats(-5, 10))
def test_snapping_gives_the_nearest_value_of_the_grid(
    dist: FloatDistribution, value: float
) -> None:
    snapped = snap(value, dist)
    assert snapped in grid(dist)
    assert abs(snapped - value) <= min(abs(other - value) for other in grid(dist)) + 1e-9


@pytest.mark.parametrize(
    ("dist", "count"),
    [
        (IntDistribution(1, 10), 10),
        (IntDistribution(1, 8, log=True), 8),
        (IntDistribution(16, 512, step=16), 32),
        (FloatDistribution(0, 1, step=0.1), 11),
        (FloatDistribution(0, 1), math.inf),
        (FloatDistribution(1, 1), 1),
        (CategoricalDistribution(["a", None, 3]), 3),
    ],
)
def test_values_of_a_distribution_are_counted(dist: BaseDistribution, count: float) -> None:
    assert num_values(dist) == count


def test_a_space_with_a_continuous_parameter_is_infinite() -> None:
    space: Space = {"a": IntDistribution(1, 3), "b": FloatDistribution(0, 1)}
    assert Region(space, ()).cardinality() == math.inf


# Regions


@given(regions(any_spaces()), st.integers(0, 2**32))
def test_random_parameters_lie_inside(region: Region, seed: int) -> None:
    params = region.random(Random(seed))
    assert params is None or is_inside(params, region.search_space, region.limits)


@given(regions(any_spaces()), st.integers(0, 2**32))
def test_repaired_parameters_lie_inside(region: Region, seed: int) -> None:
    rng = Random(seed)
    repaired = region.repair(region.uniform(rng), rng)
    assert repaired is None or is_inside(repaired, region.search_space, region.limits)


@given(regions(any_spaces()), st.integers(0, 2**32))
def test_neighbours_lie_inside_and_differ_in_one_entry(region: Region, seed: int) -> None:
    rng = Random(seed)
    params = region.uniform(rng)
    for near in region.neighbours(params, rng):
        assert is_inside(near, region.search_space, region.limits)
        assert sum(near[name] != params[name] for name in params) == 1


@given(regions(finite_spaces()), st.integers(0, 2**32))
def test_neighbours_of_a_finite_space_are_all_those_one_step_away(
    region: Region, seed: int
) -> None:
    assume(not any(getattr(dist, "log", False) for dist in region.search_space.values()))
    params = region.uniform(Random(seed))

    def is_one_step(point: dict[str, Any]) -> bool:
        moved = [name for name in point if point[name] != params[name]]
        if len(moved) != 1:
            return False
        dist = region.search_space[moved[0]]
        values = grid(dist)
        steps = abs(values.index(point[moved[0]]) - values.index(params[moved[0]]))
        return isinstance(dist, CategoricalDistribution) or steps == 1

    near = list(region.neighbours(params, Random(seed)))
    assert sorted(map(repr, near)) == sorted(repr(p) for p in inside(region) if is_one_step(p))


def test_a_step_on_a_logarithmic_scale_is_a_factor_and_at_least_a_whole_number() -> None:
    space: Space = {"rate": FloatDistribution(1e-6, 1.0, log=True)}
    space["batch"] = IntDistribution(1, 1_000_000, log=True)
    near = list(Region(space, ()).neighbours({"rate": 1e-5, "batch": 2}, Random(0)))
    rates = sorted(params["rate"] for params in near if params["batch"] == 2)
    factors = [1e-5 * 10 ** (6 * share) for share in (-0.1, -0.01, 0.01, 0.1)]
    assert rates == pytest.approx(factors)
    assert sorted(params["batch"] for params in near if params["rate"] == 1e-5) == [1, 3, 8]


def test_repair_halves_the_way_on_a_logarithmic_scale() -> None:
    space: Space = {"rate": FloatDistribution(1e-6, 1.0, log=True)}
    region = Region(space, (Limit("rate", lambda p: p["rate"], maximum=1e-3, minimum=1e-4),))
    repaired = region.repair({"rate": 1.0}, Random(0))
    assert repaired is not None
    assert repaired["rate"] == pytest.approx(1e-3, rel=0.01)


@given(regions(finite_spaces()))
def test_every_point_inside_is_listed_once(region: Region) -> None:
    assert list(region.enumerate()) == inside(region)


@given(regions(finite_spaces()))
def test_cardinality_counts_the_points_of_a_finite_space(region: Region) -> None:
    assert region.cardinality() == len(every_point(region))


@given(regions(any_spaces()), st.integers(0, 2**32))
@settings(max_examples=25)
def test_the_same_seed_draws_and_repairs_the_same(region: Region, seed: int) -> None:
    def run() -> list[Any]:
        rng = Random(seed)
        drawn = region.uniform(rng)
        return [drawn, region.random(rng), region.repair(drawn, rng)]

    assert run() == run()


def test_random_parameters_are_found_where_uniform_draws_never_are() -> None:
    region = Region(BOX, (Limit("volume", volume, maximum=30, minimum=25),))
    found = [region.random(Random(seed)) for seed in range(20)]
    assert all(params is not None and 25 <= volume(params) <= 30 for params in found)


def test_giving_up_takes_a_bounded_number_of_costs() -> None:
    evaluated = []
    limit = Limit("volume", lambda p: evaluated.append(p) or volume(p), maximum=0.5)
    assert Region(BOX, (limit,)).random(Random(0)) is None
    assert len(evaluated) <= 1_700


def test_repair_where_nothing_fits_gives_nothing() -> None:
    region = Region(BOX, (Limit("volume", volume, maximum=0.5),))
    assert region.repair(dict.fromkeys(BOX, 100), Random(0)) is None


@pytest.mark.parametrize("seed", range(5))
def test_repair_stops_at_the_border(seed: int) -> None:
    region = Region({"width": IntDistribution(1, 100)}, (Limit("volume", volume, maximum=20),))
    assert region.repair({"width": 80}, Random(seed)) == {"width": 20}


@pytest.mark.parametrize("seed", range(5))
def test_repair_keeps_parameters_that_cost_nothing(seed: int) -> None:
    space: Space = {
        "width": IntDistribution(1, 100),
        "rate": FloatDistribution(0.01, 1, log=True),
        "kind": CategoricalDistribution(["a", "b", "c"]),
    }
    region = Region(space, (Limit("width", lambda p: p["width"], maximum=20),))
    drawn = {"width": 80, "rate": 0.123, "kind": "b"}
    assert region.repair(drawn, Random(seed)) == drawn | {"width": 20}
