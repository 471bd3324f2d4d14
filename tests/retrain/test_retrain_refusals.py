"""What a full training refuses, in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from commands import run
from optuna.trial import TrialState
from small_training import ARCH, NAME

import nas
from nas.architecture import Architecture, Stage
from nas.data_sets import DATASETS
from nas.errors import UserError
from nas.proposed import trial_id
from nas.split import Split
from nas.trials import enqueue, fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from small_training import Retrain


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
    assert "no trial '0' in study" in refusal(trial="0", **arguments)
    assert "unknown export format 'fp8'" in refusal(trial=0, export="fp16,fp8", **arguments)
    own = Path("studies", "recipes", "imported.toml")
    own.parent.mkdir(exist_ok=True)
    own.write_bytes((files("nas.presets") / "recipes" / "strong.toml").read_bytes())
    assert "'imported' is how trainings of a sheet are" in refusal(trial=0, recipe="imported")
    for seconds in ("a", -1):
        assert refusal(trial=0, checkpoint_seconds=seconds, **arguments) == (
            f"--checkpoint-seconds is a number of seconds of at least 0, not {seconds!r}"
        )


def test_several_studies_are_listed_and_those_of_other_tools_refused(folder: Path) -> None:
    (folder / "studies").mkdir()
    optuna.create_study(storage=f"sqlite:///{folder}/studies/b.db", study_name="b")
    assert "was not made by this tool" in refusal(trial=0, recipe="strong")
    optuna.create_study(storage=f"sqlite:///{folder}/studies/a.db", study_name="a")
    assert "several studies, name one of them as STUDY or by --study: a, b" in refusal(
        trial=0, recipe="strong"
    )


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
    assert refusal(architecture="net.json").startswith(message)
    assert not list((folder / "studies").rglob("*.db")), "no study of it is left"


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "name what to train by one of --trial, --top, --model, --architecture, not by none"),
        ("--trial 1 --model ResNet-20", "not by --trial and --model"),
        ("--trial 1", "/studies; run search.py first, or this where it ran"),
        ("--trial many", "Invalid value for '--trial'"),
        ("--model Nope", "unknown model 'Nope'; known: ResNet26_97"),
        ("--model ResNet-20 --recipe nope", "known: seed, strong"),
        ("--model ResNet-20 --epochs 0", "--epochs: input should be"),
        ("--model ResNet-20 --augmentations blur", "unknown augmentation 'blur'; known: flip"),
        ("--model ResNet-20 --seeds 0", "--seeds is a whole number of at least 1, not 0"),
        ("--top 0", "--top is a whole number of at least 1, not 0"),
        ("--model ResNet-20 --by luck", "unknown ranking 'luck'; known: finalist"),
        ("--model ResNet-20 --device tpu", "--device is auto, cpu or cuda"),
        ("--model ResNet-20 --dataset nope", "known: cifar10, cifar100"),
        ("--model ResNet-20 --dataset synthetic --storage nonsense", "no database URL"),
        ("--architecture missing.json", "cannot read missing.json"),
        ("--architecture fancy.json", "fancy.json: unknown block 'fancy'; known: basic, "),
        ("--model ResNet-20 --schedule step", "--schedule: input should be"),
        ("--model ResNet-20 --export tflite", "unknown export format 'tflite'; known: onnx"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    fancy = Architecture((Stage(1, 4, block="fancy"),))
    (folder / "fancy.json").write_text(fancy.to_json())
    assert run("retrain", *arguments.split()) == 2
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
    assert run("retrain", "--trial", "0", *name.split()) == 2
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
    assert run("retrain", "--trial", "0") == 2
    error = capsys.readouterr().err
    assert f"{NAME}.db" in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_model_is_one_line(folder: Path, outside: Retrain) -> None:
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        nas.load_model(folder)
    (retrained,) = outside(epochs=1)
    path = retrained.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="cannot load"):
        nas.load_model(retrained.folder)
