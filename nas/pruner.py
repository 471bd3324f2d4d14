"""OverBudgetPruner: stops whatever arrives over budget before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.feasible import Limit


class OverBudgetPruner(BasePruner):
    """Prunes trials whose cost is over a limit, however they came into the study.

    The cost is read from the trial's user attribute of the limit's name, else computed.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether any limit is exceeded."""
        del study
        return any(limit.excess(_cost(limit, trial)) > 0 for limit in self._limits)


def _cost(limit: Limit, trial: FrozenTrial) -> float:
    known: float | None = trial.user_attrs.get(limit.name)
    return limit.cost(trial.params) if known is None else known
