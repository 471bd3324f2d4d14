"""What the command line says of itself: examples that hold, --json, completion."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import run
from typer.main import get_command

from nas.architecture import Architecture
from nas.cli import COMMANDS, make_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study

ALL = get_command(make_app(*COMMANDS)).commands  # type: ignore[attr-defined]
WRITING = {"search", "retrain", "note", "delete", "export", "copy", "backup", "report"}
SHOWING = {"dashboard"}
ARCH = Architecture.of([1, 1], [4, 8])


def examples(name: str) -> list[list[str]]:
    """The arguments of the examples in a command's help."""
    lines = [line.strip() for line in (ALL[name].help or "").splitlines()]
    starts = (f"nas {name} ", f"{name}.py ")
    return [shlex.split(f"{line} ".removeprefix(s)) for line in lines for s in starts
            if f"{line} ".startswith(s)]  # fmt: skip


def test_without_arguments_nas_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for arguments in ([], ["--help"]):
        assert run(*arguments) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("Usage: nas [OPTIONS] COMMAND")


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_examples_that_it_understands(name: str) -> None:
    assert examples(name), "its help has no example"
    for arguments in examples(name):
        ALL[name].make_context(name, list(arguments))


@pytest.mark.parametrize("name", sorted(ALL.keys() - WRITING - SHOWING))
def test_every_reading_command_has_json(name: str) -> None:
    assert "--json" in {option for param in ALL[name].params for option in param.opts}


@pytest.mark.parametrize(
    "arguments",
    [
        "list",
        "show 0",
        "tried --model ResNet26_97",
        "leaderboard",
        "count --model ResNet26_97",
        "import hand.csv --dry-run",
    ],
)
def test_what_reading_commands_print_is_json_and_nothing_else(
    scored: Callable[..., Study], capfd: pytest.CaptureFixture[str], arguments: str
) -> None:
    scored(ARCH)
    Path("hand.csv").write_text('blocks,channels\n"1,1","4,8"\n')
    capfd.readouterr()
    assert run(*shlex.split(arguments), "--json") == 0
    assert json.loads(capfd.readouterr().out)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("nas l", ["leaderboard", "list"]),
        ("nas export al", ["alpha"]),
        ("nas show 3 --study be", ["beta"]),
        ("nas tried --bl", ["--blocks"]),
    ],
)
def test_the_shell_completes_commands_studies_and_flags(
    folder: Path, typed: str, expected: list[str]
) -> None:
    (folder / "studies").mkdir()
    for name in ("alpha", "beta"):
        (folder / "studies" / f"{name}.db").touch()
    done = subprocess.run(
        [sys.executable, "-c", "from nas.cli import main; main()"],
        env={
            "_NAS_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == expected
