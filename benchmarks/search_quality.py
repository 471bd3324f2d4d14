"""How good a network a search names, on tables in which every network was really trained.

    python benchmarks/search_quality.py run --tables DIR [--strategies default tpe] [--workers 2]
    python benchmarks/search_quality.py report [--figure FILE.html]

A cell is a table and a cap: networks with at most as many parameters as the table's 10, 25, 50 or
100 % quantile. A trial reads the score of one network under the cap. After n trials a strategy
names a network it tried; its regret is the best true accuracy under the cap less the true accuracy
of the named one, in points. Optuna's strategies name their best score, ours `nas.surrogate`'s
estimate. Repetition r is the same for all: which of a network's runs is read is drawn from r.

`run` appends a row a finished repetition to the CSV and skips those that are there. Tables (DIR):
`channel_bench_mobilenet.csv.gz` (xiusu/Channel-Bench-Macro), `nas_bench_201.csv.gz`
(NAS-Bench-201), `naap440.csv.gz` (talcs/NAAP-440), `mit_deep_resnets_tinyimagenet.csv.gz`
(MITAutoML/accelerating_nas).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import random
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
import plotly.colors
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, IntDistribution
from plotly.subplots import make_subplots

from nas.samplers import Limit, make_sampler
from nas.surrogate import recommend

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    Proposals = Generator[int, float, None]  # yields rows of the table, is sent their scores
    Search = Callable[["Cell", int], Proposals]
    Naming = Callable[["Cell", list[int], list[float]], int]  # of the rows tried, by their scores

RESULTS = Path("benchmarks/results/search_quality.csv")
FIGURE = Path("benchmarks/results/search_quality.html")
MAIN = ("channel_bench_mobilenet", "nas_bench_201")  # the tables of the eight cells
SEEN = ("channel_bench_mobilenet", "nas_bench_201_val")  # likewise, judged by what a search sees
CAPS = (0.1, 0.25, 0.5, 1.0)
AFTER = (25, 50, 100, 200)  # trials
MAX_ASKS = 600  # of a strategy that spends trials on networks over the cap


@dataclass(frozen=True)
class Table:
    """Networks that were trained.

    Attributes:
        space: The parameters.
        params: One dict a network.
        costs: (N, 2) parameters and multiply-adds, or what grows as they do.
        scores: (N, runs) in percent, of which a trial reads one.
        truth: (N,) accuracy that counts.
        unseen: (N,) accuracy of a run that no strategy reads.
    """

    space: Mapping[str, BaseDistribution]
    params: list[dict[str, Any]]
    costs: NDArray[np.float64]
    scores: NDArray[np.float64]
    truth: NDArray[np.float64]
    unseen: NDArray[np.float64]


def channel_bench(folder: Path) -> Table:
    """Widths of seven MobileNet layers, four choices each; three runs on CIFAR-10."""
    frame = pd.read_csv(folder / "channel_bench_mobilenet.csv.gz", dtype={"arch": str})
    names = [f"width_{number}" for number in range(1, 8)]
    return Table(
        space={name: IntDistribution(1, 4) for name in names},
        params=[dict(zip(names, map(int, arch), strict=True)) for arch in frame["arch"]],
        costs=frame[["params", "flops"]].to_numpy(float),
        scores=frame[["acc_run1", "acc_run2"]].to_numpy(float),
        truth=frame["acc_denoised"].to_numpy(float),
        unseen=frame["acc_run3"].to_numpy(float),
    )


def nas_bench_201(folder: Path, score: str = "cifar10_valid", truth: str = "cifar10_test") -> Table:
    """One of five operations on each of six edges; scored on val, judged on test."""
    frame = pd.read_csv(folder / "nas_bench_201.csv.gz")
    names = ["e01", "e02", "e12", "e03", "e13", "e23"]
    return Table(
        space={name: CategoricalDistribution(range(5)) for name in names},
        params=frame[names].to_dict("records"),
        costs=frame[["params", "flops_conv"]].to_numpy(float) + 1,
        scores=frame[[score]].to_numpy(float),
        truth=frame[truth].to_numpy(float),
        unseen=frame[truth].to_numpy(float),
    )


def naap440(folder: Path) -> Table:
    """Tiny networks on CIFAR-10; scored after 20 epochs, judged by the best of 90."""
    frame = pd.read_csv(folder / "naap440.csv.gz")
    columns = {
        f"width_{index + 1}": frame["widths"].str.split(":").str.get(index).fillna("none")
        for index in range(4)
    }
    columns |= {name: frame[name] for name in ("kernel_sizes", "strides", "residuals")}
    return _listed(
        pd.DataFrame(columns),
        categorical=True,
        costs=frame[["params", "macs"]].to_numpy(float),
        score=100 * frame["acc_ep20"].to_numpy(float),
        truth=100 * frame["acc_best"].to_numpy(float),
    )


def mit_resnets(folder: Path) -> Table:
    """Narrow, deep ResNets on TinyImageNet; scored after 40 epochs, judged by the best of 140."""
    frame = pd.read_csv(folder / "mit_deep_resnets_tinyimagenet.csv.gz")
    names = ["num_blocks", "num_filters", "filter_size", "ss"]
    frame = frame.drop_duplicates(names).dropna(subset=["acc_ep40", "acc_best"])
    weights = frame["depth"] * (frame["num_filters"] * frame["filter_size"]) ** 2
    return _listed(
        frame[names],
        categorical=False,
        costs=np.stack([weights, frame["depth"]], axis=1).astype(float),
        score=100 * frame["acc_ep40"].to_numpy(float),
        truth=100 * frame["acc_best"].to_numpy(float),
    )


def _listed(
    columns: pd.DataFrame,
    *,
    categorical: bool,
    costs: NDArray[np.float64],
    score: NDArray[np.float64],
    truth: NDArray[np.float64],
) -> Table:
    """Make a table of networks that are a part of all combinations of their settings."""
    space: dict[str, BaseDistribution] = {}
    params: dict[str, list[Any]] = {}
    for name, column in columns.items():
        known = sorted(column.unique().tolist())
        if categorical:
            space[str(name)] = CategoricalDistribution(known)
            params[str(name)] = column.tolist()
        else:  # the place among those there are
            space[str(name)] = IntDistribution(0, len(known) - 1)
            params[str(name)] = [known.index(value) for value in column]
    rows = [dict(zip(params, row, strict=True)) for row in zip(*params.values(), strict=True)]
    return Table(space, rows, costs, score[:, None], truth, truth)


TABLES: dict[str, Callable[[Path], Table]] = {
    "channel_bench_mobilenet": channel_bench,
    "nas_bench_201": nas_bench_201,
    "nas_bench_201_val": partial(nas_bench_201, truth="cifar10_valid"),  # judged by what is seen
    "nas_bench_201_cifar100": partial(nas_bench_201, score="cifar100_valid", truth="cifar100_test"),
    "nas_bench_201_imagenet16": partial(
        nas_bench_201, score="imagenet16_valid", truth="imagenet16_test"
    ),
    "naap440": naap440,
    "mit_resnets": mit_resnets,
}


class Cell:
    """A table under a cap on parameters.

    Attributes:
        table: The table.
        rows: Rows of it within the cap.
        limits: The cap; where the table lists a part of all combinations, also what it lists.
    """

    def __init__(self, table: Table, cap: float) -> None:
        self.table = table
        self._index = {self._key(params): row for row, params in enumerate(table.params)}
        largest = float(np.quantile(table.costs[:, 0], cap))
        self.rows = np.flatnonzero(table.costs[:, 0] <= largest)
        self.limits = [Limit("num_params", self._num_params, largest)]
        if self._is_listed():
            self.limits.append(Limit("unlisted", lambda p: float(self.row(p) is None), 0))

    def row(self, params: Mapping[str, Any]) -> int | None:
        """Give the row of a network, if the table has it."""
        return self._index.get(self._key(params))

    def features(self, params: Mapping[str, Any]) -> list[float]:
        """Give the logarithms of the costs."""
        row = self.row(params)
        return [0.0, 0.0] if row is None else [math.log(cost) for cost in self.table.costs[row]]

    def _num_params(self, params: Mapping[str, Any]) -> float:
        row = self.row(params)
        return 0.0 if row is None else float(self.table.costs[row, 0])

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params[name] for name in self.table.space)

    def _is_listed(self) -> bool:
        counts = (
            len(d.choices) if isinstance(d, CategoricalDistribution) else d.high - d.low + 1
            for d in self.table.space.values()
        )
        return math.prod(counts) > len(self._index)


@cache
def cell_of(folder: Path, table: str, cap: float) -> Cell:
    """Read a cell once a process."""
    return Cell(_table(folder, table), cap)


@cache
def _table(folder: Path, name: str) -> Table:
    return TABLES[name](folder)


# Strategies without Optuna


def evolution(cell: Cell, seed: int) -> Proposals:
    """Regularized evolution (Real et al. 2019): population 20, the best of 5 has a child."""
    rng = random.Random(seed)
    order = rng.sample(list(cell.rows), len(cell.rows))
    tried: dict[int, float] = {}
    population: list[int] = []
    allowed = set(cell.rows.tolist())
    for row in order:
        child = int(row)
        if len(tried) >= 20:
            parent = max(rng.sample(population, 5), key=lambda each: tried[each])
            child = _child(cell, parent, allowed - tried.keys(), rng) or child
        if child in tried:
            continue
        tried[child] = yield child
        population = [*population, child][-20:]


def _child(cell: Cell, parent: int, allowed: set[int], rng: random.Random) -> int | None:
    """Change one parameter, or two where every change of one was tried."""
    params, space = cell.table.params[parent], cell.table.space
    for num_changed in (1, 2):
        changes = [
            dict(change)
            for names in itertools.combinations(space, num_changed)
            for change in itertools.product(
                *([(name, value) for value in _values(space[name])] for name in names)
            )
        ]
        rng.shuffle(changes)
        found = (cell.row(params | change) for change in changes)
        if (child := next((row for row in found if row in allowed), None)) is not None:
            return child
    return None


def _values(dist: BaseDistribution) -> list[Any]:
    if isinstance(dist, CategoricalDistribution):
        return list(dist.choices)
    assert isinstance(dist, IntDistribution)
    return list(range(dist.low, dist.high + 1))


def ridge(cell: Cell, seed: int) -> Proposals:
    """Bayesian ridge on one-hot choices and log costs; Thompson sampling over all under the cap."""
    rng = np.random.default_rng(seed)
    design = _design(cell)
    tried: list[int] = []
    scores: list[float] = []
    while True:
        left = np.setdiff1d(cell.rows, tried)
        if len(tried) < 10:
            row = int(rng.choice(left))
        else:
            mean, covariance, offset = _bayesian_ridge(design[tried], np.array(scores))
            weights = rng.multivariate_normal(mean, covariance, method="cholesky")
            row = int(left[np.argmax(design[left] @ weights + offset)])
        tried.append(row)
        scores.append((yield row))


def _design(cell: Cell) -> NDArray[np.float64]:
    frame = pd.DataFrame(cell.table.params).astype("category")
    design = np.hstack([pd.get_dummies(frame).to_numpy(float), np.log(cell.table.costs)])
    inside = design[cell.rows]
    spread = inside.std(axis=0)
    standard: NDArray[np.float64] = (design - inside.mean(axis=0)) / np.where(spread, spread, 1)
    return standard


def _bayesian_ridge(
    design: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Fit both precisions by MacKay's fixed point (1992); give mean and covariance of weights."""
    offset = float(scores.mean())
    centred = scores - offset
    values, vectors = np.linalg.eigh(design.T @ design)
    projected = vectors.T @ (design.T @ centred)
    alpha, beta = 1.0, 1 / max(float(centred.var()), 1e-12)
    for _ in range(50):
        mean = beta * projected / (alpha + beta * values)
        gamma = float((beta * values / (alpha + beta * values)).sum())
        error = float(((centred - design @ (vectors @ mean)) ** 2).sum())
        alpha = max(gamma, 1e-9) / max(float(mean @ mean), 1e-12)
        beta = max(len(scores) - gamma, 1e-9) / max(error, 1e-12)
    covariance = (vectors / (alpha + beta * np.maximum(values, 0))) @ vectors.T
    return vectors @ mean, covariance, offset


