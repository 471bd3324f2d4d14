from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.exceptions import StorageInternalError
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import ProgrammingError

from nas.errors import UserError
from nas.find_study import find_storage
from nas.outages import impatient, was_cut_off
from nas.register import lock_file
from nas.storage import open_storage, shown_url, sqlite_url, storage_url

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_storage(sqlite_url(tmp_path / "a.db")).engine


def test_sqlite_is_in_wal_mode_and_patient(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA busy_timeout")) == 60_000


def test_to_read_another_programs_file_changes_nothing_of_it(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "theirs.db")
    optuna.create_study(study_name="theirs", storage=url)
    before = (tmp_path / "theirs.db").read_bytes()
    assert optuna.get_all_study_names(open_storage(url, create=False)) == ["theirs"]
    assert (tmp_path / "theirs.db").read_bytes() == before


def test_the_files_in_which_a_study_is_looked_for_do_not_stay_open(folder: Path) -> None:
    for number in range(20):
        storage = open_storage(sqlite_url(folder / "studies" / f"s{number}.db"))
        optuna.create_study(study_name=f"s{number}", storage=storage)
        storage.engine.dispose()
    find_storage("s3", None)
    opened = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert {path.stem for path in opened if path.parent == folder / "studies"} <= {"s3"}


def test_a_connection_that_cannot_be_closed_in_order_is_not_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    connection = engine.connect()
    result = connection.execute(text("SELECT 1"))
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.close()  # as a signal amid a transaction does
    result.close()
    with pytest.raises(ProgrammingError, match="closed database"):
        connection.close()
    assert not caplog.records


@pytest.mark.postgres
def test_a_server_that_was_there_before_is_waited_for(server: Engine, postgres_url: str) -> None:
    name = make_url(postgres_url).database

    def allow(*, is_allowed: bool) -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_allowed}"))

    allow(is_allowed=False)
    with pytest.raises(UserError, match="not currently accepting connections"):
        open_storage(postgres_url)
    with impatient(), pytest.raises(UserError, match="not currently accepting connections"):
        open_storage(postgres_url, is_known=True)
    mended = threading.Timer(2.0, allow, kwargs={"is_allowed": True})
    mended.start()
    open_storage(postgres_url, is_known=True).engine.dispose()
    assert mended.finished.is_set()
    mended.join()


@pytest.mark.postgres
def test_a_servers_study_of_others_gets_no_tables_of_ours(postgres_url: str) -> None:
    storage = optuna.storages.RDBStorage(postgres_url)
    optuna.create_study(storage=storage, study_name="theirs")
    before = set(inspect(storage.engine).get_table_names())
    found = open_storage(postgres_url, create=False)
    assert optuna.get_all_study_names(found) == ["theirs"]
    assert set(inspect(storage.engine).get_table_names()) == before
    found.engine.dispose()
    storage.engine.dispose()


