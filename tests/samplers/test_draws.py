"""How often a base is drawn from, and what stands in for its draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from sampler_studies import (
    AREA,
    BASES,
    CHEAP,
    FACTORIES,
    GRID,
    IN_AREA,
    KNOWN,
    NEW,
    NUM_TRIALS,
    OVER,
    UNDER,
    Recording,
    RecordingTPE,
    area,
    run,
    sampler_of,
    scored,
    study_of,
    undisturbed,
)

from nas.samplers import BudgetSampler, Limit
from nas.study_view import StudyView

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study


@pytest.mark.parametrize("base", BASES)
def test_every_proposal_is_counted_by_its_origin(base: str) -> None:
    counts = sampler_of(undisturbed(base)).counts
    assert sum(counts[origin] for origin in ("base", "repaired", "random")) == NUM_TRIALS[base]


def test_draws_of_the_latest_proposals_sum_to_the_counts() -> None:
    study = study_of("tpe")
    total: dict[str, int] = {}
    for _ in range(15):
        run(study, 1)
        draws = sampler_of(study).draws
        assert draws[sampler_of(study).origin] == 1
        for fate, number in draws.items():
            total[fate] = total.get(fate, 0) + number
    assert sampler_of(study).counts == total


def with_known(base: BaseSampler) -> Study:
    study = study_of(base, GRID, AREA)
    study.add_trial(optuna.create_trial(params=KNOWN, distributions=GRID, value=1.0))
    return study


def test_draws_are_counted_by_what_was_wrong_with_them() -> None:
    study = with_known(RecordingTPE(OVER, UNDER, OVER, KNOWN, NEW))
    assert study.ask(GRID).params == NEW
    assert sampler_of(study).counts == {"over": 2, "under": 1, "known": 1, "base": 1}


def test_a_cheap_base_is_drawn_from_at_most_twenty_times() -> None:
    base = RecordingTPE(OVER)
    study = with_known(base)
    assert area(study.ask(GRID).params) <= 20
    assert base.num_draws == 20
    assert sampler_of(study).counts == {"over": 20, "repaired": 1}


@pytest.mark.parametrize(("num_trials", "num_draws"), [(30, 20), (200, 3), (600, 1), (2000, 1)])
def test_fewer_draws_are_made_in_a_larger_study(num_trials: int, num_draws: int) -> None:
    base = RecordingTPE({"width": 1, "depth": 1.0})
    space = {"width": IntDistribution(0, 5000), "depth": FloatDistribution(0, 1)}
    study = study_of(base, space, (Limit("depth", lambda p: p["depth"], maximum=0.5),))
    study.add_trials(
        [
            optuna.create_trial(
                params={"width": width, "depth": 0.1}, distributions=space, value=1.0
            )
            for width in range(num_trials)
        ]
    )
    study.ask(space)
    assert base.num_draws == num_draws


def test_a_base_whose_draws_cost_much_is_drawn_from_once() -> None:
    base = Recording(OVER)
    study = with_known(base)
    run(study, 3)
    assert base.num_draws == 3


def test_a_base_that_repeats_itself_is_answered_with_neighbours() -> None:
    study = with_known(Recording(KNOWN))
    params = study.ask(GRID).params
    assert sampler_of(study).origin == "repaired"
    assert (params["width"], params["depth"]) in IN_AREA - {(4, 4)}


def test_a_repair_of_ones_own_is_used() -> None:
    study = study_of(Recording(OVER), GRID, AREA, repair=lambda _params, _rng: dict(NEW))
    assert study.ask(GRID).params == NEW


def test_a_repair_of_ones_own_is_checked() -> None:
    study = study_of(Recording(OVER), GRID, AREA, repair=lambda params, _rng: params)
    assert 10 <= area(study.ask(GRID).params) <= 20


def test_a_random_feasible_of_ones_own_is_used() -> None:
    study = study_of("random", GRID, AREA, random_feasible=lambda _rng: dict(NEW))
    assert study.ask(GRID).params == NEW


def test_a_random_feasible_of_ones_own_is_checked() -> None:
    study = study_of("random", GRID, AREA, random_feasible=lambda _rng: dict(OVER))
    assert 10 <= area(study.ask(GRID).params) <= 20


def test_a_parameter_outside_the_search_space_comes_from_the_base() -> None:
    study = study_of("random", GRID, AREA)
    trial = study.ask(GRID)
    assert trial.suggest_categorical("optimizer", ["sgd", "adam"]) in {"sgd", "adam"}
    assert trial.suggest_float("decay", 0.5, 0.75) <= 0.75


@pytest.mark.parametrize("base", CHEAP)
def test_parameters_outside_the_search_space_differ_also_where_trials_take_turns(base: str) -> None:
    study = study_of(base, GRID, AREA)
    trials = [study.ask(GRID) for _ in range(2)]
    drawn = [t.suggest_float(name, 0, 1) for name in ("decay", "momentum") for t in trials]
    assert len(set(drawn)) == 4
    again = [study_of(base, GRID, AREA).ask(GRID).suggest_float("decay", 0, 1) for _ in range(2)]
    assert again == [drawn[0]] * 2


def test_a_parameter_suggested_otherwise_than_the_search_space_says_is_refused() -> None:
    study = study_of("random", GRID, AREA)
    study.sampler = BudgetSampler(
        FACTORIES["random"], {**GRID, "depth": IntDistribution(1, 3)}, AREA, seed=0
    )
    with pytest.raises(ValueError, match="'width' is suggested as .*, but is "):
        study.ask().suggest_int("width", 20, 30)


def test_a_parameter_with_one_value_is_part_of_the_costs() -> None:
    space = {"width": IntDistribution(1, 9), "depth": IntDistribution(3, 3)}
    study = study_of("tpe", space, AREA)
    run(study, 3)
    assert {(p["width"], p["depth"]) for p in scored(study)} == {(4, 3), (5, 3), (6, 3)}


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_base_notes_nothing_that_may_yet_be_refused(sampler: str) -> None:
    study = study_of("random")
    trial = study.ask()
    view = StudyView(study, study.trials, [])
    number = trial._trial_id
    view._storage.set_trial_system_attr(number, f"{sampler}:relative_params:0", "{}")
    view._storage.set_trial_system_attr(number, "constraints:area", 0.0)
    assert set(study.trials[0].system_attrs) == {"constraints:area"}