# Optuna's


def plain(make: Callable[[int], BaseSampler], *, constraint: bool) -> Search:
    """Make a search of Optuna alone: over the cap is pruned, or a constraint besides."""

    def search(cell: Cell, seed: int) -> Proposals:
        study = optuna.create_study(direction="maximize", sampler=make(seed))
        for _ in range(MAX_ASKS):
            trial = study.ask(dict(cell.table.space))
            excess = max(limit.excess(limit.cost(trial.params)) for limit in cell.limits)
            if constraint:
                trial.set_constraint("num_params", excess)
            if excess > 0:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                row = cell.row(trial.params)
                assert row is not None
                study.tell(trial, (yield row))

    return search


def within(make: Callable[[Cell, int], BaseSampler]) -> Search:
    """Make a search of a sampler that keeps the limits."""

    def search(cell: Cell, seed: int) -> Proposals:
        study = optuna.create_study(direction="maximize", sampler=make(cell, seed))
        while True:
            trial = study.ask(dict(cell.table.space))
            row = cell.row(trial.params)
            assert row is not None
            study.tell(trial, (yield row))

    return search


def redrawing(name: str) -> Search:
    """Make a search of an Optuna sampler under `BudgetSampler`."""
    return within(lambda cell, seed: make_sampler(name, cell.table.space, cell.limits, seed=seed))


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


