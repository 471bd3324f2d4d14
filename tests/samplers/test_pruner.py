"""The pruner of what is over budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.trial import TrialState
from sampler_studies import AREA, GRID, KNOWN, OVER, UNDER, area, study_of

from nas.pruner import OverBudgetPruner
from nas.samplers import Limit

if TYPE_CHECKING:
    from optuna.trial import Trial


def pruned_of(*queued: dict[str, int]) -> list[bool]:
    study = study_of("random", GRID, AREA)
    study.pruner = OverBudgetPruner(AREA)
    for params in queued:
        study.enqueue_trial(params)

    def objective(trial: Trial) -> float:
        for name in GRID:
            trial.suggest_int(name, 1, 9)
        if trial.should_prune():
            raise optuna.TrialPruned
        return area(trial.params)

    study.optimize(objective, n_trials=len(queued) + 5)
    return [trial.state is TrialState.PRUNED for trial in study.trials]


def test_only_enqueued_trials_over_budget_are_pruned() -> None:
    assert pruned_of(OVER, KNOWN, UNDER, {"width": 7, "depth": 3}) == (
        [True, False, False, True] + [False] * 5
    )


def test_the_pruner_reads_the_cost_that_a_trial_has_as_attribute() -> None:
    study = optuna.create_study(pruner=OverBudgetPruner(AREA))
    outside_the_space = study.ask()
    outside_the_space.set_user_attr("area", 21)
    assert outside_the_space.should_prune()


@pytest.mark.parametrize(("width", "is_pruned"), [(9, True), (8, False)])
def test_one_exceeded_limit_of_several_is_enough(width: int, *, is_pruned: bool) -> None:
    limits = (*AREA, Limit("width", lambda p: p["width"], 8))
    trial = optuna.create_study(pruner=OverBudgetPruner(limits)).ask(GRID)
    for name, value in {"area": 10, "width": width}.items():
        trial.set_user_attr(name, value)
    assert trial.should_prune() is is_pruned
