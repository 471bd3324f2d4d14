"""The register of a study: our tables beside Optuna's, in the study's own database.

A claim says which trial has an architecture, so that a network is proposed once. A place is one
running trial and the process that has it, so that no more start than the target leaves. The lock
makes whole what a process does to places and to the states of trials.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from nas.errors import UserError
from nas.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from optuna.study import Study
    from sqlalchemy.engine import Engine

BEAT_SECONDS = 15  # between the heartbeats of a process that has a place
GRACE_SECONDS = 60  # without one, after which another host's process counts as lost
BLIND_SECONDS = 45  # without a look: the database may have been away, and silence is its own

TABLES = MetaData()
_LOCKS = Table("nas_locks", TABLES, Column("study", String(32), primary_key=True))
CLAIMS = Table(
    "nas_claims",
    TABLES,
    Column("study", String(32), primary_key=True),
    Column("arch_id", String(12), primary_key=True),
    Column("trial_id", Integer, nullable=False),
)
PLACES = Table(
    "nas_running",
    TABLES,
    Column("study", String(32), primary_key=True),
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started_at", Float(53), nullable=False),
    Column("beats", Integer, nullable=False),
)


@contextmanager
def lock_file(database: Path) -> Iterator[None]:
    """Hold the lock of an SQLite database, a file beside it, and with it Ctrl-C and SIGTERM.

    Raises:
        UserError: The file cannot be written.
    """
    database = database.resolve()  # by whichever name, one lock
    path = database.with_name(f"{database.name}.lock")
    try:
        file = path.open("wb")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Interruption():  # else one that comes as the caller's block begins keeps the lock
            yield


BOOT_ID, PIDS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def this_host() -> str:
    """Name the world that this process's number is from, on Linux beyond the host's name.

    Virtual machines that are copies have one name and differ by their start, containers by theirs.
    """
    world = [socket.gethostname()]
    with suppress(OSError):
        world.append(BOOT_ID.read_text().strip())
    with suppress(OSError):
        world.append(PIDS.readlink().name)
    return " ".join(world)[:255]


def started_at(process: psutil.Process) -> float:
    """Give when a process started, in seconds since boot: no step of the clock moves that."""
    boot = psutil.boot_time()  # psutil adds it to what the system says
    return process.create_time() - boot


@dataclass(frozen=True)
class Place:
    """One running trial and its process; `beats` counts the process's heartbeats."""

    trial_id: int
    host: str
    pid: int
    process_started_at: float
    beats: int

    @property
    def is_here(self) -> bool:
        """Whether the process is, or was, one of this host."""
        return self.host == this_host()

    def is_own(self) -> bool:
        """Tell whether it is this very process, and none that had its number before."""
        return self.is_here and self.pid == os.getpid() and not self.is_dead()

    def is_dead(self) -> bool:
        """Tell whether the process is gone; of another host's nothing is known here."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return abs(started_at(process) - self.process_started_at) > 1  # a number given anew
        except psutil.NoSuchProcess:
            return True


class Lookout:
    """Remembers when each place's heartbeat was last seen to move, by the clock of this process.

    No clock of another host is read, so none has to be right.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[int, tuple[int, float, float]] = {}

    def is_lost(self, place: Place) -> bool:
        """Tell whether a place's process is dead here, or silent elsewhere for too long."""
        if place.is_here:
            return place.is_dead()
        now = self._clock()
        beats, since, looked_at = self._seen.get(place.trial_id, (-1, now, now))
        if beats != place.beats or now - looked_at > BLIND_SECONDS:
            since = now
        self._seen[place.trial_id] = place.beats, since, now
        return now - since > GRACE_SECONDS