@pytest.mark.postgres
def test_a_servers_database_of_others_is_read_and_left_alone(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE customers (name TEXT)"))
    with pytest.raises(UserError, match="holds no studies; run search.py first"):
        open_storage(postgres_url, create=False)
    assert inspect(engine).get_table_names() == ["customers"]
    engine.dispose()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_connection_lost_amid_ctrl_c_is_no_reason_to_go_on(
    engine: Engine, stop: type[BaseException]
) -> None:
    def lose(during: BaseException | None) -> None:
        with engine.begin() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.close()
            if during is not None:
                raise during
            connection.execute(text("SELECT 1"))

    for during, is_to_go_on in ((None, True), (stop(), False)):
        with pytest.raises(ProgrammingError, match="closed database") as lost:
            lose(during)
        lost.value.connection_invalidated = True  # as a server's driver says it
        assert was_cut_off(lost.value) is is_to_go_on


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://me:secret@127.0.0.1:9/nas",
            "postgresql+psycopg://me:***@127.0.0.1:9/nas",
        ),
        (
            "postgresql+psycopg://me:sec@ret@127.0.0.1:9/nas",
            "postgresql+psycopg://me:***@127.0.0.1:9/nas",
        ),
        ("postgresql+psycopg:/me:secret@127.0.0.1:9/nas", "postgresql+psycopg:***@127.0.0.1:9/nas"),
        ("me:secret@127.0.0.1:9/nas", "me:***@127.0.0.1:9/nas"),
        (
            "mysql://127.0.0.1:9/nas?user=me&password=secret&x=1",
            "mysql://127.0.0.1:9/nas?user=me&password=***&x=1",
        ),
        ("sqlite:///studies/a.db", "sqlite:///studies/a.db"),
    ],
)
def test_a_password_is_never_shown_not_even_in_a_mistyped_url(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    for read in (storage_url, str):
        with pytest.raises(UserError) as caught:
            open_storage(read(url), create=False)
        assert "secret" not in str(caught.value)


def _untouched(path: Path, match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match=match):
        open_storage(sqlite_url(path))
    assert path.read_bytes() == before


@given(st.binary(min_size=1, max_size=700), st.sampled_from([b"", b"SQLite format 3\0"]))
def test_any_bytes_in_a_files_place_are_refused_in_one_line_and_left_alone(
    content: bytes, header: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(header + content)
        before = path.read_bytes()
        with pytest.raises(UserError) as caught:
            open_storage(sqlite_url(path))
        assert "\n" not in str(caught.value)
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


def test_opening_a_database_again_does_not_cut_its_first_connection_off(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    first = optuna.create_study(storage=open_storage(url))
    second = optuna.load_study(study_name=first.study_name, storage=open_storage(url))
    first.set_user_attr("mine", 1)
    code = (
        "import optuna, sys; from nas.storage import open_storage; s = open_storage(sys.argv[1])\n"
        "optuna.load_study(study_name=None, storage=s).set_user_attr('theirs', 2)\n"
        "s.engine.dispose()\n"
    )
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert first.user_attrs == second.user_attrs == {"mine": 1, "theirs": 2}


def test_a_missing_database_is_not_made_where_it_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run search.py first"):
        open_storage(sqlite_url(tmp_path / "none.db"), create=False)
    assert not (tmp_path / "none.db").exists()


def test_what_is_no_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.db")
    with pytest.raises(UserError, match=r"s\.db is no file"):
        open_storage(sqlite_url(tmp_path / "s.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["s.db"]


@pytest.mark.parametrize("is_in_use", [False, True])
def test_a_file_that_may_not_be_written_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_in_use: bool
) -> None:
    url = sqlite_url(tmp_path / "a b.db")
    storage = open_storage(url)
    optuna.create_study(study_name="s", storage=storage)
    if not is_in_use:
        storage.engine.dispose()
    before = {path: path.read_bytes() for path in tmp_path.glob("*.db")}
    monkeypatch.setattr("nas.storage._may_write", lambda _path: False)
    found = open_storage(url, create=False)
    assert optuna.get_all_study_names(found) == ["s"]
    assert found.url == url
    with pytest.raises(StorageInternalError):
        optuna.create_study(study_name="t", storage=found)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.db")} == before


def test_a_storage_may_be_a_files_name(folder: Path) -> None:
    assert storage_url("mine.db") == "sqlite:///mine.db"
    assert storage_url("postgresql://host/mine.db") == "postgresql://host/mine.db"
    optuna.create_study(study_name="s", storage=open_storage(storage_url("mine.db")))
    assert find_storage("s", "mine.db")[0] == "s"
    assert [path.name for path in folder.glob("*.db")] == ["mine.db"]


def test_a_database_has_one_lock_by_whichever_name(tmp_path: Path) -> None:
    (tmp_path / "s.db").touch()
    (tmp_path / "other.db").symlink_to(tmp_path / "s.db")
    for name in ("s.db", "other.db"):
        with lock_file(tmp_path / name):
            pass
    assert not (tmp_path / "other.db.lock").exists()


@pytest.mark.parametrize("url", ["nonsense", "foo://bar", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_cannot_be_used_are_one_line(url: str) -> None:
    with pytest.raises(UserError) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
