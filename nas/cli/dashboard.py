"""`nas dashboard`: optuna-dashboard on the right database, with the report beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.choices import AnyStudyFirst, OpenIt, Storage

if TYPE_CHECKING:
    from optuna.study import Study


def dashboard(
    study: AnyStudyFirst = None,
    storage: Storage = None,
    port: Annotated[
        int | None, typer.Option(help="Else the first free one from 8080", min=1, max=65_535)
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen")] = "127.0.0.1",
    open_it: OpenIt = False,
) -> None:
    """Show a study in optuna-dashboard, until Ctrl-C; its report is linked in the study's note.

    \b
    nas dashboard
    nas dashboard cifar10-resnet-5M-standard --open
    """
    import warnings

    from nas.cli.words import study_argument, study_options
    from nas.dashboard import make_dashboard
    from nas.find_study import find_study, url_of
    from nas.report import render
    from nas.storage import database_failures_in_one_line, silence_optuna

    silence_optuna()
    warnings.filterwarnings("ignore", "Some regimes for parameter")  # of the importances it shows
    found = find_study(study, storage)

    def page(shown: Study) -> str:
        return render(shown, options=study_options(shown.study_name, storage))

    with database_failures_in_one_line(url_of(found)):
        named = study_argument(found.study_name, storage)
        server, address = make_dashboard(found, page, named=named, host=host, port=port)
    print(f"dashboard: {address}\nCtrl-C ends it", flush=True)
    if open_it:
        typer.launch(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
