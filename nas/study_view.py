"""StudyView: a study as a sampler may see it while it draws proposals that may yet be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.study import Study

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

NOTES = ("tpe:relative_params", "gp:relative_params")


class StudyView(Study):
    """A study as `base` sees it: listed once a proposal, without what it cannot compare.

    GP reads every parameter of every scored trial, and a hand-made network outside the space has
    none. Each draw of TPE lists the trials, and draws of TPE and GP write themselves to the storage
    for other workers, which see the accepted parameters a moment later.

    Args:
        study: The study.
        trials: All of its trials.
        names: Finished trials without all of these parameters are left out.
    """

    def __init__(self, study: Study, trials: Iterable[FrozenTrial], names: Iterable[str]) -> None:
        self.__dict__.update(study.__dict__)
        self._storage = _Storage(study._storage)  # type: ignore[assignment]  # noqa: SLF001
        names = set(names)
        self._listed = [
            trial
            for trial in trials
            if names <= trial.params.keys() or not trial.state.is_finished()
        ]

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002, FBT001, FBT002 - Optuna's signature
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[FrozenTrial]:
        return [trial for trial in self._listed if states is None or trial.state in states]


class _Storage:
    """A study's storage without the samplers' notes of parameters that may yet be refused."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the storage's own
        return getattr(self._storage, name)

    def set_trial_system_attr(self, trial: int, key: str, value: Any) -> None:  # noqa: ANN401
        if not key.startswith(NOTES):
            self._storage.set_trial_system_attr(trial, key, value)
