"""The study's database: engine settings, and our two tables beside Optuna's, claims and places.

A claim says which trial has an architecture, so that a network is proposed once. A place is one
running trial of a worker, so that no more start than the target leaves.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import psutil
from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL, Connection, Engine

BUSY_SECONDS = 60  # how long SQLite waits for another process's lock
CREATE_ATTEMPTS = 5  # processes that create one fresh database at once may collide
SQLITE_HEADER = b"SQLite format 3\0"

DATABASE_ERRORS = (DatabaseError, optuna.exceptions.StorageInternalError)

_METADATA = MetaData()
_LOCKS = Table("nas_locks", _METADATA, Column("study", String(32), primary_key=True))
_CLAIMS = Table(
    "nas_claims",
    _METADATA,
    Column("study", String(32), primary_key=True),
    Column("arch_id", String(12), primary_key=True),
    Column("trial_id", Integer, nullable=False),
)
_PLACES = Table(
    "nas_places",
    _METADATA,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("study", String(32), nullable=False, index=True),
    Column("trial_id", Integer, nullable=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started_at", Float, nullable=False),
)


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
    """Give a URL that may be printed: its password is replaced by stars."""
    return make_url(url).render_as_string(hide_password=True)


def open_storage(url: str, *, create: bool = True) -> RDBStorage:
    """Open an Optuna database, with SQLite in WAL mode and patient with locks.

    Args:
        url: SQLAlchemy's form, such as `sqlite:///studies/NAME.db`.
        create: Whether a missing SQLite file, or missing tables, are created.

    Raises:
        UserError: No database there, not an Optuna database, one of another version, or a
            folder that cannot be written; the file is untouched.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return _finish(_rdb_storage(url, {"pool_pre_ping": True}))
        _check_sqlite(parsed, create=create)
        storage = _rdb_storage(url, {"connect_args": {"timeout": BUSY_SECONDS}})
        event.listen(storage.engine, "connect", _set_pragmas)
        storage.engine.dispose()  # connections made before the pragmas
        return _finish(storage)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"--storage {url!r} is no database URL: {_brief(error)}") from None
    except ImportError as error:
        raise UserError(f"{shown_url(url)} needs a driver that is missing: {error}") from None
    except DatabaseError as error:
        raise UserError(f"cannot use {shown_url(url)}: {_brief(error)}") from None
    except RuntimeError as error:  # Optuna's word on another schema version
        raise UserError(
            f"{shown_url(url)} was written by another version of Optuna than the installed "
            f"{optuna.__version__}: {_brief(error)}"
        ) from None


def _finish(storage: RDBStorage) -> RDBStorage:
    _METADATA.create_all(storage.engine)
    return storage


def _rdb_storage(url: str, engine_kwargs: dict[str, object]) -> RDBStorage:
    """Let Optuna create its tables, again if another process creates them at the same moment."""
    for attempt in range(CREATE_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=dict(engine_kwargs))
        except DatabaseError:
            if attempt == CREATE_ATTEMPTS - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def _check_sqlite(url: URL, *, create: bool) -> None:
    path = Path(url.database or "")
    if not url.database or url.database == ":memory:":
        raise UserError("an in-memory database would be lost with the process; name a file")
    try:
        if not path.exists() or path.stat().st_size == 0:
            if not create:
                raise UserError(f"there is no study database {path}; run search.py first")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                pass
        else:
            with path.open("rb") as file:
                if file.read(len(SQLITE_HEADER)) != SQLITE_HEADER:
                    raise UserError(f"{path} is not an SQLite database; it is left as it is")
    except OSError as error:
        raise UserError(f"cannot use {path}: {error.strerror}") from None
    _check_tables(path)


def _check_tables(path: Path) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(sqlite_url(path), connect_args={"timeout": BUSY_SECONDS})
    try:
        tables = set(inspect(engine).get_table_names())
        if tables and "version_info" not in tables:
            raise UserError(f"{path} is a database, but not Optuna's; it is left as it is")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # kept in the file
    finally:
        engine.dispose()


