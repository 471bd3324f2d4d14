"""The commands: arguments, messages, exit codes. `nas`, `python -m nas` and the two scripts."""

from __future__ import annotations

import io
import json
import os
import platform
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.copy import backup, copy
from nas.cli.count import count
from nas.cli.dashboard import dashboard
from nas.cli.delete import delete
from nas.cli.doctor import doctor
from nas.cli.leaderboard import leaderboard
from nas.cli.ledger import export, import_
from nas.cli.list import list_
from nas.cli.note import note
from nas.cli.predict import predict
from nas.cli.report import report
from nas.cli.retrain import retrain
from nas.cli.search import search
from nas.cli.show import show
from nas.cli.tried import tried
from nas.errors import UserError
from nas.interruption import EXIT_INTERRUPTED, EXIT_TERMINATED, leave_when_terminated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "nas-under-budget"
EXIT_USER_ERROR = 2

COMMANDS = (
    count, search, retrain, predict,
    leaderboard, report, dashboard, list_, show, tried, note, export, import_,
    copy, backup, doctor, delete,
)  # fmt: skip


def make_app(*commands: Callable[..., None]) -> typer.Typer:
    """Make a command line; of one command its name is not typed."""
    app = typer.Typer(
        help=None if len(commands) == 1 else "Neural architecture search under a budget.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=len(commands) > 1,
    )
    if len(commands) > 1:
        app.callback()(_before_any_command)
    for command in commands:
        # Of `list_` and `import_`, names of Python's own. A note may begin with a dash.
        settings = {"ignore_unknown_options": command is note}
        app.command(command.__name__.strip("_"), context_settings=settings)(command)
    return app


def _tell_versions(wanted: bool) -> None:
    if wanted:
        versions = {"Python": platform.python_version()}
        versions |= {name: installed(name) for name in (NAME, "torch", "optuna")}
        print(", ".join(f"{name} {number}" for name, number in versions.items()))
        raise typer.Exit


def _before_any_command(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_versions, is_eager=True, help="Tell versions"),
    ] = False,
) -> None:
    del version


def main(
    arguments: list[str] | None = None,
    *,
    commands: Sequence[Callable[..., None]] = COMMANDS,
    prog_name: str = "nas",
) -> None:
    """Run a command line; leaves with the command's exit code."""
    asked = sys.argv[1:] if arguments is None else arguments
    leave_when_terminated()
    _prepare_output()
    try:
        to_choose = ["--help"] if len(commands) > 1 else []
        code = make_app(*commands)(asked or to_choose, prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()  # what cannot be written shall be found out here
    except typer.TyperException as error:
        code = _refuse(_message_of(error))
    except UserError as error:
        code = _refuse(str(error))
    except BrokenPipeError:  # the reader of our output left: `| head`
        _discard_output()
        code = 0
    except OSError as error:  # such as a full disk under our output
        _discard_output()
        code = _refuse(f"cannot go on: {error.strerror or error}")
    except (SystemExit, KeyboardInterrupt) as left:  # typer makes an exit of Ctrl-C in a command
        code = _code_of(left)
    except json.JSONDecodeError as error:  # our own records are JSON; what people write is checked
        code = _refuse(f"a record of the study is damaged: {error}")
    except _database_errors() as error:
        cause = error.__cause__ or error  # Optuna wraps what SQLAlchemy wraps
        code = _refuse(f"the database failed: {getattr(cause, 'orig', None) or cause}")
    if code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
        goes_on = len(commands) == 1 or asked[:1] in (["search"], ["retrain"])
        hint = "; the same command goes on from here" if goes_on else ""
        print(f"interrupted{hint}", file=sys.stderr)
    _flush()
    sys.exit(code)


def _prepare_output() -> None:
    """Let what the caller closed (`>&-`) go nowhere; print also a file's name that is no text."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _code_of(left: SystemExit | KeyboardInterrupt) -> Any:  # noqa: ANN401 - as `sys.exit` takes
    """Give the exit code; typer and rich make an exit of a reader that left, too."""
    if isinstance(left.__context__, BrokenPipeError):
        _discard_output()
        return 0
    return getattr(left, "code", EXIT_INTERRUPTED)


def _message_of(error: typer.TyperException) -> str:
    """Say what is wrong with the command line, also with which value, which typer leaves out."""
    message = str(getattr(error, "format_message", error.__str__)())
    find: Callable[[], Any] = getattr(error.__cause__, "errors", tuple)  # pydantic's, of a value
    return message + "".join(f"; found {entry['input']!r}" for entry in find())


def _flush() -> None:
    """Write what is left, if somebody reads it: at exit Python would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    """Let what is still to be printed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _database_errors() -> tuple[type[Exception], ...]:
    """Give what a database fails with; only asked for, and so only imported, once something did."""
    from nas.outages import DATABASE_ERRORS

    return DATABASE_ERRORS


def _refuse(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return EXIT_USER_ERROR
