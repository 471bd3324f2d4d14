"""Fixtures: a small data set, a study, a network from outside any study."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from small_training import ARCH, RECIPE

import nas
from nas.data import load_training_data
from nas.data_sets import DATASETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from optuna.study import Study
    from small_training import Retrain

    from nas.split import Split


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
def study(folder: Path, tiny_whole: Callable[..., Study]) -> Study:
    """Two scored networks, and a recipe of two short epochs."""
    (folder / "studies" / "recipes").mkdir(parents=True)
    (folder / "studies" / "recipes" / "tiny.toml").write_text(RECIPE)
    return tiny_whole(2)  # on few images, by `test_reads`


@pytest.fixture
def outside(folder: Path) -> Retrain:
    """`nas.retrain` of a network from outside any study: no search is needed first."""
    (folder / "studies" / "recipes").mkdir(parents=True)
    (folder / "studies" / "recipes" / "tiny.toml").write_text(RECIPE)
    (folder / "net.json").write_text(ARCH.to_json())
    return partial(
        nas.retrain, architecture="net.json", dataset="synthetic", recipe="tiny", device="cpu"
    )
