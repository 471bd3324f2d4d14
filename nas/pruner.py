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

    def excesses(self, trial: FrozenTrial) -> dict[str, float]:
        """Give by how much each exceeded limit is exceeded, relative to its maximum."""
        costs = {
            limit: trial.user_attrs[limit.name]
            if limit.name in trial.user_attrs
            else limit.cost(trial.params)
            for limit in self._limits
        }
        return {
            limit.name: excess
            for limit, cost in costs.items()
            if (excess := limit.excess(cost)) > 0
        }

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether any limit is exceeded."""
        del study
        return bool(self.excesses(trial))
