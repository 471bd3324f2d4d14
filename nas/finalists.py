"""Finalists: the best few of a study, scored again with more epochs and several seeds.

Their scores are trials of a sister study, `<name>-finalists`, one a network and seed. They are
queued there at once and scored like those of the study, by whichever workers there are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.find_study import FINALISTS, register_of
from nas.notes import write_note
from nas.objective import Objective
from nas.register import Lookout
from nas.results import leaderboard
from nas.sisters import finalists_table, open_sister
from nas.trials import TrialFailed, enqueue, scored_trials
from nas.workers import Worker, recover_lost

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

    from nas.proxy import ProxyConfig
    from nas.space import SearchSpace

EPOCHS_FACTOR = 4  # of a finalist's epochs to the proxy's; a first guess, not measured yet
UNDECIDED = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True, slots=True)
class Finalists:
    """How many networks are scored again, and with how many seeds each."""

    num_networks: int
    num_seeds: int

    @classmethod
    def parse(cls, text: str) -> Finalists | None:
        """Read what a proxy's `finalists` says: `5x3`, or `0` for none."""
        return None if text == "0" else cls(*map(int, text.split("x")))


def final_timeout(seconds: float | None) -> float | None:
    """Give the seconds that a finalist may take, where a trial may take so many."""
    return None if seconds is None else EPOCHS_FACTOR * seconds


def final_proxy(proxy: ProxyConfig) -> ProxyConfig:
    """Give the schedule of finalists; their seeds are other ones than the first score's."""
    return proxy.model_copy(update={"epochs": EPOCHS_FACTOR * proxy.epochs})


def open_finalists(study: Study, proxy: ProxyConfig) -> Study:
    """Open the sister study of a study's finalists, or create it.

    Its token, for places and a lock of its own, follows from the study's: whoever creates it
    writes the same.
    """
    sister = open_sister(study._storage, study.study_name, FINALISTS)  # noqa: SLF001 - no getter
    if "token" not in sister.user_attrs:
        schedule = {f"proxy.{key}": value for key, value in final_proxy(proxy).model_dump().items()}
        sister.set_user_attr("identity", json.dumps(schedule, sort_keys=True))
        token = hashlib.sha256(f"{study.user_attrs['token']}/{FINALISTS}".encode()).hexdigest()[:32]
        sister.set_user_attr("token", token)
    return sister


def queue_finalists(
    study: Study,
    sister: Study,
    space: SearchSpace,
    wanted: Finalists,
    seed: int,
) -> int:
    """Queue the best networks of a study, with each seed that they have not been queued with yet.

    Args:
        study: The study.
        sister: Of its finalists.
        space: The study's.
        wanted: How many networks and seeds.
        seed: Of the proxy; those of finalists follow it.

    Returns:
        How many scores are to come, those that others are at included.
    """
    register = register_of(sister)
    recover_lost(sister, register, space, Lookout())  # what was interrupted is queued again
    ranked = leaderboard(study, by="denoised")["trial"].head(wanted.num_networks)
    trials = study.get_trials(deepcopy=False)
    with register.lock():
        there = [t.user_attrs for t in sister.get_trials(deepcopy=False)]
        known = {(attrs.get("source_trial"), attrs.get("seed")) for attrs in there}
        for each in range(seed + 1, seed + 1 + wanted.num_seeds):
            for number in map(int, ranked):
                if (number, each) not in known:
                    arch = Architecture.from_json(trials[number].user_attrs["architecture_json"])
                    origin = {"source_trial": number, "seed": each}
                    enqueue(sister, space, arch, proposed_by=FINALISTS, **origin)
        return len(sister.get_trials(deepcopy=False, states=UNDECIDED))


def write_finalist_notes(study: Study, sister: Study) -> None:
    """Put the finalists' scores into the dashboard's notes on their source trials."""
    scored = scored_trials(sister)
    for number in sorted({trial.user_attrs["source_trial"] for trial in scored}):
        write_note(study, number, "Finalist", finalists_table(sister, number))


@dataclass
class FinalistObjective(Objective):
    """Scores a finalist with the seed that its trial names; `proxy` is the finalists' schedule."""

    def __call__(self, trial: Trial) -> float:
        """Score the trial (TrialFailed: it cannot be scored, and why)."""
        _refuse_double(trial)
        arch = self._architecture(trial)
        self._describe(trial, arch)
        seeded = self.proxy.model_copy(update={"seed": trial.user_attrs["seed"]})
        result = replace(self, proxy=seeded)._run(arch)  # noqa: SLF001 - its own
        self._record(trial, result)
        return result.val_accuracy


def _refuse_double(trial: Trial) -> None:
    """Refuse a seed that counts already: a lost answer has Optuna add a trial once more."""
    origin = ("source_trial", "seed")
    wanted = [trial.user_attrs[name] for name in origin]
    for other in trial.study.get_trials(deepcopy=False, states=(*UNDECIDED, TrialState.COMPLETE)):
        if other.number < trial.number and [other.user_attrs.get(n) for n in origin] == wanted:
            raise TrialFailed("duplicate", f"trial {other.number} is the same")


class FinalistWorker(Worker):
    """Scores what is queued, and no more; complete when nothing is left, whoever scores it."""

    def has_room(self, target: int) -> bool:  # noqa: ARG002 - the queue says how many
        """Tell whether a finalist waits."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def is_complete(self, target: int) -> bool:  # noqa: ARG002 - the queue says how many
        """Tell whether none waits or is being scored; what others let go of waits again first."""
        if self._is_undecided():
            return False
        recover_lost(self.study, self.register, self.space, self.lookout)
        return not self._is_undecided()

    def _is_undecided(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=UNDECIDED))

    @classmethod
    def of(cls, worker: Worker) -> FinalistWorker:
        """Turn a study's worker, whose objective is an `Objective`, into one of its finalists."""
        objective = worker.objective
        assert isinstance(objective, Objective)
        sister = open_finalists(worker.study, objective.proxy)
        longer = {
            "proxy": final_proxy(objective.proxy),
            "trial_timeout": final_timeout(objective.trial_timeout),
        }
        changed = {
            "study": sister,
            "register": register_of(sister),
            "objective": FinalistObjective(**vars(objective) | longer),
            "patience": None,
        }
        return cls(**vars(worker) | changed)
