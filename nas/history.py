"""The tries of a study: its trials and what its sisters measured, each as one value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.complexity import count_params
from nas.find_study import RETRAIN, SISTERS, find_sister
from nas.notes import notes
from nas.study import IMPORTED, is_of_its_images, stored_identity
from nas.trials import NO_FAULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from optuna.study import Study
    from optuna.trial import FrozenTrial

SEARCH = "search"
RESULTS = {
    TrialState.COMPLETE: "scored",
    TrialState.PRUNED: "over budget",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

TRAINED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)  # or it was about to be


@dataclass(frozen=True)
class Try:
    """One network, tried once.

    Attributes:
        kind: "search" for a trial of the study, else the sister: "finalists", "retrain".
        trial: Its number there.
        source_trial: The number of the network's trial in the study, or `None`.
        name: What a person calls it.
        arch: The network.
        result: "scored" (with what it reached, if on other images than the study's), "over budget",
            "running", "waiting" or why it failed.
        val_accuracy: In [0, 1], or `None`; of a search trial its proxy's. Of the study's images.
        accuracy: On test images, in [0, 1], or `None`; likewise.
        recipe: Of a full training, or `None`; with the data set if not the study's.
        optimizer: Its name, or "".
        lr: Its peak, as text, or "".
        epochs: Passes over its training images, as text, or "".
        seed: Of the training, or `None`.
        notes: Of persons, or "".
        date: When it ended, in ISO form; of an imported one what the sheet says.
        proposed_by: A sampler, "baseline", a person, or "".
    """

    kind: str
    trial: int
    source_trial: int | None
    name: str
    arch: Architecture
    result: str
    val_accuracy: float | None
    accuracy: float | None
    recipe: str | None
    optimizer: str
    lr: str
    epochs: str
    seed: int | None
    notes: str
    date: str
    proposed_by: str

    @cached_property
    def num_params(self) -> int:
        """Count trainable parameters."""
        return count_params(self.arch)

    @property
    def is_over(self) -> bool:
        """Whether it ended, in whatever way."""
        return self.result not in ("running", "waiting")

    def to_dict(self) -> dict[str, Any]:
        """Describe it in JSON's types."""
        others = {key: value for key, value in vars(self).items() if key != "arch"}
        return {
            **others,
            "arch_id": self.arch.arch_id,
            "architecture": str(self.arch),
            "architecture_json": json.loads(self.arch.to_json()),
            "num_params": self.num_params,
        }


def history(study: Study) -> list[Try]:
    """List the tries of a study: its own trials, then those of its sisters, each in order.

    What says nothing about a network is left out: trials that have none yet, and those that were
    interrupted or were of another trial's network.
    """
    identity = stored_identity(study)
    found = list(_tries(study, SEARCH, identity))
    for kind in SISTERS:
        if (sister := find_sister(study, kind)) is not None:
            found += _tries(sister, kind, identity)
    return found


def in_epochs(epochs: str) -> str:
    """Put a number of epochs in words, or what a sheet says in its place; "" where it is blank."""
    if not epochs.isdecimal():
        return epochs
    return "1 epoch" if epochs == "1" else f"{epochs} epochs"


def _tries(study: Study, kind: str, identity: Mapping[str, Any]) -> Iterator[Try]:
    written = notes(study)
    scheduled = json.loads(study.user_attrs.get("identity", "{}")).get("proxy.epochs", "")
    for trial in study.get_trials(deepcopy=False):
        attrs = trial.user_attrs
        if "architecture_json" in attrs and attrs.get("fail_reason") not in NO_FAULT:
            note = written.get(trial.number, "")
            epochs = attrs.get("epochs", scheduled if trial.state in TRAINED else "")
            yield _try(kind, trial, identity, note, str(epochs))


def _try(kind: str, trial: FrozenTrial, identity: Mapping[str, Any], note: str, epochs: str) -> Try:
    attrs = trial.user_attrs
    is_imported = attrs.get("recipe") == IMPORTED
    is_tested = kind == RETRAIN and attrs.get("split") != "val"
    is_own = is_of_its_images(identity, attrs)
    reached = trial.value if trial.state is TrialState.COMPLETE else None
    value = reached if is_own else None
    elsewhere = "" if is_own or reached is None else f" {attrs.get('split')} {reached:.2%} there"
    ended = trial.datetime_complete
    texts = [text for text in (attrs.get("notes"), note) if text]
    source = trial.number if kind == SEARCH else attrs.get("source_trial")
    return Try(
        kind=kind,
        trial=trial.number,
        source_trial=source,
        name=_name(kind, trial),
        arch=Architecture.from_json(attrs["architecture_json"]),
        result=(RESULTS.get(trial.state) or attrs.get("fail_reason", "failed")) + elsewhere,
        val_accuracy=attrs.get("val_accuracy") if is_tested else value,
        accuracy=value if is_tested else None,
        recipe=attrs.get("recipe") if is_own else f"{attrs['recipe']} on {attrs['data']}",
        optimizer=attrs.get("optimizer", "" if is_imported else "SGD"),
        lr=attrs.get("lr", "" if is_imported else _peak_lr(attrs, identity)),
        epochs=epochs,
        seed=attrs.get("seed"),
        notes="\n".join(texts),
        date=attrs.get(
            "date", "" if is_imported or not ended else ended.isoformat(timespec="seconds")
        ),
        proposed_by=attrs.get("proposed_by", ""),
    )


def _name(kind: str, trial: FrozenTrial) -> str:
    attrs = trial.user_attrs
    if attrs.get("recipe") == IMPORTED:
        return str(attrs.get("network", ""))
    source = trial.number if kind == SEARCH else attrs.get("source_trial")
    named = attrs.get("network") or attrs.get("baseline") or attrs.get("name")
    return named or f"trial-{source}"


def _peak_lr(attrs: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    if "recipe_settings" in attrs:
        return f"{json.loads(attrs['recipe_settings'])['peak_lr']:g}"
    return f"{identity['proxy.peak_lr']:g}" if "proxy.peak_lr" in identity else ""
