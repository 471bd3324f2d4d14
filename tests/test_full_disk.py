"""A disk that is full: one line, nothing lost, and the same command goes on once there is room."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import run
from optuna.trial import TrialState

import nas
from nas.architecture import Architecture
from nas.errors import UserError
from nas.retrain_progress import RetrainListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.study import Study


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """`studies` as a file system of 16 MB."""
    studies = folder / "studies"
    studies.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(studies)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield studies
    subprocess.run(["umount", "--lazy", str(studies)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; gives the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # no space left
        while True:
            file.write(bytes(65_536))
    return filler


def test_in_a_trial_what_was_scored_stays_and_the_search_goes_on(
    disk: Path, tiny: Callable[..., Study]
) -> None:
    before = tiny(2)
    filler = fill(disk)
    with pytest.raises(UserError, match=r"^sqlite:///.* failed: .*full; what was scored is kept"):
        tiny(200)
    filler.unlink()
    num_scored = len(before.get_trials(states=(TrialState.COMPLETE,)))
    after = tiny(num_scored + 1)
    scored = after.get_trials(states=(TrialState.COMPLETE,))
    assert len(scored) == len({trial.user_attrs["arch_id"] for trial in scored}) == num_scored + 1
    assert after.trials[:2] == before.trials[:2]


def test_at_a_checkpoint_and_the_training_ends_as_if_undisturbed(disk: Path) -> None:
    Path("net.json").write_text(Architecture.of([1], [4]).to_json())

    def retrain(storage: str, listener: RetrainListener | None = None) -> float:
        (done,) = nas.retrain(
            architecture="net.json", dataset="synthetic", epochs=3, batch_size=500, resolution=8,
            device="cpu", checkpoint_seconds=0.0, storage=f"sqlite:///{storage}.db",
            listener=listener,
        )  # fmt: skip
        return done.accuracy

    undisturbed = retrain("one")
    for model in disk.rglob("seed-0"):
        shutil.rmtree(model)
    with pytest.raises(UserError, match=r"^cannot (write|make) .*: No space left on device$"):
        retrain("two", RetrainListener(on_epoch=lambda _row: fill(disk) and None))
    (disk / "filler").unlink()
    assert retrain("two") == undisturbed


def test_under_a_report_and_no_part_of_it_is_left(
    disk: Path, scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    scored(Architecture.of([1, 1], [8, 8]), url="sqlite:///mine.db")
    filler = fill(disk)
    command = ["report", "--storage", "sqlite:///mine.db", "--out", "studies/report.html"]
    for code in (2, 0):
        assert run(*command) == code
        error = capsys.readouterr().err
        assert error.count("\n") == (1 if code else 0), error
        assert [path.name for path in disk.iterdir()] == (["filler"] if code else ["report.html"])
        filler.unlink(missing_ok=True)
