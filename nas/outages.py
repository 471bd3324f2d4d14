"""A database that is away: how long it is waited for, and what is written again."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

DATABASE_ERRORS = (DBAPIError, StorageInternalError)
RECONNECT_SECONDS = 120  # how long a server that was reached before may be away
MAX_CUTS = 20  # lost connections, or waits for another program's lock, in a row that are survived
LOCKED = "database is locked"  # as SQLite says it, after the wait

_is_patient = ContextVar("_is_patient", default=True)


def was_cut_off(error: BaseException) -> bool:
    """Tell whether a database error is one after which all can go on: a lost connection, a lock.

    Not where it came amid Ctrl-C or SIGTERM, in whose place it is raised.
    """
    was_lost = False
    link: BaseException | None = error  # Optuna's comes of SQLAlchemy's, and that of the driver's
    while link is not None:
        if isinstance(link, KeyboardInterrupt | SystemExit):
            return False
        was_lost |= getattr(link, "connection_invalidated", False) or LOCKED in str(link)
        link = link.__cause__ or link.__context__
    return was_lost


def through_cuts(write: Callable[[], T]) -> T:
    """Write again what a lost connection cut off; it must bear to be written twice."""
    for cut in itertools.count(1):
        try:
            return write()
        except DATABASE_ERRORS as error:
            if not was_cut_off(error) or cut == MAX_CUTS:
                raise
    raise AssertionError


@contextmanager
def impatient() -> Iterator[None]:
    """Do not wait for a server that is away: what is written here can be left to others."""
    token = _is_patient.set(False)
    try:
        yield
    finally:
        _is_patient.reset(token)


def patiently(connect: Callable[[], T], refused: type[Exception]) -> T:
    """Connect to a server that was there before, and is waited for where it refuses."""
    deadline = time.monotonic() + (RECONNECT_SECONDS if _is_patient.get() else 0)
    while True:
        try:
            return connect()
        except refused:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1)
