"""BudgetSampler, whatever the base: nothing over a limit, nothing twice, resume changes nothing."""

from __future__ import annotations

import itertools
import math
import random
import time
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from strategies import any_spaces, is_inside, limits_on

from nas.budget import Budget
from nas.errors import UserError
from nas.pruner import OverBudgetPruner
from nas.samplers import (
    SAMPLERS,
    BudgetSampler,
    Exhausted,
    Limit,
    NothingFits,
    check_sampler,
)
from nas.space import SearchSpace, load_space
from nas.study import requeue
from nas.width_scaling import WidthScaling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

# The samplers of SAMPLERS, with start-up phases short enough to see what follows them.
FACTORIES: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=5),
    "random": lambda seed: RandomSampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=4, deterministic_objective=False),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=4),
}
NUM_TRIALS = {"tpe": 30, "random": 30, "gp": 8, "cmaes": 30, "nsga2": 30}
CHEAP = ("tpe", "random", "nsga2", "cmaes")

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


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def study_of(base: Any, space: Any = SPACE, limits: Any = WINDOW, **options: Any) -> Study:
    """A study in memory whose sampler wraps `base`: a name of FACTORIES, a factory, a sampler."""
    base = FACTORIES[base] if isinstance(base, str) else base
    sampler = BudgetSampler(base, space, limits, **({"seed": 0} | options))
    return optuna.create_study(sampler=sampler)


def sampler_of(study: Study) -> BudgetSampler:
    assert isinstance(study.sampler, BudgetSampler)
    return study.sampler


def run(study: Study, number: int) -> Study:
    """Score `number` trials."""
    space = sampler_of(study).region.search_space
    for _ in range(number):
        trial = study.ask(space)
        study.tell(trial, score(trial.params))
    return study


def scored(study: Study) -> list[dict[str, Any]]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial.params for trial in trials]


def again(study: Study, base: str) -> Study:
    """The same study in another process: its sampler made anew with the same seed."""
    old = sampler_of(study)
    study.sampler = BudgetSampler(
        FACTORIES[base], old.region.search_space, old.region.limits, seed=old.seed
    )
    return study


def key(params: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(params.items()))


@cache
def undisturbed(base: str) -> Study:
    """One study of each base, read by many tests."""
    return run(study_of(base), NUM_TRIALS[base])


class Recording(RandomSampler):
    """A base with a model: proposes what a list says, over and over; counts its draws."""

    def __init__(self, *proposals: dict[str, Any]) -> None:
        super().__init__(seed=0)
        self.proposals = itertools.cycle(proposals)
        self.num_draws = 0

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        self.num_draws += 1
        return dict(next(self.proposals))


class RecordingTPE(TPESampler):
    """TPE's kind of base, which is drawn from again."""

    def __init__(self, *proposals: dict[str, Any]) -> None:
        super().__init__(seed=0)
        self.proposals = itertools.cycle(proposals)
        self.num_draws = 0

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        self.num_draws += 1
        return dict(next(self.proposals))


# Within the limits, and new


@pytest.mark.parametrize("base", FACTORIES)
def test_no_proposal_lies_outside_the_limits(base: str) -> None:
    proposed = scored(undisturbed(base))
    assert len(proposed) == NUM_TRIALS[base]
    assert all(is_inside(params, SPACE, WINDOW) for params in proposed)


@pytest.mark.parametrize("base", FACTORIES)
def test_no_proposal_is_made_twice(base: str) -> None:
    number = min(NUM_TRIALS[base], len(IN_AREA))
    proposed = scored(run(study_of(base, GRID, AREA), number))
    assert len(set(map(key, proposed))) == number


@pytest.mark.parametrize("base", ["tpe", "gp", "cmaes", "nsga2"])
def test_a_base_with_a_model_is_asked_once_its_start_up_is_over(base: str) -> None:
    counts = sampler_of(undisturbed(base)).counts
    assert counts["base"] + counts["repaired"] >= NUM_TRIALS[base] // 3


