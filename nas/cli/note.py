"""`nas note`: a person's note on a trial."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.choices import AnyStudy, Storage
from nas.errors import UserError


def note(
    trial: Annotated[int, typer.Argument(help="Its number")],
    text: Annotated[str, typer.Argument(help='What to note; "" removes it')],
    study: AnyStudy = None,
    storage: Storage = None,
) -> None:
    """Write a note on a trial, in place of the one before; dashboard, report and export show it.

    \b
    nas note 42 "wide last stage, try with fewer blocks"
    """
    from nas.find_study import find_study
    from nas.notes import set_note

    if text.startswith("--"):
        raise UserError(f"{text!r} is no flag of nas note; begin the text otherwise")
    found = find_study(study, storage)
    set_note(found, trial, text)
    what = "noted on" if text.strip() else "note removed from"
    print(f"{what} trial {trial} of {found.study_name}")
