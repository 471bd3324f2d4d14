"""The trials of a study: reading them, the queue, how they end, who has which architecture."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.complexity import count_params
from nas.errors import UserError
from nas.proposed import RETRY_KEY, retried, trial_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.register import Register
    from nas.space import SearchSpace

RETRIED = ("interrupted", "lost")  # a FAIL for these reasons is tried again, none for others
NO_FAULT = (*RETRIED, "duplicate")  # for these it says nothing about its network
MAX_LOST = 3  # times; then it is the network that ends its workers


class TrialFailed(Exception):  # noqa: N818 - named as the state
    """Raised where a trial must end as FAIL; `reason` is one word, `detail` a sentence."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def described(arch: Architecture) -> dict[str, Any]:
    """Give the user attributes by which a trial names its network."""
    return {
        "architecture": str(arch),
        "arch_id": arch.arch_id,
        "architecture_json": arch.to_json(),
        "num_params": count_params(arch),
    }


def get_trial(study: Study, number: int) -> FrozenTrial:
    """Read a trial by its number (UserError: there is none)."""
    trials = study.get_trials(deepcopy=False)
    if isinstance(number, Integral) and 0 <= number < len(trials):
        return trials[number]
    last = len(trials) - 1
    has = "none yet" if not trials else f"0 to {last}" if last else "only 0"
    raise UserError(f"no trial {number!r} in study {study.study_name!r}; it has {has}")


def architecture_of(study: Study, number: int) -> Architecture:
    """Read the network of a scored trial.

    Raises:
        UserError: No trial of this number, or one without a score.
    """
    trial = get_trial(study, number)
    if trial.state is not TrialState.COMPLETE:
        reason = trial.user_attrs.get("fail_reason", "over budget")
        why = f" ({reason})" if trial.state in (TrialState.FAIL, TrialState.PRUNED) else ""
        raise UserError(
            f"trial {number} of {study.study_name!r} has no score: it is {trial.state.name}{why}; "
            "choose one of `nas leaderboard`, or name a network with --architecture"
        )
    return Architecture.from_json(trial.user_attrs["architecture_json"])


def scored_trials(study: Study) -> list[FrozenTrial]:
    """List the scored trials, in order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def num_scored(study: Study) -> int:
    """Count the scored trials."""
    return len(scored_trials(study))


def num_since_best(study: Study) -> int:
    """Count the scored trials after the best one, of equal ones the first."""
    scored = scored_trials(study)
    if not scored:
        return 0
    best = max(scored, key=lambda t: (t.value, -t.number))
    return sum(trial.number > best.number for trial in scored)


def enqueue(
    study: Study, space: SearchSpace, arch: Architecture, *, proposed_by: str, **attrs: object
) -> None:
    """Queue an architecture, also one outside the space, to be scored next."""
    params = space.encode(arch) or {}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": params},
            user_attrs={"architecture_json": arch.to_json(), "proposed_by": proposed_by, **attrs},
        )
    )


def requeue(study: Study, space: SearchSpace) -> None:
    """Queue again what is `to_retry` and had a network."""
    for trial in to_retry(study.get_trials(deepcopy=False)):
        has_network = (
            "architecture_json" in trial.user_attrs
            or space.distributions.keys() <= trial.params.keys()
        )
        if has_network:
            _queue_again(study, trial, _attempts(trial))


def to_retry(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """List what failed for no fault of its own and has not been tried again since.

    Args:
        trials: All of a study's.
    """
    reasons = {trial.number: trial.user_attrs.get("fail_reason") for trial in trials}
    again = retried(trials)

    def has_hope(trial: FrozenTrial) -> bool:
        num_lost = sum(reasons.get(number) == "lost" for number in _attempts(trial))
        return reasons[trial.number] in RETRIED and num_lost <= MAX_LOST

    failed = (t for t in trials if t.state is TrialState.FAIL and t.number not in again)
    return [trial for trial in failed if has_hope(trial)]


def _attempts(trial: FrozenTrial) -> list[int]:
    """Give the numbers of a trial and of those that it is a retry of."""
    return [*trial.system_attrs.get("retry_history", ()), trial.number]


def _queue_again(study: Study, trial: FrozenTrial, history: list[int]) -> None:
    """Follow the convention of Optuna's `RetryHeartbeatStaleTrialCallback`."""
    kept = ("architecture_json", "proposed_by", "baseline", "name", "draws", "source_trial", "seed")
    retry = {RETRY_KEY: history[0], "retry_history": history}
    fixed = {"fixed_params": trial.system_attrs.get("fixed_params", trial.params)}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={key: trial.user_attrs[key] for key in kept if key in trial.user_attrs},
            system_attrs=fixed | trial.system_attrs | retry,
        )
    )


def fail(study: Study, id_: int, reason: str, detail: str = "") -> None:
    """End a running trial, by its id, as FAIL; one that ended meanwhile stays as it is."""
    storage = study._storage  # noqa: SLF001 - a dead worker's trial has no `Trial` to tell
    try:
        storage.set_trial_user_attr(id_, "fail_reason", reason)
        if detail:
            storage.set_trial_user_attr(id_, "fail_detail", detail)
        storage.set_trial_state_values(id_, TrialState.FAIL)
    except (KeyError, optuna.exceptions.UpdateFinishedTrialError):
        return


def claimer(storage: RDBStorage, register: Register) -> Callable[[str, FrozenTrial | Trial], bool]:
    """Make the function that claims an architecture for a trial; False if another has it.

    A claim is void, and may be taken over, if its trial is gone or will be tried again.
    """

    def is_void(owner: int) -> bool:
        try:
            trial = storage.get_trial(owner)
        except KeyError:
            return True
        return trial.state is TrialState.FAIL and trial.user_attrs.get("fail_reason") in RETRIED

    def claim(arch_id: str, trial: FrozenTrial | Trial) -> bool:
        return register.claim(arch_id, trial_id(trial), is_void=is_void)

    return claim