class DatabaseFile:
    """The file that an SQLite database is in, to notice that it is no longer there.

    Args:
        engine: Any database's; others have no file.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found = self._find()

    def _find(self) -> tuple[int, int] | None:
        if self._engine.dialect.name == "sqlite":
            with suppress(OSError):
                found = Path(self._engine.url.database or "").stat()
                return found.st_dev, found.st_ino
        return None

    def refuse_lost(self) -> None:
        """Refuse (UserError) to go on in a file that was deleted or replaced, which nobody sees."""
        if self._find() != self._found:
            raise UserError(
                f"{self._engine.url.database} was deleted or replaced while it was in use; what "
                "was recorded since then is lost"
            )


class Register:
    """Claims, places and the lock of one study.

    Args:
        engine: The study's database; the tables are made if they are absent, as where the study was
            brought by another program.
        token: The study's random token; SQLite gives out the ids of deleted studies again.
    """

    def __init__(self, engine: Engine, token: str) -> None:
        self._engine = engine
        self._token = token
        self._file = DatabaseFile(engine)
        TABLES.create_all(engine)
        if engine.dialect.name == "sqlite":
            return
        with suppress(IntegrityError), engine.begin() as connection:
            if connection.scalar(select(_LOCKS).where(_LOCKS.c.study == token)) is None:
                connection.execute(insert(_LOCKS).values(study=token))

    def refuse_lost(self, study: Study) -> None:
        """Refuse (UserError) to go on in a study, or a file, that was deleted or replaced.

        Nobody would see what is written, or it would be in another study: SQLite gives out the ids
        of deleted ones again.
        """
        self._file.refuse_lost()
        with suppress(KeyError):  # Optuna's of a study that is gone
            if study.user_attrs.get("token") == self._token:
                return
        raise UserError(f"study {study.study_name!r} was deleted while it was in use")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process of the study in at a time; however it ends, it lets the next one in.

        The first Ctrl-C or SIGTERM within waits for the end.

        On a server the lock is a row. SQLite could only lock the whole database, Optuna's own
        writes within included, so there it is a file beside the database.

        Raises:
            UserError: The file cannot be written.
        """
        if self._engine.dialect.name != "sqlite":
            with self._engine.begin() as connection:
                row = select(_LOCKS).where(_LOCKS.c.study == self._token)
                connection.execute(row.with_for_update())
                with Interruption():
                    yield
            return
        with lock_file(Path(self._engine.url.database or "")):
            yield

    def claim(self, arch_id: str, trial_id: int, *, is_void: Callable[[int], bool]) -> bool:
        """Claim an architecture for a trial.

        Args:
            arch_id: The architecture.
            trial_id: The trial that will score it.
            is_void: Whether a trial id's claim may be taken over.

        Returns:
            False if another trial has it.
        """
        mine = (CLAIMS.c.study == self._token) & (CLAIMS.c.arch_id == arch_id)
        try:
            with self._engine.begin() as connection:
                values = {"study": self._token, "arch_id": arch_id, "trial_id": trial_id}
                connection.execute(insert(CLAIMS).values(values))
        except IntegrityError:
            with self._engine.connect() as connection:
                owner = connection.scalar(select(CLAIMS.c.trial_id).where(mine))
            if owner == trial_id:
                return True
            if owner is None or not is_void(owner):
                return False
            with self._engine.begin() as connection:
                taken = update(CLAIMS).where(mine & (CLAIMS.c.trial_id == owner))
                return connection.execute(taken.values(trial_id=trial_id)).rowcount == 1
        return True

    def claims(self) -> dict[str, int]:
        """List the claims: trial id by architecture."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(CLAIMS).where(CLAIMS.c.study == self._token))
            return {row.arch_id: row.trial_id for row in rows}

    def drop_claims(self, owners: Mapping[str, int]) -> None:
        """Remove claims, given by the trial id of each architecture; of other trials they stay."""
        with self._engine.begin() as connection:
            for arch_id, owner in owners.items():
                mine = (CLAIMS.c.study == self._token) & (CLAIMS.c.arch_id == arch_id)
                connection.execute(delete(CLAIMS).where(mine & (CLAIMS.c.trial_id == owner)))

    def occupy(self, trial_id: int) -> None:
        """Note that a running trial is this process's."""
        with self._engine.begin() as connection:
            connection.execute(
                insert(PLACES).values(
                    study=self._token,
                    trial_id=trial_id,
                    host=this_host(),
                    pid=os.getpid(),
                    process_started_at=started_at(psutil.Process()),
                    beats=0,
                )
            )

    def leave(self, trial_id: int) -> None:
        """Free a trial's place."""
        with self._engine.begin() as connection:
            place = (PLACES.c.study == self._token) & (PLACES.c.trial_id == trial_id)
            connection.execute(delete(PLACES).where(place))

    def beat(self) -> None:
        """Say that this process still has its places."""
        own = (PLACES.c.study == self._token) & (PLACES.c.host == this_host())
        with self._engine.begin() as connection:
            beat = update(PLACES).where(own & (PLACES.c.pid == os.getpid()))
            connection.execute(beat.values(beats=PLACES.c.beats + 1))

    def num_places(self) -> int:
        """Count the places."""
        count = select(func.count()).select_from(PLACES).where(PLACES.c.study == self._token)
        with self._engine.connect() as connection:
            return int(connection.scalar(count) or 0)

    def places(self) -> list[Place]:
        """List the places."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(PLACES).where(PLACES.c.study == self._token))
            return [
                Place(row.trial_id, row.host, row.pid, row.process_started_at, row.beats)
                for row in rows
            ]