def _set_pragmas(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA synchronous=NORMAL")  # with WAL safe against a killed process
    cursor.close()


def _brief(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:200]


@dataclass(frozen=True)
class Place:
    """One running trial, or one about to start (`trial_id` is `None`), and its worker."""

    place: int
    trial_id: int | None
    host: str
    pid: int
    process_started_at: float

    def is_dead(self) -> bool:
        """Tell whether the worker's process is gone; of another host's nothing is known here."""
        if self.host != socket.gethostname():
            return False
        try:
            started_at = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return True
        return abs(started_at - self.process_started_at) > 1  # the number was given out anew


class Register:
    """Claims and places of one study.

    Args:
        engine: The study's database.
        token: The study's random token; SQLite gives out the ids of deleted studies again.
    """

    def __init__(self, engine: Engine, token: str) -> None:
        self._engine = engine
        self._token = token
        with engine.begin() as connection:
            if connection.scalar(select(_LOCKS).where(_LOCKS.c.study == token)) is None:
                connection.execute(insert(_LOCKS).values(study=token))

    def claim(self, arch_id: str, trial_id: int, *, is_void: Callable[[int], bool]) -> bool:
        """Claim an architecture for a trial.

        Args:
            arch_id: The architecture.
            trial_id: The trial that will score it.
            is_void: Whether a trial id's claim may be taken over.

        Returns:
            False if another trial has it.
        """
        mine = (_CLAIMS.c.study == self._token) & (_CLAIMS.c.arch_id == arch_id)
        try:
            with self._engine.begin() as connection:
                values = {"study": self._token, "arch_id": arch_id, "trial_id": trial_id}
                connection.execute(insert(_CLAIMS).values(values))
        except IntegrityError:
            with self._engine.connect() as connection:
                owner = connection.scalar(select(_CLAIMS.c.trial_id).where(mine))
            if owner == trial_id:
                return True
            if owner is None or not is_void(owner):
                return False
            with self._engine.begin() as connection:
                taken = update(_CLAIMS).where(mine & (_CLAIMS.c.trial_id == owner))
                return connection.execute(taken.values(trial_id=trial_id)).rowcount == 1
        return True

    def reserve(self, num_scored: Callable[[], int], target: int) -> int | None:
        """Reserve a place if scored and running trials are fewer than the target.

        Args:
            num_scored: Counts the scored trials; called with the study's lock held.
            target: The number of scored trials at which the study is complete.

        Returns:
            The place, or `None` if there is none left.
        """
        process = psutil.Process()
        values = {
            "study": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started_at": process.create_time(),
        }
        with self._locked() as connection:
            running = connection.execute(
                select(_PLACES.c.place).where(_PLACES.c.study == self._token)
            ).fetchall()
            if num_scored() + len(running) >= target:
                return None
            place = connection.execute(insert(_PLACES).values(values)).inserted_primary_key
            assert place is not None
            return int(place[0])

    def occupy(self, place: int, trial_id: int) -> None:
        """Name the trial that runs in a place."""
        with self._engine.begin() as connection:
            named = update(_PLACES).where(_PLACES.c.place == place).values(trial_id=trial_id)
            connection.execute(named)

    def leave(self, place: int) -> None:
        """Free a place."""
        with self._engine.begin() as connection:
            connection.execute(delete(_PLACES).where(_PLACES.c.place == place))

    def places(self) -> list[Place]:
        """List the reserved places."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_PLACES).where(_PLACES.c.study == self._token))
            return [
                Place(row.place, row.trial_id, row.host, row.pid, row.process_started_at)
                for row in rows
            ]

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        """Open a transaction that only one process of the study can be in."""
        if self._engine.dialect.name != "sqlite":
            with self._engine.begin() as connection:
                row = select(_LOCKS).where(_LOCKS.c.study == self._token)
                connection.execute(row.with_for_update())
                yield connection
            return
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