# Naming


def best_score(_: Cell, tried: list[int], scores: list[float]) -> int:
    """Name the network of the best score, as Optuna's `study.best_trial` does."""
    return tried[int(np.argmax(scores))]


def ridge_mean(cell: Cell, tried: list[int], scores: list[float]) -> int:
    """Name the network of the best posterior mean of the ridge."""
    rows = _design(cell)[tried]
    return tried[int(np.argmax(rows @ _bayesian_ridge(rows, np.array(scores))[0]))]


def estimate(cell: Cell, tried: list[int], scores: list[float]) -> int:
    """Name the network that `nas.surrogate.recommend` does."""
    params, space = cell.table.params, dict(cell.table.space)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.create_trial(params=params[row], distributions=space, value=score)
            for row, score in zip(tried, scores, strict=True)
        ]
    )
    return tried[recommend(study, space, features=cell.features).number]


def default(cell: Cell, seed: int) -> BaseSampler:
    """Make ours, with the features that `search.py` gives it."""
    return make_sampler("default", cell.table.space, cell.limits, features=cell.features, seed=seed)


STRATEGIES: dict[str, tuple[Search, Naming]] = {
    "default": (within(default), estimate),
    "random": (redrawing("random"), best_score),
    "evolution": (evolution, best_score),
    "ridge": (ridge, ridge_mean),
    "tpe, pruned": (plain(_tpe, constraint=False), best_score),
    "tpe, constraint": (plain(_tpe, constraint=True), best_score),
    "tpe, redrawn": (redrawing("tpe"), best_score),
    "nsga2, redrawn": (redrawing("nsga2"), best_score),
    "gp, redrawn": (redrawing("gp"), best_score),
}


