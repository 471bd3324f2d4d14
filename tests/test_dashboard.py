"""What is served beside optuna-dashboard, and the study's note that leads there."""

from __future__ import annotations

import shlex
import socket
from typing import TYPE_CHECKING
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from commands import run
from optuna_dashboard import get_note

from nas.architecture import Architecture
from nas.dashboard import TRIED_PORTS, make_dashboard
from nas.find_study import find_study
from nas.sisters import open_sister

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.simple_server import WSGIServer

    from optuna.study import Study

ARCH = Architecture.of([1, 1], [4, 8])
ANYWHERE = "127.0.0.1"


def serve(study: Study, port: int | None = 0) -> WSGIServer:
    server, address = make_dashboard(
        study, lambda shown: f"report of {shown.study_name}", named="", host=ANYWHERE, port=port
    )
    assert address == f"http://{ANYWHERE}:{server.server_port}/dashboard/studies/{study._study_id}"
    return server


def ask(server: WSGIServer, path: str) -> tuple[str, str]:
    """Give the status and the page of a path."""
    found = []
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    app = server.get_app()
    assert app
    parts = app(environ, lambda status, _headers: found.append(status))
    return found[0], b"".join(parts).decode()


def test_reports_are_of_the_studies_of_this_tool_alone(scored: Callable[..., Study]) -> None:
    study = scored(ARCH)
    open_sister(study._storage, "mine", "retrain")
    optuna.create_study(storage="sqlite:///studies/mine.db", study_name="pareto")
    with serve(study) as server:
        assert ask(server, "/report/mine") == ("200 OK", "report of mine")
        for other in ("mine-retrain", "pareto", "nope"):
            assert ask(server, f"/report/{other}") == ("404 Not Found", f"no study {other!r}\n")


def test_the_first_free_port_is_taken(
    scored: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = scored(ARCH)
    with socket.create_server((ANYWHERE, 0)) as taken:
        first = taken.getsockname()[1]
        monkeypatch.setattr("nas.dashboard.PORT", first)
        with serve(study, None) as server:
            assert first < server.server_port < first + TRIED_PORTS


def test_a_study_that_may_not_be_written_is_shown_and_no_note_is_written(
    scored: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(ARCH)
    monkeypatch.setattr("nas.storage._may_write", lambda _path: False)
    study = find_study("mine", None)
    with serve(study) as server:
        assert ask(server, "/report/mine") == ("200 OK", "report of mine")
    assert get_note(study) == ""


@pytest.mark.parametrize(
    ("name", "flags"),
    [("mine", []), ("my study", []), ("my study", ["--storage", "sqlite:///my studies.db"])],
)
def test_the_command_in_the_studys_note_writes_its_report(
    scored: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, name: str, flags: list[str]
) -> None:
    def ctrl_c(_server: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.dashboard._Server.serve_forever", ctrl_c)
    study = scored(ARCH, name=name, url=flags[1] if flags else None)
    assert run("dashboard", name, *flags) == 0
    command = shlex.split(get_note(study).split("As a file: `python -m nas ")[1].split("`")[0])
    assert {"report", name, *flags} <= set(command)
    assert run(*command) == 0, command
