from __future__ import annotations

import io
import itertools
import json
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from commands import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from nas import copying
from nas.architecture import Architecture
from nas.copying import copy_database
from nas.errors import UserError
from nas.notes import write_note
from nas.register import Register
from nas.sisters import open_sister
from nas.storage import open_storage, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.study import Study


def small_study(url: str) -> Study:
    """A study with what a copy must keep: states, floats, queue, note, sister, claims."""
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.set_user_attr("token", "t" * 32)
    for value in (0.1 + 0.2, 1e-300):
        trial = study.ask({"width_1": optuna.distributions.IntDistribution(1, 64)})
        trial.set_user_attr("draws", {"base": 1, "over": 2})
        trial.report(value / 3, 7)
        study.tell(trial, value)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.ask()
    study.enqueue_trial({"width_1": 9})
    register = Register(storage.engine, "t" * 32)
    register.claim("a" * 12, 1, is_void=lambda _: False)
    register.occupy(4)
    sister = open_sister(storage, "s", "retrain")
    sister.add_trial(optuna.trial.create_trial(value=0.97, user_attrs={"source_trial": 0}))
    write_note(study, 0, "Retrained", "97 %")
    return study


def content(url: str) -> str:
    """All that Optuna and the register know of a database, as text."""
    storage = open_storage(url, create=False)
    studies = []
    for name in sorted(optuna.get_all_study_names(storage)):
        study = optuna.load_study(study_name=name, storage=storage)
        trials = [{key: str(value) for key, value in vars(trial).items()} for trial in study.trials]
        studies.append(
            [name, study.user_attrs, study._storage.get_study_system_attrs(study._study_id), trials]
        )
    claims = Register(storage.engine, "t" * 32).claims()
    storage.engine.dispose()
    return json.dumps([studies, claims], default=str, indent=1)


def test_a_copy_has_all_of_it_and_goes_on_from_there(tmp_path: Path, url: str) -> None:
    source, target = sqlite_url(tmp_path / "a.db"), url
    small_study(source)
    before = content(source)
    rows = copy_database(source, target)
    assert (rows["studies"], rows["trials"]) == (2, 6)
    assert content(target) == before == content(source)
    copied = optuna.load_study(study_name="s", storage=open_storage(target))
    assert Register(open_storage(target).engine, "t" * 32).num_places() == 0
    assert copied.ask().number == 4, "what was queued is next"
    assert copied.ask().number == 5


@pytest.mark.postgres
def test_a_study_comes_back_from_a_server_unchanged(tmp_path: Path, postgres_url: str) -> None:
    source, target = sqlite_url(tmp_path / "a.db"), sqlite_url(tmp_path / "b.db")
    small_study(source)
    copy_database(source, postgres_url)
    copy_database(postgres_url, target)
    assert content(target) == content(source)


def test_a_backup_in_mid_search_holds_the_trials_of_one_moment(tmp_path: Path) -> None:
    source = sqlite_url(tmp_path / "a.db")
    small_study(source)
    begun, stop = threading.Event(), threading.Event()

    def search() -> None:
        own = optuna.load_study(study_name="s", storage=open_storage(source))
        while not stop.is_set():
            trial = own.ask()
            trial.set_user_attr("last", "written")
            own.tell(trial, 1.0)
            begun.set()

    searching = threading.Thread(target=search)
    searching.start()
    try:
        assert begun.wait(60)
        for number in range(3):
            target = sqlite_url(tmp_path / f"b{number}.db")
            copy_database(source, target)
            copied = optuna.load_study(study_name="s", storage=open_storage(target)).trials
            assert [trial.number for trial in copied] == list(range(len(copied)))
            complete = [trial for trial in copied[5:] if trial.state is TrialState.COMPLETE]
            assert all("last" in trial.user_attrs for trial in complete)
    finally:
        stop.set()
        searching.join()


TYPED = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20)


