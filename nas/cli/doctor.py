"""`nas doctor`: what is wrong, and the line that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.choices import AsJson, Storage, study_files

if TYPE_CHECKING:
    from nas.doctor import Finding

EXIT_FOUND = 1


def doctor(
    study: Annotated[
        str | None,
        typer.Argument(help="Its name; else the installation", autocompletion=study_files),
    ] = None,
    storage: Storage = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with the installation, and with a study if one is named; 1 if anything is.

    \b
    nas doctor cifar10-resnet-5M-standard --fix
    """
    from nas.doctor import examine_installation
    from nas.presets import STUDIES

    findings = examine_installation(STUDIES if STUDIES.is_dir() else Path())
    if study is not None or storage is not None:
        findings += _of_study(study, storage)
    mended = [fix and _mend(finding) for finding in findings]
    if as_json:
        print(json.dumps([_row(*each) for each in zip(findings, mended, strict=True)], indent=2))
    else:
        for finding, is_mended in zip(findings, mended, strict=True):
            print(_line(finding, is_mended=is_mended))
        if not findings:
            print("all is well")
    if any(f.is_fault and not done for f, done in zip(findings, mended, strict=True)):
        raise typer.Exit(EXIT_FOUND)


def _of_study(name: str | None, url: str | None) -> list[Finding]:
    from nas.doctor import examine_study
    from nas.find_study import find_study

    return examine_study(find_study(name, url))


def _mend(finding: Finding) -> bool:
    """Mend a finding, if it can be."""
    if finding.fix is None:
        return False
    finding.fix()
    return True


def _line(finding: Finding, *, is_mended: bool) -> str:
    if is_mended:
        return f"mended: {finding.what}"
    return f"{'wrong' if finding.is_fault else 'note'}: {finding.what}\n    {finding.mend}"


def _row(finding: Finding, is_mended: bool) -> dict[str, object]:
    row = {"what": finding.what, "mend": finding.mend, "is_fault": finding.is_fault}
    return row | {"is_mended": is_mended}
