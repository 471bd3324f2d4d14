"""Sister studies: what was measured of a study's networks later, as trials of their own."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from nas.errors import UserError
from nas.find_study import load_study, sister_name
from nas.proposed import trial_id
from nas.study import is_of_its_images, stored_identity
from nas.trials import scored_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

METRIC = "accuracy"


def open_sister(storage: BaseStorage, study_name: str, kind: str) -> Study:
    """Open the sister of this kind of the study of this name, or create it."""
    name = sister_name(study_name, kind)
    sister = load_study(storage, name)
    if sister is None:
        sister = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            sampler=RandomSampler(),
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sister.set_metric_names([METRIC])
    return sister


def find_finished(sister: Study, identity: Mapping[str, Any]) -> FrozenTrial | None:
    """Find the scored trial with these attributes."""
    return _find(sister, identity, TrialState.COMPLETE)


def find_begun(sister: Study, identity: Mapping[str, Any]) -> FrozenTrial | None:
    """Find the scored or running trial with these attributes."""
    return _find(sister, identity, TrialState.COMPLETE, TrialState.RUNNING)


def _find(sister: Study, identity: Mapping[str, Any], *states: TrialState) -> FrozenTrial | None:
    trials = sister.get_trials(deepcopy=False, states=states)
    return next((t for t in trials if identity.items() <= t.user_attrs.items()), None)


def resume_or_start(sister: Study, identity: Mapping[str, Any], **others: object) -> Trial:
    """Take up the running trial with these attributes, or start one that has all of them."""
    found = _find(sister, identity, TrialState.RUNNING)
    storage = sister._storage  # noqa: SLF001 - `Study.ask` cannot start one with its attributes
    if found is None:
        template = optuna.create_trial(state=TrialState.RUNNING, user_attrs={**identity, **others})
        id_ = storage.create_new_trial(sister._study_id, template_trial=template)  # noqa: SLF001
    else:
        id_ = trial_id(found)
    return optuna.trial.Trial(sister, id_)


def report_values(sister: Study, trial: Trial, values: list[float]) -> None:
    """Report a value an epoch, those that are not reported yet."""
    known = sister._storage.get_trial(trial_id(trial)).intermediate_values  # noqa: SLF001
    for epoch, value in enumerate(values):
        if epoch not in known:
            trial.report(value, epoch)


@contextmanager
def ended_elsewhere_in_one_line(sister: Study) -> Iterator[None]:
    """Refuse (UserError) to write to a trial that another process ended meanwhile."""
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError:
        raise UserError(
            f"this training's trial of {sister.study_name!r} was ended by another process, which "
            "had the same command; its result stands"
        ) from None


def scored_images(study: Study, attributes: Mapping[str, Any]) -> str:
    """Name the split that a full training was scored on, and the data set if not the study's."""
    is_own = is_of_its_images(stored_identity(study), attributes)
    return attributes["split"] if is_own else f"{attributes['split']} of {attributes['data']}"


def retrained_table(study: Study, sister: Study, number: int, arch_id: str) -> str:
    """Describe what was retrained of a source trial, or of its network, as a Markdown table."""

    def row(trial: FrozenTrial) -> str:
        attrs = trial.user_attrs
        flipped = f"{attrs['flip_accuracy']:.2%}" if "flip_accuracy" in attrs else "-"
        epochs = " ".join(str(attrs.get("epochs", "-")).replace("|", "/").split())  # of any sheet
        return (
            f"| {attrs['recipe']} | {epochs} | {attrs.get('seed', '-')} "
            f"| {scored_images(study, attrs)} | {trial.value:.2%} | {flipped} | {trial.number} |"
        )

    rows = [
        row(t)
        for t in scored_trials(sister)
        if t.value is not None
        and t.user_attrs.get("source_trial") in (number, None)
        and t.user_attrs.get("arch_id") == arch_id
    ]
    title = "| recipe | epochs | seed | split | accuracy | flip-averaged | trial of "
    return "\n".join([f"{title}{sister.study_name} |", "| --- " * 7 + "|", *rows])


def finalists_table(sister: Study, number: int) -> str:
    """Describe how a source trial's network scored again, as a Markdown table."""
    rows = [
        f"| {t.user_attrs['seed']} | {len(t.user_attrs['train_losses'])} | {t.value:.2%} "
        f"| {t.number} |"
        for t in scored_trials(sister)
        if t.user_attrs.get("source_trial") == number and t.value is not None
    ]
    title = f"| seed | epochs | val accuracy | trial of {sister.study_name} |"
    return "\n".join([title, "| --- " * 4 + "|", *rows])
