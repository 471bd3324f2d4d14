"""What `proxy_fidelity.py` measured: how each way to score ranks networks, and its price.

    python benchmarks/fidelity_report.py [ROWS.csv] [--figure FILE.html]

For each candidate, over the networks that have it and every seed of the reference:

- Spearman's and Kendall's (tau-b) correlation with the mean of the reference's seeds, and the first
  within its better half, each with a 95 % interval from resampled networks;
- Spearman's divided by the root of the reference's own reliability (Spearman 1904): what it would
  be against a reference without noise. The reliability of the mean of k seeds follows from the mean
  correlation r between seeds, k r / (1 + (k - 1) r) (Spearman 1910, Brown 1910);
- the regret: what the network it puts first loses, in the reference, to the best;
- the CPU time of a network, and its share of that of the reference with all its seeds. Where rows
  are of several kinds of processors, seconds are of the one with the most rows (`on_one_device`).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from nas.zero_cost import SCORES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    Array = NDArray[np.float64]
    Draws = NDArray[np.intp]

REFERENCE = "reference"
RESAMPLES = 2000
LEAST_NETWORKS = 5  # below it no correlation and no regret is shown
RIDGE = 1.0  # on standardized ranks
SHORT = ("epochs1", "epochs2", "epochs4")  # runs that are joined with untrained scores
ACTIVATIONS = "num_activations"
# A ladder halves what it keeps as it doubles the epochs; beside it, one rung and its finalists.
# Both cost four epochs a network.
LADDERS: dict[str, tuple[tuple[str, float], ...]] = {
    "ladder 1, 2, 4, 8 epochs": (
        ("epochs1", 1.0),
        ("epochs2", 0.5),
        ("epochs4", 0.25),
        ("epochs8", 0.125),
    ),
    "2 epochs, finalists 8": (("epochs2", 1.0), ("epochs8", 0.25)),
}


def read(path: Path) -> pd.DataFrame:
    """Read the rows, one a run, with the `cost` of each: seconds of CPU, or else of the device.

    The first line says what was measured.
    """
    with path.open(encoding="utf-8") as file:
        device = json.loads(file.readline().removeprefix("#")).get("device", "cpu")
    frame = pd.read_csv(path, comment="#", dtype={"train_losses": str})
    cost = frame["cpu_seconds" if device == "cpu" else "elapsed_seconds"]
    return on_one_device(frame.assign(cost=cost))


def on_one_device(rows: pd.DataFrame) -> pd.DataFrame:
    """Convert the `cost` of each run to that of the `device` with the most rows.

    By the geometric mean of the ratios of what both measured: the same candidate of the same
    network, whatever the seed. Rows of a device that shares none are left as they are.
    """
    both = rows.pivot_table(index=["network", "candidate"], columns="device", values="cost")
    main = rows["device"].value_counts().idxmax()
    ratios = {d: (both[main] / both[d]).where(lambda r: r > 0).dropna() for d in both}
    factors = {d: float(np.exp(np.log(r).mean())) for d, r in ratios.items() if len(r)}
    return rows.assign(cost=rows["cost"] * rows["device"].map(factors).fillna(1.0))


# Statistics


def spearman(a: Array, b: Array) -> Array:
    """Correlate ranks along the last axis; equal values share the mean of their ranks."""
    return pearson(rankdata(a, axis=-1), rankdata(b, axis=-1))


def pearson(a: Array, b: Array) -> Array:
    """Correlate along the last axis; not a number where one side does not vary."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def kendall(a: Array, b: Array) -> Array:
    """Give Kendall's tau-b along the last axis."""
    s, t = (np.sign(x[..., :, None] - x[..., None, :]) for x in (a, b))
    both, one, other = ((x * y).sum((-2, -1)) for x, y in ((s, t), (s, s), (t, t)))
    with np.errstate(invalid="ignore"):
        return both / np.sqrt(one * other)


def reliability(seeds: Array) -> Array:
    """Give that of the mean of k seeds, from (k, ..., networks) scores (Spearman-Brown)."""
    k = len(seeds)
    pairs = [spearman(seeds[i], seeds[j]) for i in range(k) for j in range(i)]
    r = np.mean(pairs, axis=0)
    return k * r / (1 + (k - 1) * r)


