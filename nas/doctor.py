"""What is wrong with an installation or a study, and the line that mends it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from nas.find_study import FINALISTS, RETRAIN, database_of, find_sister, register_of
from nas.outages import DATABASE_ERRORS
from nas.proposed import trial_id
from nas.register import Lookout, Register
from nas.storage import is_read_only
from nas.study import ATTRIBUTES_VERSION, stored_space
from nas.workers import recover_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study

    from nas.space import SearchSpace

MEND = "the same command with --fix mends it"
LEAST_FREE_BYTES = 2_000_000_000  # a study is megabytes, the checkpoints of a retraining more


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        what: A sentence.
        mend: What to type, or to do.
        fix: Mends it, where that can be done here.
        is_fault: Whether something is wrong, and not only worth a look.
    """

    what: str
    mend: str
    fix: Callable[[], None] | None = None
    is_fault: bool = True


def examine_installation(folder: Path = Path()) -> list[Finding]:
    """Look at the packages, the GPU and the disk of a folder."""
    findings = [_torchvision(), _gpu(), _disk(folder)]
    return [finding for finding in findings if finding is not None]


def _torchvision() -> Finding | None:
    """Compare the installed torch with the one that torchvision was built for."""
    try:
        wanted = [line for line in requires("torchvision") or [] if re.match(r"torch\b", line)]
        found = version("torch").partition("+")[0]
    except PackageNotFoundError as error:
        return Finding(f"{error.name} is not installed", "pip install -e .")
    needed = next((m[1] for line in wanted if (m := re.search(r"==\s*([\w.]+)", line))), found)
    if needed == found:
        return None
    what = f"torchvision {version('torchvision')} was built for torch {needed}, {found} is here"
    return Finding(what, f"pip install torch=={needed}")


def _gpu() -> Finding | None:
    import torch

    if torch.version.cuda is None or torch.cuda.is_available():
        return None
    what = f"torch was built for CUDA {torch.version.cuda}, but sees no GPU: training is on the CPU"
    return Finding(
        what,
        "nvidia-smi shows whether the driver does; on a machine without a GPU this is no fault",
        is_fault=False,
    )


def _disk(folder: Path) -> Finding | None:
    free = shutil.disk_usage(folder).free
    if free >= LEAST_FREE_BYTES:
        return None
    what = f"the disk of {folder.resolve()} has {free / 1e9:.1f} GB left"
    return Finding(what, "make room, or move studies/ to another disk")


def examine_study(study: Study) -> list[Finding]:
    """Look at a study's trials, claims and sisters."""
    attrs = study.user_attrs
    if attrs.get("attributes_version") != ATTRIBUTES_VERSION:
        there = attrs.get("attributes_version")
        what = f"its attributes are of version {there}, this tool's are of {ATTRIBUTES_VERSION}"
        return [Finding(what, "use the version of this tool that wrote it, or start a new study")]
    space, register, stale = stored_space(study), register_of(study), []
    sister = find_sister(study, FINALISTS)
    if sister is not None and "token" in sister.user_attrs:
        stale = _stale_trials("finalists", sister, register_of(sister), space)
    trials = _stale_trials("trials", study, register, space)
    return [*trials, *stale, *_claims(study, register), *_retrains(study)]


def _stale_trials(what: str, study: Study, register: Register, space: SearchSpace) -> list[Finding]:
    def stale_trials() -> list[int]:
        held = {place.trial_id for place in register.places() if not lookout.is_lost(place)}
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in running if trial_id(trial) not in held]

    lookout = Lookout()
    stale = stale_trials()
    if stale and not is_read_only(database_of(study)):  # or one has just begun
        with suppress(*DATABASE_ERRORS), register.lock():  # of who may only read, a server's fails
            stale = stale_trials()
    if not stale:
        return []
    return [
        Finding(
            f"{what} running without a worker: {_listed(stale)}; they hold back others",
            f"the next search tries them again, or {MEND}",
            lambda: recover_lost(study, register, space, Lookout()),
        )
    ]


def _claims(study: Study, register: Register) -> list[Finding]:
    """Compare the claims with the trials: none without a trial, no scored network without one.

    That of an interrupted trial, which is tried again, is in order.
    """
    claims = register.claims()  # before the trials: whose claims these are is among them
    trials = {trial_id(trial): trial for trial in study.get_trials(deepcopy=False)}

    void = {arch_id: owner for arch_id, owner in claims.items() if owner not in trials}
    missing = {
        trial.user_attrs["arch_id"]: id_
        for id_, trial in trials.items()
        if trial.state is TrialState.COMPLETE and trial.user_attrs.get("arch_id") not in claims
    }

    owners = set(void.values())

    def claim() -> None:
        for arch_id, id_ in missing.items():
            register.claim(arch_id, id_, is_void=lambda owner: owner in owners)

    findings = [
        Finding(
            f"{len(void)} claims of networks are void", MEND, lambda: register.drop_claims(void)
        )
        if void
        else None,
        Finding(f"{len(missing)} scored networks are not claimed", MEND, claim)
        if missing
        else None,
    ]
    return [finding for finding in findings if finding is not None]


def _retrains(study: Study) -> list[Finding]:
    sister = find_sister(study, RETRAIN)
    if sister is None:
        return []
    return [
        Finding(
            f"the retraining of {trial.user_attrs.get('network')}, seed "
            f"{trial.user_attrs.get('seed')}, is running, or was interrupted",
            "the same retrain.py command goes on with it, unless it still runs",
        )
        for trial in sister.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
