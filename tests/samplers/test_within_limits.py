"""Whatever the base, no proposal is over a limit, and none is made twice."""

from __future__ import annotations

import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState
from sampler_studies import (
    AREA,
    BASES,
    CHEAP,
    FEW_TRIALS,
    GRID,
    IN_AREA,
    NUM_TRIALS,
    SPACE,
    WINDOW,
    key,
    resnets,
    run,
    sampler_of,
    scored,
    study_by_name,
    study_of,
    undisturbed,
    undisturbed_in_area,
    undisturbed_of_networks,
)
from strategies import any_spaces, is_inside, limits_on

from nas.budget import Budget
from nas.errors import UserError
from nas.samplers import DEFAULT, Exhausted, NothingFits, make_sampler
from nas.surrogate_sampler import NUM_START, SurrogateSampler
from nas.width_scaling import WidthScaling

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


@pytest.mark.parametrize("base", BASES)
def test_no_proposal_lies_outside_the_limits(base: str) -> None:
    proposed = scored(undisturbed(base))
    assert len(proposed) == NUM_TRIALS[base]
    assert all(is_inside(params, SPACE, WINDOW) for params in proposed)


@pytest.mark.parametrize("base", BASES)
def test_no_proposal_is_made_twice(base: str) -> None:
    proposed = scored(undisturbed_in_area(base))
    assert len(set(map(key, proposed))) == min(NUM_TRIALS[base], len(IN_AREA))


@pytest.mark.parametrize("base", [DEFAULT, "tpe", "gp", "cmaes", "nsga2"])
def test_a_base_with_a_model_is_asked_once_its_start_up_is_over(base: str) -> None:
    counts = sampler_of(undisturbed(base)).counts
    assert counts["base"] + counts["repaired"] >= NUM_TRIALS[base] // 3


@pytest.mark.parametrize("base", CHEAP)
@given(data=st.data())
@settings(max_examples=15)
def test_proposals_in_any_space_lie_within_its_limits_and_differ(
    data: st.DataObject, base: str
) -> None:
    space = data.draw(any_spaces())
    assume(not all(dist.single() for dist in space.values()))  # Optuna asks no sampler then
    limits = data.draw(limits_on(space, satisfiable=True))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = study_of(base, space, limits)
    for _ in range(FEW_TRIALS[base]):
        trial = study.ask()
        try:
            params = {name: trial._suggest(name, dist) for name, dist in space.items()}
        except (NothingFits, Exhausted):
            study.tell(trial, state=TrialState.FAIL)
            break
        study.tell(trial, float(len(repr(params))))
        assert is_inside(params, space, limits)
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(trials) == len({key(trial.params) for trial in trials})


@pytest.mark.parametrize(
    "base",
    [
        TPESampler(seed=0, n_startup_trials=5),
        RandomSampler(seed=0),
        CmaEsSampler(seed=0),
        NSGAIISampler(seed=0, population_size=4),
    ],
    ids=lambda base: type(base).__name__,
)
def test_a_sampler_as_base_keeps_the_limits_and_repeats_nothing(base: BaseSampler) -> None:
    proposed = scored(run(study_of(base), 20))
    assert all(is_inside(params, SPACE, WINDOW) for params in proposed)
    assert len(set(map(key, proposed))) == 20


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: TPESampler(seed=0, n_startup_trials=5, multivariate=True, group=True),
        lambda: TPESampler(seed=0, n_startup_trials=5, multivariate=False),
        lambda: QMCSampler(seed=0),
    ],
    ids=["tpe-group", "tpe-independent", "qmc"],
)
def test_other_samplers_of_optuna_serve_as_base(make: Callable[[], BaseSampler]) -> None:
    proposed = scored(run(study_of(make(), GRID, AREA), 12))
    assert {(p["width"], p["depth"]) for p in proposed} <= IN_AREA
    assert len(set(map(key, proposed))) == 12


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: optuna.samplers.BruteForceSampler(seed=0),
        lambda: optuna.samplers.GridSampler({"width": [1, 2]}),
        lambda: optuna.samplers.PartialFixedSampler({"width": 1}, TPESampler(seed=0)),
    ],
    ids=["brute-force", "grid", "partial-fixed"],
)
def test_a_sampler_that_gives_parameters_one_by_one_is_refused(
    make: Callable[[], BaseSampler],
) -> None:
    base = make()
    with pytest.raises(TypeError, match=type(base).__name__):
        study_of(base, GRID, AREA)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("base", [DEFAULT, "random", "tpe"])
