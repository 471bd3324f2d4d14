"""Full training: what it leaves, what it records, what survives, and when test is looked at."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import inspect
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import optuna_dashboard
import pytest
import torch
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from torch._inductor.exc import CppCompileError

import nas
from nas.architecture import Architecture
from nas.assignment import Assignment
from nas.cli import main
from nas.cli.retrain import retrain as retrain_command
from nas.complexity import count_params
from nas.data import load_test_data, load_training_data
from nas.data_sets import DATASETS
from nas.distributed import Ranks
from nas.errors import UserError
from nas.find_study import study_url
from nas.history import history
from nas.interruption import Interruption
from nas.model import build_model
from nas.recipe import RetrainConfig
from nas.results import best_trials, later_scores
from nas.retrain import best_by_mean
from nas.retrain_record import FailedTrainingError
from nas.retraining import Retrained, RetrainListener
from nas.samplers import trial_id
from nas.split import Split
from nas.standings import standings
from nas.storage import open_storage
from nas.study import enqueue, fail
from nas.training import DivergedError, lr_at, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.data_sets import DataSet
    from nas.full_training import Trained

    Retrain = Callable[..., list[Retrained]]

RECIPE = """
epochs = 2
resolution = 8
batch_size = 200
peak_lr = 0.2
label_smoothing = 0.1
warmup_fraction = 0.2
ema_decay = 0.9
augmentations = ["translate", "flip"]
"""
STEPS = 10  # an epoch of all 2,000 images
ARCH = Architecture.of([1, 1], [4, 8])
NAME = "synthetic-tiny-3k-tiny"


def first_images(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])


@pytest.fixture(scope="module")
def parts() -> dict[str, Split]:
    """A fifth of the synthetic data set."""
    read = DATASETS["synthetic"].read
    return {
        "train": first_images(read(Path(), "train"), 2_000),
        "test": first_images(read(Path(), "test"), 400),
    }


@pytest.fixture(autouse=True)
def test_reads(parts: dict[str, Split], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Has the data set be small, and adds to this list when its test images are read."""
    reads: list[str] = []

    def read(_root: Path, part: Any) -> Split:
        if part == "test":
            reads.append(part)
        return parts[part]

    small = dataclasses.replace(DATASETS["synthetic"], read=read)
    monkeypatch.setitem(DATASETS, "synthetic", small)
    load_training_data.cache_clear()
    yield reads
    load_training_data.cache_clear()


@pytest.fixture
def study(folder: Path, tiny: Callable[..., Study]) -> Study:
    """Two scored networks, and a recipe of two short epochs."""
    (folder / "studies" / "recipes").mkdir(parents=True)
    (folder / "studies" / "recipes" / "tiny.toml").write_text(RECIPE)
    return tiny(2)


@pytest.fixture
def outside(folder: Path) -> Retrain:
    """`nas.retrain` of a network from outside any study: no search is needed first."""
    (folder / "studies" / "recipes").mkdir(parents=True)
    (folder / "studies" / "recipes" / "tiny.toml").write_text(RECIPE)
    (folder / "net.json").write_text(ARCH.to_json())
    return partial(
        nas.retrain, architecture="net.json", dataset="synthetic", recipe="tiny", device="cpu"
    )


def sister(folder: Path, name: str = "synthetic") -> Study:
    database = f"{name}-retrain" if name == "synthetic" else name
    return optuna.load_study(
        storage=f"sqlite:///{folder}/studies/{database}.db", study_name=f"{name}-retrain"
    )


def stop_at(step: int, error: BaseException) -> RetrainListener:
    def on_step(done: int, _total: int) -> None:
        if done == step:
            raise error

    return RetrainListener(on_step=on_step)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "elapsed_seconds"}
            for row in csv.DictReader(file)
        ]


def weights(retrained: list[Retrained]) -> list[bytes]:
    return [(each.folder / "model.safetensors").read_bytes() for each in retrained]


def start_anew(folder: Path) -> None:
    """Forget the trainings so far."""
    shutil.rmtree(folder / "studies" / "synthetic")
    for path in (folder / "studies").glob("*.db*"):
        path.unlink()


# What it leaves


