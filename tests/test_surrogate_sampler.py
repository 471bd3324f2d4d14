"""The default sampler: within the limits, new, resumable, and better than chance."""

from __future__ import annotations

import itertools
import math
import pickle
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from strategies import any_spaces, is_inside, limits_on

from nas.budget import Budget
from nas.encoding import Encoding
from nas.errors import UserError
from nas.feasible import Region
from nas.gaussian_process import _log_gain, evidences, log_expected_improvement
from nas.samplers import DEFAULT, SAMPLERS, Exhausted, Limit, NothingFits, make_sampler
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.surrogate import recommend
from nas.surrogate_sampler import (
    MAX_FAILED,
    MAX_ROWS,
    NUM_START,
    Candidates,
    _thinned,
)
from nas.warping import REACHES, Warping
from nas.width_scaling import WidthScaling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SPACE: dict[str, BaseDistribution] = {
    "width": IntDistribution(4, 64, step=4),
    "depth": IntDistribution(1, 6),
    "kernel_size": CategoricalDistribution([3, 5, 7]),
    "rate": FloatDistribution(0.01, 1, log=True),
}
CHOICES: dict[str, BaseDistribution] = {
    name: CategoricalDistribution(range(4)) for name in "abcdef"
}
GRID: dict[str, BaseDistribution] = {name: IntDistribution(1, 4) for name in "abcdef"}


def volume(params: Mapping[str, Any]) -> float:
    return float(params["width"] ** 2 * params["depth"] * params["kernel_size"] ** 2)


WINDOW = [Limit("volume", volume, maximum=40_000, minimum=20_000)]
SUM = [Limit("sum", lambda p: sum(p.values()), maximum=15)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def score(params: Mapping[str, Any]) -> float:
    """One optimum, at the edge of the window, and an interaction."""
    kernel = {3: 0.0, 5: 0.5, 7: 0.1}[params["kernel_size"]]
    rate = -abs(math.log(params["rate"] / 0.1))
    return params["width"] / 64 * params["depth"] / 2 + kernel + 0.2 * rate


def interacting(params: Mapping[str, Any]) -> float:
    """Choices whose worth depends on their neighbours."""
    values = list(params.values())
    pairs = itertools.pairwise(values)
    return sum(((5 * left + 3 * right) % 7) / 3 for left, right in pairs)


def study_of(
    space: Any = SPACE, limits: Any = WINDOW, name: str = DEFAULT, **options: Any
) -> Study:
    sampler = make_sampler(name, space, limits, **({"seed": 0} | options))
    return optuna.create_study(direction="maximize", sampler=sampler)


def run(study: Study, number: int, objective: Callable[[Any], float] = score) -> Study:
    space = study.sampler.region.search_space  # type: ignore[attr-defined]
    for _ in range(number):
        trial = study.ask(space)
        study.tell(trial, objective(trial.params))
    return study


def proposed(study: Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials(states=(TrialState.COMPLETE,))]


def test_proposals_lie_within_the_limits_and_differ() -> None:
    study = run(study_of(), 40)
    assert all(is_inside(params, SPACE, WINDOW) for params in proposed(study))
    assert len({tuple(params.values()) for params in proposed(study)}) == 40


def test_the_model_proposes_once_start_up_is_over() -> None:
    counts = run(study_of(), 40).sampler.counts  # type: ignore[attr-defined]
    assert counts["base"] == 40 - NUM_START
    assert counts["random"] == NUM_START


@given(data=st.data())
@settings(max_examples=15)
def test_proposals_in_any_space_lie_within_its_limits_and_differ(data: st.DataObject) -> None:
    space = data.draw(any_spaces())
    assume(not all(dist.single() for dist in space.values()))  # Optuna asks no sampler then
    limits = data.draw(limits_on(space, satisfiable=True))
    study = study_of(space, limits)
    for _ in range(NUM_START + 3):
        trial = study.ask()
        try:
            params = {name: trial._suggest(name, dist) for name, dist in space.items()}
        except (NothingFits, Exhausted):
            study.tell(trial, state=TrialState.FAIL)
            break
        study.tell(trial, float(len(repr(params))))
        assert is_inside(params, space, limits)
    assert len(proposed(study)) == len({tuple(params.items()) for params in proposed(study)})


def test_a_finite_space_is_proposed_point_by_point_and_then_exhausted() -> None:
    space = {"a": IntDistribution(1, 9), "b": IntDistribution(1, 9)}
    limits = [Limit("area", lambda p: p["a"] * p["b"], maximum=20, minimum=10)]
    inside = {(a, b) for a in range(1, 10) for b in range(1, 10) if 10 <= a * b <= 20}
    study = run(study_of(space, limits), len(inside), lambda params: float(params["a"]))
    assert {(p["a"], p["b"]) for p in proposed(study)} == inside
    with pytest.raises(Exhausted):
        study.ask(space)


# Seeds, resume, workers


def test_the_same_seed_proposes_the_same_and_another_does_not() -> None:
    first = proposed(run(study_of(), 20))
    assert proposed(run(study_of(), 20)) == first
    assert proposed(run(study_of(seed=1), 20)) != first


@pytest.mark.parametrize("before", [5, NUM_START, 17])
def test_a_resumed_study_proposes_what_an_undisturbed_one_does(before: int) -> None:
    study = run(study_of(), before)
    study.sampler = study_of().sampler
    assert proposed(run(study, 24 - before)) == proposed(run(study_of(), 24))


@pytest.mark.parametrize("name", [DEFAULT, "tpe", "random", "nsga2"])
def test_a_pickled_sampler_goes_on(name: str) -> None:
    study = run(study_of(name=name), 12)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))  # noqa: S301 - our own
    assert proposed(run(study, 6)) == proposed(run(study_of(name=name), 18))