def test_the_brackets_of_hyperband_share_what_was_proposed(base: str) -> None:
    """Optuna shows a sampler the trials of one bracket only."""
    study = study_of(base, GRID, AREA)
    study.pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=27)
    study.optimize(
        lambda t: t.suggest_int("width", 1, 9) * t.suggest_int("depth", 1, 9), len(IN_AREA)
    )
    assert {(t.params["width"], t.params["depth"]) for t in study.trials} == IN_AREA


def test_running_trials_are_not_proposed_again() -> None:
    study = study_of("random", GRID, AREA)
    running = [study.ask(GRID) for _ in IN_AREA]
    assert {(t.params["width"], t.params["depth"]) for t in running} == IN_AREA


def test_queued_trials_are_not_proposed_before_their_turn() -> None:
    study = study_of("random", GRID, AREA)
    first = [study.ask() for _ in range(len(IN_AREA) - 1)]
    study.enqueue_trial({"width": 4, "depth": 4})
    proposed = [(t.suggest_int("width", 1, 9), t.suggest_int("depth", 1, 9)) for t in first]
    assert set(proposed) == IN_AREA - {(4, 4)}


@pytest.mark.parametrize("base", BASES)
def test_scored_trials_without_parameters_disturb_no_base(base: str) -> None:
    """Such as a hand-made network outside the search space, scored as a baseline."""
    study = study_of(base)
    for value in range(15):
        study.add_trial(optuna.create_trial(value=value))
    number = FEW_TRIALS[base]
    assert len(set(map(key, scored(run(study, number))))) == number + 1  # the 15 are all {}


@pytest.mark.parametrize("base", BASES)
def test_trials_of_a_smaller_space_disturb_no_base(base: str) -> None:
    """A range that was one value: the trials from before lack the parameter."""
    study = study_of(base)
    smaller = {name: dist for name, dist in SPACE.items() if name != "depth"}
    for width in (8, 12, 16):
        params = {"width": width, "kernel_size": 3, "rate": 0.1}
        study.add_trial(optuna.create_trial(params=params, distributions=smaller, value=width))
    number = FEW_TRIALS[base]
    proposed = scored(run(study, number))[3:]
    assert [is_inside(params, SPACE, WINDOW) for params in proposed] == [True] * number


def test_threads_of_one_study_propose_nothing_twice() -> None:
    space: dict[str, BaseDistribution] = {name: IntDistribution(0, 4) for name in "abc"}
    study = study_of("random", space, ())

    def slow(trial: Trial) -> float:
        params = {}
        for name in space:
            params[name] = trial.suggest_int(name, 0, 4)
            time.sleep(0.002)
        return float(sum(params.values()))

    study.optimize(slow, n_trials=100, n_jobs=4)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 100


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (DEFAULT, SurrogateSampler),
        ("tpe", TPESampler),
        ("random", RandomSampler),
        ("gp", GPSampler),
        ("cmaes", CmaEsSampler),
        ("nsga2", NSGAIISampler),
    ],
)
def test_a_sampler_is_made_by_name_and_keeps_the_limits(name: str, kind: type[BaseSampler]) -> None:
    study = run(study_by_name(name, GRID, AREA), NUM_START + 2)
    sampler = sampler_of(study)
    assert isinstance(sampler._sampler, kind)
    assert {(p["width"], p["depth"]) for p in scored(study)} <= IN_AREA
    if name not in ("random", "nsga2"):  # which begins with a population of 50 at random
        assert sampler.counts["base"] + sampler.counts["repaired"] > 0


def test_an_unknown_sampler_lists_the_known_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        make_sampler("grid", GRID, AREA)
    assert (
        str(error.value) == "unknown sampler 'grid'; known: default, tpe, random, gp, cmaes, nsga2"
    )


@pytest.mark.parametrize("budget", [60_000, 250_000, 5_000_000])
@pytest.mark.parametrize("base", [DEFAULT, "tpe", "nsga2"])
def test_proposals_of_networks_fill_the_window(base: str, budget: int) -> None:
    study = undisturbed_of_networks(base, budget)
    (limit,) = sampler_of(study).region.limits
    assert all(0.9 * budget <= limit.cost(params) <= budget for params in scored(study))
    arch_ids = {resnets(budget).decode(params).arch_id for params in scored(study)}
    assert len(arch_ids) == FEW_TRIALS[base]


def test_draws_of_networks_are_the_same_whatever_was_drawn_before_elsewhere() -> None:
    rng = partial(Random, 0)
    space = resnets(60_000)
    scaling = WidthScaling(space, Budget(60_000).limits(space))
    first = scaling.random_feasible(rng())
    scaling.repair(scaling.region.uniform(rng()), rng())
    assert scaling.random_feasible(rng()) == first