@pytest.mark.parametrize("holdout", [False, True])
def test_a_loaded_models_accuracy_is_the_recorded_one(outside: Retrain, *, holdout: bool) -> None:
    (retrained,) = outside(holdout=holdout)
    model = nas.load_model(retrained.folder)
    split = (
        load_training_data("synthetic", ".").val if holdout else load_test_data("synthetic", ".")
    ).resized(model.resolution)
    with torch.inference_mode():
        logits = model(split.images)
        mirrored = model(split.images.flip(-1))
    plain = (logits.argmax(1) == split.labels).sum().item() / len(split)
    flipped = ((logits + mirrored).argmax(1) == split.labels).sum().item() / len(split)
    assert (plain, flipped) == (retrained.accuracy, retrained.flip_accuracy)
    assert len(logits.argmax(1).unique()) > 1
    assert not model.training
    assert (model.architecture, model.class_names[0]) == (ARCH, "pair-0")


def test_it_leaves_a_row_an_epoch_and_says_what_it_was_made_with(
    folder: Path, study: Study
) -> None:
    (retrained,) = nas.retrain(1, recipe="tiny", device="cpu")
    expected = folder / "studies" / NAME / "trial-1" / "tiny" / "seed-0"
    assert retrained.folder.absolute() == expected
    assert {path.name for path in expected.iterdir()} == {
        ".lock", "architecture.json", "config.json", "metrics.csv", "model.safetensors",
        "learning-curve.html",
    }  # fmt: skip
    assert [(row["epoch"], row["lr"] == "0.0") for row in rows(expected)] == [
        ("0", False),
        ("1", True),
    ]
    config = json.loads((expected / "config.json").read_text())
    assert config["recipe_settings"] == json.loads(RetrainConfig.load("tiny")[1].model_dump_json())
    assert config["accuracy"] == retrained.accuracy
    assert (config["source_trial"], config["split"], config["seed"]) == (1, "test", 0)
    assert {"torch", "git_revision", "device", "threads"} <= config["provenance"].keys()
    arch = Architecture.from_json((expected / "architecture.json").read_text())
    assert arch.arch_id == study.trials[1].user_attrs["arch_id"] == config["arch_id"]


def test_the_record_is_one_trial_an_architecture_recipe_and_seed(
    folder: Path, study: Study
) -> None:
    first, second = nas.retrain(1, recipe="tiny", seeds=2, device="cpu")
    trials = sister(folder, NAME).trials
    assert [t.value for t in trials] == [first.accuracy, second.accuracy]
    assert first.loss != second.loss
    for seed, trial in enumerate(trials):
        attrs = trial.user_attrs
        assert (attrs["source_trial"], attrs["recipe"], attrs["seed"]) == (1, "tiny", seed)
        assert (attrs["split"], attrs["epochs"]) == ("test", 2)
        arch = Architecture.from_json(attrs["architecture_json"])
        assert attrs["num_params"] == count_params(arch) == study.trials[1].user_attrs["num_params"]
        assert attrs["flip_accuracy"] == (first, second)[seed].flip_accuracy
        curve = [float(row["train_accuracy"]) for row in rows((first, second)[seed].folder)]
        assert list(trial.intermediate_values.values()) == curve
    again = nas.retrain(1, recipe="tiny", seeds=2, device="cpu")
    assert again == [first, second]
    assert len(sister(folder, NAME).trials) == 2


def test_the_source_trial_gets_a_note_and_keeps_what_a_person_wrote(
    folder: Path, study: Study
) -> None:
    own = optuna.load_study(
        storage=f"sqlite:///{folder}/studies/{NAME}.db", study_name=NAME, sampler=RandomSampler()
    )
    trial = optuna.trial.Trial(own, own.trials[1]._trial_id)
    optuna_dashboard.save_note(trial, "my words")
    (first,) = nas.retrain(1, recipe="tiny", device="cpu")
    nas.retrain(1, recipe="tiny", device="cpu", holdout=True)
    note = optuna_dashboard.get_note(trial)
    assert note.startswith("my words")
    assert note.count("## Retrained") == 1
    assert f"| tiny | 0 | test | {first.accuracy:.2%} |" in note
    assert "| tiny | 0 | val |" in note
    assert own.trials[1].value == study.trials[1].value


