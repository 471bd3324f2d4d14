"""Trials whose parameters were given, in whole or in part."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
from sampler_studies import (
    AREA,
    FACTORIES,
    GRID,
    area,
    run,
    sampler_of,
    score,
    study_of,
    study_of_networks,
)

from nas.pruner import OverBudgetPruner
from nas.samplers import DEFAULT, BudgetSampler, Exhausted, Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial


@pytest.mark.parametrize("params", [{"width": 4, "depth": 4}, {"width": 9, "depth": 9}])
def test_an_enqueued_trial_keeps_its_parameters_within_the_limits_or_not(
    params: dict[str, int],
) -> None:
    study = study_of("random", GRID, AREA)
    study.enqueue_trial(params)
    assert study.ask(GRID).params == params


def test_an_enqueued_trial_costs_no_draw() -> None:
    study = study_of("random", GRID, AREA)
    study.enqueue_trial({"width": 4, "depth": 4})
    run(study, 1)
    assert sampler_of(study).counts == {}


@pytest.mark.parametrize("base", [DEFAULT, "tpe", "random"])
@pytest.mark.parametrize("width", range(2, 10))
def test_a_partly_enqueued_trial_is_completed_within_the_limits(base: str, width: int) -> None:
    study = study_of(base, GRID, AREA)
    for wide, deep in itertools.product((8, 9), range(4, 10)):
        params = {"width": wide, "depth": deep}  # over the limit, so that nothing within is known
        study.add_trial(optuna.create_trial(params=params, distributions=GRID, value=deep))
    study.enqueue_trial({"width": width})
    params = study.ask(GRID).params
    assert params["width"] == width
    assert 10 <= params["width"] * params["depth"] <= 20


def test_a_partly_enqueued_trial_is_completed_also_where_hardly_anything_completes_it() -> None:
    space: dict[str, BaseDistribution] = {f"w{i}": IntDistribution(1, 64) for i in range(6)}
    limit = Limit("squares", lambda p: sum(v * v for v in p.values()), maximum=4_000)
    study = optuna.create_study(sampler=BudgetSampler(FACTORIES["random"], space, [limit], seed=0))
    study.enqueue_trial({"w0": 62})
    params = study.ask(space).params
    assert params["w0"] == 62
    assert limit.cost(params) <= 4_000


@pytest.mark.parametrize("depth", [1, 6])
def test_a_partly_enqueued_network_is_completed_by_width_scaling(depth: int) -> None:
    study = study_of_networks("tpe", 250_000)
    region = sampler_of(study).region
    study.enqueue_trial({"depth_1": depth, "depth_4": depth})
    params = study.ask(dict(region.search_space)).params
    assert (params["depth_1"], params["depth_4"]) == (depth, depth)
    assert 225_000 <= region.limits[0].cost(params) <= 250_000


def test_a_partly_enqueued_trial_that_nothing_completes_is_pruned_and_the_search_goes_on() -> None:
    limits = (Limit("area", area, maximum=8),)
    study = study_of("random", GRID, limits)
    study.pruner = OverBudgetPruner(limits)
    run(study, 2)
    study.enqueue_trial({"width": 9})

    def objective(trial: Trial) -> float:
        for name in GRID:
            trial.suggest_int(name, 1, 9)
        if trial.should_prune():
            raise optuna.TrialPruned
        return score(trial.params)

    study.optimize(objective, n_trials=4)
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    assert [t.state for t in study.trials] == [complete, complete, pruned, *[complete] * 3]


def test_a_partly_enqueued_trial_with_no_new_completion_does_not_end_the_search() -> None:
    study = study_of("random", GRID, AREA)
    study.enqueue_trial({"width": 9, "depth": 2})  # all that fits at this width
    run(study, 3)
    study.enqueue_trial({"width": 9})
    study.optimize(
        lambda trial: trial.suggest_int("width", 1, 9) + trial.suggest_int("depth", 1, 9),
        n_trials=4,
        catch=(Exhausted,),
    )
    assert [trial.state for trial in study.trials[4:]] == [TrialState.COMPLETE] * 3


def test_the_completion_of_a_partly_enqueued_trial_is_claimed() -> None:
    claimed: list[int] = []

    def claim(_trial: FrozenTrial, params: Mapping[str, int]) -> bool:
        claimed.append(params["b"])
        return params["b"] != 100

    space: dict[str, BaseDistribution] = {name: IntDistribution(1, 1000) for name in "ab"}
    limits = [Limit("area", lambda p: p["a"] * p["b"], maximum=1000, minimum=990)]
    for seed in range(5):
        sampler = BudgetSampler(FACTORIES["random"], space, limits, claim=claim, seed=seed)
        study = optuna.create_study(sampler=sampler)
        study.enqueue_trial({"a": 10})
        assert study.ask(space).params == {"a": 10, "b": 99}
        assert claimed[-1] == 99
