"""`nas note`: a person's note on a trial."""

from __future__ import annotations

from typing import Annotated

import typer


def note(
    trial: Annotated[int, typer.Argument(help="Its number")],
    text: Annotated[str, typer.Argument(help='What to note; "" removes it')],
    study: Annotated[str | None, typer.Option(help="Its name, if there are several")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL; else those under studies/")
    ] = None,
) -> None:
    """Write a note on a trial; the dashboard, the report and the export show it.

    \b
    nas note 42 "wide last stage, try with fewer blocks"
    """
    from nas.notes import set_note
    from nas.study import find_study

    found = find_study(study, storage)
    set_note(found, trial, text)
    print(f"noted on trial {trial} of {found.study_name}")
