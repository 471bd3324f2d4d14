"""Samplers, spaces and studies in memory that the tests of BudgetSampler share."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState

from nas.budget import Budget
from nas.samplers import DEFAULT, BudgetSampler, Limit, make_sampler
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.surrogate_sampler import NUM_START
from nas.width_scaling import WidthScaling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study

# The samplers of SAMPLERS, with start-up phases short enough to see what follows them.
FACTORIES: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=5),
    "random": lambda seed: RandomSampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=4, deterministic_objective=False),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=4),
}
BASES = (DEFAULT, *FACTORIES)
CHEAP = (DEFAULT, "tpe", "random", "nsga2", "cmaes")
NUM_TRIALS = dict.fromkeys(BASES, 30) | {"gp": 8}
FEW_TRIALS = dict.fromkeys(BASES, 9) | {"gp": 8, DEFAULT: NUM_START + 4}  # with those of a model

SPACE: dict[str, BaseDistribution] = {
    "width": IntDistribution(4, 64, step=4),
    "depth": IntDistribution(1, 6),
    "kernel_size": CategoricalDistribution([3, 5, 7]),
    "rate": FloatDistribution(0.01, 1, log=True),
}
GRID: dict[str, BaseDistribution] = {"width": IntDistribution(1, 9), "depth": IntDistribution(1, 9)}


def volume(params: Mapping[str, Any]) -> float:
    return params["width"] ** 2 * params["depth"] * params["kernel_size"] ** 2  # type: ignore[no-any-return]


def area(params: Mapping[str, Any]) -> float:
    return params["width"] * params["depth"]  # type: ignore[no-any-return]


WINDOW = (Limit("volume", volume, maximum=40_000, minimum=20_000),)
AREA = (Limit("area", area, maximum=20, minimum=10),)
IN_AREA = {(w, d) for w in range(1, 10) for d in range(1, 10) if 10 <= w * d <= 20}
OVER, UNDER, KNOWN, NEW = (
    {"width": 9, "depth": 9},
    {"width": 1, "depth": 1},
    {"width": 4, "depth": 4},
    {"width": 5, "depth": 3},
)  # to AREA; NEW lies within


def score(params: Mapping[str, Any]) -> float:
    """A value with one optimum, different for different parameters."""
    return sum(
        weight * abs(math.log(params[name] / best))
        for name, best, weight in (
            ("width", 20, 1.0),
            ("depth", 3, 0.53),
            ("kernel_size", 5, 0.31),
            ("rate", 0.1, 0.17),
        )
        if name in params
    )


def study_of(base: Any, space: Any = SPACE, limits: Any = WINDOW, **options: Any) -> Study:
    """A study in memory whose sampler wraps `base`: a name of BASES, a factory, a sampler."""
    if base == DEFAULT:
        return study_by_name(DEFAULT, space, limits, **options)
    base = FACTORIES[base] if isinstance(base, str) else base
    sampler = BudgetSampler(base, space, limits, **({"seed": 0} | options))
    return optuna.create_study(sampler=sampler)


def study_by_name(
    name: str,
    space: Any = SPACE,
    limits: Any = WINDOW,
    *,
    direction: str = "minimize",
    **options: Any,
) -> Study:
    """A study in memory whose sampler is made as a search makes it."""
    sampler = make_sampler(name, space, limits, **({"seed": 0} | options))
    return optuna.create_study(direction=direction, sampler=sampler)


def resnets(budget: int) -> SearchSpace:
    return SearchSpace.from_config(load_space("resnet")[1], max_params=budget)


def study_of_networks(base: str, budget: int) -> Study:
    """A study of networks within a budget, proposed as a search proposes them."""
    space = resnets(budget)
    limits = Budget(budget).limits(space)
    scaling = WidthScaling(space, limits)
    return study_of(
        base,
        dict(space.distributions),
        limits,
        repair=scaling.repair,
        random_feasible=scaling.random_feasible,
    )


def sampler_of(study: Study) -> BudgetSampler:
    assert isinstance(study.sampler, BudgetSampler)
    return study.sampler


def run(study: Study, number: int, objective: Callable[[Any], float] = score) -> Study:
    """Score `number` trials."""
    space = sampler_of(study).region.search_space
    for _ in range(number):
        trial = study.ask(space)
        study.tell(trial, objective(trial.params))
    return study


def scored(study: Study) -> list[dict[str, Any]]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial.params for trial in trials]


def again(study: Study, base: str) -> Study:
    """The same study in another process: its sampler made anew with the same seed."""
    old = sampler_of(study)
    made_anew = study_of(base, old.region.search_space, old.region.limits, seed=old.seed)
    study.sampler = made_anew.sampler
    return study


def key(params: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(params.items()))


@cache
def undisturbed(base: str) -> Study:
    """One study of each base, read by many tests."""
    return run(study_of(base), NUM_TRIALS[base])


@cache
def undisturbed_in_area(base: str) -> Study:
    """All that lies within AREA, of a base that is not cheap a part."""
    return run(study_of(base, GRID, AREA), min(NUM_TRIALS[base], len(IN_AREA)))


@cache
def undisturbed_of_networks(base: str, budget: int) -> Study:
    study = study_of_networks(base, budget)
    return run(study, FEW_TRIALS[base], lambda params: sum(params.values()))


class _Recording(BaseSampler):
    """Proposes what a list says, over and over; counts its draws."""

    def __init__(self, *proposals: dict[str, Any]) -> None:
        super().__init__(seed=0)
        self.proposals = itertools.cycle(proposals)
        self.num_draws = 0

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        self.num_draws += 1
        return dict(next(self.proposals))


class Recording(_Recording, RandomSampler):
    """A base with a model."""


class RecordingTPE(_Recording, TPESampler):
    """TPE's kind of base, which is drawn from again."""
