"""`nas list`: which studies there are, and where they stand."""

from __future__ import annotations

import json
from typing import Any

import typer

from nas.cli.choices import AsJson, Storage
from nas.cli.display import table_console
from nas.cli.words import percent
from nas.errors import UserError

# What a narrow terminal has not, the first to go first.
LEFT_OUT = (
    ("running", "failed", "finalists", "retrained", "imported"),
    ("test epochs", "test seeds"),
    ("epochs",),
    ("last",),
)


def list_(
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """List the studies: how many trials, the best scores, when they were last at work.

    \b
    nas list
    nas list --json
    """
    rows, num_unread = _rows(storage)
    if as_json:
        print(json.dumps(rows))
    elif rows:
        _print(rows)
    elif not num_unread:
        print("no studies yet; python search.py makes the first")


def _rows(url: str | None) -> tuple[list[dict[str, Any]], int]:
    """Read every database; one that cannot be read is a warning, unless it was asked for.

    Returns:
        A row a study, and how many databases could not be read.
    """
    from nas.find_study import database_urls
    from nas.standings import standings
    from nas.storage import open_storage

    rows, num_unread = [], 0
    for each in database_urls(url):
        try:
            rows += standings(open_storage(each, create=False))
        except UserError as error:
            if url is not None:
                raise
            typer.echo(f"warning: {error}", err=True)
            num_unread += 1
    return rows, num_unread


def _print(rows: list[dict[str, Any]]) -> None:
    """Print a row a study; columns that say nothing of any study are left out.

    Where a name occurs twice, as after a copy, each row says its database. A narrow terminal has
    fewer columns, so that the names stay whole if they can.
    """
    from rich.table import Table

    shown = [_shown(row) for row in rows]
    if len({row["study"] for row in rows}) < len(rows):
        shown = [_shown(row) | {"database": row["storage"]} for row in rows]
    console = table_console()
    says = {title: any(row[title] not in ("0", "-") for row in shown) for title in shown[0]}
    says |= {"scored": True}
    for left_out in LEFT_OUT:
        if _width(shown, says) > console.width:
            says |= dict.fromkeys(left_out, False)
    titles = [title for title in shown[0] if says[title]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        is_name = title in ("study", "database")
        is_number = not is_name and title != "last"
        table.add_column(
            title, overflow="fold", no_wrap=not is_name, justify="right" if is_number else "left"
        )
    for row in shown:
        table.add_row(*(row[title] for title in titles))
    console.print(table)


def _width(shown: list[dict[str, str]], says: dict[str, bool]) -> int:
    """Give the columns of a terminal that the table takes."""
    widths = [max(len(title), *(len(row[title]) for row in shown)) for title in says if says[title]]
    return sum(widths) + 2 * (len(widths) - 1)


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        "study": row["study"],
        "scored": f"{row['complete']:,}",
        "running": f"{row['running']:,}",
        "failed": f"{row['fail']:,}",
        "best val": percent(row["best_val_accuracy"]),
        "epochs": str(row["epochs"] or "-"),
        "finalists": f"{row['finalists']:,}",
        "retrained": f"{row['retrained']:,}",
        "imported": f"{row['imported']:,}",
        "best test": percent(row["best_accuracy"]),
        "test epochs": str(row["best_accuracy_epochs"] or "-"),
        "test seeds": str(row["best_accuracy_seeds"]),
        "last": (row["last"] or "-").replace("T", " ")[:16],
    }