def test_what_a_claim_refuses_is_not_proposed() -> None:
    study = study_of(GRID, SUM, claim=lambda _, params: params["a"] != 2)
    assert {p["a"] for p in proposed(run(study, 30, interacting))} == {1, 3, 4}


def test_workers_that_run_at_once_are_sent_apart() -> None:
    """Of a wave the middle is not known: believed to be scored, a trial there is enough of them."""
    space: dict[str, BaseDistribution] = {"x": IntDistribution(0, 1000)}
    study = study_of(space, [])
    for x in (*range(0, 201, 20), *range(800, 1001, 20)):
        study.add_trial(
            optuna.create_trial(params={"x": x}, distributions=space, value=math.sin(x / 60))
        )
    places = sorted(study.ask(space).params["x"] for _ in range(4))
    assert np.diff(places).min() > 50, places


@pytest.mark.parametrize("number", [1, 15])
def test_scored_trials_without_all_parameters_disturb_nothing(number: int) -> None:
    study = study_of()
    for value in range(number):
        study.add_trial(optuna.create_trial(value=value))
    assert len(proposed(run(study, 15))) == 15 + number


def test_failed_and_pruned_trials_disturb_nothing() -> None:
    study = run(study_of(), 12)
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    assert len(proposed(run(study, 3))) == 15


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_region_in_which_all_fail_is_left(state: TrialState) -> None:
    space: dict[str, BaseDistribution] = {name: IntDistribution(1, 10) for name in "abcde"}
    study = study_of(space, [])
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
    both = run(study_of(), 20), run(study_of(), 20)
    over = {"width": 64, "depth": 6, "kernel_size": 7, "rate": 1.0}
    for study, params in zip(both, (both[0].trials[3].params, over), strict=True):
        study.add_trial(
            optuna.create_trial(state=TrialState.FAIL, params=params, distributions=SPACE)
        )
    first, second = (proposed(run(study, 3)) for study in both)
    assert first == second


WIDE: dict[str, BaseDistribution] = {name: IntDistribution(1, 100) for name in "abcdef"}


def ended(*place: int, **how: Any) -> FrozenTrial:
    params = dict(zip(WIDE, place, strict=True))
    return optuna.create_trial(params=params, distributions=WIDE, **how)


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

    study = study_of(WIDE, [Limit("none", cost, maximum=1)])
    study.add_trials(trials)
    study.ask(WIDE)
    return asked


def test_beside_what_failed_nothing_is_looked_at_however_good_the_model_thinks_it() -> None:
    """Scores rise from 8 to 80, and go on to rise where the trial failed."""
    scored = [ended(*[place] * 6, value=place) for place in range(8, 81, 8)]
    failed = ended(*[96] * 6, state=TrialState.FAIL)
    looked_at = looked_at_after([*scored, failed])
    assert beside(80) <= looked_at, "beside the best all is looked at"
    assert not beside(96) & looked_at


