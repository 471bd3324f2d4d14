"""Width scaling: in-window networks built by the hundred; repairs that keep depths and kernels."""

from __future__ import annotations

import time
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.complexity import count_macs, count_params
from nas.feasible import Limit
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.width_scaling import WidthScaling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nas.architecture import Architecture

BUDGETS = (60_000, 250_000, 5_000_000)
PRESETS = ("resnet", "resnet-mixed")
FILL = 0.9


def preset(name: str, budget: int) -> SearchSpace:
    return SearchSpace.from_config(load_space(name)[1], max_params=budget)


def limit_on(
    space: SearchSpace,
    cost: Callable[[Architecture], float],
    maximum: float,
    minimum: float | None = None,
) -> Limit:
    def of_params(params: Mapping[str, Any]) -> float:
        return cost(space.decode(params))

    return Limit(cost.__name__, of_params, maximum, minimum)


def window(space: SearchSpace, budget: int) -> WidthScaling:
    return WidthScaling(space, (limit_on(space, count_params, budget, FILL * budget),))


def networks(space: SearchSpace, scaling: WidthScaling, number: int) -> list[Architecture]:
    rng = Random(0)
    drawn = (scaling.random_feasible(rng) for _ in range(number))
    return [space.decode(params) for params in drawn if params is not None]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", PRESETS)
def test_random_networks_fill_the_window_a_hundred_different_ones_in_a_second(
    name: str, budget: int
) -> None:
    space = preset(name, budget)
    started = time.process_time()
    found = networks(space, window(space, budget), 105)
    assert time.process_time() - started < 1
    assert len(set(found)) >= 100
    assert all(FILL * budget <= count_params(arch) <= budget for arch in found)
    assert all(map(space.contains, found))


@pytest.mark.parametrize("budget", BUDGETS)
def test_random_networks_have_every_depth_and_kernel(budget: int) -> None:
    space = preset("resnet", budget)
    found = networks(space, window(space, budget), 100)
    assert {(s.depth, s.kernel_size) for arch in found for s in arch.stages} == {
        (depth, kernel) for depth in range(1, 7) for kernel in (3, 5, 7)
    }


@pytest.mark.parametrize("budget", BUDGETS)
def test_random_networks_spread_over_the_window(budget: int) -> None:
    space = preset("resnet", budget)
    found = networks(space, window(space, budget), 200)
    tenths = Counter(int((count_params(arch) / budget - FILL) / 0.025) for arch in found)
    assert min(tenths[quarter] for quarter in range(4)) >= 20, tenths


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", PRESETS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_repair_lands_in_the_window_and_changes_widths_alone(
    name: str, budget: int, seed: int
) -> None:
    space = preset(name, budget)
    scaling = window(space, budget)
    rng = Random(seed)
    drawn = scaling.region.uniform(rng)
    repaired = scaling.repair(drawn, rng)
    if repaired is not None:
        arch = space.decode(repaired)
        assert FILL * budget <= count_params(arch) <= budget
        assert space.contains(arch)
        assert {n: v for n, v in repaired.items() if not n.startswith("width")} == (
            {n: v for n, v in drawn.items() if not n.startswith("width")}
        )


@pytest.mark.parametrize("budget", BUDGETS)
def test_repair_succeeds_for_most_uniform_draws(budget: int) -> None:
    scaling = window(preset("resnet", budget), budget)
    rng = Random(0)
    repaired = [scaling.repair(scaling.region.uniform(rng), rng) for _ in range(100)]
    assert sum(params is not None for params in repaired) >= 70


@pytest.mark.parametrize("seed", [0, 2, 7])
def test_networks_are_found_also_where_another_limit_is_tight(seed: int) -> None:
    space = preset("resnet", 5_000_000)
    window = limit_on(space, count_params, 5_000_000, FILL * 5_000_000)
    cap = limit_on(space, count_macs, 200_000_000)
    found = WidthScaling(space, (window, cap)).random_feasible(Random(seed))
    assert found is not None
    assert count_macs(space.decode(found)) <= 200_000_000


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_window_of_parameters_and_a_cap_of_multiply_adds_are_both_kept(budget: int) -> None:
    space = preset("resnet", budget)
    free = networks(space, window(space, budget), 100)
    cap = sorted(map(count_macs, free))[30]  # seven in ten break it
    limits = (
        limit_on(space, count_params, budget, FILL * budget),
        limit_on(space, count_macs, cap),
    )
    found = networks(space, WidthScaling(space, limits), 60)
    assert len(set(found)) >= 55
    assert all(FILL * budget <= count_params(arch) <= budget for arch in found)
    assert all(count_macs(arch) <= cap for arch in found)


def test_without_a_minimum_networks_of_every_size_are_drawn() -> None:
    space = preset("resnet", 250_000)
    scaling = WidthScaling(space, (limit_on(space, count_params, 250_000),))
    sizes = [count_params(arch) for arch in networks(space, scaling, 100)]
    assert len(sizes) == 100
    assert max(sizes) <= 250_000
    assert (min(sizes) < 80_000, max(sizes) > 200_000) == (True, True)


def test_the_same_seed_draws_the_same_networks() -> None:
    space = preset("resnet", 60_000)
    scaling = window(space, 60_000)
    assert networks(space, scaling, 10) == networks(space, scaling, 10)


def test_a_space_without_widths_to_choose_is_drawn_from_as_it_is() -> None:
    stage: dict[str, Any] = {
        "depth": range(1, 7),
        "width": (8,),
        "kernel_size": range(3, 8, 2),
        "shortcut_kernel_size": (1,),
        "block": ("basic",),
    }
    space = SearchSpace((stage,))
    cap = 10_000
    found = networks(space, WidthScaling(space, (limit_on(space, count_params, cap),)), 200)
    fitting = {
        (depth, kernel)
        for depth in range(1, 7)
        for kernel in (3, 5, 7)
        if count_params(space.decode({"depth_1": depth, "kernel_size_1": kernel})) <= cap
    }
    assert {(a.stages[0].depth, a.stages[0].kernel_size) for a in found} == fitting


def test_giving_up_takes_a_bounded_number_of_costs() -> None:
    space = preset("resnet", 60_000)
    counted = []

    def cost(params: Mapping[str, Any]) -> int:
        counted.append(params)
        return count_params(space.decode(params))

    scaling = WidthScaling(space, (Limit("num_params", cost, 100),))
    assert scaling.random_feasible(Random(0)) is None
    assert len(counted) <= 200 * 25


def test_what_no_scale_fits_is_not_repaired() -> None:
    space = preset("resnet", 60_000)
    deepest = {name: dist.high for name, dist in space.distributions.items()}
    smallest = {
        n: d.low if n.startswith("width") else d.high for n, d in space.distributions.items()
    }
    assert count_params(space.decode(smallest)) > 20_000
    scaling = WidthScaling(space, (limit_on(space, count_params, 20_000),))
    assert scaling.repair(deepest, Random(0)) is None
