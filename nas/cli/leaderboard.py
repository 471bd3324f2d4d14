"""`nas leaderboard`: the scored networks of a study, as a table, CSV or JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.choices import AnyStudyFirst, AsJson, Ranking, Storage
from nas.cli.display import table_console

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd
    from optuna.study import Study


NARROW, NARROWER = 76, 60  # columns of a terminal
TITLES = (
    "rank", "trial", "val", "denoised", "finalist", "params", "of budget", "architecture", "by",
)  # fmt: skip


def leaderboard(
    study: AnyStudyFirst = None,
    storage: Storage = None,
    top: Annotated[int, typer.Option(help="Rows to print", min=1)] = 10,
    by: Ranking = "finalist",
    csv: Annotated[
        Path | None, typer.Option(help="Write all rows to this file: .csv, .xlsx, .parquet")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List a study's scored networks, the best first.

    \b
    nas leaderboard cifar10-resnet-100k-quick --csv leaderboard.csv
    """
    from nas.find_study import find_study
    from nas.results import leaderboard as frame_of
    from nas.sheet import write_sheet

    found = find_study(study, storage)
    frame = frame_of(found, by=by)
    if csv is not None:
        write_sheet(csv, frame.reset_index())
    if as_json:
        print(frame.head(top).reset_index().to_json(orient="records"))
    elif csv is not None:
        print(f"{len(frame)} rows in {csv}")
    elif frame.empty:
        print("no network is scored yet")
    else:
        print_table(found, frame.head(top), by)


def print_table(study: Study, frame: pd.DataFrame, by: str = "finalist") -> None:
    """Print leading rows of a study's leaderboard, folded to the terminal's width.

    Where there are finalists, their scores take the place of who proposed a network and of its
    share of the budget. A narrow terminal has neither, and only the score that ranks.
    """
    from rich.table import Table

    from nas.find_study import FINALISTS, find_sister
    from nas.study import stored_schedule

    seeds, console = frame["finalist_seeds"].dropna(), table_console()
    few, many = (0, 0) if seeds.empty else (int(seeds.min()), int(seeds.max()))
    rows = [_shown(row, has_seeds=few < many) for row in frame.reset_index().to_dict("records")]
    left_out = {"finalist"} if seeds.empty else {"of budget", "by"}
    if console.width < NARROW:
        of_finalists = "denoised" if seeds.empty else "finalist"
        ranked_by = {"raw": "val", "denoised": "denoised"}.get(by, of_finalists)
        left_out |= {"val", "denoised", "finalist", "of budget", "by"} - {ranked_by}
    if console.width < NARROWER:
        left_out |= {"params"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = [title for title in TITLES if title not in left_out]
    for title in titles:
        is_text = title in ("architecture", "by")
        table.add_column(
            title,
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold" if is_text else "ellipsis",
        )
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    console.print(table)
    if schedule := stored_schedule(study):
        console.print(f"scores: one seed of {schedule}, on images held out of training")
    if "finalist" in titles:
        number = str(few) if few == many else f"{few} to {many}"
        sister = find_sister(study, FINALISTS)
        runs = f"runs of {of}" if sister and (of := stored_schedule(sister)) else "longer runs"
        console.print(
            f"finalist: mean of {runs} with other seeds ({number}) on the same val images"
        )


def _shown(row: dict[Hashable, Any], *, has_seeds: bool) -> dict[str, str]:
    return {
        "rank": str(row["rank"]),
        "trial": str(row["trial"]),
        "val": f"{row['val_accuracy']:.2%}",
        "denoised": f"{row['denoised']:.2%}",
        "finalist": _finalist(row) + (_seeds(row) if has_seeds else ""),
        "params": f"{row['num_params']:,}",
        "of budget": f"{row['budget_share']:.1%}",
        "architecture": str(row["architecture"]),
        "by": str(row["proposed_by"]),
    }


def _seeds(row: dict[Hashable, Any]) -> str:
    return "" if math.isnan(row["finalist_accuracy"]) else f" ({row['finalist_seeds']})"


def _finalist(row: dict[Hashable, Any]) -> str:
    """Write the mean of a finalist's seeds and their deviation: `67.04% ±0.31`."""
    mean, std = row["finalist_accuracy"], row["finalist_std"]
    if math.isnan(mean):
        return ""
    return f"{mean:.2%}" + ("" if math.isnan(std) else f" ±{100 * std:.2f}")
