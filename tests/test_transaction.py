"""Many changes to a study of which all happen or none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import optuna
import pytest
from sqlalchemy.exc import IntegrityError

from nas.storage import open_storage, sqlite_url
from nas.transaction import one_transaction

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import RDBStorage


def count_trials(path: Path) -> int:
    study = optuna.load_study(storage=open_storage(sqlite_url(path)), study_name="a")
    return len(study.get_trials(deepcopy=False))


def add_three_and_fail(inside: RDBStorage, path: Path) -> None:
    study = optuna.load_study(storage=inside, study_name="a")
    for value in range(3):
        study.add_trial(optuna.create_trial(value=value))
    assert len(study.get_trials(deepcopy=False)) == 3
    assert count_trials(path) == 0, "others see nothing yet"
    raise ZeroDivisionError


def test_trials_of_a_transaction_appear_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    storage = open_storage(sqlite_url(path))
    optuna.create_study(storage=storage, study_name="a")
    with pytest.raises(ZeroDivisionError), one_transaction(storage) as inside:
        add_three_and_fail(inside, path)
    assert count_trials(path) == 0
    with one_transaction(storage) as inside:
        optuna.load_study(storage=inside, study_name="a").add_trial(optuna.create_trial(value=1))
    assert count_trials(path) == 1


def test_a_process_that_dies_in_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    optuna.create_study(storage=open_storage(sqlite_url(path)), study_name="a")
    if (child := os.fork()) == 0:
        with one_transaction(open_storage(sqlite_url(path))) as inside:
            study = optuna.load_study(storage=inside, study_name="a")
            study.add_trial(optuna.create_trial(value=1))
            os._exit(len(study.get_trials(deepcopy=False)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert count_trials(path) == 0


def test_where_sqlite_itself_rolls_back_the_error_is_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    storage = open_storage(sqlite_url(path))
    study = optuna.create_study(storage=storage, study_name="a")
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON trials WHEN (SELECT count(*) FROM trials) = 1 "
            "BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
        )
    trials = [optuna.create_trial(value=value) for value in (1, 2)]
    with pytest.raises(IntegrityError) as caught, one_transaction(storage) as inside:
        optuna.load_study(storage=inside, study_name="a").add_trials(trials)
    assert str(caught.value.orig) == "full"
    assert study.get_trials() == []
