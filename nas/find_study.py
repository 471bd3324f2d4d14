"""How a study is found: by its name, in its file or database, and its sisters beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import RandomSampler

from nas.errors import UserError
from nas.presets import STUDIES
from nas.register import Register
from nas.storage import open_storage, shown_url, sqlite_url, storage_url

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.study import Study

FINALISTS, RETRAIN = "finalists", "retrain"
SISTERS = (FINALISTS, RETRAIN)


def sister_name(name: str, kind: str) -> str:
    """Name a study's sister of this kind."""
    return f"{name}-{kind}"


def family_names(name: str) -> tuple[str, ...]:
    """Name a study and all the sisters that it may have."""
    return (name, *(sister_name(name, kind) for kind in SISTERS))


def owner_of(name: str) -> str:
    """Give the study whose sister this is the name of, or the name itself."""
    return name.rpartition("-")[0] if name.endswith(tuple(f"-{k}" for k in SISTERS)) else name


def check_new_name(name: str) -> None:
    """Refuse (UserError) what no study can be called, and what some study's sister is called."""
    check_name(name)
    if owner_of(name) != name:
        raise UserError(
            f"{name!r} ends as what is measured of a study later is called "
            f"({', '.join(SISTERS)}); give --study another name"
        )


def check_name(name: str) -> None:
    """Refuse (UserError) a name that would leave `studies/`, or that no file can have."""
    if not isinstance(name, str) or not re.fullmatch(
        r"[A-Za-z0-9_+=@][A-Za-z0-9_.+=@ -]{0,199}", name
    ):
        raise UserError(
            f"{name!r} cannot name a study; give --study a name of a-z, A-Z, digits, _ . + = @ - "
            "and spaces, 200 at most"
        )


def study_folder(name: str) -> Path:
    """Give the folder of all that is made of a study (UserError: `check_name`)."""
    check_name(name)
    return STUDIES / name


def study_url(name: str) -> str:
    """Give the URL of a study's own SQLite file under `studies/`."""
    return sqlite_url(STUDIES / f"{name}.db")


def find_study(name: str | None, url: str | Path | None) -> Study:
    """Load a study by name, or the only one there is; sisters count with their study.

    Args:
        name: The study, or `None`.
        url: Its database, or `None` for the SQLite files under `studies/`.

    Raises:
        UserError: None, or several to choose from (the line lists them), one of other programs, or
            one that is not set up yet.
    """
    chosen, storage = find_storage(name, url)
    study = load_study(storage, chosen)
    if study is None:
        raise UserError(
            f"{chosen!r} has no search, only full trainings of networks from elsewhere; "
            f"optuna-dashboard {shown_url(storage.url)} shows them"
        )
    if "identity" not in study.user_attrs:
        raise UserError(f"study {chosen!r} was not made by this tool; name another")
    if "token" not in study.user_attrs:
        raise UserError(
            f"study {chosen!r} is not set up: that was interrupted, or is under way; the search "
            "command that began it completes it"
        )
    return study


def find_storage(name: str | None, url: str | Path | None) -> tuple[str, RDBStorage]:
    """Find a study as `find_study` does, also one of other programs; gives its name and database.

    A name of which only sisters are there is found, too, but only if it is asked for.

    A file that cannot be read is in the way only if the study is in none of the others.

    Raises:
        UserError: As `find_study`, but for the last.
    """
    found: dict[str, dict[str, RDBStorage]] = {}  # by study and file
    unreadable = ""
    for each in database_urls(url):
        try:
            storage = open_storage(each, create=False)
        except UserError as error:
            if url is not None:
                raise
            unreadable += f"; {error}"
            continue
        for known in optuna.get_all_study_names(storage):
            if owner_of(known) in (known, name):
                found.setdefault(owner_of(known), {})[each] = storage
        storage.engine.dispose()  # three open files each; it connects again when it is used
    listed = ", ".join(sorted(found)) or "none"
    if not found or (name is not None and name not in found):
        what = "no study" if name is None else f"no study {name!r}"
        folder = STUDIES if found else STUDIES.absolute()  # is it the wrong one?
        where = folder if url is None else shown_url(str(url))
        hint = (
            f"there is: {listed}"
            if found
            else "run search.py first, or this where it ran, or name its database by --storage"
        )
        raise UserError(f"{what} in {where}; {hint}{unreadable}")
    if name is None and len(found) > 1:
        raise UserError(f"several studies, name one of them as STUDY or by --study: {listed}")
    chosen = name or next(iter(found))
    files = _with_itself(chosen, found[chosen])
    if len(files) > 1 and study_url(chosen) not in files:
        shown = ", ".join(map(shown_url, files))
        raise UserError(f"study {chosen!r} is in several files; name one by --storage: {shown}")
    return chosen, files.get(study_url(chosen)) or next(iter(files.values()))


def _with_itself(name: str, files: dict[str, RDBStorage]) -> dict[str, RDBStorage]:
    """Leave out, if any holds the study itself, the files that hold its sisters alone."""
    kept = {url: s for url, s in files.items() if name in optuna.get_all_study_names(s)}
    return kept or files


def database_urls(url: str | Path | None) -> list[str]:
    """Give this database, or those of the SQLite files under `studies/`."""
    return (
        [sqlite_url(path) for path in sorted(STUDIES.glob("*.db"))]
        if url is None
        else [storage_url(url)]
    )


def load_study(
    storage: BaseStorage, name: str, *, pruner: BasePruner | None = None
) -> Study | None:
    """Load the study of this name, or `None` where there is none."""
    if name not in optuna.get_all_study_names(storage):
        return None
    # A random sampler, for others write into the trials that they meet.
    return optuna.load_study(
        storage=storage, study_name=name, sampler=RandomSampler(), pruner=pruner
    )


def find_sister(study: Study, kind: str) -> Study | None:
    """Load a study's sister; `None` if it has none of this kind."""
    storage = study._storage  # noqa: SLF001 - it has no getter
    return load_study(storage, sister_name(study.study_name, kind))


def url_of(study: Study) -> str:
    """Give the URL of a study's database, with its password."""
    return str(database_of(study).url)


def register_of(study: Study) -> Register:
    """Give the claims and places of a study that is set up, or of its finalists."""
    return Register(database_of(study).engine, study.user_attrs["token"])


def database_of(study: Study) -> RDBStorage:
    """Give a study's storage, below the cache that Optuna puts before it."""
    storage: Any = study._storage  # noqa: SLF001 - it has no getter
    backend: RDBStorage = getattr(storage, "_backend", storage)
    return backend