def corrected(score: Array, seeds: Array) -> Array:
    """Divide the correlation with the mean of the seeds by the root of its reliability."""
    reliable = reliability(seeds)
    root = np.sqrt(np.where(reliable > 0, reliable, np.nan))
    return spearman(score, seeds.mean(0)) / root


def regret(score: Array, truth: Array) -> float:
    """Give what the network with the best score loses to the best one."""
    return float(truth.max() - truth[score.argmax()])


@dataclass(frozen=True)
class Estimate:
    """A statistic and the 95 % interval of its bootstrap over networks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write `0.81 [0.55, 0.93]`."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def estimate(statistic: Callable[..., Array], *columns: Array) -> Estimate:
    """Compute a statistic of columns (..., networks), and its interval by percentiles.

    Resampled networks that leave it undefined, because all are equal, are left out.
    """
    num_networks = columns[0].shape[-1]
    if num_networks < LEAST_NETWORKS:
        return UNKNOWN
    rng = np.random.default_rng(0)
    draws = rng.integers(num_networks, size=(RESAMPLES, num_networks))
    resampled = statistic(*(column[..., draws] for column in columns))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(statistic(*columns)), float(low), float(high))


# Scores


@dataclass(frozen=True)
class Scores:
    """What a candidate says of networks, higher is better, and its cost in seconds, by network."""

    name: str
    scores: pd.Series[float]
    seconds: pd.Series[float]


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
        found.append(Scores(label, pd.Series(predicted, features.index), seconds))
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


# Tables


def fidelity(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare every candidate with the reference; one row each, the cheapest first."""
    seeds = reference_seeds(rows)
    chosen = rows[rows["candidate"] == REFERENCE]
    reference_seconds = chosen.groupby("network")["cost"].sum()
    table = []
    for candidate in candidates(rows):
        both = candidate.scores.dropna().index.intersection(seeds.index)
        score, truths = candidate.scores[both].to_numpy(), seeds.loc[both].to_numpy().T
        truth = truths.mean(0) if len(both) else np.empty(0)
        is_better = truth >= np.median(truth) if len(both) else np.empty(0, bool)
        has_reliability = len(truths) > 1
        table.append(
            {
                "candidate": candidate.name,
                "networks": len(both),
                "spearman": estimate(spearman, score, truth),
                "kendall": estimate(kendall, score, truth),
                "top half": estimate(spearman, score[is_better], truth[is_better]),
                "corrected": estimate(corrected, score, truths) if has_reliability else UNKNOWN,
                "regret": regret(score, truth) if len(both) >= LEAST_NETWORKS else math.nan,
                "seconds": candidate.seconds.mean(),
                "cost share": (candidate.seconds[both] / reference_seconds[both]).mean(),
            }
        )
    frame = pd.DataFrame(table).sort_values("seconds", kind="stable", ignore_index=True)
    values = [estimate.value for estimate in frame["spearman"]]
    return frame.assign(front=pareto_front(frame["seconds"].tolist(), values))


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Tell for each whether no other is at least as cheap and as good, and better in one."""
    points = list(zip(costs, values, strict=True))
    return [
        not math.isnan(value)
        and not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        for cost, value in points
    ]


def ladders(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare ways to spend on some networks more than on others; intervals by resampling.

    Each resample draws half of the networks, so that there is something to choose between.
    """
    seeds = reference_seeds(rows)
    first = rows[rows["seed"] == 0]
    wide = first.pivot_table(index="network", columns="candidate", values="score")
    seconds = first.pivot_table(index="network", columns="candidate", values="cost")
    needed = sorted({name for rungs in LADDERS.values() for name, _ in rungs})
    if not set(needed) <= set(wide):
        return pd.DataFrame()
    complete = wide[needed].dropna().index.intersection(seeds.index)
    if len(complete) < 2 * LEAST_NETWORKS:
        return pd.DataFrame()
    truth = seeds.loc[complete].mean(axis=1).to_numpy()
    rng, table = np.random.default_rng(0), []
    half = len(complete) // 2
    draws = [rng.permutation(len(complete))[:half] for _ in range(RESAMPLES)]
    for name, rungs in LADDERS.items():
        scores = [wide.loc[complete, rung].to_numpy() for rung, _ in rungs]
        costs = [seconds.loc[complete, rung].to_numpy() for rung, _ in rungs]
        shares = [share for _, share in rungs]
        climbed = [climb(scores, costs, shares, draw) for draw in draws]
        lost = [
            truth[draw].max() - truth[best] for draw, (best, _) in zip(draws, climbed, strict=True)
        ]
        spent = np.mean([cost for _, cost in climbed]) / half
        table.append({"way": name, "mean regret": np.mean(lost), "seconds": spent})
    return pd.DataFrame(table)


