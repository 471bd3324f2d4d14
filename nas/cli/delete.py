"""`nas delete`: a study with its sisters and claims, after a question."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.choices import NamedStudy, Storage


def delete(
    study: NamedStudy,
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Delete a study with its sisters and claims, unless this machine is at work in it.

    Other machines are not asked. Trained models and data stay.

    \b
    nas delete cifar10-resnet-100k-quick
    """
    from nas.deletion import delete as delete_study
    from nas.deletion import family
    from nas.find_study import find_storage

    name, found = find_storage(study, storage)
    listed = ", ".join(f"{each} ({count} trials)" for each, count in family(found, name).items())
    if not yes and not _agrees(listed):
        print("nothing deleted")
        return
    removed = delete_study(found, name)
    print(f"deleted {listed}" + (f" and {removed}" if removed else ""))


def _agrees(listed: str) -> bool:
    from nas.errors import UserError

    try:
        return typer.confirm(f"delete {listed}?")
    except typer.Abort:  # Ctrl-C, or nobody there to ask
        print()
        raise UserError("no answer: nothing deleted; --yes deletes without a question") from None
