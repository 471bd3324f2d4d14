"""Scoring trials until the study is complete: places, the trial boundary, retry of the lost."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optuna import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from nas.errors import DeviceLostError, UserError, brief
from nas.find_study import database_of
from nas.outages import DATABASE_ERRORS, MAX_CUTS, impatient, through_cuts, was_cut_off
from nas.proposed import trial_id
from nas.register import BEAT_SECONDS, Lookout, Place
from nas.samplers import Exhausted, NothingFits
from nas.trials import NO_FAULT, TrialFailed, fail, num_scored, num_since_best, requeue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.register import Register
    from nas.space import SearchSpace

POLL_SECONDS = 1.0  # between looks for a place while others hold the last ones
RECOVER_SECONDS = 30.0  # between looks for trials whose worker is lost
MAX_FAILURES = 10  # in a row, none of them an interruption: something is wrong with all networks


@dataclass
class Worker:
    """Takes places and scores trials in this process until the study is complete.

    Attributes:
        study: With its sampler and pruner.
        register: The study's claims and places.
        space: What its parameters decode to.
        objective: Scores a trial; raises TrialPruned or TrialFailed where it cannot.
        on_trial_end: Called with every trial that ends.
        on_trial_start: Called with the number of every trial that starts.
        on_notice: Called with a line on what went wrong without an end to the search.
        lookout: Which processes it has seen alive, and when.
        patience: How many scored trials in a row may bring nothing better, or `None`.
    """

    study: Study
    register: Register
    space: SearchSpace
    objective: Callable[[Trial], float]
    on_trial_end: Callable[[FrozenTrial], None]
    on_trial_start: Callable[[int], None] = lambda _number: None
    on_notice: Callable[[str], None] = lambda _line: None
    lookout: Lookout = field(default_factory=Lookout)
    patience: int | None = None
    _cuts: int = field(default=0, init=False)  # since a trial ended

    def run(self, target: int, deadline: float | None = None) -> str:
        """Score trials until the study has `target` scored ones.

        Args:
            target: Counts all scored trials, whoever scored them.
            deadline: A `time.monotonic()` after which no trial starts.

        Returns:
            Why it ended: "complete", "timeout", or a sentence where patience or the space is
            exhausted.

        Raises:
            UserError: Nothing fits, ten networks in a row failed, or (DeviceLostError) the GPU did.
        """
        with _beating(self.register):
            while True:
                try:
                    self.study.get_trials(deepcopy=False)  # reads all of it, without the lock
                    self._release_own()  # what `_let_go` could not while the database was away
                    return self._run(target, deadline)
                except KeyError:  # Optuna's of a trial that is gone
                    self.register.refuse_lost(self.study)
                    raise
                except DATABASE_ERRORS as error:
                    self._cuts += 1
                    if not was_cut_off(error) or self._cuts == MAX_CUTS:
                        raise
                    self.on_notice("the database was away or locked; going on")
                finally:
                    self._let_go()

    def has_room(self, target: int) -> bool:
        """Tell whether a trial may start: scored and running ones are fewer than the target."""
        return num_scored(self.study) + self.register.num_places() < target

    def is_complete(self, target: int) -> bool:
        """Tell whether enough are scored."""
        return num_scored(self.study) >= target

    def _let_go(self) -> None:
        """End the trial in flight, if there is one, however this process came to leave it."""
        # Whoever looks next finds it lost otherwise; a UserError is of a study that is gone.
        with suppress(*DATABASE_ERRORS, UserError), impatient():
            self._release_own()

    def _release_own(self) -> None:
        release(self.study, self.register, Place.is_own, "interrupted")
        with self.register.lock():
            _end_unplaced(self.study, self.register)

    def _run(self, target: int, deadline: float | None) -> str:
        failures, recovered_at = 0, -RECOVER_SECONDS
        while True:
            if time.monotonic() - recovered_at >= RECOVER_SECONDS:
                recover_lost(self.study, self.register, self.space, self.lookout)
                recovered_at = time.monotonic()
            if deadline is not None and time.monotonic() > deadline:
                return "complete" if self.is_complete(target) else "timeout"
            if self.patience is not None and num_since_best(self.study) >= self.patience:
                ending = f"stopped by --patience: {self.patience} trials brought nothing better"
                return "complete" if self.is_complete(target) else ending
            trial = self._take(target)
            if trial is None:
                if self.is_complete(target):
                    return "complete"
                time.sleep(POLL_SECONDS)
                continue
            try:
                self.on_trial_start(trial.number)
                ended = self._run_one(trial)
            except Exhausted as exhausted:
                return str(exhausted)
            if ended is None:
                self.on_notice(f"trial {trial.number} was given to another worker; result dropped")
                continue
            self.on_trial_end(ended)
            self._cuts = 0
            failures = failures + 1 if _counts_as_failure(ended) else 0
            if failures == MAX_FAILURES:
                raise UserError(
                    f"{failures} trials in a row failed, the last for this reason: "
                    f"{_reason(ended)}; what was scored is kept"
                )

    def _take(self, target: int) -> Trial | None:
        with self.register.lock():
            self.register.refuse_lost(self.study)
            if not self.has_room(target):
                return None
            trial = self.study.ask()
            self.register.occupy(trial_id(trial))
            return trial

    def _run_one(self, trial: Trial) -> FrozenTrial | None:
        """Run one trial; whatever happens in it ends with it, and is recorded with it.

        Returns:
            The trial as it ended; `None` if it was taken away meanwhile.
        """
        try:
            value = self.objective(trial)
        except UpdateFinishedTrialError:
            return self._fail(trial, "lost")  # writes nothing: another process ended it
        except TrialPruned:
            return self._end(trial, lambda: self.study.tell(trial, state=TrialState.PRUNED))
        except TrialFailed as failed:
            reason, detail = failed.reason, failed.detail
        except (Exhausted, NothingFits) as nothing:
            self._fail(trial, "nothing_left", str(nothing))
            raise
        except DATABASE_ERRORS:
            raise  # nothing can be recorded
        except Exception as error:  # noqa: BLE001 - the trial boundary: one network, one trial
            reason, detail = "error", f"{type(error).__name__}: {error}"[:500]
            if _is_device_lost(error):
                self._fail(trial, "lost", detail)
                raise DeviceLostError(f"{brief(error)}; a new process can go on") from None
        else:
            return self._end(trial, lambda: self.study.tell(trial, value))
        return self._fail(trial, reason, detail)

    def _fail(self, trial: Trial, reason: str, detail: str = "") -> FrozenTrial | None:
        def end() -> FrozenTrial:
            fail(self.study, trial_id(trial), reason, detail)
            return database_of(self.study).get_trial(trial_id(trial))

        return self._end(trial, end)

    def _end(self, trial: Trial, end: Callable[[], FrozenTrial]) -> FrozenTrial | None:
        """End a trial and free its place, unless it is no longer this worker's."""
        own_id, was_begun = trial_id(trial), False

        def attempt() -> FrozenTrial | None:
            nonlocal was_begun
            with self.register.lock():
                self.register.refuse_lost(self.study)  # trial ids are given out again, too
                ended = database_of(self.study).get_trial(own_id)
                is_ours = was_begun or ended.state is TrialState.RUNNING
                if ended.state is TrialState.RUNNING:
                    was_begun = True  # if it is cut off, the end may have been written
                    ended = end()
                self.register.leave(own_id)
            return ended if is_ours else None

        return through_cuts(attempt)


