"""What `proxy_fidelity.py` measured: how each way to score ranks networks, and its price.

    python benchmarks/fidelity_report.py [ROWS.csv] [--figure FILE.html] [--reference reference32]

With `--reference reference32` all is told against the networks' runs at 32 pixels, the usual
reference among the rest; `--more FILE.csv` adds rows of the same networks, as in another
precision. For each candidate, over the networks that have it and every seed of the reference:

- Spearman's and Kendall's (tau-b) correlation with the mean of the reference's seeds, and the first
  within the half that these seeds call better, each with a 95 % interval from resampled networks;
- Spearman's divided by the root of the reference's own reliability (Spearman 1904): what it would
  be against a reference without the noise of its seeds; all share their val images. The reliability
  of the mean of k seeds follows from the mean correlation r between seeds, k r / (1 + (k - 1) r)
  (Spearman 1910, Brown 1910);
- by how much Spearman's exceeds that of four epochs, on the same resampled networks: the intervals
  of two candidates alone do not tell them apart;
- its bias to networks of many activations: the partial correlation of ranks of the score and of
  their number, the reference given, which is 0 for a candidate that errs at random;
- the regret: what the network it puts first loses to the best, by the same seeds. It is one pick,
  and as uncertain as the difference of two networks;
- the CPU time of a network, and its share of that of the reference, with all its seeds and with
  one. Where rows are of several kinds of processors, seconds are of the one with the most rows
  (`on_one_device`).

The front is that of correlation and cost share among the candidates with the most networks. A ridge
model is not on it: its cost leaves out the reference runs that it was fitted to.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from fidelity_candidates import ACTIVATIONS, BASE, REFERENCE, candidates, reference_seeds
from fidelity_statistics import (
    LEAST_NETWORKS,
    RESAMPLES,
    UNKNOWN,
    corrected,
    estimate,
    kendall,
    partial_spearman,
    regret,
    reliability,
    spearman,
)
from measured import markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    Array = NDArray[np.float64]
    Draws = NDArray[np.intp]

FORMATS = {
    "regret": ".2%",
    "mean regret": ".2%",
    "seconds": ".1f",
    "cost share": ".1%",
    "of one seed": ".1%",
}
UNTRAINED_SHARE = 1e-3  # of the cost, at most
FRONT_COLOR, OTHER_COLOR = "#c0392b", "#7f8fa6"
LEAST_SHOWN = 1e-6  # share of the cost, on a logarithmic axis
LADDER_NETWORKS = 16  # a multiple of 8, so that every share of them is a whole number
LEAST_FOR_LADDERS = 20  # from which so many are drawn
# A ladder halves what it keeps as it doubles the epochs; beside it, one rung and its finalists, and
# one rung alone. Each costs four epochs a network.
LADDERS: dict[str, tuple[tuple[str, float], ...]] = {
    "ladder 1, 2, 4, 8 epochs": (
        ("epochs1", 1.0),
        ("epochs2", 0.5),
        ("epochs4", 0.25),
        ("epochs8", 0.125),
    ),
    "2 epochs, finalists 8": (("epochs2", 1.0), ("epochs8", 0.25)),
    "4 epochs": (("epochs4", 1.0),),
}


def read(path: Path, more: Sequence[Path] = ()) -> pd.DataFrame:
    """Read the rows, one a run, with the `cost` of each: seconds of CPU, or else of the device.

    The first line says what was measured. Different networks of one number end the program: given
    architectures were measured in another order, or with others.

    Args:
        path: The CSV.
        more: Further ones, such as of another precision; rows of the first one's networks count,
            but for runs that a file before has.
    """
    rows = _read(path)
    numbers = dict(zip(rows["arch_id"], rows["network"], strict=True))
    for other in map(_read, more):
        known = other[other["arch_id"].isin(numbers)]
        rows = pd.concat([rows, known.assign(network=known["arch_id"].map(numbers))])
    rows = rows.drop_duplicates(["network", "candidate", "seed"])
    return on_one_device(rows.reset_index(drop=True))


def _read(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8") as file:
        device = json.loads(file.readline().removeprefix("#")).get("device", "cpu")
    frame = pd.read_csv(path, comment="#", dtype={"train_losses": str, "arch_id": str})
    alike = frame.groupby("network")["arch_id"].nunique()
    if (alike > 1).any():
        sys.exit(f"error: {path} has several networks of the number {alike.idxmax()}")
    cost = frame["cpu_seconds" if device == "cpu" else "elapsed_seconds"]
    return frame.assign(cost=cost)


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


def against(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Have another reference count, as that at 32 pixels; the usual one is a candidate then.

    Not with a seed that both have: shared initial weights and batches make them agree.
    """
    if reference == REFERENCE:
        return rows
    shared = rows["seed"].isin(rows.loc[rows["candidate"] == reference, "seed"])
    rows = rows[~(shared & (rows["candidate"] == REFERENCE))]
    names = {REFERENCE: f"usual {REFERENCE}", reference: REFERENCE}
    return rows.assign(candidate=rows["candidate"].replace(names))