# Repetitions


PAIR = ["table", "cap", "repetition"]
KEYS = ("table", "cap", "strategy", "repetition")
MEASURES = ("regret", "unseen")
COLUMNS = (*KEYS, *(f"{name}_{after}" for name in MEASURES for after in AFTER), "cpu_seconds")


def repetition(folder: Path, table: str, cap: float, name: str, number: int) -> dict[str, Any]:
    """Search once; give the row of the CSV."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    cell = cell_of(folder, table, cap)
    data, rng = cell.table, np.random.default_rng(number)
    runs = rng.integers(data.scores.shape[1], size=len(data.scores))
    row: dict[str, Any] = {"table": table, "cap": cap, "strategy": name, "repetition": number}
    tried: list[int] = []
    scores: list[float] = []
    start = time.process_time()
    search, name_one = STRATEGIES[name]
    for proposed in _proposals(search(cell, number), scores):
        tried.append(proposed)
        scores.append(float(data.scores[proposed, runs[proposed]]))
        if len(tried) == max(AFTER):
            break
    row["cpu_seconds"] = round(time.process_time() - start, 3)
    best = float(data.truth[cell.rows].max())
    for after in AFTER:
        named = name_one(cell, tried[:after], scores[:after])
        row[f"regret_{after}"] = round(best - float(data.truth[named]), 4)
        row[f"unseen_{after}"] = round(float(data.unseen[named]), 4)
    return row


def _proposals(strategy: Proposals, scores: list[float]) -> Iterator[int]:
    try:
        yield next(strategy)
        while True:
            yield strategy.send(scores[-1])
    except StopIteration:
        return


def run(arguments: argparse.Namespace) -> None:
    """Run the repetitions that the CSV lacks."""
    done = _done(arguments.out)
    wanted = [
        (table, cap, strategy, number)
        for number in range(arguments.repetitions)
        for strategy in arguments.strategies
        for table in arguments.of
        for cap in arguments.caps
        if (table, cap, strategy, number) not in done
    ]
    print(f"{len(wanted)} repetitions to run, {len(done)} there")
    with ProcessPoolExecutor(arguments.workers) as pool:
        futures = [pool.submit(repetition, arguments.tables, *each) for each in wanted]
        for count, future in enumerate(as_completed(futures), 1):
            _append(arguments.out, future.result())
            print(f"\r{count} of {len(wanted)}", end="", flush=True)
    print()


def _done(path: Path) -> set[tuple[str, float, str, int]]:
    if not path.exists():
        return set()
    keys = pd.read_csv(path)[list(KEYS)]
    return {(t, float(c), s, int(n)) for t, c, s, n in keys.itertuples(index=False)}


def _append(path: Path, row: dict[str, Any]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def report(arguments: argparse.Namespace) -> None:
    """Print the tables of the write-up and draw the figure."""
    frame = pd.read_csv(arguments.out)
    main_cells = frame[frame["table"].isin(MAIN)]
    print(f"{len(frame)} repetitions; regret in points, mean of the cells that all have\n")
    print(markdown(overview(main_cells)))
    print("\njudged by what a search sees\n")
    print(markdown(overview(frame[frame["table"].isin(SEEN)])))
    for (table, cap), cell in frame.groupby(["table", "cap"]):
        print(f"\n{table}, cap at the {cap:.0%} quantile\n")
        print(markdown(overview(cell)))
    arguments.figure.write_text(figure(main_cells), encoding="utf-8")


def overview(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each strategy's mean regret, and what ours has less with its standard error.

    A difference is of a pair: the same table, cap and repetition. Strategies that have fewer
    repetitions than ours are compared on those they have; their row says how many.
    """
    ours = frame[frame["strategy"] == "default"].set_index(PAIR)
    rows = []
    for name in [name for name in STRATEGIES if name in set(frame["strategy"])]:
        theirs = frame[frame["strategy"] == name].set_index(PAIR)
        both = theirs.index.intersection(ours.index)
        row: dict[str, object] = {"strategy": name, "pairs": len(both)}
        for after in AFTER:
            regrets = theirs.loc[both, f"regret_{after}"]
            mean_regret = paired(regrets)[0]
            row[f"{after}"] = f"{mean_regret:.3f}"
            if name != "default":
                mean, error = paired(regrets - ours.loc[both, f"regret_{after}"])
                row[f"{after}"] = f"{mean_regret:.3f} ({mean:+.3f} ± {error:.3f})"
        row["unseen, 200"] = f"{theirs.loc[both, 'unseen_200'].mean():.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def paired(differences: pd.Series) -> tuple[float, float]:
    """Give the mean of differences and its standard error, each cell counting alike."""
    cells = differences.groupby(level=["table", "cap"])
    variances = cells.var(ddof=1) / cells.count()
    return float(cells.mean().mean()), math.sqrt(float(variances.sum(skipna=False))) / len(cells)


