"""standings: which studies a database holds, and where they stand."""

from __future__ import annotations

import json
from statistics import mean
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from nas.find_study import FINALISTS, RETRAIN, owner_of, sister_name
from nas.storage import shown_url
from nas.study import IMPORTED, is_of_its_images, schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

# The seeds of a training are alike in these.
TRAINING = ("architecture_json", "recipe", "recipe_settings", "data_fingerprint")


def standings(storage: RDBStorage) -> list[dict[str, Any]]:
    """Say where the studies of a database stand, in JSON's types, in the order of their names.

    `best_val_accuracy` is of one training by `schedule`. `best_accuracy` is on test, the best mean
    over the seeds of a network and recipe: the best seed would be chosen on test; of how many seeds
    and epochs each is beside it. What other programs made is left out.
    """
    names = optuna.get_all_study_names(storage)
    identities = {n: _identity(storage, n) if n in names else {} for n in map(owner_of, names)}
    return [
        _standing(storage, name, names, identity)
        for name, identity in sorted(identities.items())
        if identity is not None
    ]


def _standing(
    storage: RDBStorage, name: str, names: Sequence[str], identity: Mapping[str, Any]
) -> dict[str, Any]:
    def trials(study_name: str) -> list[FrozenTrial]:
        if study_name not in names:
            return []
        study = optuna.load_study(storage=storage, study_name=study_name)
        return study.get_trials(deepcopy=False)

    own, recorded = trials(name), _scored(trials(sister_name(name, RETRAIN)))
    retrained = [trial for trial in recorded if trial.user_attrs.get("recipe") != IMPORTED]
    scored, final = _scored(own), _scored(trials(sister_name(name, FINALISTS)))
    tested: dict[tuple[Any, ...], list[FrozenTrial]] = {}
    for trial in retrained:
        attrs = trial.user_attrs
        if attrs.get("split") != "val" and is_of_its_images(identity, attrs):
            tested.setdefault(tuple(map(attrs.get, TRAINING)), []).append(trial)
    best = max(tested.values(), key=_mean, default=[])
    ended = [t.datetime_complete for t in (*own, *final, *recorded) if t.datetime_complete]
    return {
        "study": name,
        **{state.name.lower(): sum(t.state is state for t in own) for state in TrialState},
        "best_val_accuracy": max((t.value for t in scored if t.value is not None), default=None),
        "schedule": schedule(identity),
        "epochs": identity.get("proxy.epochs"),
        "finalists": len({t.user_attrs.get("source_trial") for t in final}),
        "retrained": len(retrained),
        "imported": len(recorded) - len(retrained),
        "best_accuracy": _mean(best) if best else None,
        "best_accuracy_seeds": len(best),
        "best_accuracy_epochs": best[0].user_attrs.get("epochs") if best else None,
        "data": identity.get("data"),
        "max_params": identity.get("limits.num_params", [None, None])[1],
        "last": max(ended).isoformat(timespec="seconds") if ended else None,
        "storage": shown_url(storage.url),
    }


def _mean(trials: Sequence[FrozenTrial]) -> float:
    return mean(trial.value for trial in trials if trial.value is not None)


def _scored(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state is TrialState.COMPLETE]


def _identity(storage: RDBStorage, name: str) -> dict[str, Any] | None:
    """Read a study's identity; `None` of one that other programs made."""
    found = optuna.load_study(storage=storage, study_name=name).user_attrs.get("identity")
    return None if found is None else json.loads(found)
