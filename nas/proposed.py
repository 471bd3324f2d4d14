"""What trials have proposed: how many before one, and which parameters are known by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.feasible import Key, Params, Region

RETRY_KEY = "failed_trial"  # Optuna's own mark of a trial that tries an earlier one again


def retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """Give the numbers of the trials that later ones try again."""
    return {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}


def num_proposals(region: Region, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Count the proposals of a study before a trial, to seed its own.

    A trial that tries an earlier one again proposes nothing, nor did one that failed before it had
    all parameters: with either, what follows is what an undisturbed study proposes. But where two
    fail so in a row it is the proposal that fails, and another one is due.
    """
    again = retried(trials)
    nothing, broken_off = 0, -1
    for each in sorted(trials, key=lambda t: t.number):
        if each.number >= trial.number:
            break
        is_complete = region.search_space.keys() <= each.params.keys()
        if RETRY_KEY in each.system_attrs:
            nothing += 1
        elif each.state is TrialState.FAIL and each.number not in again and not is_complete:
            nothing += not each.params or each.number != broken_off + 1
            broken_off = each.number if each.params else broken_off
    return trial.number - nothing


class Known:
    """The parameters that trials of a study have or, waiting in the queue, will have.

    Args:
        region: Search space and limits.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._study: Study | None = None
        self._finished: dict[int, Key | None] = {}  # keys by trial id
        self._proposals: dict[int, Params] = {}  # of trials that may not have suggested all yet

    def note(self, trial: FrozenTrial, params: Params) -> None:
        """Remember what was proposed to a trial that is to suggest it."""
        self._proposals[trial_id(trial)] = params

    def of_others(
        self, study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial]
    ) -> set[Key]:
        """Collect the keys of all trials but one."""
        if study is not self._study:
            self._study, self._finished, self._proposals = study, {}, {}
        known: set[Key | None] = set()
        for other in trials:
            id_ = trial_id(other)
            if id_ in self._finished:
                known.add(self._finished[id_])
            elif id_ != trial_id(trial):
                is_finished = other.state.is_finished()
                begun = {} if is_finished else self._proposals.get(id_, {})
                params = begun | other.system_attrs.get("fixed_params", {}) | other.params
                is_complete = self._region.search_space.keys() <= params.keys()
                key = self._region.key(params) if is_complete else None
                known.add(key)
                if is_finished:
                    self._finished[id_] = key
                    self._proposals.pop(id_, None)
        return {key for key in known if key is not None}


def trial_id(trial: FrozenTrial | Trial) -> int:
    """Give the database's id of a trial; people see its number."""
    return trial._trial_id  # noqa: SLF001 - Optuna's storages take it, its trials hide it
