"""The study's database: how it is opened, what its failures say, URLs without their passwords."""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import optuna
from sqlalchemy import event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)

from nas.errors import UserError, brief
from nas.outages import DATABASE_ERRORS, patiently
from nas.register import TABLES, lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL, Dialect, Engine

FORM = "its form is dialect+driver://user@host/name, or a file NAME.db"
OF_READ_ONLY = "uri=true"  # in the URL of such a file's engine
SMALLEST_BYTES = 512  # of an SQLite database: one page
BUSY_SECONDS = 60  # how long SQLite waits for another process's lock
CREATE_ATTEMPTS = 5  # processes that create one fresh database at once may collide
# libpq's: what is not a wrong address fails soon, and a host that vanished lets go of its locks.
POSTGRESQL_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds; of what was sent and is not answered
    "options": "-c idle_in_transaction_session_timeout=60s",
}

# SQLAlchemy's pool would log, with a traceback, what closing a connection fails with after Ctrl-C
# or the loss of a server.
QUIET_POOL = {"pool_logging_name": "nas"}
logging.getLogger("sqlalchemy.pool.impl.QueuePool.nas").setLevel(logging.CRITICAL)


@contextmanager
def database_failures_in_one_line(url: str) -> Iterator[None]:
    """Turn what a database fails with (disk full, locked, gone) into a UserError of one line."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise UserError(
            f"{shown_url(url)} failed: {_brief(error.__cause__ or error)}; what was scored is "
            "kept, and the same command goes on when that is mended"
        ) from None


def silence_optuna() -> None:
    """Keep Optuna's log to warnings; a command says itself what happens."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def sqlite_url(path: Path) -> str:
    """Give the URL of an SQLite file."""
    return f"sqlite:///{path}"


def shown_url(url: str) -> str:
    """Give a URL that may be printed: its passwords are replaced by stars, also in a wrong one."""
    start, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    hidden = start + slashes + re.sub(r":.*@", ":***@", rest, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", hidden, flags=re.IGNORECASE)


def storage_url(text: str | Path) -> str:
    """Read what names a database: a URL, or an SQLite file whose name ends in .db.

    Raises:
        UserError: Neither, or a file that no URL can name.
    """
    text = str(text)
    if "://" in text or text.startswith("sqlite:"):
        return text
    if not text.endswith(".db"):
        raise UserError(f"{shown_url(text)!r} is no database URL: {FORM}")
    if found := re.search("[?%]", text):
        raise UserError(
            f"{shown_url(text)}: a database file's name cannot hold {found[0]}; name it otherwise"
        )
    return sqlite_url(Path(text))


def is_begun(url: str) -> bool:
    """Tell whether there may be studies: an SQLite file must be there and not empty."""
    path = sqlite_file(url)
    return path is None or (path.is_file() and path.stat().st_size > 0)


def sqlite_file(url: str) -> Path | None:
    """Give the file of an SQLite database; `None` of others, and of what is no URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None  # `open_storage` says what is wrong with it
    name = parsed.database if parsed.get_backend_name() == "sqlite" else None
    return Path(name) if name and name != ":memory:" else None


def remove_sqlite(path: Path) -> None:
    """Remove an SQLite file and what lies beside it; where a process has them open, they stay."""
    for suffix in ("", "-wal", "-shm", ".lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def open_storage(url: str, *, create: bool = True, is_known: bool = False) -> RDBStorage:
    """Open an Optuna database, patient with locks; what creates sets SQLite to WAL mode.

    Args:
        url: SQLAlchemy's form, such as `sqlite:///studies/NAME.db`.
        create: Whether a missing SQLite file, or missing tables, are created. Without, a database
            that has none is refused, and a file that this user may not write is opened for reading.
        is_known: Whether it was there before, so that a server that is away is waited for.

    Raises:
        UserError: No database there, not an Optuna database, one of another version, or a
            folder that cannot be written; the file is untouched.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return _open_server(url, parsed, create=create, is_known=is_known)
        path = _check_sqlite(parsed, create=create)
        if not create and not all(map(_may_write, (path, path.parent))):
            return _read_only(path)
        with lock_file(path) if create else nullcontext():
            _check_tables(path, create=create)
            patient = {"timeout": BUSY_SECONDS}
            storage = _rdb_storage(url, {"connect_args": patient}, create=create)
    except (ArgumentError, NoSuchModuleError) as error:
        reason = _brief(error) if isinstance(error, NoSuchModuleError) else FORM
        raise UserError(f"{shown_url(url)!r} is no database URL: {reason}") from None
    except UserError:
        raise
    except ValueError:  # such as a port that is no number; its words may hold the password
        raise UserError(f"{shown_url(url)!r} is no database URL: {FORM}") from None
    except ImportError as error:
        raise UserError(f"{shown_url(url)} needs a driver that is missing: {error}") from None
    except DATABASE_ERRORS as error:
        reason = _brief(error.__cause__ or error)
        raise UserError(f"cannot use {shown_url(url)}: {reason}") from None
    except RuntimeError as error:  # Optuna's word on another schema version
        raise UserError(
            f"{shown_url(url)} was written by another version of Optuna than the installed "
            f"{optuna.__version__}: {_brief(error)}"
        ) from None
    event.listen(storage.engine, "connect", _set_pragmas)
    storage.engine.dispose()  # connections made before the pragmas
    return storage


def _open_server(url: str, parsed: URL, *, create: bool, is_known: bool) -> RDBStorage:
    options = POSTGRESQL_OPTIONS if parsed.get_backend_name() == "postgresql" else {}
    options = {name: value for name, value in options.items() if name not in parsed.query}
    settings = {"pool_pre_ping": True, "connect_args": options}

    def opened() -> RDBStorage:
        if not create:
            _require_tables(url, settings)
        return _rdb_storage(url, settings, create=create)

    storage = patiently(opened, OperationalError) if is_known else opened()
    event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


def _require_tables(url: str, settings: dict[str, Any]) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(url, **settings, **QUIET_POOL)
    try:
        if "version_info" not in inspect(engine).get_table_names():
            raise UserError(f"{shown_url(url)} holds no studies; run search.py first")
    finally:
        engine.dispose()


def _connect_patiently(
    dialect: Dialect, _record: object, arguments: tuple[Any, ...], options: dict[str, Any]
) -> object:
    """Wait for a server that is being started again; it was there before."""
    connect = partial(dialect.connect, *arguments, **options)
    return patiently(connect, dialect.loaded_dbapi.OperationalError)


def _rdb_storage(url: str, engine_kwargs: dict[str, object], *, create: bool) -> RDBStorage:
    """Create the tables, again if another process creates them at the same moment."""
    for attempt in range(CREATE_ATTEMPTS):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs={**QUIET_POOL, **engine_kwargs})
            if create:
                TABLES.create_all(storage.engine)
        except (IntegrityError, ProgrammingError):
            if attempt == CREATE_ATTEMPTS - 1:
                raise
            time.sleep(0.2 * 2**attempt)
        else:
            return storage
    raise AssertionError


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _read_only(path: Path) -> RDBStorage:
    """Open a file that this user may read but not write, such as a colleague's.

    SQLite writes beside a file even to read it, unless told that nobody changes it; a log beside it
    says that somebody does.
    """
    is_in_use = path.with_name(f"{path.name}-wal").exists()
    option = "mode=ro" if is_in_use else "immutable=1"
    url = f"sqlite:///file:{quote(str(path.resolve()))}?{option}&{OF_READ_ONLY}"
    storage = optuna.storages.RDBStorage(url, engine_kwargs=dict(QUIET_POOL))
    storage.url = sqlite_url(path)  # by which it is shown, and opened again
    return storage


