"""`nas list`: which studies there are, and where they stand."""

from __future__ import annotations

import json
from typing import Any

import typer

from nas.cli.choices import AsJson, Storage
from nas.errors import UserError


def list_(
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """List the studies: trials by state, the best scores, when they were last at work.

    \b
    nas list
    nas list --json
    """
    rows = _rows(storage)
    if as_json:
        print(json.dumps(rows))
    elif rows:
        _print(rows)
    else:
        print("no studies yet; python search.py makes the first")


def _rows(url: str | None) -> list[dict[str, Any]]:
    """Read every database; one that cannot be read is a warning, unless it was asked for."""
    from nas.standings import standings
    from nas.storage import open_storage
    from nas.study import database_urls

    rows = []
    for each in database_urls(url):
        try:
            rows += standings(open_storage(each, create=False))
        except UserError as error:
            if url is not None:
                raise
            typer.echo(f"warning: {error}", err=True)
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("study", overflow="fold")
    for title in ("scored", "failed", "best val", "finalists", "retrained", "best test"):
        table.add_column(title, justify="right")
    table.add_column("last", overflow="fold")
    for row in rows:
        table.add_row(
            row["study"],
            f"{row['complete']:,}" + (f" (+{row['running']} running)" if row["running"] else ""),
            f"{row['fail']:,}",
            percent(row["best_val_accuracy"]),
            f"{row['finalists']:,}",
            f"{row['retrained']:,}",
            percent(row["best_accuracy"]),
            (row["last"] or "-").replace("T", " ")[:16],
        )
    Console(highlight=False, markup=False).print(table)


def percent(fraction: float | None) -> str:
    """Show a fraction to a person; "-" where there is none."""
    return "-" if fraction is None else f"{fraction:.2%}"
