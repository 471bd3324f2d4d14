"""`nas export`, `nas import`: a study's tries as a sheet, and a hand-kept sheet into a study."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.choices import AnyStudy, AsJson, NamedStudy, Storage
from nas.cli.words import one_line

if TYPE_CHECKING:
    from nas.ledger import Verdict


def export(
    study: NamedStudy,
    file: Annotated[Path, typer.Argument(help="A .csv, .xlsx or .parquet file")],
    storage: Storage = None,
) -> None:
    """Write a study's tries as a sheet, a row each, with the columns people keep by hand.

    \b
    nas export cifar10-resnet-100k-quick tried.csv
    """
    from nas.find_study import find_study
    from nas.ledger import export_sheet

    print(f"{export_sheet(find_study(study, storage), file):,} rows in {file}")


def import_(
    file: Annotated[Path, typer.Argument(help="A .csv, .tsv, .xlsx or .parquet file")],
    study: AnyStudy = None,
    storage: Storage = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse all if a row is bad")] = False,
    enqueue: Annotated[
        bool, typer.Option("--enqueue", help="Have the networks within the budget scored")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the verdicts")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a hand-kept sheet into a study; importing twice adds nothing.

    \b
    nas import tried.csv --study cifar10-resnet-5M-standard --dry-run
    nas import tried.xlsx --study cifar10-resnet-5M-standard --enqueue
    """
    from nas.find_study import database_of, find_study
    from nas.ledger import import_sheet
    from nas.storage import database_failures_in_one_line, silence_optuna

    silence_optuna()
    found = find_study(study, storage)
    database = database_of(found)
    with database_failures_in_one_line(database.url):
        imported = import_sheet(
            database,
            found.study_name,
            file,
            is_strict=strict,
            enqueues=enqueue,
            is_dry_run=dry_run,
        )
    verdicts = imported.verdicts
    if imported.ignored:
        ignored = ", ".join(map(repr, imported.ignored))
        typer.echo(f"warning: columns that are not known, and not read: {ignored}", err=True)
    if as_json:
        print(json.dumps([asdict(each) for each in verdicts]))
        return
    for each in verdicts:
        print(_line(each))
    counts = Counter(each.verdict for each in verdicts)
    print(", ".join(f"{count:,} {verdict}" for verdict, count in counts.items()) or "no rows")
    recorded = sum(each.is_recorded for each in verdicts)
    queued = sum(each.is_enqueued for each in verdicts)
    would = "would be " if dry_run else ""
    print(f"{would}recorded: {recorded:,}, {would}enqueued: {queued:,}")


def _line(each: Verdict) -> str:
    name = f" {one_line(each.name)}" if each.name else ""
    detail = f" ({one_line(each.detail)})" if each.detail else ""
    return f"line {each.line}{name}: {each.verdict}{detail}"
