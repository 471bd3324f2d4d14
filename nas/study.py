"""What a study is: its identity, its space and its limits; how it is created and continued.

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

from nas.errors import UserError, differences
from nas.presets import STUDIES
from nas.space import SearchSpace
from nas.trials import enqueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.study import Study

    from nas.architecture import Architecture
    from nas.budget import Budget
    from nas.proxy import ProxyConfig

ATTRIBUTES_VERSION = 1
METRIC = "val_accuracy"
IMPORTED = "imported"  # the recipe of what was trained elsewhere
SETUP_SECONDS = 10  # how long a process waits for another one that is creating the study
LIMITS = "limits."  # before a cost's name, in an identity
LIMITS_IN_WORDS = {
    f"{LIMITS}num_params": "parameters (least, most)",
    f"{LIMITS}num_macs": "multiply-adds (least, most)",
    f"{LIMITS}size_bytes": "bytes (least, most)",
}


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
    refuse_foreign(study)
    attrs = study.user_attrs
    if attrs.get("attributes_version") != ATTRIBUTES_VERSION:
        raise UserError(
            f"study {study.study_name!r} was written by another version of this tool "
            f"(attributes {attrs.get('attributes_version')}, this one {ATTRIBUTES_VERSION})"
        )
    found = json.loads(attrs["identity"])
    if _are_folders(found, wanted):
        found = {**found, "data": wanted["data"]}
    different = differences(_in_words(found), _in_words(wanted))
    if not space.includes(stored_space(study)):
        different.append("the search space there is not part of the one asked for")
    if different:
        raise UserError(
            f"study {study.study_name!r} holds scores that cannot be compared: "
            f"{'; '.join(different)}. To start a new one: --study {_free_name(study)}"
        )


def _in_words(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {LIMITS_IN_WORDS.get(name, name): value for name, value in identity.items()}


def _are_folders(*identities: Mapping[str, Any]) -> bool:
    """Tell whether all are of folders, which may be moved: their images have a fingerprint."""
    return all(str(each.get("data")).startswith("folder:") for each in identities)


def _complete_attrs(study: Study, set_up: Callable[[], None]) -> None:
    """Wait for another process that is setting the study up; do it in its place if it died."""
    deadline = time.monotonic() + SETUP_SECONDS
    while "token" not in study.user_attrs:
        refuse_foreign(study)
        if time.monotonic() > deadline:
            set_up()
        time.sleep(0.1)


def refuse_foreign(study: Study) -> None:
    """Refuse (UserError) a study of another program, also beside one that is being set up."""
    if "token" not in study.user_attrs and any(
        "baseline" not in trial.user_attrs for trial in study.get_trials(deepcopy=False)
    ):
        raise UserError(f"study {study.study_name!r} was not made by this tool; name another")


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


def stored_schedule(study: Study) -> str:
    """Say how its networks are trained: "2 epochs at 16 pixels"; "" where nothing says it."""
    return schedule(stored_identity(study))


def schedule(identity: Mapping[str, Any]) -> str:
    """Say how the networks of studies of this identity are trained; "" where nothing says it."""
    names = ("epochs", "resolution", "width_factor")
    epochs, resolution, factor = (identity.get(f"proxy.{name}") for name in names)
    if epochs is None or resolution is None:
        return ""
    narrow = "" if factor in (None, 1) else f" and {factor:g} times the widths"
    return f"{epochs} epoch{'s'[: epochs != 1]} at {resolution} pixels{narrow}"


def stored_limits(study: Study) -> dict[str, tuple[int | None, int]]:
    """Read a study's limits: (minimum or `None`, maximum) by the cost's name."""
    return {
        key.removeprefix(LIMITS): (bounds[0], bounds[1])
        for key, bounds in stored_identity(study).items()
        if key.startswith(LIMITS)
    }
