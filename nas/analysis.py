"""What the frames of `results` say: fronts, groups, stages, agreement; frames to frames."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nas.architecture import Architecture
from nas.encoding import Encoding
from nas.find_study import RETRAIN
from nas.surrogate import MIN_ROWS, estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.space import SearchSpace

GROUPS = ("search", "random", "hand-made")
BY_HAND = ("baseline", "enqueued", "imported")
SHOWN_FIELDS = ("depth", "width", "kernel_size")
LEAST_TO_CORRELATE = 5  # networks
RESAMPLES = 2000


def scored(trials: pd.DataFrame) -> pd.DataFrame:
    """Keep the scored trials, in order."""
    return trials[trials["state"] == "COMPLETE"].reset_index(drop=True)


def with_front(scored: pd.DataFrame) -> pd.DataFrame:
    """Add `is_on_front`: no network of at most as many parameters scores as much."""
    order = scored.sort_values(["num_params", "val_accuracy"], ascending=[True, False])
    before = order["val_accuracy"].cummax().shift(fill_value=-math.inf)
    on_front = order["val_accuracy"] > before
    return scored.assign(is_on_front=on_front.reindex(scored.index))


def with_incumbent(scored: pd.DataFrame) -> pd.DataFrame:
    """Add `incumbent`, the best score so far, and `group`, one of `GROUPS`."""
    return scored.assign(
        incumbent=scored["val_accuracy"].cummax(), group=scored["proposed_by"].map(group_of)
    )


def group_of(proposed_by: object) -> str:
    """Tell whether a network was searched for, drawn at random, or made by hand."""
    if str(proposed_by).startswith(BY_HAND):
        return "hand-made"
    return "random" if proposed_by == "random" else "search"


def compare_groups(history: pd.DataFrame) -> pd.DataFrame:
    """Compare the groups by their means, and search and random by the best of equally many.

    Returns:
        One row a group that has networks: `group`, `num_networks`, `mean`, `standard_error` (NaN
        of one network), `best`, `equal_number` (the size of the smaller of search and random, 0
        where one of them has none) and `expected_best` of that many drawn from the group without
        replacement; NaN of a smaller group.
    """
    groups = {g: history.loc[history["group"] == g, "val_accuracy"] for g in GROUPS}
    groups = {group: values for group, values in groups.items() if len(values)}
    equal = min(len(groups.get(group, ())) for group in ("search", "random"))
    rows = [
        {
            "group": group,
            "num_networks": len(values),
            "mean": values.mean(),
            "standard_error": values.sem(),
            "best": values.max(),
            "equal_number": equal,
            "expected_best": (
                expected_best(list(values), equal) if 0 < equal <= len(values) else math.nan
            ),
        }
        for group, values in groups.items()
    ]
    return pd.DataFrame(rows)


def expected_best(values: Sequence[float], count: int) -> float:
    """Give the mean over all choices of `count` of the values of the largest one chosen."""
    total = math.comb(len(values), count)
    ways = (math.comb(rank, count - 1) for rank in range(len(values)))
    return sum(v * (w / total) for v, w in zip(sorted(values), ways, strict=True))


def denoise(scored: pd.DataFrame, space: SearchSpace) -> pd.DataFrame:
    """Add `denoised`, the estimate of the score without its luck, and `denoised_std`, its spread.

    The model sees what the sampler `default` sees: the parameters in `space`, and the logarithms of
    parameters and multiply-adds. Where it does not fit, the estimate is the score
    (`nas.surrogate`), and so it is of networks with other stages than the space's, whose spread is
    the model's error. Too few networks have no model, and no spread.
    """
    archs = [Architecture.from_json(text) for text in scored["architecture_json"]]
    params = [space.place(arch) for arch in archs]
    is_placed = np.array([each is not None for each in params], dtype=bool)
    columns = Encoding(space.distributions).encode([each for each in params if each is not None])
    costs = np.log(scored[["num_params", "num_macs"]].to_numpy(float)[is_placed])
    mean = scored["val_accuracy"].to_numpy(float, copy=True)
    found = estimate(np.hstack([columns, costs]), mean[is_placed])
    std = np.full(len(mean), found.cv_error or math.nan)
    mean[is_placed], std[is_placed] = found.mean, found.std
    if is_placed.sum() < MIN_ROWS:  # nothing is known of luck yet
        std[:] = math.nan
    return scored.assign(denoised=mean, denoised_std=std)


def stages(scored: pd.DataFrame) -> pd.DataFrame:
    """Lay the architectures out: `trial`, `val_accuracy`, `depth_1`, `width_1`, `kernel_size_1`...

    A network with fewer stages than another has NaN there.
    """
    rows = [
        {
            f"{name}_{number}": stage[name]
            for number, stage in enumerate(json.loads(text)["stages"], 1)
            for name in SHOWN_FIELDS
        }
        for text in scored["architecture_json"]
    ]
    laid_out = pd.DataFrame(rows, index=scored.index)
    return pd.concat([scored[["trial", "val_accuracy"]], laid_out], axis=1)


def is_best_tenth(accuracies: pd.Series[float]) -> pd.Series[bool]:
    """Mark the best tenth, at least one, and those that score as much; none if they are many."""
    count = max(1, round(len(accuracies) / 10))
    best = accuracies.rank(ascending=False, method="min") <= count
    return best & (best.sum() <= 2 * count)


def best_tenth(stages: pd.DataFrame) -> pd.DataFrame:
    """Compare depth, width and kernel size of the best tenth, stage by stage, with the rest.

    Returns:
        `field`, `stage`, `group` ("best tenth" or "the rest"), `num_networks`, and the quartiles
        `lower`, `median` and `upper`; fields that never vary are left out. No rows where the best
        tenth is a single network, which has nothing in common with others, or cannot be told.
    """
    is_best = is_best_tenth(stages["val_accuracy"])
    if is_best.sum() < 2:
        return pd.DataFrame(columns=["field", "stage", "group", "num_networks"])
    varying = [c for c in stages.columns[2:] if stages[c].nunique() > 1]
    rows = []
    for column in varying:
        field, stage = column.rsplit("_", 1)
        for group, members in (("best tenth", is_best), ("the rest", ~is_best)):
            values = stages.loc[members, column].dropna()
            lower, median, upper = values.quantile([0.25, 0.5, 0.75])
            rows.append((field, int(stage), group, len(values), lower, median, upper))
    names = ["field", "stage", "group", "num_networks", "lower", "median", "upper"]
    return pd.DataFrame(rows, columns=names)


def agreement(scored: pd.DataFrame, later: pd.DataFrame) -> pd.DataFrame:
    """Put the proxy's score of each network beside what was measured of it later.

    Returns:
        One row a network and measure: `trial`, `measure`, `val_accuracy`, and the `accuracy`
        there, the mean of `num_seeds`, with its `setup`; of several attempts by hand the best.
    """
    by_arch = scored.drop_duplicates("arch_id").set_index("arch_id")["trial"]
    trial = later["trial"].fillna(later["arch_id"].map(by_arch))
    known = later.assign(trial=trial).dropna(subset=["trial"]).astype({"trial": int})
    means = known.groupby(["trial", "measure", "attempt"], as_index=False).agg(
        accuracy=("accuracy", "mean"), num_seeds=("accuracy", "size"), setup=("setup", "first")
    )
    best = means.sort_values("accuracy", ascending=False, kind="stable")
    means = best.drop_duplicates(["trial", "measure"]).sort_index().drop(columns="attempt")
    return means.merge(scored[["trial", "val_accuracy"]], on="trial")


def trained_in_full(later: pd.DataFrame) -> pd.DataFrame:
    """Sum up the full trainings, those of networks from elsewhere included.

    Returns:
        One row a network, measure and attempt, the best mean first: `network`, `architecture`,
        `num_params`, `measure`, `setup`, `num_seeds`, and `mean` and `std` of their accuracies (NaN
        of one).
    """
    full = later[later["kind"] == RETRAIN]
    named = full.assign(network=full["network"].fillna(full["arch_id"]))
    rows = named.groupby(["arch_id", "measure", "attempt"], as_index=False, sort=False).agg(
        setup=("setup", "first"),
        network=("network", "first"),
        architecture=("architecture", "first"),
        num_params=("num_params", "first"),
        num_seeds=("accuracy", "size"),
        mean=("accuracy", "mean"),
        std=("accuracy", "std"),
    )
    return rows.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's rank correlation with a bootstrap interval.

    Attributes:
        num_networks: How many have both scores.
        spearman: In [-1, 1].
        low: 2.5th percentile over resampled networks.
        high: 97.5th.
        chance: The shares of shuffled orders that correlate as much or more, and as much or less.
    """

    num_networks: int
    spearman: float
    low: float
    high: float
    chance: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Whether the ranking is "better" than none, "worse", or "": none of it can be told.

        One shuffle in forty is as good, or fewer. Not whether `low` is positive: of the orders of
        five networks 6.7 % have that by chance.
        """
        above, below = (share <= 0.025 for share in self.chance)
        return "better" if above else "worse" if below else ""

    def __str__(self) -> str:
        """Write `0.81 (95 % interval 0.55 to 0.93)`; of a perfect order all resamples are alike."""
        low, high = f"{self.low:.2f}", f"{self.high:.2f}"
        return f"{self.spearman:.2f}" + (f" (95 % interval {low} to {high})" if low != high else "")


def rank_correlation(pairs: pd.DataFrame) -> RankCorrelation | None:
    """Correlate the ranks of `val_accuracy` and `accuracy`.

    Returns:
        `None` under five networks, and where all have the same of either.
    """
    both = pairs[["val_accuracy", "accuracy"]]
    if len(both) < LEAST_TO_CORRELATE or both.nunique().eq(1).any():
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(both), size=(RESAMPLES, len(both)))
    x, y = (pd.DataFrame(column.to_numpy()[drawn.T]) for _, column in both.items())
    resampled = x.rank().corrwith(y.rank())  # NaN where one is constant
    spearman = both.rank().corr().to_numpy()[0, 1]
    low, high = resampled.quantile([0.025, 0.975])
    of_one, of_other = both.rank().to_numpy().T
    shuffled = rng.permuted(np.tile(of_other, (RESAMPLES, 1)), axis=1)
    by_chance, found = shuffled @ of_one, of_other @ of_one
    chance = float(np.mean(by_chance >= found)), float(np.mean(by_chance <= found))
    return RankCorrelation(len(both), float(spearman), float(low), float(high), chance)


def time_spent(
    trials: pd.DataFrame, later: pd.DataFrame, failed_later: pd.DataFrame
) -> pd.DataFrame:
    """Add up where the time went, as far as it is known: `what`, `num_trials`, `hours`."""
    ends = {"COMPLETE": "scored", "PRUNED": "over budget", "RUNNING": "running"}
    what = trials["state"].map(ends).fillna("failed: " + trials["fail_reason"].fillna("unknown"))
    of_trials = trials[["elapsed_seconds"]].assign(what=what)
    of_later = later[["elapsed_seconds"]].assign(what=later["measure"])
    every = pd.concat([of_trials, of_later, failed_later])
    known = every.astype({"elapsed_seconds": float}).dropna()
    sums = known.groupby("what", as_index=False).agg(
        num_trials=("elapsed_seconds", "size"), hours=("elapsed_seconds", "sum")
    )
    sums["hours"] /= 3600
    return sums.sort_values("hours", ascending=False, kind="stable", ignore_index=True)


def later_in_words(agreement: pd.DataFrame) -> dict[int, str]:
    """Say for each trial what was measured later: `97.12% full training (strong, test), 3x`.

    With the epochs where they are known: `3x 200 epochs`.
    """
    found: dict[int, list[str]] = {}
    for row in agreement.to_dict("records"):
        times = f"{row['num_seeds']}\N{MULTIPLICATION SIGN} {row['setup']}".strip()
        text = f"{row['accuracy']:.2%} {row['measure']}, {times}"
        found.setdefault(int(row["trial"]), []).append(text)
    return {trial: "; ".join(texts) for trial, texts in found.items()}


def verdict(measure: str, pairs: pd.DataFrame) -> str:
    """Say in a sentence how far the proxy's ranking holds in a later measure."""
    found = rank_correlation(pairs)
    if found is None:
        left = LEAST_TO_CORRELATE - len(pairs)
        number = f"{len(pairs)} network has" if len(pairs) == 1 else f"{len(pairs)} networks have"
        ending = (
            f"{left} more for a correlation" if left > 0 else "all have the same of one of them"
        )
        return f"{measure}: {number} both scores; {ending}."
    ending = (
        f"the proxy ranks them {found.verdict} than chance"
        if found.verdict
        else "whether the proxy ranks them better than chance cannot be told yet"
    )
    return f"{measure}: {ending}; rank correlation {found} over {found.num_networks} networks."
