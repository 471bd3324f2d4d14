"""How good a network a search names, on tables in which every network was really trained.

    python benchmarks/search_quality.py run --tables DIR [--strategies default "tpe, pruned"]
                                            [--workers 2]
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
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from measured import append_row
from search_quality_report import AFTER, CAPS, MAIN, report
from search_quality_strategies import STRATEGIES
from search_quality_tables import TABLES, cell_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from search_quality_strategies import Proposals

RESULTS = Path("benchmarks/results/search_quality.csv")
FIGURE = Path("benchmarks/results/search_quality.html")
KEYS = ("table", "cap", "strategy", "repetition")


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
            append_row(arguments.out, future.result())
            print(f"\r{count} of {len(wanted)}", end="", flush=True)
    print()


def _done(path: Path) -> set[tuple[str, float, str, int]]:
    if not path.exists():
        return set()
    keys = pd.read_csv(path)[list(KEYS)]
    return {(t, float(c), s, int(n)) for t, c, s, n in keys.itertuples(index=False)}


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
    reports.set_defaults(command=lambda given: report(given.out, given.figure))
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
