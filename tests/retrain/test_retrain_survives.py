"""What a full training survives, and goes on from."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from optuna.study import Study
from optuna.trial import Trial, TrialState
from small_training import (
    ARCH,
    RECIPE,
    STEPS,
    interrupted,
    rows,
    sister,
    start_anew,
    unscorable,
    weights,
)
from sqlalchemy.exc import OperationalError

from nas.architecture import Architecture
from nas.cli.retrain import print_summary
from nas.data_sets import DATASETS
from nas.errors import UserError
from nas.retrain_progress import RetrainListener

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial
    from small_training import Retrain

    from nas.split import Split

KILLED = """
import os, signal, nas, torch
from dataclasses import replace
from nas.data import load_training_data
from nas.data_sets import DATASETS
from nas.split import Split
from nas.retrain_progress import RetrainListener

read = DATASETS["synthetic"].read
def read_first(root, part):
    split = read(root, part)
    return Split(split.images[:2000], split.labels[:2000])
DATASETS["synthetic"] = replace(DATASETS["synthetic"], read=read_first)
torch.set_num_threads(1)
load_training_data("synthetic", "studies/data")
torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports as long as all the rest

def train_until(last):
    def on_step(done, total):
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
    nas.retrain(architecture="net.json", dataset="synthetic", recipe="tiny", device="cpu",
        checkpoint_seconds=0, listener=RetrainListener(on_step=on_step))

