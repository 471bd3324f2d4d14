"""What the documents say is so."""

from __future__ import annotations

import doctest
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.main import get_command

import nas.budget_sampler
import nas.samplers
from nas.cli import COMMANDS, make_app

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
STUDIES = tuple(sorted((ROOT / "studies").glob("*/README.md")))
BLOCKS = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
]

APP = get_command(make_app(*COMMANDS))
FLAGS = {
    name: {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    for name, command in APP.commands.items()  # type: ignore[attr-defined]
}
CALLED = re.compile(r"(?:(?<!\w)(search|retrain)\.py|\bnas ([a-z]+))((?:\\\n|[^`\n|>#;&])*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("code", BLOCKS)
def test_the_documents_python_runs(code: str) -> None:
    exec(compile(code, "a document", "exec"), {})  # noqa: S102 - our own words


def test_the_documents_python_is_found() -> None:
    assert {"README.md-0", "search-strategy.md-0"} <= {block.id for block in BLOCKS}


def test_the_readmes_defaults_of_a_search_are_its_defaults() -> None:
    said = re.search(r"without any it is\s+`([^`]*)`", README)
    assert said is not None
    words = said[1].split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert {"--budget", "--trials", "--proxy", "--fill"} <= given.keys()
    search = APP.commands["search"]  # type: ignore[attr-defined]
    bare, full = (search.make_context("search", list(args)).params for args in ([], words))
    assert bare == full


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_shell_is_well_formed(path: Path) -> None:
    code = "".join(re.findall(r"```sh\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL))
    parsed = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True)
    assert parsed.returncode == 0, parsed.stderr


def test_every_flag_the_readme_names_exists() -> None:
    known = {option for param in APP.params for option in param.opts}.union(*FLAGS.values())
    ours = re.sub(r"torchrun [^`]*?retrain\.py", "", README)
    named = set(FLAG.findall(ours)) - {"--help"}
    assert named <= known


@pytest.mark.parametrize("path", DOCUMENTS + STUDIES, ids=lambda path: path.parent.name + path.name)
def test_the_documents_commands_have_the_flags_that_they_are_given(path: Path) -> None:
    called = CALLED.findall(path.read_text(encoding="utf-8"))
    for script, name, arguments in called:
        flags = FLAGS.get(script or name)
        if flags is not None:
            assert set(FLAG.findall(arguments)) - {"--help"} <= flags, (script or name, arguments)


def test_the_documents_commands_are_found() -> None:
    found = {script or name for script, name, _ in CALLED.findall(README)}
    assert {"search", "retrain", "report", "leaderboard", "import"} <= found
    text = "`nas report mine --out a \\\n  --nope` says --what; search.py --trials 2"
    called = CALLED.findall(text)
    assert [FLAG.findall(each[2]) for each in called] == [["--out", "--nope"], ["--trials"]]


@pytest.mark.parametrize("module", [nas.samplers, nas.budget_sampler])
def test_the_doctests_of_the_samplers_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
