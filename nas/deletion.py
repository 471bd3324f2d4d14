"""Deletion of a study with all that belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
import sqlalchemy

from nas.errors import UserError
from nas.files import LOCK, only_here
from nas.find_study import family_names, load_study, study_folder
from nas.presets import STUDIES
from nas.register import TABLES, Register
from nas.storage import remove_sqlite, require_writable, sqlite_url
from nas.transaction import one_transaction

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import RDBStorage


def family(storage: RDBStorage, name: str) -> dict[str, int]:
    """Count the trials of a study and of its sisters, by study name.

    Raises:
        UserError: Another program made it.
    """
    study = load_study(storage, name)
    if study is not None and "identity" not in study.user_attrs:
        raise UserError(f"study {name!r} was not made by this tool; name another")
    names = optuna.get_all_study_names(storage)
    return {
        each: len(optuna.load_study(storage=storage, study_name=each).get_trials(deepcopy=False))
        for each in family_names(name)
        if each in names
    }


def delete(storage: RDBStorage, name: str) -> Path | None:
    """Delete a study, its sisters and their claims, all or nothing; models and data sets stay.

    Returns:
        Its own SQLite file under `studies/`, if that is now empty and was removed.

    Raises:
        UserError: Another program made it, the database may not be written, or a trial or a full
            training of this machine is running in it.
    """
    require_writable(storage)
    _refuse_while_training(name)
    for member in family(storage, name):
        _refuse_while_running(storage, member)
    with one_transaction(storage) as inside:
        for member in family(inside, name):
            _refuse_while_running(inside, member)  # a trial may have begun meanwhile
            token = _token(inside, member)
            optuna.delete_study(study_name=member, storage=inside)
            if token is not None:
                _forget(inside, token)
        is_empty = not optuna.get_all_study_names(inside)
    files = [STUDIES / f"{each}.db" for each in family_names(name)]  # networks from elsewhere, too
    own = {sqlite_url(file): file for file in files}
    if not is_empty or storage.url not in own:
        return None
    storage.engine.dispose()
    remove_sqlite(own[storage.url])
    return own[storage.url]


def _forget(inside: RDBStorage, token: str) -> None:
    """Delete what our own tables hold of the study with this token."""
    session = inside.scoped_session()
    for table in TABLES.sorted_tables:
        session.execute(sqlalchemy.delete(table).where(table.c.study == token))
    session.commit()


def _token(storage: RDBStorage, name: str) -> str | None:
    token: str | None = optuna.load_study(storage=storage, study_name=name).user_attrs.get("token")
    return token


def _refuse_while_running(storage: RDBStorage, name: str) -> None:
    token = _token(storage, name)
    for place in Register(storage.engine, token).places() if token is not None else []:
        if place.is_here and not place.is_dead():
            raise UserError(
                f"a search is running in study {name!r} (process {place.pid}); stop it first"
            )


def _refuse_while_training(name: str) -> None:
    try:
        folder = study_folder(name)
    except UserError:  # a name that leads elsewhere: nothing is trained under it
        return
    for lock in sorted(folder.glob(f"*/*/seed-*/{LOCK}")):
        with only_here(lock.parent):
            pass
