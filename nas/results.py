"""pandas frames out of a study and its sisters."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd
from optuna.trial import TrialState

from nas.analysis import denoise, scored
from nas.errors import UserError
from nas.find_study import FINALISTS, SISTERS, find_sister
from nas.history import in_epochs
from nas.sisters import scored_images
from nas.study import IMPORTED, stored_identity, stored_space
from nas.trials import scored_trials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.study import Study
    from optuna.trial import FrozenTrial

FINALIST_COLUMNS = ("finalist_accuracy", "finalist_std", "finalist_seeds")
NETWORK_COLUMNS = (
    "num_params",
    "budget_share",
    "num_macs",
    "architecture",
    "proposed_by",
    "elapsed_seconds",
    "arch_id",
)
COLUMNS = (
    "trial", "val_accuracy", "denoised", "denoised_std", *FINALIST_COLUMNS, *NETWORK_COLUMNS,
)  # fmt: skip
ATTRIBUTES = (*NETWORK_COLUMNS, "architecture_json", "fail_reason")
TRIAL_COLUMNS = ("trial", "state", "val_accuracy", *ATTRIBUTES)
LATER_ATTRIBUTES = ("arch_id", "network", "architecture", "num_params", "seed", "elapsed_seconds")
LATER_COLUMNS = ("kind", "trial", "measure", "setup", "attempt", "accuracy", *LATER_ATTRIBUTES)
# How "best" is called: its columns, the next where the last says nothing.
RANKINGS = {
    "finalist": ["is_whole", "finalist_accuracy", "denoised"],
    "denoised": ["denoised"],
    "raw": ["val_accuracy"],
}
LEAST_FOR_IMPORTANCES = 20  # a tenth of it, two trials, is the least that PED-ANOVA compares


def trials(study: Study) -> pd.DataFrame:
    """List every trial that began, in order.

    Returns:
        One row a trial with `TRIAL_COLUMNS`: `state` as Optuna names it, `val_accuracy` in [0, 1]
        of the scored ones, `elapsed_seconds` of the training or else of the trial.
    """
    begun = [t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]
    rows = [_trial(t) for t in begun]
    return pd.DataFrame(rows, columns=list(TRIAL_COLUMNS))


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    row: dict[str, Any] = {name: trial.user_attrs.get(name) for name in ATTRIBUTES}
    if row["elapsed_seconds"] is None and trial.duration is not None:
        row["elapsed_seconds"] = trial.duration.total_seconds()
    return row | {
        "trial": trial.number,
        "state": trial.state.name,
        "val_accuracy": trial.value if trial.state is TrialState.COMPLETE else None,
    }


def leaderboard(study: Study, *, by: str = "finalist") -> pd.DataFrame:
    """List the scored trials, the best first; equal scores in the order they were tried.

    Args:
        study: The study.
        by: What "best" means, one of `RANKINGS`; "finalist" ranks finalists by their mean, those of
            which a seed is not scored behind the others, then the rest by "denoised".

    Returns:
        One row a trial with `COLUMNS`, indexed by rank from 1. `val_accuracy` in [0, 1] is that
        of one proxy run on val; `denoised` estimates it without its luck, `denoised_std` is the
        standard deviation of that estimate. `finalist_accuracy` is the mean of longer runs on val,
        of `finalist_seeds` seeds with the standard deviation `finalist_std`; missing without.

    Raises:
        UserError: Another ranking.
    """
    return rank(scored(trials(study)), study, by=by)


def rank(scored: pd.DataFrame, study: Study, *, by: str = "finalist") -> pd.DataFrame:
    """Make a `leaderboard` of scored `trials` that are read already."""
    check_ranking(by)
    denoised = denoise(scored, stored_space(study))
    frame = denoised.join(finalists(study), on="trial")
    frame = frame.sort_values(RANKINGS[by], ascending=False, kind="stable", ignore_index=True)
    # Trials without a network make numbers of the others into decimals.
    whole = ("num_params", "num_macs", "finalist_seeds")
    frame = frame[list(COLUMNS)].astype(dict.fromkeys(whole, "Int64"))
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="rank")
    return frame


def finalists(study: Study) -> pd.DataFrame:
    """Sum up the scores of finalists.

    Returns:
        One row a network with `FINALIST_COLUMNS` and `is_whole`, 1 where each of its seeds is
        scored: a mean of fewer would be of luck. Indexed by the trial of the study.
    """
    sister = find_sister(study, FINALISTS)
    trials = sister.get_trials(deepcopy=False) if sister else []
    scored = [t for t in trials if t.state is TrialState.COMPLETE]
    done = set(map(_origin, scored))
    lacking = {_origin(trial)[0] for trial in trials if _origin(trial) not in done}
    rows = [(t.user_attrs["source_trial"], t.value) for t in scored]
    scores = pd.DataFrame(rows, columns=["trial", "score"], dtype=float).astype({"trial": int})
    found = scores.groupby("trial")["score"].agg(["mean", "std", "size"])
    found = found.set_axis(list(FINALIST_COLUMNS), axis=1)
    return found.assign(is_whole=[float(trial not in lacking) for trial in found.index])


def _origin(finalist: FrozenTrial) -> tuple[int | None, int | None]:
    return finalist.user_attrs.get("source_trial"), finalist.user_attrs.get("seed")


def check_ranking(by: str) -> None:
    """Refuse (UserError) what is not in `RANKINGS`."""
    if by not in RANKINGS:
        raise UserError(f"unknown ranking {by!r}; known: {', '.join(RANKINGS)}")


def best_trials(study: Study, count: int, *, by: str) -> list[int]:
    """Give the numbers of the best scored trials, the best first (UserError if there are none)."""
    ranked = leaderboard(study, by=by)["trial"].head(count)
    if ranked.empty:
        raise UserError(f"study {study.study_name!r} has no scored trial yet")
    return [int(number) for number in ranked]


def later_scores(study: Study) -> pd.DataFrame:
    """List what the sisters measured of the study's networks.

    Returns:
        One row a finished trial of a sister with `LATER_COLUMNS`. `kind` is the sister, `trial`
        the source trial's number (missing for a network from elsewhere), `measure` says what the
        accuracy is of: the recipe, the split and a data set that is not the study's, or the
        finalists' proxy; of a sheet's also the epochs, for others rank otherwise. `setup` is its
        epochs, or what else a sheet says of it; those of a network that share measure and `attempt`
        differ in their seeds alone.
    """
    sisters = {kind: find_sister(study, kind) for kind in SISTERS}
    rows = [
        _later(study, kind, sister, trial)
        for kind, sister in sisters.items()
        if sister is not None
        for trial in scored_trials(sister)
    ]
    return pd.DataFrame(rows, columns=list(LATER_COLUMNS))


def _later(study: Study, kind: str, sister: Study, trial: FrozenTrial) -> dict[str, Any]:
    attrs = trial.user_attrs
    return {
        "kind": kind,
        "trial": attrs.get("source_trial"),
        "measure": _measure(study, kind, attrs),
        **_attempt(trial, stored_identity(sister).get("proxy.epochs", "")),
        "accuracy": trial.value,
        **{name: attrs.get(name) for name in LATER_ATTRIBUTES},
    }


def _measure(study: Study, kind: str, attrs: Mapping[str, Any]) -> str:
    if kind == FINALISTS:
        return f"{kind} (val)"
    epochs = in_epochs(str(attrs.get("epochs", ""))) if attrs["recipe"] == IMPORTED else ""
    words = (attrs["recipe"], epochs, scored_images(study, attrs))
    return f"full training ({', '.join(filter(None, words))})"


def failed_later(study: Study) -> pd.DataFrame:
    """List the trials of the sisters that failed.

    Returns:
        One row each: `what` it was, and its `elapsed_seconds`, NaN where they are not known.
    """
    failed = (TrialState.FAIL,)
    rows = [
        {
            "what": f"failed: {trial.user_attrs.get('fail_reason', 'unknown')} ({kind})",
            "elapsed_seconds": trial.duration.total_seconds() if trial.duration else math.nan,
        }
        for kind in SISTERS
        if (sister := find_sister(study, kind)) is not None
        for trial in sister.get_trials(deepcopy=False, states=failed)
    ]
    return pd.DataFrame(rows, columns=["what", "elapsed_seconds"])


def _attempt(trial: FrozenTrial, scheduled: int | str) -> dict[str, str]:
    """Tell which trials differ in their seeds alone: ours by the recipe's settings and the images.

    Those of a sheet by its words; without a seed each row is an attempt of its own.
    """
    attrs = trial.user_attrs
    epochs = in_epochs(str(attrs.get("epochs", scheduled)))
    if attrs.get("recipe") != IMPORTED:
        settings = (attrs.get(name, "") for name in ("recipe_settings", "data_fingerprint"))
        return {"setup": epochs, "attempt": " ".join(settings)}
    lr = f"lr {attrs['lr']}" if "lr" in attrs else ""
    setup = ", ".join(text for text in (attrs.get("optimizer"), lr) if text)
    own = "" if "seed" in attrs else trial.number
    return {"setup": setup, "attempt": f"{attrs.get('network', '')}, {setup}, {own}"}


def importances(study: Study) -> pd.DataFrame:
    """Share out how much each parameter matters for reaching the best tenth (PED-ANOVA).

    Returns:
        `parameter` and `importance`, which sum to 1, the largest first; no rows where there are
        too few trials with parameters to tell, or all score the same.
    """
    from optuna.importance import get_param_importances

    trials = scored_trials(study)
    enough = sum(bool(t.params) for t in trials) >= LEAST_FOR_IMPORTANCES
    enough = enough and len({t.value for t in trials}) > 1
    with warnings.catch_warnings():  # a network outside the space has no parameters; one is few
        warnings.filterwarnings("ignore", "Some regimes for parameter")
        found = get_param_importances(study) if enough else {}
    frame = pd.DataFrame(list(found.items()), columns=["parameter", "importance"])
    return frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def refused_draws(study: Study) -> dict[str, int]:
    """Count the draws that the sampler refused before they became trials, by reason."""
    counts = dict.fromkeys(("over", "under", "known"), 0)
    for trial in study.get_trials(deepcopy=False):
        if "retry_history" in trial.system_attrs:  # its draws are those of the trial before
            continue
        for reason in counts:
            counts[reason] += trial.user_attrs.get("draws", {}).get(reason, 0)
    return {reason: number for reason, number in counts.items() if number}
