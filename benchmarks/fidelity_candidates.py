"""The ways to score networks: what was measured, and what follows from it at no cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from fidelity_statistics import LEAST_NETWORKS
from scipy.stats import rankdata

from nas.zero_cost import SCORES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

REFERENCE = "reference"
BASE = "epochs4"  # what the others are compared with
SHORT = ("epochs1", "epochs2", BASE)  # runs that are joined with untrained scores
ACTIVATIONS = "num_activations"
RIDGE = 1.0  # on standardized ranks


@dataclass(frozen=True)
class Scores:
    """What a candidate says of networks, higher is better, and its cost in seconds, by network.

    Attributes:
        is_fitted: Whether it was fitted to the reference of other networks, which costs more.
    """

    name: str
    scores: pd.Series[float]
    seconds: pd.Series[float]
    is_fitted: bool = False


def reference_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the reference's scores, a row a network that has all seeds, a column a seed."""
    chosen = rows[rows["candidate"] == REFERENCE]
    return chosen.pivot_table(index="network", columns="seed", values="score").dropna()


def candidates(rows: pd.DataFrame) -> list[Scores]:
    """Give the scores of every candidate that was measured, and of those that follow from it."""
    found = []
    for (name, seed), group in rows.groupby(["candidate", "seed"], sort=False):
        if str(name).startswith(REFERENCE):
            continue
        runs, label = group.set_index("network"), f"{name} seed {seed}" if seed else str(name)
        seconds = runs["cost"]
        found.append(Scores(label, runs["score"], seconds))
        if name in SCORES:
            continue
        losses = runs["train_losses"].map(lambda text: sum(map(float, str(text).split())))
        found += [
            Scores(f"{label}, no flip average", runs["plain_accuracy"], seconds),
            Scores(f"{label}, val loss", -runs["val_loss"], seconds),
            Scores(f"{label}, sum of training losses", -losses, seconds),
        ]
    return [*found, *_mean_of_seeds(rows), *_mean_of_ranks(rows), *_rank_models(rows)]


def _mean_of_seeds(rows: pd.DataFrame) -> list[Scores]:
    found = []
    for name, group in rows.groupby("candidate", sort=False):
        if str(name).startswith(REFERENCE) or group["seed"].nunique() < 2:
            continue
        seeds = group.pivot_table(index="network", columns="seed", values="score").dropna()
        seconds = group.groupby("network")["cost"].sum()[seeds.index]
        label = f"{name}, mean of {seeds.shape[1]} seeds"
        found.append(Scores(label, seeds.mean(axis=1), seconds))
    return found


def _mean_of_ranks(rows: pd.DataFrame) -> list[Scores]:
    """Average the ranks of one short run and of the number of activations; nothing is fitted."""
    wide = rows[rows["seed"] == 0].pivot_table(index="network", columns="candidate", values="score")
    found = []
    for short in [name for name in SHORT if {name, ACTIVATIONS} <= set(wide)]:
        both = wide[[short, ACTIVATIONS]].dropna()
        runs = rows[(rows["seed"] == 0) & (rows["candidate"] == short)]
        seconds = runs.groupby("network")["cost"].sum()[both.index]
        found.append(Scores(f"{short} and activations", both.rank().mean(axis=1), seconds))
    return found


def _rank_models(rows: pd.DataFrame) -> list[Scores]:
    """Predict the reference from untrained scores and one short run, each network by the others."""
    seeds = reference_seeds(rows)
    wide = rows[rows["seed"] == 0].pivot_table(index="network", columns="candidate", values="score")
    untrained = [name for name in SCORES if name in wide]
    found = []
    for short in [name for name in SHORT if name in wide]:
        features = wide[[*untrained, short]].dropna()
        features = features.loc[features.index.intersection(seeds.index)]
        if len(features) < LEAST_NETWORKS:
            continue
        truth = seeds.loc[features.index].mean(axis=1).to_numpy()
        predicted = leave_one_out(features.to_numpy(), truth)
        runs = rows[(rows["seed"] == 0) & rows["candidate"].isin(features.columns)]
        seconds = runs.groupby("network")["cost"].sum()[features.index]
        label = f"ridge on untrained scores and {short}"
        scores = pd.Series(predicted, features.index)
        found.append(Scores(label, scores, seconds, is_fitted=True))
    return found


def leave_one_out(features: Array, truth: Array) -> Array:
    """Predict each network's rank by ridge regression on the ranks of all others."""
    x = rankdata(features, axis=0)
    predicted = np.empty(len(truth))
    for left_out in range(len(truth)):
        is_kept = np.arange(len(truth)) != left_out
        y = rankdata(truth[is_kept])
        mean, std = x[is_kept].mean(0), x[is_kept].std(0)
        scaled = (x - mean) / np.where(std > 0, std, 1)
        kept = scaled[is_kept]
        normal = kept.T @ kept + RIDGE * np.eye(x.shape[1])
        predicted[left_out] = scaled[left_out] @ np.linalg.solve(normal, kept.T @ (y - y.mean()))
    return predicted