@pytest.mark.usefixtures("folder")
@given(st.sampled_from(["copy", "backup", "doctor", "leaderboard"]), st.lists(TYPED, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_whatever_is_typed_is_answered_in_one_line(command: str, typed: list[str]) -> None:
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = run(command, *typed)
    assert code in (0, 1, 2)
    if code == 2:
        assert said.getvalue().startswith("error: ")
        assert said.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b?c.db", "b?c.db: a database file's name cannot hold"),
        ("per%41cent.db", "per%41cent.db: a database file's name cannot hold"),
        ("b.sqlite", "'b.sqlite' is no database URL: its form is"),
    ],
)
def test_a_file_that_could_not_be_named_again_is_refused(
    folder: Path, name: str, message: str
) -> None:
    small_study("sqlite:///a.db")
    for command in (["copy", "a.db", name], ["backup", "s", "--storage", "sqlite:///a.db"]):
        to = ["--to", name] if command[0] == "backup" else []
        said = io.StringIO()
        with redirect_stderr(said):
            assert run(*command, *to) == 2
        assert message in said.getvalue()
    assert sorted(path.name for path in folder.glob("*.db")) == ["a.db"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://nas@db..example/nas",
        "postgresql+psycopg://nas@127.0.0.1:abc/nas",
        "postgresql+psycopg://nas@[::1/nas",
        "postgresql+psycopg://nas:p@ss:secret@db.example/nas",
        "sqlite:///a.db?timeout=abc",
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_mistyped_url_is_refused_without_its_password(url: str) -> None:
    small_study("sqlite:///a.db")
    said = io.StringIO()
    with redirect_stderr(said):
        assert run("list", "--storage", url) == 2
    assert "is no database URL: its form is" in said.getvalue()
    assert "secret" not in said.getvalue()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source, target = sqlite_url(tmp_path / "a.db"), tmp_path / "b.db"
    small_study(source)
    target.write_text("mine")
    with pytest.raises(UserError, match=r"b\.db exists; name a new file"):
        copy_database(source, sqlite_url(target))
    with pytest.raises(UserError, match="into itself"):
        copy_database(source, source)
    assert target.read_text() == "mine"


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = sqlite_url(tmp_path / "a.db"), sqlite_url(tmp_path / "b.db")
    small_study(source)
    before = sorted(tmp_path.iterdir())

    def fail(*_: object) -> int:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patched:
        patched.setattr(copying, "_copy_rows", fail)
        with pytest.raises(OperationalError):
            copy_database(source, target)
    assert sorted(tmp_path.iterdir()) == before
    copy_database(source, target)
    assert content(target) == content(source)


@contextmanager
def ctrl_c_at(statement: int) -> Iterator[None]:
    """Interrupt the statement of this number, counted from 1, of all databases."""
    numbers = itertools.count(1)

    def execute(*_: object) -> None:
        if next(numbers) == statement:
            raise KeyboardInterrupt

    event.listen(Engine, "do_execute", execute)
    try:
        yield
    finally:
        event.remove(Engine, "do_execute", execute)


@pytest.mark.parametrize("command", ["backup --to b.db", "delete mine --yes"])
def test_ctrl_c_amid_any_statement_leaves_nothing_half_done(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    scored(Architecture.of([1], [4]))
    url = sqlite_url(Path("studies") / "mine.db")
    before = content(url)
    codes = []
    for statement in range(1, 1000, 15):
        with ctrl_c_at(statement):
            codes.append(run(*command.split()))
        if codes[-1] == 0:
            break
        assert content(url) == before
        assert not Path("b.db").exists()
    assert codes == [130] * (len(codes) - 1) + [0]
    assert len(codes) > 3
    assert capsys.readouterr().err == "interrupted\n" * (len(codes) - 1)


def test_a_study_that_may_not_be_written_is_backed_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_study(sqlite_url(Path("studies") / "s.db"))
    before = content("sqlite:///studies/s.db")
    monkeypatch.setattr("nas.storage._may_write", lambda _path: False)
    assert run("backup", "--to", "b.db") == 0
    assert content(sqlite_url(folder / "b.db")) == before


def test_one_study_is_not_called_several(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    scored()
    assert run("backup", "--to", "b.db") == 0
    assert capsys.readouterr().out == "1 study with 0 trials in b.db\n"


def test_the_commands_say_what_they_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_study(sqlite_url(Path("studies") / "s.db"))
    for arguments, said in (
        (["copy", "studies/s.db", "b.db"], "2 studies with 6 trials copied to sqlite:///b.db"),
        (["backup", "s", "--to", "c.db"], "2 studies with 6 trials in c.db"),
        (["backup"], "2 studies with 6 trials in studies/backups/s-"),
    ):
        assert run(*arguments) == 0
        assert said in capsys.readouterr().out
    assert content(sqlite_url(folder / "b.db")) == content(sqlite_url(folder / "c.db"))
