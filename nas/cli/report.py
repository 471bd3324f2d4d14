"""`nas report`: a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    study: Annotated[str | None, typer.Argument(help="Its name, if there are several")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; else studies/STUDY/report.html")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL; else those under studies/")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser")] = False,
) -> None:
    """Write a study's report: one HTML file that needs no network.

    \b
    nas report
    nas report cifar10-resnet-5M-standard --out report.html --open
    """
    from nas.report import write_report
    from nas.storage import silence_optuna
    from nas.study import find_study, study_url

    silence_optuna()
    found = find_study(study, storage)
    if out is None:
        study_url(found.study_name)  # refuses a name that would leave `studies/`
        out = Path("studies") / found.study_name / "report.html"
    write_report(found, out, options=retrain_options(found.study_name, storage))
    print(out)
    if open_it:
        typer.launch(str(out))


def retrain_options(study: str, storage: str | None) -> str:
    """Say what `retrain.py` must be told to find a study; a password is not repeated."""
    import shlex

    from nas.storage import shown_url

    options = f" --study {shlex.quote(study)}"
    return options if storage is None else f"{options} --storage {shlex.quote(shown_url(storage))}"