for last in (3, 10, 16):  # in the first epoch, at its last step, in the second
    child = os.fork()  # so that three processes import once
    if child == 0:
        train_until(last)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_epochs_that_a_database_that_was_away_missed_are_in_its_trial_at_the_end(
    folder: Path, outside: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, reported = Trial.report, []

    def report_if_reached(trial: Trial, value: float, step: int) -> None:
        reported.append(step)
        if len(reported) <= 2:  # of both epochs, the first of which is tried again with the second
            raise OperationalError("x", {}, Exception("the server is gone"))
        report(trial, value, step)

    monkeypatch.setattr(Trial, "report", report_if_reached)
    (retrained,) = outside()
    assert reported == [0, 0, 0, 1]
    (trial,) = sister(folder).trials
    measured = [float(row["train_accuracy"]) for row in rows(retrained.folder)]
    assert trial.intermediate_values == dict(enumerate(measured))


def test_a_result_whose_recording_is_cut_off_is_recorded_again(
    folder: Path, outside: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, cut = Study.tell, []

    def tell_cut_off(study: Study, *arguments: Any, **options: Any) -> FrozenTrial:
        told = tell(study, *arguments, **options)
        cut.append(told.number)
        if len(cut) == 1:
            raise OperationalError("x", {}, Exception("gone"), connection_invalidated=True)
        return told

    monkeypatch.setattr(Study, "tell", tell_cut_off)
    (retrained,) = outside()
    assert cut == [0, 0]
    (trial,) = sister(folder).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, retrained.accuracy)


def test_killed_in_mid_epoch_again_and_again_it_ends_as_if_undisturbed(
    folder: Path, outside: Retrain
) -> None:
    undisturbed = outside()
    before, kept = sister(folder).trials, weights(undisturbed)
    kept_rows = rows(undisturbed[0].folder)
    start_anew(folder)
    command = [sys.executable, "-c", KILLED]
    killed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert killed.stdout.split() == [str(int(signal.SIGKILL))] * 3, killed.stderr
    (running,) = sister(folder).trials
    assert (running.state, list(running.intermediate_values)) == (TrialState.RUNNING, [0])
    steps: list[int] = []
    resumed = outside(listener=RetrainListener(on_step=lambda done, _total: steps.append(done)))
    assert steps == [17, 18, 19, 20]
    assert weights(resumed) == kept
    assert rows(resumed[0].folder) == kept_rows
    (after,) = sister(folder).trials
    assert (after.value, after.intermediate_values) == (
        before[0].value,
        before[0].intermediate_values,
    )


@pytest.fixture
def steps_to_score_again(
    outside: Retrain, parts: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The steps of the same command after one whose final scoring failed."""
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setitem(DATASETS, "synthetic", unscorable(parts))
        with pytest.raises(UserError, match="the test images were read"):
            outside()
    outside(listener=RetrainListener(on_step=lambda done, _total: steps.append(done)))
    return steps


def test_after_a_final_scoring_that_failed_no_step_is_trained_again(
    steps_to_score_again: list[int],
) -> None:
    assert steps_to_score_again == []


@pytest.mark.usefixtures("steps_to_score_again")
def test_the_seconds_of_a_training_are_those_of_all_its_calls(folder: Path) -> None:
    (trial,) = sister(folder).trials
    with next(folder.rglob("metrics.csv")).open() as file:
        epochs = [float(row["elapsed_seconds"]) for row in csv.DictReader(file)]
    assert len(epochs) == 2
    assert trial.user_attrs["elapsed_seconds"] > sum(epochs), "of which the last call trained none"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_the_step_and_that_step_is_saved(
    folder: Path, outside: Retrain, number: signal.Signals
) -> None:
    (undisturbed,) = outside()
    kept = weights([undisturbed])
    start_anew(folder)

    def end(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = [signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        at_step_13 = RetrainListener(
            on_step=lambda done, _total: signal.raise_signal(number) if done == 13 else None
        )
        with pytest.raises(KeyboardInterrupt):
            outside(listener=at_step_13)
        assert signal.getsignal(number) is end
    finally:
        for each, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(each, handler)
    steps: list[int] = []
    resumed = outside(listener=RetrainListener(on_step=lambda done, _total: steps.append(done)))
    assert steps == list(range(14, 2 * STEPS + 1))
    assert weights(resumed) == kept


def test_a_damaged_checkpoint_falls_back_with_a_warning_and_ends_the_same(
    folder: Path, outside: Retrain
) -> None:
    (undisturbed,) = outside(holdout=True)
    kept = weights([undisturbed])
    start_anew(folder)
    interrupted(outside, 13, holdout=True)
    checkpoints = undisturbed.folder / "checkpoints"
    (_, newest) = sorted(checkpoints.iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    warnings: list[str] = []
    (resumed,) = outside(holdout=True, listener=RetrainListener(on_warning=warnings.append))
    assert len(warnings) == 1
    assert newest.name in warnings[0]
    assert resumed.accuracy == undisturbed.accuracy
    assert weights([resumed]) == kept
    assert not checkpoints.exists()


@pytest.mark.parametrize(
    ("change", "words"), [("recipe", "recipe_settings is"), ("network", "arch_id is")]
)
def test_a_checkpoint_of_another_training_is_refused_and_stays(
    folder: Path, outside: Retrain, change: str, words: str
) -> None:
    interrupted(outside, 3)
    if change == "recipe":
        changed = RECIPE.replace("label_smoothing = 0.1", "label_smoothing = 0.2")
        (folder / "studies" / "recipes" / "tiny.toml").write_text(changed)
    else:
        (folder / "net.json").write_text(Architecture.of([1, 1], [4, 9]).to_json())
    with pytest.raises(UserError, match=words) as error:
        outside()
    assert "\n" not in str(error.value)
    assert len(list(folder.rglob("step-*"))) == 2
    assert len(sister(folder).trials) == 1, "a refused training leaves no trial"


def test_to_remove_the_folder_that_a_refusal_names_is_enough_to_start_anew(
    folder: Path, outside: Retrain
) -> None:
    interrupted(outside, 3)
    changed = RECIPE.replace("label_smoothing = 0.1", "label_smoothing = 0.2")
    (folder / "studies" / "recipes" / "tiny.toml").write_text(changed)
    with pytest.raises(UserError) as error:
        outside()
    named = re.search(r"; remove (\S+) to start anew", str(error.value))
    assert named, str(error.value)
    assert named[1] == "studies/synthetic/net/tiny/seed-0/checkpoints"
    shutil.rmtree(named[1])
    assert outside()[0].trial == 1


def test_a_finished_model_is_not_overwritten_by_another_training(
    folder: Path, outside: Retrain
) -> None:
    retrained = outside()
    before = weights(retrained)
    (folder / "net.json").write_text(Architecture.of([1, 1], [4, 9]).to_json())
    with pytest.raises(UserError, match="holds the model of another training: arch_id is"):
        outside()
    assert weights(retrained) == before


def test_a_finished_training_keeps_its_result_without_its_files(outside: Retrain) -> None:
    (before,) = outside()
    shutil.rmtree(before.folder)
    warnings: list[str] = []
    again, other = outside(seeds=2, listener=RetrainListener(on_warning=warnings.append))
    assert again == before
    assert (other.folder / "model.safetensors").is_file()
    (warning,) = warnings
    assert warning.startswith(f"{before.folder / 'model.safetensors'} is gone; trial ")
    assert warning.endswith(" name the recipe otherwise: --recipe FILE.toml")


def test_no_files_are_named_that_are_not_there(
    outside: Retrain, capsys: pytest.CaptureFixture[str]
) -> None:
    retrained = outside()
    print_summary(retrained)
    told = capsys.readouterr().out.splitlines()
    accuracies = f"{retrained[0].accuracy:.2%}, flip-averaged {retrained[0].flip_accuracy:.2%}"
    assert told == [
        f"net: test {accuracies}, 2 epochs, 1 seed",
        f"files: {retrained[0].folder.parent}",
    ]
    shutil.rmtree(retrained[0].folder)
    print_summary(outside())
    assert capsys.readouterr().out.splitlines() == told[:1]


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_record_whose_file_is_deleted_ends_with_a_line_and_keeps_its_checkpoints(
    folder: Path, outside: Retrain, epoch: int
) -> None:
    def delete(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            (folder / "studies" / "synthetic-retrain.db").rename(folder / "moved.db")

    with pytest.raises(UserError, match=r"retrain\.db was deleted or replaced while it was in use"):
        outside(checkpoint_seconds=0, listener=RetrainListener(on_epoch=delete))
    assert list(folder.rglob("step-*.safetensors"))
    (folder / "moved.db").rename(folder / "studies" / "synthetic-retrain.db")
    (retrained,) = outside()
    (trial,) = sister(folder).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, retrained.accuracy)


def test_what_a_training_was_begun_with_is_recorded_where_it_differs(
    outside: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("nas.retraining.provenance", lambda *_, **__: {"device_name": "a GPU"})
        interrupted(outside, 3)
    interrupted(outside, 6)
    interrupted(outside, 9)
    (retrained,) = outside()
    made_with = json.loads((retrained.folder / "config.json").read_text())["provenance"]
    assert made_with["before"] == [{"device_name": "a GPU"}]
    assert made_with["device"] == "cpu"


def test_an_interruption_alone_is_no_other_provenance(outside: Retrain) -> None:
    interrupted(outside, 3)
    (retrained,) = outside()
    config = json.loads((retrained.folder / "config.json").read_text())
    assert "before" not in config["provenance"]


def test_all_checkpoints_stay_on_request(outside: Retrain) -> None:
    (retrained,) = outside(checkpoint_seconds=0, keep_checkpoints=True)
    steps = {int(path.name.split("-")[1]) for path in (retrained.folder / "checkpoints").iterdir()}
    assert steps == set(range(1, 2 * STEPS + 1))


def test_an_interrupted_training_goes_on_under_another_name(folder: Path, outside: Retrain) -> None:
    interrupted(outside, 13)
    (folder / "same.json").write_text(ARCH.to_json())
    steps: list[int] = []
    listener = RetrainListener(on_step=lambda done, _total: steps.append(done))
    (retrained,) = outside(architecture="same.json", listener=listener)
    assert steps == list(range(14, 2 * STEPS + 1))
    assert retrained.folder.parts == ("studies", "synthetic", "net", "tiny", "seed-0")
    assert len(sister(folder).trials) == 1
