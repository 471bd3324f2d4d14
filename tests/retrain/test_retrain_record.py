"""What a full training leaves and records."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import optuna
import optuna_dashboard
import pytest
import torch
from commands import run
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from small_training import ARCH, NAME, rows, sister

import nas
from nas.architecture import Architecture
from nas.complexity import count_params
from nas.data import load_test_data, load_training_data
from nas.data_sets import DATASETS
from nas.find_study import study_url
from nas.history import history
from nas.proposed import trial_id
from nas.recipe import RetrainConfig
from nas.results import later_scores
from nas.retrain_progress import RetrainListener
from nas.split import Split
from nas.standings import standings
from nas.storage import open_storage

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.study import Study
    from small_training import Retrain


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
    assert f"| tiny | 2 | 0 | test | {first.accuracy:.2%} |" in note
    assert "| tiny | 2 | 0 | val |" in note
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
    assert f"| tiny | 2 | 0 | test of negative | {retrained.accuracy:.2%} |" in note
    (tried,) = (each for each in history(study) if each.kind == "retrain")
    assert (tried.recipe, tried.accuracy, tried.val_accuracy) == ("tiny on negative", None, None)
    assert tried.result == f"scored test {retrained.accuracy:.2%} there"
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


def test_the_command_prints_a_line_an_epoch_and_the_mean(
    folder: Path, outside: Retrain, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outside
    flags = "--architecture net.json --dataset synthetic --recipe tiny --device cpu --seeds 2"
    assert run("retrain", *flags.split()) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "seed 0: studies/synthetic/net/tiny/seed-0"
    assert out[2].startswith("epoch 2/2: loss ")
    assert out[2].endswith("images/s, 0s left")
    assert out[-2].startswith("net: test ")
    assert " +- " in out[-2]
    assert out[-1] == "files: studies/synthetic/net/tiny"
    assert (folder / "studies" / "synthetic-retrain.db").is_file()


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


def test_a_network_trained_from_a_file_before_is_noted_on_its_trial(
    folder: Path, study: Study
) -> None:
    (folder / "mine.json").write_text(study.trials[0].user_attrs["architecture_json"])
    common = {"recipe": "tiny", "device": "cpu"}
    (first,) = nas.retrain(architecture="mine.json", study=NAME, **common)
    (again,) = nas.retrain(0, **common)
    assert again.trial == first.trial
    trial = optuna.trial.Trial(study, trial_id(study.trials[0]))
    assert f"| tiny | 2 | 0 | test | {first.accuracy:.2%} |" in optuna_dashboard.get_note(trial)