def climb(
    scores: list[Array], costs: list[Array], shares: list[float], draw: Draws
) -> tuple[int, float]:
    """Score the networks `draw` on the first rung, the best share on the next; the last decides.

    Returns:
        The network that is named, and what all runs cost.
    """
    kept, spent = draw, 0.0
    for score, cost, share in zip(scores, costs, shares, strict=True):
        kept = kept[: max(1, round(share * len(draw)))]
        spent += float(cost[kept].sum())
        kept = kept[np.argsort(-score[kept], kind="stable")]
    return int(kept[0]), spent


def reference_summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Tell how far the reference agrees with itself."""
    seeds = reference_seeds(rows).to_numpy().T
    num_networks = seeds.shape[-1] if seeds.size else 0
    has_two = len(seeds) > 1
    return {
        "networks with all seeds": num_networks,
        "seeds": len(seeds),
        "reliability of their mean": estimate(reliability, seeds) if has_two else UNKNOWN,
    }


def not_yet(rows: pd.DataFrame, table: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """Say what these rows are too few for."""
    found = len(reference_seeds(rows))
    thin = int((table["networks"] < LEAST_NETWORKS).sum())
    lines = []
    if found < LEAST_NETWORKS:
        lines.append(
            f"{found} networks have the reference's seeds; with fewer than {LEAST_NETWORKS} "
            "nothing here says how any proxy ranks networks, only what it costs"
        )
    elif thin:
        lines.append(f"{thin} candidates have fewer than {LEAST_NETWORKS} networks: no ranking yet")
    if compared.empty:
        lines.append(
            f"no comparison of ladders yet: {2 * LEAST_NETWORKS} networks need all their rungs"
        )
    return lines


def figure(table: pd.DataFrame) -> Figure:
    """Draw correlation against cost, the Pareto front marked."""
    import plotly.graph_objects as go

    drawn = go.Figure()
    shown = table[[not math.isnan(estimate.value) for estimate in table["spearman"]]]
    for is_front, group in shown.groupby("front"):
        estimates = group["spearman"]
        values = [e.value for e in estimates]
        drawn.add_scatter(
            x=group["seconds"],
            y=values,
            error_y={
                "array": [e.high - e.value for e in estimates],
                "arrayminus": [e.value - e.low for e in estimates],
                "thickness": 1,
            },
            text=group["candidate"],
            mode="markers+lines+text" if is_front else "markers",
            textposition="top center",
            name="Pareto front" if is_front else "other",
        )
    drawn.update_xaxes(type="log", title="seconds a network, of one CPU core or of the device")
    drawn.update_yaxes(title="Spearman's correlation with the reference")
    return drawn


def main() -> None:
    """Print the tables; write them and the figure on request."""
    results = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = results / "proxy_fidelity-cifar10-100k-16px.csv"
    parser.add_argument("rows", nargs="?", type=Path, default=default)
    parser.add_argument("--csv", type=Path, help="write the table")
    parser.add_argument("--figure", type=Path, help="write the figure, an HTML page")
    arguments = parser.parse_args()
    rows = read(arguments.rows)
    for what, value in reference_summary(rows).items():
        print(f"reference, {what}: {value}")
    table = fidelity(rows)
    formats = {"regret": "{:.4f}".format, "seconds": "{:.1f}".format, "cost share": "{:.3f}".format}
    print(table.to_string(index=False, formatters=formats, na_rep="-"))
    if not (compared := ladders(rows)).empty:
        print(compared.to_string(index=False))
    print("\n".join(not_yet(rows, table, compared)))
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    if arguments.figure:
        figure(table).write_html(arguments.figure, include_plotlyjs="cdn")


if __name__ == "__main__":
    main()
