"""The same seed proposes the same, also after a resume."""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sampler_studies import (
    AREA,
    CHEAP,
    GRID,
    SPACE,
    again,
    resnets,
    run,
    scored,
    study_by_name,
    study_of,
    undisturbed,
)

from nas.samplers import DEFAULT
from nas.trials import requeue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import Trial


@pytest.mark.parametrize("base", CHEAP)
def test_the_same_seed_proposes_the_same(base: str) -> None:
    assert scored(run(study_of(base), 15)) == scored(undisturbed(base))[:15]


def test_a_sampler_may_serve_one_study_after_another() -> None:
    first = run(study_of("tpe", GRID, AREA), 15)
    second = run(optuna.create_study(sampler=first.sampler), 15)
    assert scored(second) == scored(first)


@pytest.mark.parametrize("base", CHEAP)
def test_another_seed_proposes_others(base: str) -> None:
    assert scored(run(study_of(base, seed=1), 5)) != scored(undisturbed(base))[:5]


def test_without_a_seed_no_two_studies_are_alike() -> None:
    one, other = (scored(run(study_of("random", seed=None), 5)) for _ in range(2))
    assert one != other


def test_proposals_leave_the_global_randomness_alone() -> None:
    before = random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - it is what is asked
    run(study_of("tpe"), 8)
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002


@pytest.mark.parametrize("base", CHEAP)
@pytest.mark.parametrize("before", [1, 10, 16])
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
    requeue(study, resnets(250_000))


def requeue_as_optuna_does(study: Study, trial: Trial) -> None:
    failed = study.tell(trial, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback(max_retry=3)(study, failed)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("interrupt", [requeue_as_we_do, requeue_as_optuna_does])
@pytest.mark.parametrize("base", [DEFAULT, "tpe", "random", "nsga2", "cmaes"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_trial_tried_again_does_not_shift_the_proposals_after_it(
    base: str, interrupt: Callable[[Study, Trial], None], times: int
) -> None:
    study = run(study_of(base), 3)
    for _ in range(times):
        interrupt(study, study.ask(SPACE))
        again(study, base)
    assert scored(run(study, 12)) == scored(undisturbed(base))[:15]


@pytest.mark.parametrize("base", [DEFAULT, "tpe", "random", "nsga2", "cmaes"])
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


@pytest.mark.parametrize("base", [DEFAULT, "tpe", "random"])
def test_what_fails_amid_its_parameters_is_not_proposed_again_and_again(base: str) -> None:
    study = study_of(base, GRID, AREA)
    widths = []
    for _ in range(12):
        trial = study.ask()
        widths.append(trial.suggest_int("width", 1, 9))
        study.tell(trial, state=TrialState.FAIL)
    assert len(set(widths)) > 3


@pytest.mark.parametrize("base", [DEFAULT, "tpe", "random", "nsga2", "cmaes"])
def test_proposals_do_not_depend_on_which_of_two_trials_was_asked_for_last(base: str) -> None:
    study = run(study_of(base), 11)
    first, _ = study.ask(), study.ask()
    proposed = {name: first._suggest(name, dist) for name, dist in SPACE.items()}
    assert proposed == scored(undisturbed(base))[11]


@pytest.mark.parametrize("name", [DEFAULT, "tpe", "random", "nsga2"])
def test_a_pickled_sampler_goes_on(name: str) -> None:
    study = run(study_by_name(name), 12)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))  # noqa: S301 - our own
    assert scored(run(study, 3)) == scored(run(study_by_name(name), 15))


def test_a_pickle_of_a_sampler_holds_no_database(tmp_path: Path) -> None:
    sampler = study_by_name(DEFAULT).sampler
    url = f"sqlite:///{tmp_path / 'secret.db'}"
    run(optuna.create_study(storage=url, sampler=sampler), 2)
    assert b"secret" not in pickle.dumps(sampler)
