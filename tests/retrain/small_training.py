"""A full training of two short epochs, and what the tests ask of one."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from nas.architecture import Architecture
from nas.data_sets import DATASETS
from nas.errors import UserError
from nas.retrain_progress import Retrained, RetrainListener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.study import Study

    from nas.data_sets import DataSet
    from nas.split import Split

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


def interrupted(outside: Retrain, step: int, **others: Any) -> None:
    listener = stop_at(step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        outside(checkpoint_seconds=0, listener=listener, **others)


def start_anew(folder: Path) -> None:
    """Forget the trainings so far."""
    shutil.rmtree(folder / "studies" / "synthetic")
    for path in (folder / "studies").glob("*.db*"):
        path.unlink()


def unscorable(parts: dict[str, Split]) -> DataSet:
    """The data set, but its test images cannot be read."""

    def read(_root: Path, part: Any) -> Split:
        if part == "test":
            raise UserError("the test images were read")
        return parts[part]

    return dataclasses.replace(DATASETS["synthetic"], read=read)