def fidelity(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare every candidate with the reference; one row each, the cheapest first."""
    seeds = reference_seeds(rows)
    chosen = rows[rows["candidate"] == REFERENCE]
    reference_seconds = chosen.groupby("network")["cost"].sum()
    found, table = candidates(rows), []
    by_name = {each.name: each.scores for each in found}
    none = pd.Series(dtype=float)
    base, activations = by_name.get(BASE, none), by_name.get(ACTIVATIONS, none)
    for candidate in found:
        both = candidate.scores.dropna().index.intersection(seeds.index)
        paired, sized = both.intersection(base.index), both.intersection(activations.index)
        score, truths = candidate.scores[both].to_numpy(), seeds.loc[both].to_numpy().T
        truth = truths.mean(0) if len(both) else np.empty(0)
        is_better = truth >= np.median(truth) if len(both) else np.empty(0, bool)
        has_reliability = len(truths) > 1
        share = (candidate.seconds[both] / reference_seconds[both]).mean()
        table.append(
            {
                "candidate": candidate.name,
                "networks": len(both),
                "spearman": estimate(spearman, score, truth),
                "kendall": estimate(kendall, score, truth),
                "top half": estimate(spearman, score[is_better], truth[is_better]),
                "corrected": estimate(corrected, score, truths) if has_reliability else UNKNOWN,
                f"gain on {BASE}": estimate(
                    _gain,
                    candidate.scores[paired].to_numpy(),
                    base[paired].to_numpy(),
                    seeds.loc[paired].mean(axis=1).to_numpy(),
                ),
                "bias to activations": estimate(
                    partial_spearman,
                    candidate.scores[sized].to_numpy(),
                    activations[sized].to_numpy(),
                    seeds.loc[sized].mean(axis=1).to_numpy(),
                ),
                "regret": regret(score, truth) if len(both) >= LEAST_NETWORKS else math.nan,
                "seconds": candidate.seconds[both if len(both) else slice(None)].mean(),
                "cost share": share,
                "of one seed": share * len(seeds.columns),
                "fitted": candidate.is_fitted,
            }
        )
    frame = pd.DataFrame(table).sort_values("cost share", kind="stable", ignore_index=True)
    is_compared = (frame["networks"] == frame["networks"].max()) & ~frame["fitted"]
    values = [
        estimate.value if compared else math.nan
        for estimate, compared in zip(frame["spearman"], is_compared, strict=True)
    ]
    return frame.assign(front=pareto_front(frame["cost share"].tolist(), values))


def _gain(score: Array, base: Array, truth: Array) -> Array:
    return spearman(score, truth) - spearman(base, truth)


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Tell for each whether no other is at least as cheap and as good, and better in one."""
    points = list(zip(costs, values, strict=True))
    return [
        not math.isnan(value)
        and not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        for cost, value in points
    ]


def ladders(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare ways to spend on some networks more than on others, at the same number of epochs.

    A mean over draws of `LADDER_NETWORKS` of the networks, each way on the same ones. It describes
    these networks: draws share so many of them that their spread is no interval.
    """
    seeds = reference_seeds(rows)
    first = rows[rows["seed"] == 0]
    wide = first.pivot_table(index="network", columns="candidate", values="score")
    seconds = first.pivot_table(index="network", columns="candidate", values="cost")
    needed = sorted({name for rungs in LADDERS.values() for name, _ in rungs})
    if not set(needed) <= set(wide):
        return pd.DataFrame()
    complete = wide[needed].dropna().index.intersection(seeds.index)
    if len(complete) < LEAST_FOR_LADDERS:
        return pd.DataFrame()
    truth = seeds.loc[complete].mean(axis=1).to_numpy()
    rng, table = np.random.default_rng(0), []
    draws = [rng.permutation(len(complete))[:LADDER_NETWORKS] for _ in range(RESAMPLES)]
    for name, rungs in LADDERS.items():
        scores = [wide.loc[complete, rung].to_numpy() for rung, _ in rungs]
        costs = [seconds.loc[complete, rung].to_numpy() for rung, _ in rungs]
        shares = [share for _, share in rungs]
        climbed = [climb(scores, costs, shares, draw) for draw in draws]
        lost = [
            truth[draw].max() - truth[best] for draw, (best, _) in zip(draws, climbed, strict=True)
        ]
        spent = np.mean([cost for _, cost in climbed]) / LADDER_NETWORKS
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
        kept = kept[: round(share * len(draw))]
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
            f"no comparison of ladders yet: {LEAST_FOR_LADDERS} networks need all their rungs"
        )
    return lines


def in_markdown(table: pd.DataFrame) -> str:
    """Write a table, its numbers by `FORMATS`; a star marks the front."""
    shown = table.assign(
        **{
            name: ["-" if math.isnan(value) else format(value, FORMATS[name]) for value in column]
            for name, column in table.items()
            if name in FORMATS
        }
    )
    if "front" in shown:
        shown["candidate"] += shown["front"].map({True: " *", False: ""})
        shown = shown.drop(columns=["front", "fitted"])
    return markdown_table(shown.columns, shown.to_numpy())


def figure(table: pd.DataFrame) -> Figure:
    """Draw correlation against cost, the Pareto front marked.

    What costs at most a thousandth of the reference, as untrained scores do, has its own panel.
    """
    from plotly.subplots import make_subplots

    drawn = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.3, 0.7])
    shown = table[[not math.isnan(estimate.value) for estimate in table["spearman"]]]
    shown = shown.assign(column=1 + (shown["cost share"] > UNTRAINED_SHARE).astype(int))
    for (is_front, column), group in shown.sort_values("cost share").groupby(["front", "column"]):
        estimates = group["spearman"]
        values = [e.value for e in estimates]
        drawn.add_scatter(
            x=group["cost share"].clip(lower=LEAST_SHOWN),
            y=values,
            error_y={
                "array": [e.high - e.value for e in estimates],
                "arrayminus": [e.value - e.low for e in estimates],
                "thickness": 1,
            },
            hovertext=group["candidate"],
            text=group["candidate"].where(is_front | ~group["candidate"].str.contains("[, ]"), ""),
            cliponaxis=False,
            mode="markers+lines+text" if is_front else "markers+text",
            textposition=("top right" if column == 1 else "top left")
            if is_front
            else "bottom right",
            marker_color=FRONT_COLOR if is_front else OTHER_COLOR,
            name="Pareto front" if is_front else "other",
            showlegend=bool(column == shown["column"].max()),
            row=1,
            col=int(column),
        )
    drawn.update_xaxes(type="log", tickformat="~%")
    drawn.update_xaxes(dtick=1, col=1)
    drawn.update_xaxes(title="cost, in percent of the reference's with all its seeds", col=2)
    drawn.update_yaxes(title="Spearman's correlation with the reference", col=1)
    return drawn


def main() -> None:
    """Print the tables; write them and the figure on request."""
    results = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = results / "proxy_fidelity-cifar10-100k-16px.csv"
    parser.add_argument("rows", nargs="?", type=Path, default=default)
    parser.add_argument("--more", nargs="+", type=Path, default=[], help="rows of other files")
    parser.add_argument("--reference", default=REFERENCE, help="another one: reference32")
    parser.add_argument("--figure", type=Path, help="write the figure, an HTML page")
    arguments = parser.parse_args()
    rows = against(read(arguments.rows, arguments.more), arguments.reference)
    for what, value in reference_summary(rows).items():
        print(f"reference, {what}: {value}")
    table, compared = fidelity(rows), ladders(rows)
    print(f"\n{in_markdown(table)}\n")
    if not compared.empty:
        print(f"{in_markdown(compared)}\n")
    print("\n".join(not_yet(rows, table, compared)))
    if arguments.figure:
        figure(table).write_html(arguments.figure, include_plotlyjs="cdn")


if __name__ == "__main__":
    main()
