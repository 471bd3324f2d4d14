"""Copies of a study's database: from any to any, whole, of a moment, also while it is searched."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import MetaData, Table, func, insert, select, text

from nas.errors import UserError
from nas.register import PLACES, TABLES
from nas.storage import open_storage, remove_sqlite, shown_url, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Engine

ROWS = 10_000  # that are in memory at a time
VERSIONS = ("alembic_version", "version_info")  # each has its own; only equal ones are opened


def copy_database(source: str, target: str) -> dict[str, int]:
    """Copy all studies of a database, with their sisters, notes and claims, into an empty one.

    Ids and numbers stay as they are. Places are not copied: whoever works on the source does not
    work on the copy, and there the trials in flight are found lost and tried again.

    Args:
        source: A database URL.
        target: Another, of a database without studies; an SQLite file is made.

    Returns:
        Rows by table.

    Raises:
        UserError: Either cannot be used, or the target is not empty.
    """
    if source == target:
        raise UserError(f"{shown_url(source)} is to be copied into itself; name another TO")
    sources = open_storage(source, create=False).engine
    with _whole_or_gone(target), _snapshot(sources) as old:
        targets = open_storage(target).engine
        with targets.begin() as new:
            schema, own = MetaData(), MetaData()
            schema.reflect(old)
            own.reflect(new)
            tables = _tables(schema, own)
            if new.scalar(select(func.count()).select_from(own.tables["studies"])):
                raise UserError(
                    f"{shown_url(target)} has studies already; copy into an empty database"
                )
            return {n: _copy_rows(old, new, schema.tables[n], own.tables[n]) for n in tables}


@contextmanager
def _whole_or_gone(target: str) -> Iterator[None]:
    """Refuse an SQLite file that exists, and remove what is made if the block raises."""
    file = sqlite_file(target)
    if file is None:
        yield
        return
    if file.exists():
        raise UserError(f"{file} exists; name a new file")
    try:
        yield
    except BaseException:
        remove_sqlite(file)
        raise


def _tables(schema: MetaData, own: MetaData) -> list[str]:
    """List what is to be copied, so that what is referred to comes first."""
    left_out = {*VERSIONS, PLACES.name}
    known = [table.name for table in own.sorted_tables if table.name in schema.tables]
    return [name for name in known if name not in left_out]


def _copy_rows(old: Connection, new: Connection, table: Table, own: Table) -> int:
    names = [column.name for column in own.columns if column.name in table.columns]
    count = 0
    result = old.execute(select(*(table.c[name] for name in names)))
    for rows in result.mappings().partitions(ROWS):
        new.execute(insert(own), [dict(row) for row in rows])
        count += len(rows)
    _set_sequence(new, own)
    return count


def _set_sequence(new: Connection, own: Table) -> None:
    """Have PostgreSQL number new rows after those that were copied with their numbers."""
    keys = list(own.primary_key.columns)
    if new.dialect.name != "postgresql" or len(keys) != 1 or own.name in TABLES.tables:
        return
    key = keys[0]
    latest = new.scalar(select(func.max(key)))
    if latest is not None:
        sequence = select(func.pg_get_serial_sequence(own.name, key.name))
        new.execute(
            text("SELECT setval(:name, :latest)"),
            {"name": new.scalar(sequence), "latest": latest},
        )


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Read all tables as they are at one moment."""
    if engine.dialect.name != "sqlite":
        options = {"isolation_level": "REPEATABLE READ", "stream_results": True}
        with engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN")
        try:
            yield connection
        finally:
            if not connection.invalidated:  # as Ctrl-C amid a statement leaves it
                connection.exec_driver_sql("ROLLBACK")
