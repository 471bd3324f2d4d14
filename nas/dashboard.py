"""The dashboard: optuna-dashboard on a study's database, the study's report served beside it."""

from __future__ import annotations

from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna_dashboard import wsgi

from nas.errors import UserError
from nas.find_study import database_of, load_study
from nas.notes import write_study_note
from nas.storage import is_read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from optuna.study import Study

PORT = 8080
TRIED_PORTS = 20  # from the first, where none was asked for
REPORT = "/report/"
HEADING = "Report"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a page that is being read does not hold the end up


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print no line a request."""


def make_dashboard(
    study: Study, page: Callable[[Study], str], *, named: str, host: str, port: int | None
) -> tuple[WSGIServer, str]:
    """Make the server of a study's database, and link the report in the study's note.

    Args:
        study: The study that the address leads to; its whole database is shown.
        page: Renders a study's report, each time it is asked for.
        named: What `nas report` must be told to find the study.
        host: Where to listen.
        port: Likewise; of `None` the first of twenty that is free.

    Returns:
        The server, not yet serving, and the address of the study.

    Raises:
        UserError: The port is taken, or nothing can listen there.
    """
    if not is_read_only(database_of(study)):
        link_report(study, named)
    server = _listen(host, port, _with_reports(study, page))
    where = f"http://{host}:{server.server_port}/dashboard/studies/{study._study_id}"  # noqa: SLF001 - no getter
    return server, where


def link_report(study: Study, named: str) -> None:
    """Say in the study's note where its report is."""
    name = study.study_name
    write_study_note(
        study,
        HEADING,
        f"[Report of {name}]({REPORT}{quote(name)}), as it stands now, where `nas dashboard` shows "
        f"this page. As a file: `python -m nas report{named}`.",
    )


def _listen(host: str, port: int | None, app: WSGIApplication) -> WSGIServer:
    ports = range(PORT, PORT + TRIED_PORTS) if port is None else (port,)
    for each in ports:
        try:
            return make_server(host, each, app, server_class=_Server, handler_class=_Quiet)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
    tried = f"{ports[0]}" if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"
    raise UserError(
        f"cannot listen on {host}, port {tried}: {reason}; choose another by --port or --host"
    )


def _with_reports(study: Study, page: Callable[[Study], str]) -> WSGIApplication:
    """Answer `/report/NAME` with the report of that study, and leave the rest to the dashboard."""
    storage = study._storage  # noqa: SLF001 - it has no getter
    dashboard = wsgi(storage)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.startswith(REPORT):
            return dashboard(environ, start_response)  # type: ignore[no-any-return]
        asked = path.removeprefix(REPORT).encode("latin-1").decode(errors="replace")  # PEP 3333
        found = load_study(storage, asked)
        if found is None or "space" not in found.user_attrs:  # a sister, or of other programs
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"no study {asked!r}\n".encode()]
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [page(found).encode()]

    return app
