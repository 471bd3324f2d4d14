"""What people do with a study besides searching: list, show, ask, note, delete."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from commands import run
from hypothesis import given
from optuna.trial import TrialState
from sqlalchemy import text
from strategies import architectures

import nas.notes
from nas.architecture import Architecture
from nas.complexity import count_params
from nas.deletion import delete
from nas.distance import distance
from nas.errors import UserError
from nas.find_study import find_storage, find_study
from nas.history import history
from nas.notes import notes, set_note, write_note
from nas.proposed import trial_id
from nas.register import Register
from nas.results import later_scores, refused_draws
from nas.sisters import open_sister, retrained_table
from nas.standings import standings
from nas.storage import open_storage
from nas.study import stored_space
from nas.trials import enqueue, fail, requeue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.study import Study

NAME = "mine"
ARCH = Architecture.of([1, 1], [4, 8])
OTHER = Architecture.of([2, 1], [8, 8])


def record(study: Study, arch: Architecture, accuracy: float, **attrs: Any) -> None:
    """Put a full training into the study's sister."""
    sister = open_sister(study._storage, study.study_name, "retrain")
    sister.add_trial(
        optuna.create_trial(
            value=accuracy,
            user_attrs={"architecture_json": arch.to_json(), "recipe": "strong", **attrs},
        )
    )


# list