def test_a_lost_trial_that_is_tried_again_tells_nothing() -> None:
    scored = [ended(*[place] * 6, value=place) for place in range(8, 81, 8)]
    lost = ended(*[96] * 6, state=TrialState.FAIL)
    retry = {"failed_trial": len(scored), "retry_history": [len(scored)]}
    again = ended(*[96] * 6, state=TrialState.RUNNING, system_attrs=retry)
    undisturbed = ended(*[96] * 6, state=TrialState.RUNNING)
    both = study_of(WIDE, []), study_of(WIDE, [])
    for study, others in zip(both, ([lost, again], [undisturbed]), strict=True):
        study.add_trials([*scored, *others])
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
    study = run(study_of(), 12)
    study.tell(study.ask(SPACE), value)
    assert len(proposed(run(study, 10))) == 23
    assert recommend(study, SPACE).value != value


@pytest.mark.parametrize(
    "given", [lambda _: 1.0, lambda _: [math.nan], lambda p: [0.0] * p["depth"], lambda _: None]
)
def test_features_that_are_no_list_of_numbers_are_refused_in_one_line(given: Any) -> None:
    with pytest.raises(UserError, match="features must give a list of finite numbers"):
        run(study_of(features=given), NUM_START + 1)


def test_the_model_of_one_study_is_not_that_of_another() -> None:
    sampler = make_sampler(DEFAULT, SPACE, WINDOW, seed=0)
    both = [optuna.create_study(direction="maximize", sampler=sampler) for _ in range(2)]
    for _ in range(25):
        for study, sign in zip(both, (-1, 1), strict=True):
            run(study, 1, lambda params, sign=sign: sign * score(params))
    assert proposed(both[1]) == proposed(run(study_of(), 25))


# What it is for


def test_from_starts_that_tell_little_it_climbs_a_narrow_peak() -> None:
    space: dict[str, BaseDistribution] = {f"w{i}": IntDistribution(1, 16) for i in range(6)}
    goal = (5, 11, 8, 3, 9, 12)

    def peak(params: Mapping[str, Any]) -> float:
        away = (value - wanted for value, wanted in zip(params.values(), goal, strict=True))
        return math.prod(math.exp(-((each / 6) ** 2)) for each in away)

    def best(name: str) -> float:
        return float(
            np.mean([run(study_of(space, [], name, seed=s), 40, peak).best_value for s in range(6)])
        )

    assert best(DEFAULT) > 1.5 * best("random")


def best_of(name: str, objective: Callable[[Any], float], seed: int, number: int = 40) -> float:
    study = study_of(GRID, SUM, name, seed=seed)
    return run(study, number, objective).best_value


def test_where_choices_interact_it_is_better_than_random_and_no_worse_than_tpe() -> None:
    def best(name: str, seed: int) -> float:
        worth = np.random.default_rng(seed).normal(size=(4, 4))
        limit = Limit("sum", lambda params: sum(params.values()), maximum=9)

        def neighbours(params: Mapping[str, Any]) -> float:
            return float(sum(worth[pair] for pair in itertools.pairwise(params.values())))

        return run(study_of(CHOICES, [limit], name, seed=seed), 60, neighbours).best_value

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

    ours = np.array([best_of(DEFAULT, unrelated, seed) for seed in range(12)])
    theirs = np.array([best_of("random", unrelated, seed) for seed in range(12)])
    gained = ours - theirs
    assert gained.mean() > -2 * gained.std(ddof=1) / math.sqrt(12)


def test_where_nothing_can_be_learned_half_the_proposals_are_random() -> None:
    rng = np.random.default_rng(0)
    counts = run(study_of(GRID, []), 60, lambda _: rng.normal()).sampler.counts  # type: ignore[attr-defined]
    assert 15 < counts["random"] - NUM_START < 35


def test_a_study_that_minimizes_is_minimized() -> None:
    study = optuna.create_study(sampler=make_sampler(DEFAULT, GRID, SUM, seed=0))
    run(study, 40, lambda params: -interacting(params))
    assert -study.best_value >= best_of(DEFAULT, interacting, 0) - 1e-9


