"""Scoring trials until the study is complete: places, the trial boundary, retry of the lost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna import TrialPruned
from optuna.trial import TrialState

from nas.errors import UserError
from nas.samplers import Exhausted, NothingFits, trial_id
from nas.storage import DATABASE_ERRORS
from nas.study import RETRIED, TrialFailed, fail, num_scored, requeue

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.space import SearchSpace
    from nas.storage import Register

POLL_SECONDS = 1.0  # between looks while other workers hold the last places
MAX_FAILURES = 10  # in a row, none of them an interruption: something is wrong with all networks


@dataclass
class Worker:
    """Takes places and scores trials in this process until the study is complete.

    Attributes:
        study: With its sampler and pruner.
        storage: The study's.
        register: The study's claims and places.
        space: What its parameters decode to.
        objective: Scores a trial; raises TrialPruned or TrialFailed where it cannot.
        on_trial_end: Called with every trial that ends.
    """

    study: Study
    storage: RDBStorage
    register: Register
    space: SearchSpace
    objective: Callable[[Trial], float]
    on_trial_end: Callable[[FrozenTrial], None]

    def run(self, target: int, deadline: float | None = None) -> str:
        """Score trials until the study has `target` scored ones.

        Args:
            target: Counts all scored trials, whoever scored them.
            deadline: A `time.monotonic()` after which no trial starts.

        Returns:
            Why it ended: "complete", "timeout", or a sentence where the space is exhausted.

        Raises:
            UserError: Nothing fits, or ten networks in a row failed.
        """
        failures, ended = 0, None
        while True:
            is_lost = reap(self.study, self.storage, self.register)
            if ended is None or ended.state is TrialState.FAIL or is_lost:
                requeue(self.study, self.space)
            if deadline is not None and time.monotonic() > deadline:
                return "timeout"
            place = self.register.reserve(lambda: num_scored(self.study), target)
            if place is None:
                if num_scored(self.study) >= target:
                    return "complete"
                time.sleep(POLL_SECONDS)
                continue
            try:
                ended = self._run_one(place)
            except Exhausted as exhausted:
                return str(exhausted)
            finally:
                self.register.leave(place)
            self.on_trial_end(ended)
            failures = failures + 1 if _counts_as_failure(ended) else 0
            if failures == MAX_FAILURES:
                raise UserError(
                    f"{failures} trials in a row failed, the last for this reason: "
                    f"{_reason(ended)}; what was scored is kept"
                )

    def _run_one(self, place: int) -> FrozenTrial:
        """Run one trial; whatever happens in it ends with it, and is recorded with it."""
        trial = self.study.ask()
        self.register.occupy(place, trial_id(trial))
        try:
            return self.study.tell(trial, self.objective(trial))
        except TrialPruned:
            return self.study.tell(trial, state=TrialState.PRUNED)
        except TrialFailed as failed:
            fail(self.study, trial, failed.reason, failed.detail)
        except (Exhausted, NothingFits) as nothing:
            fail(self.study, trial, "nothing_left", str(nothing))
            raise
        except DATABASE_ERRORS:
            raise  # nothing can be recorded; the next run finds the trial lost and tries it again
        except (KeyboardInterrupt, SystemExit):
            fail(self.study, trial, "interrupted")
            raise
        except Exception as error:  # noqa: BLE001 - the trial boundary: one network, one trial
            fail(self.study, trial, "error", f"{type(error).__name__}: {error}"[:500])
        return self.storage.get_trial(trial_id(trial))


def reap(study: Study, storage: RDBStorage, register: Register) -> bool:
    """End the trials of dead workers as FAIL, "lost", and free their places; tell if there were."""
    is_lost = False
    places = register.places()
    for place in places:
        if not place.is_dead():
            continue
        if place.trial_id is not None:
            fail(study, storage.get_trial(place.trial_id), "lost", f"process {place.pid} is gone")
            is_lost = True
        register.leave(place.place)
    live = [place for place in places if not place.is_dead()]
    if any(place.trial_id is None for place in live):
        return is_lost  # one of the trials below may be just about to take its place
    held = {place.trial_id for place in live}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial_id(trial) not in held:
            fail(study, trial, "lost", "no worker has it")
            is_lost = True
    return is_lost


def _counts_as_failure(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and trial.user_attrs.get("fail_reason") not in RETRIED


def _reason(trial: FrozenTrial) -> str:
    attrs = trial.user_attrs
    return ": ".join(attrs[key] for key in ("fail_reason", "fail_detail") if key in attrs)
