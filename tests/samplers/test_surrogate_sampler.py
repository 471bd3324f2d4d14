"""The default sampler's model: what it looks at, what it learns from, better than chance."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from sampler_studies import (
    SPACE,
    WINDOW,
    run,
    sampler_of,
    score,
    scored,
    study_by_name,
    study_of,
    undisturbed,
    undisturbed_of_networks,
)

from nas.encoding import Encoding
from nas.errors import UserError
from nas.feasible import Region
from nas.gaussian_process import _log_gain, evidences, log_expected_improvement
from nas.samplers import DEFAULT, Limit, make_sampler
from nas.surrogate import recommend
from nas.surrogate_sampler import (
    MAX_FAILED,
    MAX_FAILED_FRESH,
    MAX_ROWS,
    NUM_START,
    Candidates,
    _thinned,
)
from nas.warping import REACHES, Warping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

CHOICES: dict[str, BaseDistribution] = {
    name: CategoricalDistribution(range(4)) for name in "abcdef"
}
FOURS: dict[str, BaseDistribution] = {name: IntDistribution(1, 4) for name in "abcdef"}
SUM = [Limit("sum", lambda p: sum(p.values()), maximum=15)]


def maximizing(space: Any, limits: Any, name: str = DEFAULT, **options: Any) -> Study:
    return study_by_name(name, space, limits, direction="maximize", **options)


def interacting(params: Mapping[str, Any]) -> float:
    """Choices whose worth depends on their neighbours."""
    values = list(params.values())
    pairs = itertools.pairwise(values)
    return sum(((5 * left + 3 * right) % 7) / 3 for left, right in pairs)


def test_the_model_proposes_once_start_up_is_over() -> None:
    study = run(study_of(DEFAULT), NUM_START + 20, lambda params: params["width"] * params["depth"])
    assert sampler_of(study).counts == {"random": NUM_START, "base": 20}


def test_networks_that_the_model_proposes_need_no_repair() -> None:
    counts = sampler_of(undisturbed_of_networks(DEFAULT, 250_000)).counts
    assert counts == {"random": NUM_START, "base": 4}


def test_workers_that_run_at_once_are_sent_apart() -> None:
    """Of a wave the middle is not known: believed to be scored, a trial there is enough of them."""
    space: dict[str, BaseDistribution] = {"x": IntDistribution(0, 1000)}
    study = maximizing(space, [])
    for x in (*range(0, 201, 20), *range(800, 1001, 20)):
        study.add_trial(
            optuna.create_trial(params={"x": x}, distributions=space, value=math.sin(x / 60))
        )
    places = sorted(study.ask(space).params["x"] for _ in range(4))
    assert np.diff(places).min() > 50, places


@pytest.mark.parametrize("worst", [10.0, 1e9])
def test_one_score_however_bad_does_not_blind_the_model(worst: float) -> None:
    """A loss that exploded once; the others are squared distances, 0 to 27."""
    study = study_by_name(DEFAULT, WIDE, [])
    study.add_trial(ended(*[100] * 6, value=worst))
    run(study, 40, lambda params: sum(((value - 40) / 50) ** 2 for value in params.values()))
    assert study.best_value < 0.3  # 0.9 were the one to set the scale


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_region_in_which_all_fail_is_left(state: TrialState) -> None:
    space: dict[str, BaseDistribution] = {name: IntDistribution(1, 10) for name in "abcde"}
    study = maximizing(space, [])
    num_failed = 0
    for _ in range(60):
        trial = study.ask(space)
        if trial.params["a"] + trial.params["b"] > 11:
            study.tell(trial, state=state)
            num_failed += 1
        else:
            study.tell(trial, sum(trial.params.values()))
    assert num_failed < 30
    assert study.best_value >= 40  # of 41


def test_a_failed_trial_of_a_scored_network_or_over_the_limits_tells_nothing() -> None:
    both = study_of(DEFAULT), study_of(DEFAULT)
    before = undisturbed(DEFAULT).trials[:20]
    over = {"width": 64, "depth": 6, "kernel_size": 7, "rate": 1.0}
    for study, params in zip(both, (before[3].params, over), strict=True):
        failed = optuna.create_trial(state=TrialState.FAIL, params=params, distributions=SPACE)
        study.add_trials([*before, failed])
    first, second = (scored(run(study, 3)) for study in both)
    assert first == second


WIDE: dict[str, BaseDistribution] = {name: IntDistribution(1, 100) for name in "abcdef"}


def ended(*place: int, **how: Any) -> FrozenTrial:
    params = dict(zip(WIDE, place, strict=True))
    return optuna.create_trial(params=params, distributions=WIDE, **how)


RISING = [ended(*[place] * 6, value=place) for place in range(8, 81, 8)]


def beside(place: int) -> set[tuple[int, ...]]:
    """All that lies a step beside `place` in each of the six."""
    steps = np.vstack([np.eye(6, dtype=int), -np.eye(6, dtype=int)])
    return set(map(tuple, (place + steps).tolist()))


def looked_at_after(trials: list[FrozenTrial]) -> set[tuple[int, ...]]:
    """All that is looked at for one proposal, for its cost is asked for."""
    asked: set[tuple[int, ...]] = set()

    def cost(params: Mapping[str, Any]) -> float:
        asked.add(tuple(params[name] for name in WIDE))
        return 0.0

    study = maximizing(WIDE, [Limit("none", cost, maximum=1)])
    study.add_trials(trials)
    study.ask(WIDE)
    return asked


def test_beside_what_failed_nothing_is_looked_at_however_good_the_model_thinks_it() -> None:
    """Scores rise from 8 to 80, and go on to rise where the trial failed."""
    looked_at = looked_at_after([*RISING, ended(*[96] * 6, state=TrialState.FAIL)])
    assert beside(80) <= looked_at, "beside the best all is looked at"
    assert not beside(96) & looked_at


def test_a_lost_trial_that_is_tried_again_tells_nothing() -> None:
    lost = ended(*[96] * 6, state=TrialState.FAIL)
    retry = {"failed_trial": len(RISING), "retry_history": [len(RISING)]}
    again = ended(*[96] * 6, state=TrialState.RUNNING, system_attrs=retry)
    undisturbed = ended(*[96] * 6, state=TrialState.RUNNING)
    both = maximizing(WIDE, []), maximizing(WIDE, [])
    for study, others in zip(both, ([lost, again], [undisturbed]), strict=True):
        study.add_trials([*RISING, *others])
    first, second = (study.ask(WIDE).params for study in both)
    assert first == second


def test_the_best_of_a_large_study_is_built_on_though_the_model_is_not_of_it() -> None:
    number, best = 2 * MAX_ROWS, 1
    assert best not in _thinned(number)
    places = np.random.default_rng(0).integers(2, 90, size=(number, 6))
    places[best] = 95
    trials = [ended(*place, value=sum(place)) for place in places.tolist()]
    assert beside(95) <= looked_at_after(trials)


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e200])
def test_an_absurd_score_is_no_score(value: float) -> None:
    study = run(study_of(DEFAULT), 12)
    study.tell(study.ask(SPACE), value)
    assert len(scored(run(study, 10))) == 23
    assert recommend(study, SPACE).value != value


@pytest.mark.parametrize(
    "given", [lambda _: 1.0, lambda _: [math.nan], lambda p: [0.0] * p["depth"], lambda _: None]
)
def test_features_that_are_no_list_of_numbers_are_refused_in_one_line(given: Any) -> None:
    with pytest.raises(UserError, match="features must give a list of finite numbers"):
        run(study_of(DEFAULT, features=given), NUM_START + 1)


def test_the_model_of_one_study_is_not_that_of_another() -> None:
    sampler = make_sampler(DEFAULT, SPACE, WINDOW, seed=0)
    both = [optuna.create_study(sampler=sampler) for _ in range(2)]
    for _ in range(25):
        for study, sign in zip(both, (-1, 1), strict=True):
            run(study, 1, lambda params, sign=sign: sign * score(params))
    assert scored(both[1]) == scored(undisturbed(DEFAULT))[:25]


# What it is for


def test_from_starts_that_tell_little_it_climbs_a_narrow_peak() -> None:
    space: dict[str, BaseDistribution] = {f"w{i}": IntDistribution(1, 16) for i in range(6)}
    goal = (5, 11, 8, 3, 9, 12)

    def peak(params: Mapping[str, Any]) -> float:
        away = (value - wanted for value, wanted in zip(params.values(), goal, strict=True))
        return math.prod(math.exp(-((each / 6) ** 2)) for each in away)

    def best(name: str) -> float:
        studies = (run(maximizing(space, [], name, seed=seed), 40, peak) for seed in range(6))
        return float(np.mean([study.best_value for study in studies]))

    assert best(DEFAULT) > 1.5 * best("random")


def test_where_choices_interact_it_is_better_than_random_and_no_worse_than_tpe() -> None:
    def best(name: str, seed: int) -> float:
        worth = np.random.default_rng(seed).normal(size=(4, 4))
        limit = Limit("sum", lambda params: sum(params.values()), maximum=9)

        def neighbours(params: Mapping[str, Any]) -> float:
            return float(sum(worth[pair] for pair in itertools.pairwise(params.values())))

        return run(maximizing(CHOICES, [limit], name, seed=seed), 60, neighbours).best_value

    found = {name: [best(name, seed) for seed in range(12)] for name in (DEFAULT, "random", "tpe")}

    def deviations_gained_over(other: str) -> float:
        gained = np.subtract(found[DEFAULT], found[other])
        return float(gained.mean() / gained.std(ddof=1) * math.sqrt(12))

    assert deviations_gained_over("random") > 2
    assert deviations_gained_over("tpe") > -1


def test_where_nothing_can_be_learned_it_is_no_worse_than_random() -> None:
    worth = dict(enumerate(np.random.default_rng(0).normal(size=4**6)))

    def unrelated(params: Mapping[str, Any]) -> float:
        return worth[sum((value - 1) * 4**place for place, value in enumerate(params.values()))]

    def best(name: str, seed: int) -> float:
        return run(maximizing(FOURS, SUM, name, seed=seed), 40, unrelated).best_value

    gained = np.array([best(DEFAULT, seed) - best("random", seed) for seed in range(12)])
    assert gained.mean() > -2 * gained.std(ddof=1) / math.sqrt(12)


def test_where_nothing_can_be_learned_half_the_proposals_are_random() -> None:
    rng = np.random.default_rng(0)
    study = run(maximizing(FOURS, []), 60, lambda _: rng.normal())
    assert 15 < sampler_of(study).counts["random"] - NUM_START < 35


def test_what_is_minimized_gets_the_proposals_of_its_opposite_maximized() -> None:
    minimized = run(study_of(DEFAULT, FOURS, SUM), 20, lambda params: -interacting(params))
    assert scored(minimized) == scored(run(maximizing(FOURS, SUM), 20, interacting))


def test_features_of_ones_own_lead_to_what_they_tell() -> None:
    """The score is a number of a network that no parameter tells."""
    worth = np.random.default_rng(0).random(4**6)

    def hidden(params: Mapping[str, Any]) -> float:
        place = sum((value - 1) * 4**place for place, value in enumerate(params.values()))
        return float(worth[place])

    told = run(maximizing(FOURS, [], features=lambda params: [hidden(params)]), 25, hidden)
    untold = run(maximizing(FOURS, []), 25, hidden)
    means = [np.mean([t.value for t in study.trials[NUM_START:]]) for study in (told, untold)]
    assert means[0] > means[1] + 0.2


def test_several_objectives_are_refused_in_one_line() -> None:
    sampler = make_sampler(DEFAULT, FOURS, SUM, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    with pytest.raises(UserError, match="one objective; for several: tpe or nsga2"):
        study.ask(FOURS)


# Arithmetic


def test_in_a_large_study_the_model_is_of_a_part_of_it() -> None:
    assert _thinned(50).tolist() == list(range(50))
    kept = _thinned(5000)
    assert len(set(kept.tolist())) == MAX_ROWS
    assert kept[0] == 0
    assert kept[-MAX_ROWS // 2 :].tolist() == list(range(5000 - MAX_ROWS // 2, 5000))


def test_settings_of_the_model_are_drawn_as_often_as_their_evidence_says() -> None:
    rng, region = np.random.default_rng(0), Region(SPACE, ())
    candidates = Candidates(region, Encoding(SPACE), region.random, region.repair, seed=0)
    rows = rng.random((NUM_START, 3))
    values = -rng.exponential(size=NUM_START)
    drawn = Counter(
        candidates.kernel(rows, values, range(NUM_START), Random(seed)) for seed in range(2000)
    )
    found = evidences(rows, values)
    total = np.logaddexp.reduce(list(found.values()))
    shares = {kernel: math.exp(evidence - total) for kernel, evidence in found.items()}
    assert max(shares.values()) < 0.8, "the largest alone would do"
    assert {k: drawn[k] / 2000 for k in shares} == pytest.approx(shares, abs=0.04)


def test_the_expected_improvement_is_that_of_many_draws() -> None:
    draws = np.random.default_rng(0).normal(0.3, 0.5, size=1_000_000)
    found = log_expected_improvement(np.array([0.3]), np.array([0.5]), 0.7)
    assert math.exp(found[0]) == pytest.approx(np.maximum(draws - 0.7, 0).mean(), rel=0.01)


def test_the_unit_of_the_scores_does_not_change_which_improves_most() -> None:
    means, deviations = np.array([0.1, 0.3, 0.5, 0.2]), np.array([0.5, 0.0, 0.1, 0.3])
    for unit in (1.0, 1e-15, 1e15):
        gains = log_expected_improvement(unit * means, unit * deviations, unit * 0.45)
        assert np.argsort(gains).tolist() == [1, 3, 2, 0]


def test_the_logarithm_of_a_hopeless_improvement_is_finite_and_falls() -> None:
    z = np.array([1e5, 3, 1, 0, -1, -4.999, -5.001, -10, -9_999, -10_001, -1e8])
    values = _log_gain(z)
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()


def test_the_logarithm_of_an_improvement_is_exact() -> None:
    """Against mpmath with 60 digits."""
    exact = {0.5: -0.3598276837450638, 0.0: -0.9189385332046728, -1.0: -2.485121025712641}
    exact |= {-5.001: -16.749663448901437, -38.0: -730.1961834021138, -100.0: -5010.12957880025}
    exact |= {-20_000.0: -200000020.72591364}
    assert _log_gain(np.array(list(exact))) == pytest.approx(list(exact.values()), rel=1e-13)


@pytest.mark.parametrize("reach", REACHES)
def test_warping_keeps_the_order_and_can_be_undone(reach: float) -> None:
    values = np.array([-50.0, 0.0, 0.9, 0.95, 1.0])
    warping = Warping.of(values, reach)
    warped = warping(values)
    assert (np.diff(warped) > 0).all()
    assert warping.inverse(warped) == pytest.approx(values)
    step = 1e-6
    slopes = (warping(values + step) - warping(values - step)) / (2 * step)
    assert warping.log_slope(values[:-1]) == pytest.approx(np.log(slopes[:-1]).sum(), abs=1e-6)


# What lies outside the limits


def test_a_trial_outside_the_limits_is_no_goal_within_them() -> None:
    names = "abcdef"
    space: dict[str, BaseDistribution] = {name: IntDistribution(1, 16) for name in names}
    limits = [Limit("sum", lambda params: sum(params.values()), maximum=52, minimum=40)]

    def quadratic(params: Mapping[str, Any]) -> float:
        return -sum((params[name] - 8) ** 2 for name in names) / 100

    def rising(params: Mapping[str, Any]) -> float:
        """Most is predicted where all are large, which the limits forbid."""
        return sum(params.values()) - sum((params[name] - 8) ** 2 for name in "abc") / 10

    def best(objective: Callable[[Any], float], *outsiders: FrozenTrial) -> float:
        study = maximizing(space, limits)
        study.add_trials(outsiders)
        run(study, 45, objective)
        return max(t.value or 0.0 for t in study.trials if 40 <= sum(t.params.values()) <= 52)

    far = dict.fromkeys(names, 16)
    for objective, how in ((quadratic, {"value": 1.0}), (rising, {"state": TrialState.RUNNING})):
        outsider = optuna.create_trial(params=far, distributions=space, **how)
        assert best(objective, outsider) > best(objective) - 0.1, how


def test_where_nothing_is_found_the_pool_is_not_drawn_for_ever() -> None:
    asked: list[None] = []

    def nothing(_rng: Random) -> None:
        asked.append(None)

    region = Region(SPACE, WINDOW)
    candidates = Candidates(region, Encoding(SPACE), nothing, lambda *_: None, seed=0)
    inside = region.random(Random(0))
    assert inside is not None
    for _ in range(3):
        candidates.around([inside], Random(0))
    assert len(asked) == MAX_FAILED + 3 * MAX_FAILED_FRESH


def test_a_draw_that_fails_now_and_then_ends_no_pool() -> None:
    region, asked = Region(SPACE, WINDOW), itertools.count()

    def every_third(rng: Random) -> dict[str, Any] | None:
        return None if next(asked) % 3 else region.random(rng)

    candidates = Candidates(region, Encoding(SPACE), every_third, lambda *_: None, seed=0)
    assert len(candidates._pool) == MAX_FAILED // 2