def test_features_of_ones_own_lead_to_what_they_tell() -> None:
    """The score is a number of a network that no parameter tells."""
    worth = np.random.default_rng(0).random(4**6)

    def hidden(params: Mapping[str, Any]) -> float:
        place = sum((value - 1) * 4**place for place, value in enumerate(params.values()))
        return float(worth[place])

    told = run(study_of(GRID, [], features=lambda params: [hidden(params)]), 25, hidden)
    untold = run(study_of(GRID, []), 25, hidden)
    means = [np.mean([t.value for t in study.trials[NUM_START:]]) for study in (told, untold)]
    assert means[0] > means[1] + 0.2


def test_proposals_of_networks_fill_the_window() -> None:
    space = SearchSpace.from_config(load_space("resnet")[1], max_params=250_000)
    limits = Budget(250_000).limits(space)
    scaling = WidthScaling(space, limits)
    study = study_of(
        dict(space.distributions),
        limits,
        repair=scaling.repair,
        random_feasible=scaling.random_feasible,
    )
    run(study, 15, lambda params: float(params["depth_3"]))
    assert all(225_000 <= limits[0].cost(params) <= 250_000 for params in proposed(study))
    assert study.sampler.counts["base"] == 5  # type: ignore[attr-defined]


# The table


@pytest.mark.parametrize("name", [DEFAULT, *SAMPLERS])
def test_every_sampler_is_made_by_name_and_keeps_the_limits(name: str) -> None:
    if name == "cmaes":
        pytest.importorskip("cmaes")
    study = run(study_of(GRID, SUM, name), 16, interacting)
    assert all(sum(params.values()) <= 15 for params in proposed(study))
    counts = study.sampler.counts  # type: ignore[attr-defined]
    if name not in ("random", "nsga2"):  # which begins with a population of 50 at random
        assert counts["base"] + counts["repaired"] > 0


def test_a_sampler_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="unknown sampler 'grid'; known: default, tpe,"):
        make_sampler("grid", GRID, SUM)


def test_several_objectives_are_refused_in_one_line() -> None:
    sampler = make_sampler(DEFAULT, GRID, SUM, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    with pytest.raises(UserError, match="one objective; for several: tpe or nsga2"):
        study.ask(GRID)


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


def test_the_logarithm_of_a_hopeless_improvement_is_finite_and_falls() -> None:
    z = np.array([1e5, 3, 1, 0, -1, -4.999, -5.001, -10, -9_999, -10_001, -1e8])
    values = _log_gain(z)
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()


def test_the_logarithm_of_an_improvement_is_exact() -> None:
    """Against mpmath with 60 digits."""
    exact = {0.5: -0.3598276837450638, 0.0: -0.9189385332046728, -1.0: -2.485121025712641}
    exact |= {-5.001: -16.749663448901437, -38.0: -730.1961834021138, -100.0: -5010.12957880025}
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


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.RUNNING])
def test_a_trial_outside_the_limits_is_no_goal_within_them(state: TrialState) -> None:
    names = "abcdef"
    space: dict[str, BaseDistribution] = {name: IntDistribution(1, 16) for name in names}
    limits = [Limit("sum", lambda params: sum(params.values()), maximum=52, minimum=40)]

    def quadratic(params: Mapping[str, Any]) -> float:
        return -sum((params[name] - 8) ** 2 for name in names) / 100

    def regret(outsider: FrozenTrial | None) -> float:
        study = study_of(space, limits)
        if outsider is not None:
            study.add_trial(outsider)
        run(study, 45, quadratic)
        values = [t.value or 0.0 for t in study.trials if 40 <= sum(t.params.values()) <= 52]
        return -max(values)

    far = dict.fromkeys(names, 16)
    value = 1.0 if state is TrialState.COMPLETE else None
    outsider = optuna.create_trial(state=state, value=value, params=far, distributions=space)
    assert regret(outsider) < regret(None) + 0.1


def test_where_nothing_is_found_the_pool_is_not_drawn_for_ever() -> None:
    asked: list[None] = []

    def nothing(_rng: Random) -> None:
        asked.append(None)

    region = Region(SPACE, tuple(WINDOW))
    candidates = Candidates(region, Encoding(SPACE), nothing, lambda *_: None, seed=0)
    inside = region.random(Random(0))
    assert inside is not None
    for _ in range(3):
        candidates.around([inside], Random(0))
    assert len(asked) == MAX_FAILED + 3
