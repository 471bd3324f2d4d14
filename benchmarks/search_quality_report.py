"""What the repetitions say of the strategies: mean regrets, paired differences, a figure."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pandas as pd
import plotly.colors
import plotly.graph_objects as go
from measured import markdown_table
from plotly.subplots import make_subplots
from search_quality_strategies import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

MAIN = ("channel_bench_mobilenet", "nas_bench_201")  # the tables of the eight cells
SEEN = ("channel_bench_mobilenet", "nas_bench_201_val")  # likewise, judged by what a search sees
CAPS = (0.1, 0.25, 0.5, 1.0)
AFTER = (25, 50, 100, 200)  # trials
PAIR = ["table", "cap", "repetition"]


def report(path: Path, drawn: Path) -> None:
    """Print the tables of the write-up and draw the figure."""
    frame = pd.read_csv(path)
    main_cells = frame[frame["table"].isin(MAIN)]
    print(f"{len(frame)} repetitions; regret in points, mean of the cells that all have\n")
    _print_overview(main_cells)
    print("\njudged by what a search sees\n")
    _print_overview(frame[frame["table"].isin(SEEN)])
    for (table, cap), cell in frame.groupby(["table", "cap"]):
        print(f"\n{table}, cap at the {cap:.0%} quantile\n")
        _print_overview(cell)
    drawn.write_text(figure(main_cells), encoding="utf-8")


def _print_overview(frame: pd.DataFrame) -> None:
    shown = overview(frame)
    print(markdown_table(shown.columns, shown.to_numpy()))


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
