"""What several commands ask for in the same words: a study, its database, a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.presets import STUDIES

DATA = STUDIES / "data"  # where the files of data sets are, if nothing else is said


def study_files(incomplete: str) -> list[str]:
    """Complete the name of a study from the files under `studies/`, none of which is opened."""
    return sorted(path.stem for path in STUDIES.glob("*.db") if path.stem.startswith(incomplete))


AnyStudy = Annotated[
    str | None, typer.Option(help="Its name, if there are several", autocompletion=study_files)
]
AnyStudyFirst = Annotated[
    str | None, typer.Argument(help="Its name, if there are several", autocompletion=study_files)
]
NamedStudy = Annotated[str, typer.Argument(help="Its name", autocompletion=study_files)]
Storage = Annotated[
    str | None, typer.Option(help="Database URL or file.db; else those under studies/")
]
Blocks = Annotated[str | None, typer.Option(help="Blocks per stage: 3,3,3,3")]
Widths = Annotated[str | None, typer.Option(help="Widths per stage: 128,100,164,200")]
Kernels = Annotated[
    str | None, typer.Option(help="Kernel sizes, one a stage or for all; 3 if absent")
]
Model = Annotated[str | None, typer.Option(help="A hand-made network: ResNet26_97")]
ArchitectureFile = Annotated[Path | None, typer.Option(help="An architecture's JSON file")]
OpenIt = Annotated[bool, typer.Option("--open", help="Open it in the browser")]
Ranking = Annotated[
    str, typer.Option(help="Best by finalist, denoised (estimated without luck) or raw score")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