@given(data=st.data(), base=st.sampled_from(["tpe", "random", "cmaes", "nsga2"]))
@settings(max_examples=25)
def test_proposals_in_any_space_lie_within_its_limits_and_differ(
    data: st.DataObject, base: str
) -> None:
    space = data.draw(any_spaces())
    assume(not all(dist.single() for dist in space.values()))  # Optuna asks no sampler then
    limits = data.draw(limits_on(space, satisfiable=True))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = study_of(base, space, limits)
    for _ in range(9):
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


@pytest.mark.parametrize("base", FACTORIES)
def test_scored_trials_without_parameters_disturb_no_base(base: str) -> None:
    """Such as a hand-made network outside the search space, scored as a baseline."""
    study = study_of(base)
    for value in (0.1, 0.2, 0.3):
        study.add_trial(optuna.create_trial(value=value))
    assert len(set(map(key, scored(run(study, 8))))) == 9  # the three are all {}


@pytest.mark.parametrize("base", FACTORIES)
def test_trials_of_a_smaller_space_disturb_no_base(base: str) -> None:
    """A range that was one value: the trials from before lack the parameter."""
    study = study_of(base)
    smaller = {name: dist for name, dist in SPACE.items() if name != "depth"}
    for width in (8, 12, 16):
        params = {"width": width, "kernel_size": 3, "rate": 0.1}
        study.add_trial(optuna.create_trial(params=params, distributions=smaller, value=width))
    proposed = scored(run(study, 8))[3:]
    assert [is_inside(params, SPACE, WINDOW) for params in proposed] == [True] * 8


# Seeds and resume


@pytest.mark.parametrize("base", CHEAP)
def test_the_same_seed_proposes_the_same(base: str) -> None:
    assert scored(run(study_of(base), 15)) == scored(undisturbed(base))[:15]


def test_a_sampler_may_serve_one_study_after_another() -> None:
    first = run(study_of("tpe", GRID, AREA), 15)
    second = run(optuna.create_study(sampler=first.sampler), 15)
    assert scored(second) == scored(first)


def test_another_seed_proposes_others() -> None:
    assert scored(run(study_of("random", seed=1), 5)) != scored(run(study_of("random"), 5))


def test_without_a_seed_no_two_studies_are_alike() -> None:
    one, other = (scored(run(study_of("random", seed=None), 5)) for _ in range(2))
    assert one != other


def test_proposals_leave_the_global_randomness_alone() -> None:
    before = random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - it is what is asked
    run(study_of("tpe"), 8)
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002


@pytest.mark.parametrize("base", CHEAP)
@pytest.mark.parametrize("before", [1, 7, 16])
def test_a_resumed_study_proposes_what_an_undisturbed_one_does(base: str, before: int) -> None:
    study = again(run(study_of(base), before), base)
    assert scored(run(study, 20 - before)) == scored(undisturbed(base))[:20]


def test_a_study_resumed_before_every_trial_proposes_what_an_undisturbed_one_does() -> None:
    study = study_of("tpe")
    for _ in range(12):
        run(again(study, "tpe"), 1)
    assert scored(study) == scored(undisturbed("tpe"))[:12]


def requeue_as_we_do(study: Study, trial: Trial) -> None:
    trial.set_user_attr("architecture_json", "{}")
    trial.set_user_attr("fail_reason", "interrupted")
    study.tell(trial, state=TrialState.FAIL)
    requeue(study, SearchSpace.from_config(load_space("resnet")[1], max_params=250_000))


