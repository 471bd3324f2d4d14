"""What a study is: its identity, its queue, and the states of its trials.

A study is an Optuna study with user attributes of ours: `identity` (what makes its scores
comparable), `space`, `token`, `attributes_version`. `objective.py` writes those of its trials.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.errors import UserError, differences
from nas.presets import STUDIES
from nas.proposed import RETRY_KEY, retried, trial_id
from nas.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.budget import Budget
    from nas.proxy import ProxyConfig
    from nas.register import Register

ATTRIBUTES_VERSION = 1
METRIC = "val_accuracy"
IMPORTED = "imported"  # the recipe of what was trained elsewhere
SETUP_SECONDS = 10  # how long a process waits for another one that is creating the study
LIMITS = "limits."  # before a cost's name, in an identity
RETRIED = ("interrupted", "lost")  # a FAIL for these reasons is tried again, none for others
NO_FAULT = (*RETRIED, "duplicate")  # for these it says nothing about its network
MAX_LOST = 3  # times; then it is the network that ends its workers


class TrialFailed(Exception):  # noqa: N818 - named as the state
    """Raised where a trial must end as FAIL; `reason` is one word, `detail` a sentence."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def identity(
    data_set: str, fingerprint: str, split: str, budget: Budget, proxy: ProxyConfig
) -> dict[str, Any]:
    """Put together what must be equal for scores to share a study, flat.

    Not the precision that the device chooses: scores of several devices may share a study.
    """
    settings = proxy.model_dump()
    if proxy.precision == "auto":
        del settings["precision"]
    return {
        "data": data_set,
        "data_fingerprint": fingerprint,
        "split": split,
        "metric": METRIC,
        **({} if budget.image_size is None else {"image_size": budget.image_size}),
        **{f"{LIMITS}{name}": list(bounds) for name, bounds in budget.bounds.items()},
        **{f"proxy.{name}": value for name, value in settings.items()},
    }


def is_of_its_images(identity: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
    """Tell whether a sister's trial is of the images that a study of this identity scores on."""
    own = identity.get("data_fingerprint")
    return own is None or attributes.get("data_fingerprint", own) == own


def get_trial(study: Study, number: int) -> FrozenTrial:
    """Read a trial by its number (UserError: there is none)."""
    trials = study.get_trials(deepcopy=False)
    if 0 <= number < len(trials):
        return trials[number]
    last = len(trials) - 1
    has = "none yet" if not trials else f"0 to {last}" if last else "only 0"
    raise UserError(f"no trial {number} in study {study.study_name!r}; it has {has}")


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


def open_study(
    storage: RDBStorage,
    name: str,
    wanted: Mapping[str, Any],
    space: SearchSpace,
    *,
    pruner: BasePruner,
    baselines: Mapping[str, Architecture],
) -> Study:
    """Create the study and queue its baselines, or continue it if its identity is the wanted one.

    A space that includes the study's own replaces it.

    Raises:
        UserError: The study differs; the line names the differences and a free name.
    """
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruner
        )
        _set_up(study, wanted, space, baselines)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
        if study.directions != [StudyDirection.MAXIMIZE]:
            raise UserError(f"study {name!r} was not made by this tool; name another") from None
        _continue(study, wanted, space, baselines)
    return study


def _set_up(
    study: Study,
    wanted: Mapping[str, Any],
    space: SearchSpace,
    baselines: Mapping[str, Architecture],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRIC])
    study.set_user_attr("identity", json.dumps(wanted, sort_keys=True))
    study.set_user_attr("space", json.dumps(space.to_dict()))
    study.set_user_attr("attributes_version", ATTRIBUTES_VERSION)
    present = {trial.user_attrs.get("baseline") for trial in study.get_trials(deepcopy=False)}
    for name, arch in baselines.items():
        if name not in present:
            enqueue(study, space, arch, proposed_by="baseline", baseline=name)
    if "token" not in study.user_attrs:  # another process may have taken this one for dead
        study.set_user_attr("token", secrets.token_hex(16))  # last: it says that all else is there


def _continue(
    study: Study,
    wanted: Mapping[str, Any],
    space: SearchSpace,
    baselines: Mapping[str, Architecture],
) -> None:
    _complete_attrs(study, lambda: _set_up(study, wanted, space, baselines))
    refuse_other(study, wanted, space)
    if space != stored_space(study):
        study.set_user_attr("space", json.dumps(space.to_dict()))


def refuse_other(study: Study, wanted: Mapping[str, Any], space: SearchSpace) -> None:
    """Refuse a study whose scores could not be compared with those wanted; nothing is written.

    Raises:
        UserError: The study differs; the line names the differences and a free name.
    """
    attrs = study.user_attrs
    if attrs.get("attributes_version") != ATTRIBUTES_VERSION:
        raise UserError(
            f"study {study.study_name!r} was written by another version of this tool "
            f"(attributes {attrs.get('attributes_version')}, this one {ATTRIBUTES_VERSION})"
        )
    found = json.loads(attrs["identity"])
    if _are_folders(found, wanted):
        found = {**found, "data": wanted["data"]}
    different = differences(found, wanted)
    if not space.includes(stored_space(study)):
        different.append("the search space there is not part of the one asked for")
    if different:
        raise UserError(
            f"study {study.study_name!r} holds scores that cannot be compared: "
            f"{'; '.join(different)}. To start a new one: --study {_free_name(study)}"
        )


def _are_folders(*identities: Mapping[str, Any]) -> bool:
    """Tell whether all are of folders, which may be moved: their images have a fingerprint."""
    return all(str(each.get("data")).startswith("folder:") for each in identities)


def _complete_attrs(study: Study, set_up: Callable[[], None]) -> None:
    """Wait for another process that is setting the study up; do it in its place if it died."""
    deadline = time.monotonic() + SETUP_SECONDS
    while "token" not in study.user_attrs:
        if any("baseline" not in t.user_attrs for t in study.get_trials(deepcopy=False)):
            raise UserError(f"study {study.study_name!r} was not made by this tool; name another")
        if time.monotonic() > deadline:
            set_up()
        time.sleep(0.1)


def _free_name(study: Study) -> str:
    """Name one that neither this database nor a file of its own under `studies/` has."""
    taken = set(optuna.get_all_study_names(study._storage))  # noqa: SLF001 - it has no getter
    names = (f"{study.study_name}-{number}" for number in itertools.count(2))
    return next(n for n in names if n not in taken and not (STUDIES / f"{n}.db").exists())


def stored_space(study: Study) -> SearchSpace:
    """Read the space that a study is searched in."""
    return SearchSpace.from_dict(json.loads(study.user_attrs["space"]))


def stored_identity(study: Study) -> dict[str, Any]:
    """Read a study's identity; nothing of one that other programs made."""
    found: dict[str, Any] = json.loads(study.user_attrs.get("identity", "{}"))
    return found


def stored_limits(study: Study) -> dict[str, tuple[int | None, int]]:
    """Read a study's limits: (minimum or `None`, maximum) by the cost's name."""
    return {
        key.removeprefix(LIMITS): (bounds[0], bounds[1])
        for key, bounds in stored_identity(study).items()
        if key.startswith(LIMITS)
    }


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
