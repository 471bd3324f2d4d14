from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from nas.errors import UserError
from nas.storage import Place, Register, open_storage, shown_url, sqlite_url

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_storage(sqlite_url(tmp_path / "a.db")).engine


def test_sqlite_is_in_wal_mode_and_patient(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA busy_timeout")) == 60_000


def test_an_architecture_is_claimed_once(engine: Engine) -> None:
    register = Register(engine, "token")
    assert register.claim("a" * 12, 1, is_void=lambda _: False)
    assert not register.claim("a" * 12, 2, is_void=lambda _: False)
    assert register.claim("a" * 12, 1, is_void=lambda _: False), "its owner still has it"


def test_a_void_claim_is_taken_over(engine: Engine) -> None:
    register = Register(engine, "token")
    register.claim("a" * 12, 1, is_void=lambda _: False)
    assert register.claim("a" * 12, 2, is_void=lambda owner: owner == 1)
    assert not register.claim("a" * 12, 3, is_void=lambda owner: owner == 1)


def test_claims_of_two_studies_do_not_meet(engine: Engine) -> None:
    assert Register(engine, "one").claim("a" * 12, 1, is_void=lambda _: False)
    assert Register(engine, "two").claim("a" * 12, 1, is_void=lambda _: False)


def test_no_place_is_given_once_scored_and_running_reach_the_target(engine: Engine) -> None:
    register = Register(engine, "token")
    places = [register.reserve(lambda: 3, 5) for _ in range(3)]
    assert [place is None for place in places] == [False, False, True]
    assert places[0] is not None
    register.leave(places[0])
    assert register.reserve(lambda: 3, 5) is not None


def _reserve(url: str, count: int, results: multiprocessing.Queue[int]) -> None:
    register = Register(open_storage(url).engine, "token")
    results.put(sum(register.reserve(lambda: 0, 10) is not None for _ in range(count)))


def test_processes_starting_together_on_a_fresh_database_share_the_places(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    url = sqlite_url(tmp_path / "fresh.db")
    processes = [context.Process(target=_reserve, args=(url, 5, results)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sum(results.get(timeout=5) for _ in processes) == 10


def test_a_worker_whose_process_number_was_given_out_anew_is_dead(engine: Engine) -> None:
    register = Register(engine, "token")
    register.reserve(lambda: 0, 1)
    (place,) = register.places()
    assert not place.is_dead()
    earlier = Place(1, None, place.host, place.pid, place.process_started_at - 100)
    assert earlier.is_dead()


def test_a_password_is_never_shown() -> None:
    shown = shown_url("postgresql+psycopg://me:secret@db.example/nas")
    assert shown == "postgresql+psycopg://me:***@db.example/nas"


def _untouched(path: Path, match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match=match):
        open_storage(sqlite_url(path))
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("my spreadsheet")
    _untouched(path, "is not an SQLite database")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.commit()
    connection.close()
    _untouched(path, "not Optuna's")


def test_another_schema_version_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_storage(sqlite_url(path)).engine.dispose()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.commit()
    connection.close()
    with pytest.raises(UserError, match="another version of Optuna"):
        open_storage(sqlite_url(path))


def test_a_truncated_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_storage(sqlite_url(path)).engine.dispose()
    path.write_bytes(path.read_bytes()[:9000])
    for extra in ("-wal", "-shm"):
        Path(f"{path}{extra}").unlink(missing_ok=True)
    with pytest.raises(UserError, match="cannot use sqlite:///"):
        open_storage(sqlite_url(path))


def test_a_missing_database_is_not_made_where_it_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run search.py first"):
        open_storage(sqlite_url(tmp_path / "none.db"), create=False)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("url", ["nonsense", "foo://bar", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_cannot_be_used_are_one_line(url: str) -> None:
    with pytest.raises(UserError) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
