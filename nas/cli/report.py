"""`nas report`: a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.choices import AnyStudyFirst, OpenIt, Storage


def report(
    study: AnyStudyFirst = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; else studies/STUDY/report.html")
    ] = None,
    storage: Storage = None,
    open_it: OpenIt = False,
) -> None:
    """Write a study's report: one HTML file that needs no network.

    \b
    nas report
    nas report cifar10-resnet-5M-standard --out report.html --open
    """
    from nas.cli.words import study_options
    from nas.find_study import find_study, study_folder
    from nas.report import write_report
    from nas.storage import silence_optuna

    silence_optuna()
    found = find_study(study, storage)
    if out is None:
        out = study_folder(found.study_name) / "report.html"
    write_report(found, out, options=study_options(found.study_name, storage))
    print(out)
    if open_it:
        typer.launch(str(out))