@pytest.mark.usefixtures("study")
def test_a_training_that_ends_before_its_note_leaves_no_checkpoints(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nas.retrain_record, "write_note", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nas.retrain(1, recipe="tiny", device="cpu", checkpoint_seconds=0)
    assert [trial.state for trial in sister(folder, NAME).trials] == [TrialState.COMPLETE]
    assert not list(folder.rglob("checkpoints"))


def test_checkpoints_of_a_training_that_was_killed_after_its_record_go_with_the_next_command(
    outside: Retrain,
) -> None:
    (retrained,) = outside()
    left = retrained.folder / "checkpoints"
    left.mkdir()
    (left / "step-1-0.safetensors").touch()
    assert outside() == [retrained]
    assert not left.exists()


def test_a_training_on_other_images_is_named_so_and_gives_the_study_no_accuracy(
    study: Study, parts: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_root: Path, part: Any) -> Split:
        return Split(255 - parts[part].images, parts[part].labels)

    negative = dataclasses.replace(DATASETS["synthetic"], read=read)
    monkeypatch.setitem(DATASETS, "negative", negative)
    (retrained,) = nas.retrain(1, dataset="negative", recipe="tiny", device="cpu")
    (later,) = later_scores(study).to_dict("records")
    assert later["measure"] == "full training (tiny, test of negative)"
    note = optuna_dashboard.get_note(optuna.trial.Trial(study, trial_id(study.trials[1])))
    assert f"| tiny | 0 | test of negative | {retrained.accuracy:.2%} |" in note
    (tried,) = (each for each in history(study) if each.kind == "retrain")
    assert (tried.recipe, tried.accuracy, tried.val_accuracy) == ("tiny on negative", None, None)
    (standing,) = standings(open_storage(study_url(NAME)))
    assert (standing["retrained"], standing["best_accuracy"]) == (1, None)


def test_networks_from_outside_share_a_study_of_the_data_set(
    folder: Path, outside: Retrain
) -> None:
    (retrained,) = outside(epochs=1)
    assert retrained.folder.parts == ("studies", "synthetic", "net", "tiny-epochs1", "seed-0")
    (trial,) = sister(folder).trials
    assert trial.user_attrs["source_trial"] is None
    assert trial.user_attrs["network"] == "net"


def test_files_called_architecture_are_told_apart_by_their_networks(
    folder: Path, outside: Retrain
) -> None:
    archs = [ARCH, Architecture.of([1, 1], [4, 9])]
    for number, arch in enumerate(archs):
        (folder / f"{number}").mkdir()
        (folder / f"{number}" / "architecture.json").write_text(arch.to_json())
    left = [outside(architecture=f"{n}/architecture.json", epochs=1)[0] for n in range(2)]
    assert [each.name for each in left] == [f"arch-{arch.arch_id}" for arch in archs]
    assert [nas.load_model(each.folder).architecture for each in left] == archs


# Test is looked at once


def test_test_is_read_once_a_seed_and_only_at_the_end(
    outside: Retrain, test_reads: list[str]
) -> None:
    reads_at_step: list[int] = []
    listener = RetrainListener(on_step=lambda _done, _total: reads_at_step.append(len(test_reads)))
    outside(seeds=2, listener=listener)
    assert reads_at_step == [0] * 2 * STEPS + [1] * 2 * STEPS
    outside(seeds=2)
    assert len(test_reads) == 2


def test_holdout_never_reads_test_and_leaves_val_out_of_training(
    folder: Path, outside: Retrain, test_reads: list[str]
) -> None:
    (retrained,) = outside(holdout=True)
    assert test_reads == []
    assert retrained.split == "val"
    assert retrained.folder.parent.name == "tiny-holdout"
    assert {row["num_images"] for row in rows(retrained.folder)} == {"1800"}
    (trial,) = sister(folder).trials
    assert trial.user_attrs["split"] == "val"
    assert trial.value == list(trial.intermediate_values.values())[-1] == retrained.accuracy


@pytest.mark.usefixtures("study")
def test_top_names_the_winner_by_val_before_any_test_image_is_read(test_reads: list[str]) -> None:
    told: list[tuple[str, int]] = []
    listener = RetrainListener(on_winner=lambda name: told.append((name, len(test_reads))))
    *compared, last = nas.retrain(top=2, recipe="tiny", device="cpu", listener=listener)
    best = max(compared, key=lambda each: each.accuracy)
    assert {each.split for each in compared} == {"val"}
    assert {each.name for each in compared} == {"trial-0", "trial-1"}
    assert told == [(best.name, 0)]
    assert (last.name, last.split, len(test_reads)) == (best.name, "test", 1)


@pytest.mark.usefixtures("study")
def test_top_with_holdout_trains_nothing_in_full_and_never_reads_test(
    folder: Path, parts: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "synthetic", unscorable(parts))
    told: list[str] = []
    listener = RetrainListener(on_winner=told.append)
    compared = nas.retrain(top=2, holdout=True, recipe="tiny", device="cpu", listener=listener)
    best = max(compared, key=lambda each: each.accuracy)
    assert {(each.name, each.split) for each in compared} == {
        ("trial-0", "val"),
        ("trial-1", "val"),
    }
    assert told == [best.name]
    assert {trial.user_attrs["split"] for trial in sister(folder, NAME).trials} == {"val"}


def test_the_winner_has_the_best_mean_not_the_best_seed(tmp_path: Path) -> None:
    of = partial(Retrained, tmp_path, 0, split="val", flip_accuracy=0, loss=0, elapsed_seconds=0)
    seeds = [("a", 0.9), ("a", 0.5), ("b", 0.75), ("b", 0.75), ("c", 0.75), ("c", 0.75)]
    assert best_by_mean([of(name, seed=0, accuracy=value) for name, value in seeds]) == "b"


# What survives

KILLED = """
import os, signal, nas, torch
from dataclasses import replace
from nas.data import load_training_data
from nas.data_sets import DATASETS
from nas.split import Split
from nas.retraining import RetrainListener

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


def interrupted(outside: Retrain, step: int, **others: Any) -> None:
    listener = stop_at(step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        outside(checkpoint_seconds=0, listener=listener, **others)


def unscorable(parts: dict[str, Split]) -> DataSet:
    """The data set, but its test images cannot be read."""

    def read(_root: Path, part: Any) -> Split:
        if part == "test":
            raise UserError("the test images were read")
        return parts[part]

    return dataclasses.replace(DATASETS["synthetic"], read=read)


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


def test_a_second_signal_does_not_wait_for_the_end_of_the_step() -> None:
    interruption = Interruption()
    with interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.is_waiting
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interruption.let_through()


def test_a_signal_of_which_no_step_came_after_is_let_through_in_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(signal.SIGINT)


def test_a_signal_in_a_step_that_fails_is_not_forgotten() -> None:
    def diverge_after_a_signal() -> None:
        with Interruption():
            signal.raise_signal(signal.SIGINT)
            raise DivergedError

    with pytest.raises(KeyboardInterrupt):
        diverge_after_a_signal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_before_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert not interruption.is_waiting
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


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


def test_all_checkpoints_stay_on_request(outside: Retrain) -> None:
    (retrained,) = outside(checkpoint_seconds=0, keep_checkpoints=True)
    steps = {int(path.name.split("-")[1]) for path in (retrained.folder / "checkpoints").iterdir()}
    assert steps == set(range(1, 2 * STEPS + 1))


DIVERGING = {"peak_lr": 100.0, "momentum": 0.99, "weight_decay": 1.0, "warmup_fraction": 0.0}


def test_a_diverged_training_fails_with_its_reason(folder: Path, outside: Retrain) -> None:
    with pytest.raises(UserError, match=r"^net, seed 0: diverged: the training loss of epoch"):
        outside(**DIVERGING)
    (trial,) = sister(folder).trials
    assert (trial.state, trial.user_attrs["fail_reason"]) == (TrialState.FAIL, "diverged")


def test_a_diverged_training_leaves_no_checkpoints(folder: Path, outside: Retrain) -> None:
    numbers: list[int] = []
    count_them = RetrainListener(
        on_step=lambda _done, _total: numbers.append(len(list(folder.rglob("step-*"))))
    )
    with pytest.raises(UserError, match="diverged"):
        outside(**DIVERGING, checkpoint_seconds=0, listener=count_them)
    assert max(numbers) == 2
    assert not list(folder.rglob("checkpoints"))


def test_a_network_whose_final_loss_is_no_number_has_diverged(
    folder: Path, outside: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = nas.retraining.train_in_full

    def ruined(*args: Any, **kwargs: Any) -> Trained:
        trained = train(*args, **kwargs)
        torch.nn.init.constant_(trained.model[-1].bias, torch.nan)  # type: ignore[index]
        return trained

    monkeypatch.setattr(nas.retraining, "train_in_full", ruined)
    with pytest.raises(UserError, match="^net, seed 0: diverged: the final loss is nan$"):
        outside(epochs=1)
    (trial,) = sister(folder).trials
    assert (trial.state, trial.user_attrs["fail_reason"]) == (TrialState.FAIL, "diverged")


DEATHS = {
    "diverged": DivergedError("the training loss of epoch 1 is nan"),
    "out_of_memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "not_compiled": CppCompileError(["g++"], "no such file"),
}


@pytest.mark.parametrize("reason", DEATHS)
def test_one_seed_that_fails_does_not_keep_the_others_from_training(
    folder: Path,
    outside: Retrain,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: str,
) -> None:
    train, error = nas.retraining.train_in_full, DEATHS[reason]

    def fails_first(arch: Any, data: Any, config: Any, seed: int, *args: Any, **kwargs: Any) -> Any:
        if seed == 0:
            raise error
        return train(arch, data, config, seed, *args, **kwargs)

    monkeypatch.setattr(nas.retraining, "train_in_full", fails_first)
    failures: list[str] = []
    (retrained,) = outside(seeds=2, listener=RetrainListener(on_failure=failures.append))
    assert retrained.seed == 1
    line = f"net, seed 0: {reason.replace('_', ' ')}: {' '.join(str(error).split())}"
    assert failures == [line]
    failed, scored = sister(folder).trials
    assert (failed.state, failed.user_attrs["fail_reason"]) == (TrialState.FAIL, reason)
    assert scored.state is TrialState.COMPLETE
    flags = "--architecture net.json --dataset synthetic --recipe tiny --device cpu --seeds 2"
    with pytest.raises(SystemExit) as left:
        nas.cli.main(["retrain", *flags.split()])
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert f"net: test {retrained.accuracy:.2%}" in printed.out
    assert f"error: 1 failed, the first: {line}" in printed.err


@pytest.mark.parametrize("reason", ["out_of_memory", "not_compiled"])
def test_one_of_several_ranks_that_fails_ends_the_command(
    folder: Path, outside: Retrain, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def fails(*_: Any, **__: Any) -> Trained:
        raise DEATHS[reason]

    monkeypatch.setattr(nas.distributed, "join", lambda _device: Ranks(0, 2))
    monkeypatch.setattr(Ranks, "tell", lambda _ranks, message=None: message)  # nobody listens
    monkeypatch.setattr(nas.retraining, "train_in_full", fails)
    failures: list[str] = []
    with pytest.raises(UserError, match=f"^net, seed 0: {reason.replace('_', ' ')}: ") as error:
        outside(seeds=2, listener=RetrainListener(on_failure=failures.append))
    assert not isinstance(error.value, FailedTrainingError), "after which others would be trained"
    assert failures == []
    (trial,) = sister(folder).trials
    assert (trial.state, trial.user_attrs["fail_reason"]) == (TrialState.FAIL, reason)


def test_a_batch_that_ranks_cannot_share_is_refused_before_anything_is_trained(
    folder: Path, outside: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.distributed, "join", lambda _device: Ranks(0, 3))
    with pytest.raises(UserError) as error:
        outside(batch_size=2)
    assert str(error.value) == (
        "a batch of 2 cannot be shared by 3 processes; raise --batch-size or start fewer"
    )
    assert not sister(folder).trials


@pytest.mark.parametrize("is_compiled", [False, True])
def test_networks_are_compiled_on_request(
    outside: Retrain, monkeypatch: pytest.MonkeyPatch, *, is_compiled: bool
) -> None:
    compiled: list[torch.nn.Module] = []

    def keep(model: torch.nn.Module) -> torch.nn.Module:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", keep)  # which takes tens of seconds
    (retrained,) = outside(epochs=1, compile=is_compiled)
    assert len(compiled) == is_compiled
    config = json.loads((retrained.folder / "config.json").read_text())
    assert config["provenance"]["compiled"] == is_compiled


def test_a_model_that_cannot_be_exported_keeps_no_seed_from_training(
    outside: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, *_: Any) -> Any:
        raise UserError(f"not the same in {folder.name}")

    monkeypatch.setattr(nas.retraining, "export", refuse)
    failures: list[str] = []
    both = outside(seeds=2, export=["fp16"], listener=RetrainListener(on_failure=failures.append))
    assert [each.seed for each in both] == [0, 1]
    assert [line.rpartition(": ")[2] for line in failures] == [
        "not the same in seed-0",
        "not the same in seed-1",
    ]


def test_a_trial_that_another_process_ended_is_one_line(folder: Path, outside: Retrain) -> None:
    def end_it(_row: Any) -> None:
        (trial,) = sister(folder).get_trials(states=(TrialState.RUNNING,))
        sister(folder).tell(trial.number, 0.5)

    with pytest.raises(UserError, match="was ended by another process, which had the same command"):
        outside(listener=RetrainListener(on_epoch=end_it))
    assert [t.value for t in sister(folder).trials] == [0.5]


def test_a_network_trained_from_a_file_before_is_noted_on_its_trial(
    folder: Path, study: Study
) -> None:
    (folder / "mine.json").write_text(study.trials[0].user_attrs["architecture_json"])
    common = {"recipe": "tiny", "device": "cpu"}
    (first,) = nas.retrain(architecture="mine.json", study=NAME, **common)
    (again,) = nas.retrain(0, **common)
    assert again.trial == first.trial
    trial = optuna.trial.Trial(study, trial_id(study.trials[0]))
    assert f"| tiny | 0 | test | {first.accuracy:.2%} |" in optuna_dashboard.get_note(trial)


def test_other_images_on_another_machine_are_refused() -> None:
    data = load_training_data("synthetic", "")
    config = RetrainConfig.load("seed")[1].model_dump_json()
    told = (ARCH.to_json(), config, 0, "synthetic", "", "0" * 16, False, "cpu", False)
    with pytest.raises(UserError, match=f"not what rank 0 trains on .*{data.fingerprint}, there"):
        Assignment(*told).do_share(Ranks(1, 2))


# Recipes


@pytest.mark.usefixtures("folder")
def test_seed_is_the_hand_made_networks_recipe() -> None:
    _, config = RetrainConfig.load("seed")
    assert config == RetrainConfig(
        epochs=200, batch_size=128, peak_lr=0.1, momentum=0.9, weight_decay=5e-4,
        is_nesterov=False, is_decay_on_all=True, schedule="cosine",
        augmentations=("crop", "flip", "perspective", "autoaugment"),
    )  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_seed_steps_as_torchs_own_sgd_does() -> None:
    training = RetrainConfig.load("seed")[1].training
    ours, theirs = (build_model(ARCH) for _ in range(2))
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for model, optimizer in ((ours, make_optimizer(ours, training)), (theirs, plain)):
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(model(images).square().mean())
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("folder")
def test_strong_warms_up_and_ends_at_exactly_zero() -> None:
    training = RetrainConfig.load("strong")[1].training
    assert training.is_nesterov
    assert not training.is_decay_on_all
    rates = [lr_at(step, 2000, training) for step in (0, 49, 50, 1999, 2000)]
    assert rates[0] < rates[1] < rates[2] == training.peak_lr
    assert 0 < rates[3] < 1e-6
    assert rates[4] == 0.0


@pytest.mark.parametrize("recipe", ["seed", "strong"])
def test_every_shipped_recipe_trains(outside: Retrain, recipe: str) -> None:
    (retrained,) = outside(recipe=recipe, epochs=1, resolution=16, batch_size=200)
    assert retrained.folder.parent.name == f"{recipe}-epochs1-resolution16-batchsize200"


@pytest.mark.usefixtures("folder")
def test_every_setting_of_a_recipe_has_a_flag() -> None:
    flags = {"nesterov": "is_nesterov", "decay_on_all": "is_decay_on_all"}
    known = {flags.get(name, name) for name in inspect.signature(retrain_command).parameters}
    assert RetrainConfig.model_fields.keys() <= known


def test_augmentations_by_flag_show_in_the_name() -> None:
    name, config = RetrainConfig.load("seed", augmentations=["flip", "cutout"], epochs=None)
    assert (name, config.augmentations) == ("seed-augmentationsflip+cutout", ("flip", "cutout"))


# Bad input


def refusal(**arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        nas.retrain(**{"recipe": "tiny", "device": "cpu", "dataset": "synthetic"} | arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_has_no_score_is_refused_by_its_state(tiny: Callable[..., Study]) -> None:
    study = tiny(1)
    ask: FrozenTrial = study.ask()
    fail(study, trial_id(ask), "diverged")
    study.tell(study.ask(), state=TrialState.PRUNED)
    space = nas.space.SearchSpace.from_dict(json.loads(study.user_attrs["space"]))  # type: ignore[attr-defined]
    enqueue(study, space, ARCH, proposed_by="test")
    arguments = {"recipe": "strong"}
    assert "trial 1 of" in refusal(trial=1, **arguments)
    assert "it is FAIL (diverged)" in refusal(trial=1, **arguments)
    assert "it is PRUNED (over budget)" in refusal(trial=2, **arguments)
    assert "it is WAITING;" in refusal(trial=3, **arguments)
    assert "no trial 9 in study" in refusal(trial=9, **arguments)
    assert "it has 0 to 3" in refusal(trial=-1, **arguments)


def test_several_studies_are_listed_and_those_of_other_tools_refused(folder: Path) -> None:
    (folder / "studies").mkdir()
    optuna.create_study(storage=f"sqlite:///{folder}/studies/b.db", study_name="b")
    assert "was not made by this tool" in refusal(trial=0, recipe="strong")
    optuna.create_study(storage=f"sqlite:///{folder}/studies/a.db", study_name="a")
    assert "several studies, name one of them: a, b" in refusal(trial=0, recipe="strong")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"num_classes": 100}, "the network has 100 classes, but the data have 10"),
        ({"in_channels": 1}, "the network has 1 channels, but the data have 3"),
    ],
)
def test_data_of_other_classes_or_channels_are_refused(
    folder: Path, outside: Retrain, what: dict[str, int], message: str
) -> None:
    assert outside
    other = dataclasses.replace(Architecture.of([1], [4]), **what)
    (folder / "net.json").write_text(other.to_json())
    assert refusal(architecture="net.json") == message
    assert not list((folder / "studies").rglob("model.safetensors"))


def test_other_files_than_the_studys_are_refused(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(study.trials) == 2
    original = DATASETS["synthetic"]

    def read(root: Path, part: Any) -> Split:
        split = original.read(root, part)
        return Split(255 - split.images, split.labels)

    monkeypatch.setitem(DATASETS, "synthetic", dataclasses.replace(original, read=read))
    message = refusal(trial=0, data="elsewhere")
    assert "is not what study" in message


def test_a_folder_that_cannot_be_made_is_one_line(folder: Path, outside: Retrain) -> None:
    (folder / "studies" / "synthetic").write_text("a file")
    with pytest.raises(UserError, match="cannot make the folder studies/synthetic/net"):
        outside()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(folder: Path, outside: Retrain) -> None:
    (folder / "studies" / "synthetic").mkdir()
    (folder / "studies" / "synthetic").chmod(0o500)
    with pytest.raises(UserError, match="cannot"):
        outside()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["retrain", *arguments])
    return int(left.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "name what to train by one of --trial, --top, --model, --architecture, not by none"),
        ("--trial 1 --model ResNet-20", "not by --trial and --model"),
        ("--trial 1", "no study in studies; there is: none"),
        ("--trial many", "Invalid value for '--trial'"),
        ("--model Nope", "unknown model 'Nope'; known: ResNet26_97"),
        ("--model ResNet-20 --recipe nope", "known: seed, strong"),
        ("--model ResNet-20 --epochs 0", "--epochs: input should be"),
        ("--model ResNet-20 --augmentations blur", "unknown augmentation 'blur'; known: flip"),
        ("--model ResNet-20 --seeds 0", "--seeds must be at least 1, not 0"),
        ("--top 0", "--top must be at least 1, not 0"),
        ("--model ResNet-20 --by luck", "unknown ranking 'luck'; known: finalist"),
        ("--model ResNet-20 --device tpu", "--device is auto, cpu or cuda"),
        ("--model ResNet-20 --dataset nope", "known: cifar10, cifar100"),
        ("--model ResNet-20 --dataset synthetic --storage nonsense", "no database URL"),
        ("--architecture missing.json", "cannot read missing.json"),
        ("--model ResNet-20 --schedule step", "--schedule: input should be"),
        ("--model ResNet-20 --export tflite", "unknown export format 'tflite'; known: onnx"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert run(*arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(folder.rglob("*.db"))


@pytest.mark.parametrize("name", ["", "--study other"])
def test_a_file_that_is_no_database_of_optuna_is_one_line_and_stays(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / "studies").mkdir()
    path = folder / "studies" / "other.db"
    path.write_bytes(b"not a database" * 100)
    assert run("--trial", "0", *name.split()) == 2
    error = capsys.readouterr().err
    assert "other.db" in error
    assert error.count("\n") == 1
    assert path.read_bytes() == b"not a database" * 100


def test_a_database_of_another_optuna_is_one_line_and_stays(
    study: Study, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.trials
    path = folder / "studies" / f"{NAME}.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        connection.execute("UPDATE version_info SET schema_version = 99")
        connection.commit()
    assert run("--trial", "0") == 2
    error = capsys.readouterr().err
    assert f"{NAME}.db" in error
    assert error.count("\n") == 1


def test_the_command_prints_a_line_an_epoch_and_the_mean(
    folder: Path, outside: Retrain, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outside
    flags = "--architecture net.json --dataset synthetic --recipe tiny --device cpu --seeds 2"
    assert run(*flags.split()) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "seed 0: studies/synthetic/net/tiny/seed-0"
    assert out[2].startswith("epoch 2/2: loss ")
    assert out[2].endswith("images/s, 0s left")
    assert out[-2].startswith("net: test ")
    assert " +- " in out[-2]
    assert out[-1] == "files: studies/synthetic/net/tiny"
    assert (folder / "studies" / "synthetic-retrain.db").is_file()


def test_a_folder_that_is_no_model_is_one_line(folder: Path, outside: Retrain) -> None:
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        nas.load_model(folder)
    (retrained,) = outside(epochs=1)
    path = retrained.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="cannot load"):
        nas.load_model(retrained.folder)


def test_an_architecture_under_another_name_is_what_it_was(folder: Path, outside: Retrain) -> None:
    (first,) = outside()
    (folder / "same.json").write_text(ARCH.to_json())
    warnings: list[str] = []
    listener = RetrainListener(on_warning=warnings.append)
    (again,) = outside(architecture="same.json", export=["fp16"], listener=listener)
    assert dataclasses.replace(again, name=first.name) == first
    assert not warnings
    assert (first.folder / "model.fp16.safetensors").is_file()
    assert not (folder / "studies" / "synthetic" / "same").exists()


def test_an_interrupted_training_goes_on_under_another_name(folder: Path, outside: Retrain) -> None:
    interrupted(outside, 13)
    (folder / "same.json").write_text(ARCH.to_json())
    steps: list[int] = []
    listener = RetrainListener(on_step=lambda done, _total: steps.append(done))
    (retrained,) = outside(architecture="same.json", listener=listener)
    assert steps == list(range(14, 2 * STEPS + 1))
    assert retrained.folder.parts == ("studies", "synthetic", "net", "tiny", "seed-0")
    assert len(sister(folder).trials) == 1


def test_the_winner_is_trained_in_full_also_where_it_has_another_name(
    folder: Path, study: Study
) -> None:
    best = study.trials[best_trials(study, 1, by="finalist")[0]]
    (folder / "net.json").write_text(best.user_attrs["architecture_json"])
    options = {"study": NAME, "recipe": "tiny", "device": "cpu"}
    (held_out,) = nas.retrain(architecture="net.json", holdout=True, **options)
    first, winner = nas.retrain(top=1, **options)
    assert first.folder == held_out.folder
    assert (first.split, winner.split) == ("val", "test")
    assert first.name == winner.name == f"trial-{best.number}"
