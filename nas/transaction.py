"""Many changes to a study's database of which all happen or none; alone_with: by one process."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import scoped_session, sessionmaker

from nas.errors import UserError
from nas.find_study import database_of, load_study, register_of
from nas.storage import require_writable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import RDBStorage
    from optuna.study import Study
    from sqlalchemy.engine import Connection


@contextmanager
def one_transaction(storage: RDBStorage) -> Iterator[RDBStorage]:
    """Give a storage whose every change belongs to one transaction.

    Optuna commits each call by itself. Its sessions here join a transaction that is not theirs to
    commit (docs.sqlalchemy.org, "Joining a Session into an External Transaction"): it is
    committed at the end of the block, and rolled back if the block raises or the process dies.
    Nobody else sees a part of it. On SQLite, nobody else writes meanwhile.

    Args:
        storage: Left as it is.
    """
    with _begun(storage) as connection:
        inside = copy.copy(storage)
        inside.scoped_session = scoped_session(
            sessionmaker(bind=connection, join_transaction_mode="rollback_only")
        )
        yield inside


@contextmanager
def alone_with(study: Study) -> Iterator[Study]:
    """Load a study to write to it all or nothing, and after what this tool's other processes write.

    Raises:
        UserError: The database may not be written, or the study is gone.
    """
    database = database_of(study)
    require_writable(database)
    with register_of(study).lock(), one_transaction(database) as inside:
        own = load_study(inside, study.study_name)
        if own is None:
            raise UserError(f"study {study.study_name!r} was deleted while it was in use")
        yield own


@contextmanager
def _begun(storage: RDBStorage) -> Iterator[Connection]:
    engine = storage.engine
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    # Python's driver begins by itself, too late to keep what was read from changing.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if not connection.invalidated:  # as Ctrl-C amid a statement leaves it
                driver: Any = connection.connection.driver_connection
                if driver.in_transaction:  # SQLite ends it by itself where the disk is full
                    connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
