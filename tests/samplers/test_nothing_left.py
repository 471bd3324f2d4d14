"""Where nothing fits, and where nothing is left."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sampler_studies import (
    AREA,
    BASES,
    CHEAP,
    GRID,
    IN_AREA,
    area,
    run,
    scored,
    study_of,
    undisturbed_in_area,
)

from nas.errors import UserError
from nas.samplers import Exhausted, Limit, NothingFits

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import Trial


@pytest.mark.parametrize(
    ("cost", "maximum", "said"),
    [(area, math.inf, "allowed 80 to inf"), (lambda _: math.inf, 100, "inf, allowed 80 to 100")],
)
def test_a_bound_or_a_cost_may_be_infinite(
    cost: Callable[[Any], float], maximum: float, said: str
) -> None:
    study = study_of("random", GRID, (Limit("area", cost, maximum=maximum, minimum=80),))
    with pytest.raises((Exhausted, NothingFits), match=said):
        run(study, 4)


def test_a_minimum_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValueError, match="area: nothing is 5 to 3"):
        Limit("area", area, maximum=3, minimum=5)


@pytest.mark.parametrize("base", BASES)
def test_where_nothing_fits_one_line_says_the_smallest_cost(base: str) -> None:
    study = study_of(base, GRID, (Limit("area", lambda p: 1000 + area(p), maximum=1000),))
    with pytest.raises(NothingFits) as error:
        study.ask(GRID)
    assert str(error.value) == (
        "nothing in the search space fits; seen: area 1,001 to 1,081, allowed at most 1,000"
    )


def test_nothing_fits_is_a_mistake_of_the_user() -> None:
    assert issubclass(NothingFits, UserError)


def test_small_costs_are_shown_with_their_digits() -> None:
    limit = Limit("seconds", lambda p: 0.25 * p["width"], maximum=0.125)
    with pytest.raises(NothingFits, match=r"0\.25 to 2\.25, allowed at most 0\.125"):
        study_of("random", GRID, (limit,)).ask(GRID)


def test_nothing_fits_names_every_limit() -> None:
    limits = (Limit("area", area, maximum=50), Limit("width", lambda p: p["width"], maximum=0))
    with pytest.raises(NothingFits, match="area 1 .*width 1 "):
        study_of("random", GRID, limits).ask(GRID)


def test_nothing_fits_also_where_a_random_feasible_of_ones_own_finds_nothing() -> None:
    space = {name: IntDistribution(1, 1000) for name in ("width", "depth")}
    limit = Limit("area", lambda p: 1000 + area(p), maximum=1000)
    study = study_of("random", space, (limit,), random_feasible=lambda _: None)
    with pytest.raises(NothingFits, match="area"):
        study.ask(space)


def test_where_a_random_feasible_of_ones_own_finds_nothing_the_default_looks() -> None:
    study = study_of("random", GRID, AREA, random_feasible=lambda _: None)
    assert 10 <= area(study.ask(GRID).params) <= 20


def test_nothing_fits_also_where_a_study_holds_what_was_over_the_limit() -> None:
    study = study_of("random", GRID, (Limit("area", area, maximum=0),))
    study.enqueue_trial({"width": 9, "depth": 9})
    study.tell(study.ask(GRID), 0.0)
    with pytest.raises(NothingFits, match="area 1 to 81, allowed at most 0"):
        study.ask(GRID)


def test_looking_where_nothing_fits_is_bounded() -> None:
    evaluated = []
    space = {name: IntDistribution(1, 1000) for name in ("width", "depth")}
    limit = Limit("area", lambda p: evaluated.append(p) or area(p), maximum=0)
    with pytest.raises(NothingFits):
        study_of("random", space, (limit,)).ask(space)
    assert len(evaluated) < 5_000


@pytest.mark.parametrize("base", CHEAP)
def test_a_finite_space_is_proposed_point_by_point_and_then_exhausted(base: str) -> None:
    study = undisturbed_in_area(base)
    assert {(p["width"], p["depth"]) for p in scored(study)} == IN_AREA
    with pytest.raises(Exhausted) as error:
        study.ask(GRID)
    assert len(str(error.value).splitlines()) == 1


def test_a_decimal_enqueued_by_hand_is_the_point_it_means() -> None:
    space = {"a": FloatDistribution(0.0, 1.0, step=0.1)}
    study = study_of("random", space, (Limit("a", lambda p: p["a"], maximum=2),))
    study.enqueue_trial({"a": 0.3})
    for _ in range(11):
        trial = study.ask(space)
        study.tell(trial, trial.params["a"])
    assert {round(10 * trial.params["a"]) for trial in study.trials} == set(range(11))


def test_a_finite_space_with_decimal_steps_is_proposed_point_by_point() -> None:
    space = {"a": FloatDistribution(0.1, 0.7, step=0.1), "b": FloatDistribution(0.0, 0.3, step=0.1)}
    study = study_of("tpe", space, (Limit("sum", lambda p: p["a"] + p["b"], maximum=2),))
    tenths = set()
    for _ in range(28):
        trial = study.ask(space)
        study.tell(trial, trial.params["a"] - trial.params["b"])
        tenths.add((round(10 * trial.params["a"]), round(10 * trial.params["b"])))
    assert tenths == set(itertools.product(range(1, 8), range(4)))


def test_a_space_too_large_to_list_is_not_said_to_be_exhausted_while_points_are_left() -> None:
    space = {name: IntDistribution(1, 200) for name in ("width", "depth")}
    fitting = sum(380 <= w * d <= 400 for w in range(1, 201) for d in range(1, 201))
    study = study_of("random", space, (Limit("area", area, maximum=400, minimum=380),))
    with pytest.raises(Exhausted) as error:
        run(study, fitting + 1)
    assert len(scored(study)) == fitting, str(error.value)


def test_an_exhausted_space_ends_optimize_by_itself() -> None:
    study = study_of("random", GRID, AREA)

    def objective(trial: Trial) -> float:
        return trial.suggest_int("width", 1, 9) + trial.suggest_int("depth", 1, 9)

    study.optimize(objective, n_trials=1000, catch=(Exhausted,))
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * len(IN_AREA) + [TrialState.FAIL]


def test_exhausted_is_no_mistake_of_the_user() -> None:
    assert not issubclass(Exhausted, UserError)
