from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from commands import run
from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.doctor import LEAST_FREE_BYTES, examine_installation, examine_study
from nas.find_study import register_of
from nas.proposed import trial_id
from nas.sisters import open_sister, resume_or_start
from nas.trials import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from optuna.study import Study

NAME = "synthetic-tiny-3k-tiny"


def test_a_study_in_order_has_no_findings(tiny: Callable[..., Study]) -> None:
    study = tiny(2)
    assert examine_study(study) == []


def test_a_study_that_is_not_set_up_is_named(
    tiny: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(1)
    with closing(sqlite3.connect(f"studies/{NAME}.db")) as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'token'")
        database.commit()
    for command in (["doctor", NAME], ["leaderboard"], ["tried", "--model", "ResNet-20"]):
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert "is not set up: that was interrupted, or is under way" in error
        assert error.count("\n") == 1


def test_stale_trials_void_and_missing_claims_are_found_and_mended(
    tiny: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = tiny(2)
    register = register_of(study)
    stale = study.ask()
    register.claim("f" * 12, 99, is_void=lambda _: False)
    register.drop_claims({study.trials[0].user_attrs["arch_id"]: trial_id(study.trials[0])})
    run("doctor", NAME)
    said = capsys.readouterr().out
    assert f"trials running without a worker: {stale.number}" in said
    assert "1 claims of networks are void" in said
    assert "1 scored networks are not claimed" in said
    assert study.trials[stale.number].state is TrialState.RUNNING, "nothing is mended unasked"
    run("doctor", NAME, "--fix")
    assert capsys.readouterr().out.count("mended:") == 3
    assert examine_study(study) == []
    assert study.trials[stale.number].user_attrs["fail_reason"] == "interrupted"
    assert set(register.claims()) == {trial.user_attrs["arch_id"] for trial in study.trials[:2]}


def test_a_study_that_another_program_copied_is_examined_mended_and_deleted(
    tiny: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(2)
    optuna.copy_study(
        from_study_name=NAME,
        from_storage=f"sqlite:///studies/{NAME}.db",
        to_storage="sqlite:///copy.db",
    )
    run("doctor", NAME, "--storage", "copy.db", "--fix")
    assert "mended: 2 scored networks are not claimed" in capsys.readouterr().out
    assert run("delete", NAME, "--storage", "copy.db", "--yes") == 0
    assert optuna.get_all_study_names("sqlite:///copy.db") == []


def test_what_was_mended_says_so_in_json(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    register_of(scored()).claim("f" * 12, 99, is_void=lambda _: False)
    for flags, is_mended in (([], [False]), (["--fix"], [True]), ([], [])):
        run("doctor", "mine", "--json", *flags)
        rows = json.loads(capsys.readouterr().out)
        assert [row["is_mended"] for row in rows if "claims" in row["what"]] == is_mended


def test_after_an_interruption_all_is_well(tiny: Callable[..., Study]) -> None:
    study = tiny(2)
    register = register_of(study)
    trial = study.ask()
    register.claim("e" * 12, trial_id(trial), is_void=lambda _: False)
    fail(study, trial_id(trial), "interrupted")
    assert examine_study(study) == []


def test_an_interrupted_retraining_is_named_with_the_way_to_go_on(
    tiny: Callable[..., Study],
) -> None:
    study = tiny(1)
    sister = open_sister(study._storage, study.study_name, "retrain")
    resume_or_start(sister, {"network": "trial-0", "seed": 3})
    (finding,) = examine_study(study)
    assert "the retraining of trial-0, seed 3, is running, or was interrupted" in finding.what


def test_attributes_of_another_version_are_named_and_nothing_else_is_looked_at(
    tiny: Callable[..., Study],
) -> None:
    study = tiny(1)
    study.ask()
    study.set_user_attr("attributes_version", 99)
    (finding,) = examine_study(study)
    assert finding.what.startswith("its attributes are of version 99")


def test_another_schema_of_optuna_is_one_line(
    tiny: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(1)
    connection = sqlite3.connect(Path("studies") / f"{NAME}.db")
    connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.commit()
    connection.close()
    assert run("doctor", NAME) == 2
    error = capsys.readouterr().err
    assert "was written by another version of Optuna" in error
    assert error.count("\n") == 1


def test_a_disk_that_is_nearly_full_is_found(tmp_path: Path) -> None:
    import shutil

    findings = [finding.what for finding in examine_installation(tmp_path)]
    is_full = shutil.disk_usage(tmp_path).free < LEAST_FREE_BYTES
    assert any("GB left" in what for what in findings) is is_full


def test_a_missing_gpu_is_a_note_and_a_full_disk_a_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.version.cuda", "12.8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("nas.doctor.LEAST_FREE_BYTES", 0)
    assert run("doctor") == 0
    assert capsys.readouterr().out.startswith("note: torch was built for CUDA 12.8, but sees no")
    monkeypatch.setattr("nas.doctor.LEAST_FREE_BYTES", 10**18)
    assert run("doctor") == 1
    assert f"wrong: the disk of {folder} has " in capsys.readouterr().out


def test_a_study_that_may_not_be_written_is_examined(
    scored: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    register_of(scored()).claim("f" * 12, 99, is_void=lambda _: False)
    monkeypatch.setattr("nas.storage._may_write", lambda _path: False)
    assert run("doctor", "mine") == 1
    assert "wrong: 1 claims of networks are void" in capsys.readouterr().out


def test_a_study_that_may_not_be_written_is_refused_in_its_words(
    scored: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored(Architecture.of([1, 1], [4, 8]))
    monkeypatch.setattr("nas.storage._may_write", lambda _path: False)
    expected = "error: sqlite:///studies/mine.db may be read here, but not written\n"
    for command in (("note", "0", "hello"), ("delete", "mine", "--yes")):
        assert run(*command) == 2
        assert capsys.readouterr().err == expected


def test_a_torchvision_of_another_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.doctor.requires", lambda _name: ["numpy", "torch==0.1.2"])
    (told,) = [f.what for f in examine_installation() if "was built for torch" in f.what]
    assert "was built for torch 0.1.2, " in told


def test_this_torch_and_torchvision_match() -> None:
    assert not [f for f in examine_installation() if "was built for torch" in f.what]
