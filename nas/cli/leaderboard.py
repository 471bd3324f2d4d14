"""`nas leaderboard`: the scored networks of a study, as a table, CSV or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd


def leaderboard(
    study: Annotated[str | None, typer.Argument(help="Its name, if there are several")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL")] = None,
    top: Annotated[int, typer.Option(help="Rows to print", min=1)] = 10,
    by: Annotated[
        str, typer.Option(help="Best by denoised (estimated without luck) or raw score")
    ] = "denoised",
    csv: Annotated[
        Path | None, typer.Option(help="Write all rows to this file: .csv, .xlsx, .parquet")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """List a study's scored networks, the best first.

    \b
    nas leaderboard cifar10-resnet-100k-quick --csv leaderboard.csv
    """
    from nas.results import leaderboard as frame_of
    from nas.sheet import write_sheet
    from nas.study import find_study

    frame = frame_of(find_study(study, storage), by=by)
    if csv is not None:
        write_sheet(csv, frame.reset_index())
        print(f"{len(frame)} rows in {csv}")
    elif as_json:
        print(frame.head(top).reset_index().to_json(orient="records"))
    else:
        print_table(frame.head(top))


def print_table(frame: pd.DataFrame) -> None:
    """Print leading rows of a leaderboard, folded to the terminal's width."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("rank", "trial", "val", "denoised", "params", "of budget"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("architecture", overflow="fold")
    table.add_column("by", overflow="fold")
    for row in frame.itertuples():
        table.add_row(
            str(row.Index),
            str(row.trial),
            f"{row.val_accuracy:.2%}",
            f"{row.denoised:.2%}",
            f"{row.num_params:,}",
            f"{row.budget_share:.1%}",
            str(row.architecture),
            str(row.proposed_by),
        )
    Console().print(table)