def markdown(frame: pd.DataFrame) -> str:
    """Write a frame as a table of Markdown."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def figure(frame: pd.DataFrame) -> str:
    """Draw mean regret against trials, a panel a cell, as a page of HTML."""
    cells = sorted(set(zip(frame["table"], frame["cap"], strict=True)))
    titles = [f"{table}, {cap:.0%}" for table, cap in cells]
    shown = make_subplots(rows=len(MAIN), cols=len(CAPS), subplot_titles=titles)
    colors = dict(zip(STRATEGIES, itertools.cycle(plotly.colors.qualitative.Dark24)))
    for place, (table, cap) in enumerate(cells):
        cell = frame[(frame["table"] == table) & (frame["cap"] == cap)]
        for name in [name for name in STRATEGIES if name in set(cell["strategy"])]:
            regrets = cell.loc[cell["strategy"] == name, [f"regret_{after}" for after in AFTER]]
            line = go.Scatter(
                x=list(AFTER),
                y=regrets.mean().tolist(),
                error_y={"array": regrets.sem().tolist(), "thickness": 1},
                name=name,
                legendgroup=name,
                showlegend=place == 0,
                line={"color": colors[name], "width": 4 if name == "default" else 1.5},
            )
            shown.add_trace(line, row=place // len(CAPS) + 1, col=place % len(CAPS) + 1)
    shown.update_xaxes(type="log", tickvals=list(AFTER), title_text="trials")
    shown.update_yaxes(rangemode="tozero")
    shown.update_layout(title="Regret of the named network, points", height=700)
    page: str = shown.to_html(include_plotlyjs="cdn")
    return page


def main() -> None:
    """Run repetitions, or report them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="the CSV")
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    runs.add_argument("--of", nargs="+", choices=TABLES, default=list(MAIN))
    runs.add_argument("--caps", nargs="+", type=float, default=CAPS)
    runs.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    runs.add_argument("--repetitions", type=int, default=50)
    runs.add_argument("--workers", type=int, default=1)
    runs.set_defaults(command=run)
    reports = commands.add_parser("report")
    reports.add_argument("--figure", type=Path, default=FIGURE)
    reports.set_defaults(command=report)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
