"""pandas frames out of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.study import Study

COLUMNS = (
    "trial",
    "val_accuracy",
    "num_params",
    "budget_share",
    "num_macs",
    "architecture",
    "proposed_by",
    "elapsed_seconds",
    "arch_id",
)


def leaderboard(study: Study) -> pd.DataFrame:
    """List the scored trials, the best first; equal scores in the order they were tried.

    Returns:
        One row a trial with `COLUMNS`, indexed by rank from 1. `val_accuracy` in [0, 1] is that
        of one proxy run on val.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    rows = [
        {"trial": t.number, "val_accuracy": t.value}
        | {name: t.user_attrs.get(name) for name in COLUMNS[2:]}
        for t in trials
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame = frame.sort_values("val_accuracy", ascending=False, kind="stable", ignore_index=True)
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="rank")
    return frame


def refused_draws(study: Study) -> dict[str, int]:
    """Count the draws that the sampler refused before they became trials, by reason."""
    counts = dict.fromkeys(("over", "under", "known"), 0)
    for trial in study.get_trials(deepcopy=False):
        for reason in counts:
            counts[reason] += trial.user_attrs.get("draws", {}).get(reason, 0)
    return {reason: number for reason, number in counts.items() if number}