def requeue_as_optuna_does(study: Study, trial: Trial) -> None:
    failed = study.tell(trial, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback(max_retry=3)(study, failed)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("interrupt", [requeue_as_we_do, requeue_as_optuna_does])
@pytest.mark.parametrize("base", ["tpe", "random", "nsga2"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_trial_tried_again_does_not_shift_the_proposals_after_it(
    base: str, interrupt: Callable[[Study, Trial], None], times: int
) -> None:
    study = run(study_of(base), 3)
    for _ in range(times):
        interrupt(study, study.ask(SPACE))
        again(study, base)
    assert scored(run(study, 17)) == scored(undisturbed(base))[:20]


@pytest.mark.parametrize("base", ["tpe", "random", "nsga2"])
def test_a_trial_interrupted_before_its_proposal_does_not_shift_those_after_it(base: str) -> None:
    study = run(study_of(base), 7)
    study.tell(study.ask(), state=TrialState.FAIL)
    assert scored(run(again(study, base), 8)) == scored(undisturbed(base))[:15]


def test_a_trial_interrupted_amid_its_parameters_does_not_shift_those_after_it() -> None:
    study = run(study_of("tpe"), 7)
    trial = study.ask()
    trial.suggest_int("width", 4, 64, step=4)
    study.tell(trial, state=TrialState.FAIL)
    assert scored(run(again(study, "tpe"), 8)) == scored(undisturbed("tpe"))[:15]


@pytest.mark.parametrize("base", ["tpe", "random"])
def test_what_fails_amid_its_parameters_is_not_proposed_again_and_again(base: str) -> None:
    study = study_of(base, GRID, AREA)
    widths = []
    for _ in range(12):
        trial = study.ask()
        widths.append(trial.suggest_int("width", 1, 9))
        study.tell(trial, state=TrialState.FAIL)
    assert len(set(widths)) > 3


@pytest.mark.parametrize("base", ["tpe", "random", "nsga2"])
def test_proposals_do_not_depend_on_which_of_two_trials_was_asked_for_last(base: str) -> None:
    study = run(study_of(base), 9)
    first, _ = study.ask(), study.ask()
    proposed = {name: first._suggest(name, dist) for name, dist in SPACE.items()}
    assert proposed == scored(undisturbed(base))[9]


# Claims


def test_what_a_claim_refuses_is_not_proposed() -> None:
    study = study_of("random", GRID, AREA, claim=lambda _, params: params["width"] != 4)
    run(study, len(IN_AREA) - 3)
    assert {(p["width"], p["depth"]) for p in scored(study)} == IN_AREA - {(4, 3), (4, 4), (4, 5)}


def test_what_a_claim_refuses_is_counted_as_known() -> None:
    offered = []

    def claim(trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
        offered.append((trial.number, dict(params)))
        return len(offered) > 3

    study = run(study_of("random", claim=claim), 1)
    assert sampler_of(study).counts == {"known": 3, "random": 1}
    assert offered[-1] == (0, scored(study)[0])


@pytest.mark.parametrize("base", ["tpe", "random"])
def test_a_claim_is_asked_only_for_what_is_new_and_within_the_limits(base: str) -> None:
    offered = []
    study = study_of(base, claim=lambda _, params: offered.append(dict(params)) or True)
    run(study, 12)
    assert offered == scored(study)


def test_a_space_claimed_by_others_is_exhausted() -> None:
    study = study_of("random", GRID, AREA, claim=lambda *_: False)
    with pytest.raises(Exhausted):
        study.ask(GRID)


# Enqueued trials


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


@pytest.mark.parametrize("base", ["tpe", "random"])
@pytest.mark.parametrize("width", range(2, 10))
def test_a_partly_enqueued_trial_is_completed_within_the_limits(base: str, width: int) -> None:
    study = study_of(base, GRID, AREA)
    for depth in range(4, 10):  # over the limit, so that nothing within it is known
        params = {"width": 9, "depth": depth}
        study.add_trial(optuna.create_trial(params=params, distributions=GRID, value=depth))
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
    space = SearchSpace.from_config(load_space("resnet")[1], max_params=250_000)
    limits = Budget(250_000).limits(space)
    scaling = WidthScaling(space, limits)
    sampler = BudgetSampler(
        SAMPLERS["tpe"],
        space.distributions,
        limits,
        repair=scaling.repair,
        random_feasible=scaling.random_feasible,
        seed=0,
    )
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"depth_1": depth, "depth_4": depth})
    params = study.ask(dict(space.distributions)).params
    assert (params["depth_1"], params["depth_4"]) == (depth, depth)
    assert 225_000 <= limits[0].cost(params) <= 250_000


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


# Threads


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


# Nothing fits, nothing left


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


@pytest.mark.parametrize("base", FACTORIES)
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


@pytest.mark.parametrize("base", ["tpe", "random", "cmaes", "nsga2"])
def test_a_finite_space_is_proposed_point_by_point_and_then_exhausted(base: str) -> None:
    study = study_of(base, GRID, AREA)
    run(study, len(IN_AREA))
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
    assert len(scored(study)) == fitting or "all were made" not in str(error.value)


def test_an_exhausted_space_ends_optimize_by_itself() -> None:
    study = study_of("random", GRID, AREA)

    def objective(trial: Trial) -> float:
        return trial.suggest_int("width", 1, 9) + trial.suggest_int("depth", 1, 9)

    study.optimize(objective, n_trials=1000, catch=(Exhausted,))
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * len(IN_AREA) + [TrialState.FAIL]


def test_exhausted_is_no_mistake_of_the_user() -> None:
    assert not issubclass(Exhausted, UserError)


# Draws


@pytest.mark.parametrize("base", FACTORIES)
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


OVER, UNDER, KNOWN, NEW = (
    {"width": 9, "depth": 9},
    {"width": 1, "depth": 1},
    {"width": 4, "depth": 4},
    {"width": 5, "depth": 3},
)


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


@pytest.mark.parametrize("base", ["tpe", "random"])
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


# Pruner


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


BOX: dict[str, BaseDistribution] = {
    "width": IntDistribution(1, 99),
    "depth": IntDistribution(1, 99),
}


# The table


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tpe", TPESampler),
        ("random", RandomSampler),
        ("gp", GPSampler),
        ("cmaes", CmaEsSampler),
        ("nsga2", NSGAIISampler),
    ],
)
def test_a_sampler_is_made_by_name(name: str, kind: type[BaseSampler]) -> None:
    assert isinstance(SAMPLERS[name](0), kind)