@contextmanager
def _beating(register: Register) -> Iterator[None]:
    """Let other hosts see that this process lives."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(BEAT_SECONDS):
            with suppress(*DATABASE_ERRORS):  # a database that is away has no reader either
                register.beat()

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
    try:
        yield
    finally:
        stopped.set()


def release(
    study: Study, register: Register, is_it: Callable[[Place], bool], reason: str, detail: str = ""
) -> list[int]:
    """End the trials of some places as FAIL and free the places; gives the trials' ids."""
    with register.lock():
        register.refuse_lost(study)
        released = [place for place in register.places() if is_it(place)]
        for place in released:
            fail(study, place.trial_id, reason, detail)
            register.leave(place.trial_id)
    return [place.trial_id for place in released]


def recover_lost(study: Study, register: Register, space: SearchSpace, lookout: Lookout) -> None:
    """End the trials of lost workers as FAIL; queue them and interrupted ones again.

    Raises:
        UserError: The study, or its file, was deleted or replaced.
    """
    register.refuse_lost(study)
    study.get_trials(deepcopy=False)  # reads a large study before the lock is held, not under it
    release(study, register, lookout.is_lost, "lost", "its process is gone")
    with register.lock():
        _end_unplaced(study, register)
        requeue(study, space)


def _end_unplaced(study: Study, register: Register) -> None:
    """End running trials without a place; the caller has the lock.

    Their process ended between `ask` and `occupy`. So no network was tried that could have ended
    it: they are "interrupted", which may happen any number of times.
    """
    held = {place.trial_id for place in register.places()}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial_id(trial) not in held:
            fail(study, trial_id(trial), "interrupted", "no worker has it")


def _is_device_lost(error: Exception) -> bool:
    """Tell whether every further trial would fail in this process."""
    from nas.failures import is_device_lost  # brings torch, which only objectives need

    return is_device_lost(error)


def _counts_as_failure(trial: FrozenTrial) -> bool:
    reason = trial.user_attrs.get("fail_reason")
    return trial.state is TrialState.FAIL and reason not in NO_FAULT


def _reason(trial: FrozenTrial) -> str:
    attrs = trial.user_attrs
    return ": ".join(attrs[key] for key in ("fail_reason", "fail_detail") if key in attrs)