def test_list_says_where_each_study_stands(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH, OTHER)
    record(study, ARCH, 0.75, split="test")
    assert run("list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["study"], row["complete"], row["fail"], row["retrained"]) == (NAME, 2, 0, 1)
    assert (row["best_val_accuracy"], row["best_accuracy"]) == (study.best_value, 0.75)
    assert row["schedule"] == "2 epochs at 16 pixels"
    assert (row["data"], row["max_params"]) == ("synthetic", 100_000)
    run("list")
    out = capsys.readouterr().out
    assert "75.00%" in out
    assert "mine.db" not in out


def test_list_tells_a_study_from_its_copy(
    scored: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored(ARCH)
    assert run("copy", "studies/mine.db", "studies/copy.db") == 0
    monkeypatch.setenv("COLUMNS", "160")
    run("list")
    out = capsys.readouterr().out
    assert "sqlite:///studies/mine.db" in out
    assert "sqlite:///studies/copy.db" in out


def test_the_best_test_accuracy_is_of_no_training_that_left_test_images_alone(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    record(study, ARCH, 0.75, split="test")
    record(study, ARCH, 0.95, split="val")
    run("list", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["retrained"], row["best_accuracy"]) == (2, 0.75)


def test_a_training_that_left_test_images_alone_has_no_accuracy_on_them(
    scored: Callable[..., Study],
) -> None:
    study = scored()
    record(study, ARCH, 0.95, split="val")
    record(study, ARCH, 0.75, split="test", val_accuracy=0.8)
    told = [(each.val_accuracy, each.accuracy) for each in history(study)]
    assert told == [(0.95, None), (0.8, 0.75)]


def test_the_learning_rate_of_a_full_training_is_its_recipes(scored: Callable[..., Study]) -> None:
    study = scored(ARCH)
    record(study, ARCH, 0.75, split="test", recipe_settings=json.dumps({"peak_lr": 0.1}))
    assert [each.lr for each in history(study)] == ["0.4", "0.1"]


def test_the_best_test_accuracy_is_a_mean_over_seeds_and_no_lucky_one(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH, OTHER)
    for seed, (lucky, steady) in enumerate([(0.5, 0.75), (0.875, 0.75)]):
        record(study, ARCH, lucky, split="test", seed=seed, epochs=24)
        record(study, OTHER, steady, split="test", seed=seed, epochs=12)
    run("list", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["best_accuracy"] == 0.75
    assert (row["best_accuracy_seeds"], row["best_accuracy_epochs"]) == (2, 12)
    run("tried", "--blocks", "1,1", "--widths", "4,8")
    told = capsys.readouterr().out
    assert "trial 0, 2 epochs: val 50.00%" in told
    assert ", strong, 24 epochs, seed 0: test 50.00%" in told
    assert ", strong, 24 epochs, seed 1: test 87.50%" in told


def test_accuracies_on_two_versions_of_a_data_set_are_not_averaged(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    for seed, (accuracy, images) in enumerate([(0.5, "before"), (0.75, "after")]):
        record(study, ARCH, accuracy, split="test", seed=seed, data_fingerprint=images)
    run("list", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["best_accuracy"] == 0.75
    assert later_scores(study)["attempt"].nunique() == 2


def test_the_best_test_accuracy_is_of_one_recipe_by_ones_own_trainings(
    scored: Callable[..., Study],
) -> None:
    study = scored(ARCH)
    for recipe, accuracy in (("seed", 0.5), ("strong", 0.75), ("imported", 0.875)):
        record(study, ARCH, accuracy, split="test", recipe=recipe)
    (row,) = standings(find_storage(NAME, None)[1])
    assert (row["best_accuracy"], row["best_accuracy_seeds"]) == (0.75, 1)
    assert (row["retrained"], row["imported"]) == (2, 1)


def test_a_study_was_last_touched_when_its_last_training_ended(
    scored: Callable[..., Study],
) -> None:
    study = scored(ARCH, OTHER)
    record(study, ARCH, 0.75, split="test")
    (trial,) = open_sister(study._storage, NAME, "retrain").trials
    assert trial.datetime_complete is not None
    later = trial.datetime_complete + timedelta(days=1)
    sister = open_sister(study._storage, NAME, "retrain")
    trial.datetime_complete = later
    sister.add_trial(trial)
    (row,) = standings(find_storage(NAME, None)[1])
    assert row["last"] == later.isoformat(timespec="seconds")


@pytest.mark.parametrize("columns", [52, 80, 110, 130])
def test_on_a_narrow_terminal_a_list_has_fewer_columns_and_whole_numbers(
    scored: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    study = scored(ARCH, OTHER, name="a-study-of-a-long-name")
    study.tell(study.ask(), state=TrialState.FAIL)
    record(study, ARCH, 0.75, split="test", epochs=12)
    run("list", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("COLUMNS", str(columns))
    run("list")
    title, first = capsys.readouterr().out.splitlines()
    others = [] if columns < 130 else ["failed", "retrained"]
    assert [each for each in ("failed", "retrained") if each in title] == others
    last = row["last"].replace("T", " ")[:16].split()
    cells = {
        52: ["2", "51.00%", "75.00%"],
        80: ["2", "51.00%", "2", "75.00%", *last],
        110: ["2", "51.00%", "2", "75.00%", "12", "1", *last],
        130: ["2", "1", "51.00%", "2", "1", "75.00%", "12", "1", *last],
    }
    assert first.split() == ["a-study-of-a-long-name", *cells[columns]]


def test_on_40_columns_a_list_keeps_names_and_scores(
    scored: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(scored(ARCH, OTHER), ARCH, 0.75, split="test")
    monkeypatch.setenv("COLUMNS", "40")
    run("list")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    titles = ["study", "scored", "best", "val", "best", "test"]
    assert lines == [titles, ["mine", "2", "51.00%", "75.00%"]]


@pytest.mark.usefixtures("folder")
def test_list_without_studies_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "python search.py" in capsys.readouterr().out


def test_list_warns_of_a_file_it_cannot_read_and_lists_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "studies").mkdir()
    (folder / "studies" / "bad.db").write_text("my spreadsheet")
    good = optuna.create_study(storage=open_storage("sqlite:///studies/good.db"), study_name="good")
    good.set_user_attr("identity", "{}")
    assert run("list", "--json") == 0
    printed = capsys.readouterr()
    assert [row["study"] for row in json.loads(printed.out)] == ["good"]
    assert "bad.db is not an SQLite database" in printed.err


# show


def test_show_tells_everything_of_a_trial(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    trial = study.get_trials()[0]
    arch = Architecture.from_json(trial.user_attrs["architecture_json"])
    record(study, arch, 0.75, split="test", source_trial=0, seed=3, epochs=200)
    set_note(study, 0, "a <b> note")
    assert run("show", "0", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["val_accuracy"], shown["arch_id"]) == (trial.value, arch.arch_id)
    assert shown["attributes"]["architecture_json"] == json.loads(arch.to_json())
    assert shown["notes"] == "a <b> note"
    assert [(t["kind"], t["accuracy"], t["seed"]) for t in shown["later"]] == [("retrain", 0.75, 3)]
    run("show", "0")
    out = capsys.readouterr().out
    assert str(arch) in out
    assert "{" not in out
    assert "retrain 0: strong, 200 epochs, seed 3: test 75.00%" in out
    assert "(one seed of 2 epochs at 16 pixels)" in out


@pytest.mark.parametrize(("num_trials", "has"), [(0, "none yet"), (1, "only 0"), (2, "0 to 1")])
def test_a_trial_that_is_not_there_is_one_line_with_those_that_are(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str], num_trials: int, has: str
) -> None:
    scored(*(ARCH, OTHER)[:num_trials])
    for command in (["show", "9"], ["note", "9", "x"]):
        assert run(*command) == 2
        assert capsys.readouterr().err == f"error: no trial 9 in study 'mine'; it has {has}\n"


def test_show_knows_what_was_imported_before_the_network_was_scored(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH, OTHER)
    arch = Architecture.from_json(study.trials[1].user_attrs["architecture_json"])
    record(study, arch, 0.61, split="test", recipe="imported")
    for number, accuracies in ((0, []), (1, [0.61])):
        assert run("show", str(number), "--json") == 0
        later = json.loads(capsys.readouterr().out)["later"]
        assert [each["accuracy"] for each in later] == accuracies


def test_show_describes_a_network_that_waits(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(OTHER)
    enqueue(study, stored_space(study), ARCH, proposed_by="imported")
    record(study, ARCH, 0.61, split="test", recipe="imported")
    assert run("show", "1") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"trial 1 of {NAME}: WAITING\n")
    assert re.search(rf"architecture +1x4, 1x8\n +num params +{count_params(ARCH):,}\n", told)
    assert "test 61.00%" in told


# tried


def test_tried_finds_a_network_of_the_study_and_what_came_of_it(
    scored: Callable[..., Study], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH, OTHER)
    trial = study.get_trials()[1]
    (folder / "a.json").write_text(trial.user_attrs["architecture_json"])
    assert run("tried", "--architecture", "a.json", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(t["trial"], t["val_accuracy"]) for t in answer["tried"]] == [(1, trial.value)]
    assert [t["trial"] for t in answer["neighbours"]] == [0]
    run("tried", "--architecture", "a.json")
    assert f"tried in {NAME}" in capsys.readouterr().out


def test_what_waits_in_the_queue_was_not_tried(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(OTHER)
    enqueue(study, stored_space(study), ARCH, proposed_by="imported")
    lists = [",".join(str(getattr(s, n)) for s in ARCH.stages) for n in ("depth", "width")]
    assert run("tried", "--blocks", lists[0], "--widths", lists[1]) == 0
    assert "queued, not tried yet, in" in capsys.readouterr().out


def test_tried_says_no_and_gives_the_nearest_first(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    for width in (8, 16, 32):
        record(study, Architecture.of([5, 5], [8, width]), 0.5, network=f"w{width}")
    flags = ["--blocks", "5,5", "--widths", "8,30", "--neighbours", "2"]
    assert run("tried", *flags, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tried"] == []
    assert [t["name"] for t in answer["neighbours"]] == ["w32", "w16"]
    run("tried", *flags)
    assert "not tried" in capsys.readouterr().out


def test_a_network_is_looked_up_with_the_classes_of_a_study_also_before_its_first_try(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored()
    space = replace(stored_space(study), num_classes=7)
    study.set_user_attr("space", json.dumps(space.to_dict()))
    assert run("tried", "--blocks", "1,1", "--widths", "4,8", "--json") == 0
    expected = Architecture.of([1, 1], [4, 8], num_classes=7)
    assert json.loads(capsys.readouterr().out)["arch_id"] == expected.arch_id


def test_a_neighbour_is_told_by_its_best_measured_try(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    arch = Architecture.from_json(study.trials[0].user_attrs["architecture_json"])
    for accuracy in (0.5, 0.8, 0.6):
        record(study, arch, accuracy, split="test", source_trial=0)
    run("tried", "--blocks", "2,1", "--widths", "4,8", "--json")
    (neighbour,) = json.loads(capsys.readouterr().out)["neighbours"]
    assert neighbour["accuracy"] == 0.8


def test_tried_prints_a_note_on_one_line_that_steers_no_terminal(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    set_note(study, 0, "\x1b[31mred\n\anote")
    run("tried", "--blocks", "1,1", "--widths", "4,8")
    first, *others = capsys.readouterr().out.splitlines()[1:]
    assert first.endswith("parameters  ([31mred note)")
    assert others == []


def test_tried_prints_a_name_on_one_line_that_steers_no_terminal(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    record(scored(), ARCH, 0.5, split="test", recipe="imported", network="\x1b[31mred\n\anet")
    run("tried", "--blocks", "1,1", "--widths", "4,8")
    first, *others = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("  retrain 0 [31mred net, imported: test 50.00%, ")
    assert others == []


def test_show_prints_notes_that_steer_no_terminal(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    set_note(study, 0, "\x1b[31mred \anote")
    arch_json = study.trials[0].user_attrs["architecture_json"]
    attrs = {"split": "test", "notes": "\x1b[31mred", "source_trial": 0}
    record(study, Architecture.from_json(arch_json), 0.5, **attrs)
    run("show", "0")
    assert "\x1b" not in capsys.readouterr().out


@given(architectures(), architectures())
def test_distance_is_symmetric_and_zero_only_for_equal_stages(
    one: Architecture, other: Architecture
) -> None:
    assert distance(one, other) == pytest.approx(distance(other, one))
    assert (distance(one, other) == 0) == (one.stages == other.stages)


def test_one_block_more_and_twice_the_width_are_one_step_each() -> None:
    assert distance(ARCH, Architecture.of([1, 2], [4, 8])) == 1
    assert distance(ARCH, Architecture.of([1, 1], [8, 8])) == 1
    assert distance(ARCH, Architecture.of([1, 1], [4, 8], [3, 5])) == 1
    assert distance(ARCH, Architecture.of([1, 1, 2], [4, 8, 8])) == 3


# note


@pytest.mark.parametrize(
    "words",
    ["plain", "<script>alert(1)</script>", "a\n[//]: # (end of Note)\nb &#91; &lt;", "=1+1\n## x"],
)
def test_a_note_is_read_as_it_was_written(scored: Callable[..., Study], words: str) -> None:
    study = scored(ARCH)
    write_note(study, 0, "Retrained", "| our | table |")
    assert run("note", "0", "first") == 0
    assert run("note", "0", words) == 0
    assert notes(study) == {0: words}
    assert [each.notes for each in history(study)] == [words]


def test_a_note_that_is_no_text_is_refused(scored: Callable[..., Study]) -> None:
    study = scored(ARCH)
    with pytest.raises(UserError, match="the note is not UTF-8 text"):
        set_note(study, 0, b"caf\xe9".decode(errors="surrogateescape"))
    assert notes(study) == {}


def test_what_is_typed_in_the_dashboard_is_a_note_too(scored: Callable[..., Study]) -> None:
    import optuna_dashboard

    study = scored(ARCH)
    trial = optuna.trial.Trial(study, study.get_trials()[0]._trial_id)
    optuna_dashboard.save_note(trial, "typed there")
    assert notes(study) == {0: "typed there"}
    set_note(study, 0, "noted here")
    write_note(study, 0, "Retrained", "| our | table |")
    assert notes(study) == {0: "noted here\ntyped there"}
    set_note(study, 0, "")
    assert notes(study) == {0: "typed there"}


def test_two_who_write_a_note_at_once_lose_nothing(
    scored: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, get_note, both_read = scored(ARCH), nas.notes.get_note, threading.Barrier(2, timeout=1)

    def get_note_slowly(noted: Any) -> str:
        found = get_note(noted)
        with suppress(threading.BrokenBarrierError):  # one waits in vain for the other to read
            both_read.wait()
        return found

    monkeypatch.setattr(nas.notes, "get_note", get_note_slowly)
    writers = [
        threading.Thread(target=write_note, args=(study, 0, heading, f"by {heading}"))
        for heading in ("One", "Two")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    monkeypatch.undo()
    written = get_note(optuna.trial.Trial(study, trial_id(study.trials[0])))
    assert "by One" in written
    assert "by Two" in written


def test_note_says_whether_it_noted_or_removed(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    scored(ARCH)
    for words, said in (("x", "noted on"), ("", "note removed from")):
        assert run("note", "0", words) == 0
        assert capsys.readouterr().out == f"{said} trial 0 of mine\n"


def test_a_wrong_flag_is_no_note(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    assert run("note", "0", "- kept") == 0
    for flag in ("--remove", "--stduy"):
        assert run("note", "0", flag) == 2
        assert f"error: '{flag}' is no flag of nas note" in capsys.readouterr().err
    assert notes(study) == {0: "- kept"}


def test_a_trial_is_told_the_full_trainings_of_its_network_and_not_those_of_another_trial(
    scored: Callable[..., Study],
) -> None:
    study = scored(ARCH)
    arch_id = study.trials[0].user_attrs["arch_id"]
    for accuracy, source in ((0.61, {}), (0.62, {"source_trial": 0}), (0.63, {"source_trial": 1})):
        record(study, ARCH, accuracy, split="test", arch_id=arch_id, **source)
    sister = open_sister(study._storage, NAME, "retrain")
    _, _, *rows = retrained_table(study, sister, 0, arch_id).splitlines()
    assert [row.split(" | ")[4] for row in rows] == ["61.00%", "62.00%"]


# delete


def rows_of_ours(study: Study) -> int:
    """Count the rows of this tool's own tables in the study's database."""
    engine = study._storage._backend.engine
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'"))
        ours = [name for (name,) in tables if name.startswith("nas_")]
        assert ours
        return sum(connection.scalar(text(f"SELECT count(*) FROM {n}")) for n in ours)  # noqa: S608


def test_deletion_takes_sisters_claims_and_the_empty_file_along(
    scored: Callable[..., Study], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(scored(ARCH), ARCH, 0.75)
    model = folder / "studies" / NAME / "trial-0" / "strong" / "seed-0" / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_text("weights")
    assert run("delete", NAME, "--yes") == 0
    assert f"{NAME} (1 trials), {NAME}-retrain (1 trials)" in capsys.readouterr().out
    assert not list((folder / "studies").glob("*.db*"))
    assert model.read_text() == "weights", "models stay"


def test_trainings_of_networks_from_elsewhere_are_kept_and_deleted_by_their_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sister = open_sister(open_storage("sqlite:///studies/cifar10-retrain.db"), "cifar10", "retrain")
    sister.add_trial(optuna.create_trial(value=0.9, user_attrs={"recipe": "strong"}))
    assert run("leaderboard", "cifar10") == 2
    shows = "optuna-dashboard sqlite:///studies/cifar10-retrain.db shows them"
    assert shows in capsys.readouterr().err
    assert run("backup", "cifar10", "--to", "b.db") == 0
    assert run("delete", "cifar10", "--yes") == 0
    assert "deleted cifar10-retrain (1 trials)" in capsys.readouterr().out
    assert not list((folder / "studies").glob("*.db"))
    assert (folder / "b.db").exists()


def test_trainings_of_networks_from_elsewhere_are_not_the_only_study(
    scored: Callable[..., Study],
) -> None:
    open_sister(open_storage("sqlite:///studies/cifar10-retrain.db"), "cifar10", "retrain")
    scored(ARCH)
    assert find_study(None, None).study_name == NAME
    scored(ARCH, name="cifar10", url="sqlite:///studies/all.db")
    assert find_study("cifar10", None).study_name == "cifar10"


def test_deletion_leaves_the_other_studies_of_a_database(scored: Callable[..., Study]) -> None:
    scored(ARCH, name="one", url="sqlite:///both.db")
    kept = scored(ARCH, name="two", url="sqlite:///both.db")
    before = rows_of_ours(kept)
    assert run("delete", "one", "--storage", "sqlite:///both.db", "--yes") == 0
    assert find_study(None, "sqlite:///both.db").study_name == "two"
    assert len(kept.get_trials()) == 1
    assert rows_of_ours(kept) == before // 2


def test_deletion_asks_first(
    scored: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scored(ARCH)
    (tmp_path / "answer").write_text("n\n")
    with (tmp_path / "answer").open() as answer:
        monkeypatch.setattr("sys.stdin", answer)
        assert run("delete", NAME) == 0
    assert len(find_study(NAME, None).get_trials()) == 1


def test_without_an_answer_nothing_is_deleted(
    scored: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored(ARCH)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run("delete", NAME) == 2
    said = capsys.readouterr().err
    assert said == "error: no answer: nothing deleted; --yes deletes without a question\n"
    assert len(find_study(NAME, None).get_trials()) == 1


def test_a_study_in_which_a_search_runs_is_not_deleted(scored: Callable[..., Study]) -> None:
    study = scored(ARCH)
    name, storage = find_storage(NAME, None)
    register = Register(storage.engine, study.user_attrs["token"])
    register.occupy(1)
    with pytest.raises(UserError, match=r"a search is running in study .*; stop it first"):
        delete(storage, name)
    register.leave(1)
    delete(storage, name)


def test_a_study_whose_network_is_trained_in_full_is_not_deleted(
    folder: Path, scored: Callable[..., Study]
) -> None:
    scored(ARCH)
    name, storage = find_storage(NAME, None)
    trained = folder / "studies" / NAME / "trial-0" / "strong" / "seed-0"
    code = (
        "import sys; from pathlib import Path; from nas.files import only_here\n"
        f"with only_here(Path({str(trained)!r})): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is training in .*seed-0"):
            delete(storage, name)
        other.communicate()
    delete(storage, name)


def test_a_study_of_others_is_not_deleted_nor_is_a_folder_it_is_named_after(
    folder: Path, scored: Callable[..., Study]
) -> None:
    scored(ARCH)
    storage = find_storage(NAME, None)[1]
    theirs = folder / "elsewhere" / "a" / "b" / "seed-0" / ".lock"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    name = str(folder / "elsewhere")
    optuna.create_study(storage=storage, study_name=name)
    with pytest.raises(UserError, match="was not made by this tool"):
        delete(storage, name)
    assert theirs.read_text() == "theirs"


def test_a_failed_training_says_so_and_a_score_of_nothing_is_one(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored(ARCH)
    arch = Architecture.from_json(study.trials[0].user_attrs["architecture_json"])
    record(study, arch, 0.0, split="test", source_trial=0, seed=0)
    sister = open_sister(study._storage, NAME, "retrain")
    attrs = {"architecture_json": arch.to_json(), "recipe": "strong", "source_trial": 0, "seed": 1}
    failed = {**attrs, "split": "test", "fail_reason": "out_of_memory"}
    sister.add_trial(optuna.create_trial(state=TrialState.FAIL, user_attrs=failed))
    left = {**attrs, "split": "test", "seed": 2}
    sister.add_trial(optuna.create_trial(state=TrialState.RUNNING, user_attrs=left))
    run("show", "0")
    out = capsys.readouterr().out
    assert "retrain 0: strong, seed 0: test 0.00%" in out
    assert "retrain 1: strong, seed 1: out of memory" in out
    assert "retrain 2: strong, seed 2: running, or interrupted" in out


def test_a_damaged_record_is_one_line(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    scored(ARCH)
    with closing(sqlite3.connect("studies/mine.db")) as database:
        database.execute("UPDATE trial_user_attributes SET value_json = '{\"x' || value_json")
        database.commit()
    assert run("show", "0") == 2
    assert capsys.readouterr().err.startswith("error: a record of the study is damaged: ")


# Several files, and what others made


def test_a_file_that_cannot_be_read_is_in_nobodys_way(
    folder: Path, scored: Callable[..., Study]
) -> None:
    scored(ARCH)
    (folder / "studies" / "a.db").touch()
    assert find_study(NAME, None).study_name == find_study(None, None).study_name == NAME
    with pytest.raises(UserError, match=r"the study database studies/a\.db is empty"):
        find_study("a", None)


def test_of_a_study_in_two_files_the_one_named_after_it_counts(
    folder: Path, scored: Callable[..., Study]
) -> None:
    scored(ARCH)
    for copy in ("a", "z"):  # one before and one after it
        assert run("copy", "studies/mine.db", f"studies/{copy}.db") == 0
    assert find_storage(NAME, None)[1].url == "sqlite:///studies/mine.db"
    (folder / "studies" / "mine.db").unlink()
    with pytest.raises(UserError, match=r"in several files; name one by --storage: .*a\.db.*z\.db"):
        find_storage(NAME, None)
    assert find_storage(NAME, "sqlite:///studies/z.db")[0] == NAME


@pytest.mark.parametrize(
    "command",
    [
        "leaderboard pareto",
        "report pareto",
        "export pareto x.csv",
        "import hand.csv --study pareto",
        "show 0 --study pareto",
        "tried pareto --blocks 1,1 --widths 4,8",
        "note 0 x --study pareto",
        "doctor pareto",
        "delete pareto --yes",
        "dashboard pareto --host 192.0.2.1",  # no address of this machine: it ends at once
    ],
)
def test_studies_that_others_made_are_refused_and_not_listed(
    scored: Callable[..., Study], folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (folder / "hand.csv").write_text('blocks,channels\n"1,1","4,8"\n')
    scored(ARCH)
    optuna.create_study(
        storage="sqlite:///studies/mine.db", study_name="pareto", directions=["maximize"] * 2
    ).add_trial(optuna.create_trial(values=[1.0, 2.0]))
    others = optuna.create_study(storage="sqlite:///studies/mine.db", study_name="mine-finalists")
    others.add_trial(optuna.create_trial(value=1.0))
    assert run(*command.split()) == 2
    said = "error: study 'pareto' was not made by this tool; name another\n"
    assert capsys.readouterr().err == said
    assert run("list", "--json") == 0
    assert [row["study"] for row in json.loads(capsys.readouterr().out)] == [NAME]


def test_a_trial_that_drew_another_trials_network_is_no_try_of_it(
    scored: Callable[..., Study],
) -> None:
    study = scored(ARCH)
    trial = study.ask()
    trial.set_user_attr("architecture_json", study.trials[0].user_attrs["architecture_json"])
    fail(study, trial_id(trial), "duplicate")
    assert [each.trial for each in history(study)] == [0]


def test_a_network_that_is_tried_again_keeps_its_name_and_counts_its_draws_once(
    scored: Callable[..., Study],
) -> None:
    study = scored()
    space = stored_space(study)
    enqueue(study, space, ARCH, proposed_by="imported", name="My best net")
    trial = study.ask()
    trial.set_user_attr("draws", {"over": 3})
    fail(study, trial_id(trial), "interrupted")
    requeue(study, space)
    again = study.ask()
    study.tell(again, 0.5)
    assert [(each.trial, each.name) for each in history(study)] == [(again.number, "My best net")]
    assert refused_draws(study) == {"over": 3}