def test_an_unknown_sampler_lists_the_known_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        check_sampler("grid")
    assert (
        str(error.value) == "unknown sampler 'grid'; known: default, tpe, random, gp, cmaes, nsga2"
    )


# For networks


@pytest.mark.parametrize("budget", [60_000, 250_000, 5_000_000])
@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_proposals_of_networks_fill_the_window(name: str, budget: int) -> None:
    space = SearchSpace.from_config(load_space("resnet")[1], max_params=budget)
    limits = Budget(budget).limits(space)
    scaling = WidthScaling(space, limits)
    study = study_of(
        name,
        dict(space.distributions),
        limits,
        repair=scaling.repair,
        random_feasible=scaling.random_feasible,
    )
    for _ in range(10):
        trial = study.ask(dict(space.distributions))
        study.tell(trial, sum(trial.params.values()))
    arch_ids = {space.decode(params).arch_id for params in scored(study)}
    assert len(arch_ids) == 10
    assert all(0.9 * budget <= limits[0].cost(params) <= budget for params in scored(study))


def test_draws_of_networks_are_the_same_whatever_was_drawn_before_elsewhere() -> None:
    rng = partial(Random, 0)
    space = SearchSpace.from_config(load_space("resnet")[1], max_params=60_000)
    scaling = WidthScaling(space, Budget(60_000).limits(space))
    first = scaling.random_feasible(rng())
    scaling.repair(scaling.region.uniform(rng()), rng())
    assert scaling.random_feasible(rng()) == first