def is_read_only(storage: RDBStorage) -> bool:
    """Tell whether it was opened for reading."""
    return OF_READ_ONLY in str(storage.engine.url)


def require_writable(storage: RDBStorage) -> None:
    """Refuse (UserError) one that was opened for reading."""
    if is_read_only(storage):
        raise UserError(f"{shown_url(storage.url)} may be read here, but not written")


def _check_sqlite(url: URL, *, create: bool) -> Path:
    path = Path(url.database or "")
    if not url.database or url.database == ":memory:":
        raise UserError("an in-memory database would be lost with the process; name a file")
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file")
        if not path.exists() or path.stat().st_size == 0:
            if not create:
                there = "is empty" if path.exists() else "is not there"
                raise UserError(f"the study database {path} {there}; run search.py first")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                pass
        elif path.stat().st_size < SMALLEST_BYTES:  # SQLite would take it for an empty one
            raise UserError(f"{path} is not an SQLite database; it is left as it is")
    except OSError as error:
        raise UserError(f"cannot use {path}: {error.strerror}") from None
    return path


def _check_tables(path: Path, *, create: bool) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(sqlite_url(path), connect_args={"timeout": BUSY_SECONDS}, **QUIET_POOL)
    try:
        tables = _table_names(engine, path)
        if tables and "version_info" not in tables:
            raise UserError(f"{path} is a database, but not Optuna's; it is left as it is")
        if not create:  # it may be another program's, and is kept in the file
            return
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    finally:
        engine.dispose()


def _table_names(engine: Engine, path: Path) -> set[str]:
    """Have SQLite itself look whether the file is its own.

    Opening and closing the file here would take away the locks of this process's connections to
    it, and another process, thinking itself alone, would remove the log under them (sqlite.org,
    "How To Corrupt", 2.2).
    """
    try:
        return set(inspect(engine).get_table_names())
    except DatabaseError as error:
        if "file is not a database" not in str(error):
            raise
        raise UserError(f"{path} is not an SQLite database; it is left as it is") from None


def _set_pragmas(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA synchronous=NORMAL")  # with WAL safe against a killed process
    cursor.close()


def _brief(error: BaseException) -> str:
    return brief(getattr(error, "orig", None) or error)
