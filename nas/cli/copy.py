"""`nas copy` and `nas backup`: whole databases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.choices import AnyStudyFirst, Storage

BACKUPS = Path("studies/backups")


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Database URL or file.db")],
    target: Annotated[str, typer.Argument(metavar="TO", help="One without studies")],
) -> None:
    """Copy a database: all studies, what was measured of them later, notes and claims.

    \b
    nas copy studies/cifar10-resnet-5M-standard.db postgresql+psycopg://me@db.example/nas
    """
    from nas.copying import copy_database
    from nas.storage import database_failures_in_one_line, shown_url, storage_url

    old, new = storage_url(source), storage_url(target)
    with database_failures_in_one_line(new):
        rows = copy_database(old, new)
    print(f"{_described(rows)} copied to {shown_url(new)}")


def backup(
    study: AnyStudyFirst = None,
    storage: Storage = None,
    to: Annotated[
        Path | None, typer.Option(help="A new file.db; else under studies/backups")
    ] = None,
) -> None:
    """Copy a study's database, also while it is searched, to a new SQLite file.

    \b
    nas backup cifar10-resnet-5M-standard
    """
    from nas.copying import copy_database
    from nas.find_study import find_storage
    from nas.storage import database_failures_in_one_line, storage_url

    chosen, found = find_storage(study, storage)
    name = f"{chosen}-{time.strftime('%Y%m%d-%H%M%S')}.db"
    file = to or BACKUPS / name
    target = storage_url(str(file))
    with database_failures_in_one_line(target):
        rows = copy_database(found.url, target)
    print(f"{_described(rows)} in {file}")


def _described(rows: dict[str, int]) -> str:
    studies = "1 study" if rows["studies"] == 1 else f"{rows['studies']} studies"
    return f"{studies} with {rows['trials']} trials"
