"""What several commands ask for in the same words: a study, and its database."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.presets import STUDIES


def _study_files(incomplete: str) -> list[str]:
    """Complete the name of a study from the files under `studies/`, none of which is opened."""
    return sorted(path.stem for path in STUDIES.glob("*.db") if path.stem.startswith(incomplete))


AnyStudy = Annotated[
    str | None, typer.Option(help="Its name, if there are several", autocompletion=_study_files)
]
AnyStudyFirst = Annotated[
    str | None, typer.Argument(help="Its name, if there are several", autocompletion=_study_files)
]
NamedStudy = Annotated[str, typer.Argument(help="Its name", autocompletion=_study_files)]
Storage = Annotated[str | None, typer.Option(help="Database URL; else those under studies/")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
