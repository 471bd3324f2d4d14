"""Checkpoints are whole or absent, verified, of this training alone; what continues is the same."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from nas.architecture import Architecture
from nas.batches import Batches, Normalization, RandomFlip
from nas.checkpoint import Checkpoint, Checkpoints
from nas.errors import UserError
from nas.files import only_here, write_whole
from nas.model import build_model
from nas.split import Split
from nas.training import TrainingConfig, start_training, train

if TYPE_CHECKING:
    from nas.training import EpochMetrics
    from nas.training_state import TrainingState

IDENTITY = {"arch_id": "abc", "recipe": "strong", "seed": 0}


def checkpoints(folder: Path, **others: Any) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", IDENTITY | others)


def at(step: int) -> Checkpoint:
    return Checkpoint({"weight": torch.full((2, 3), float(step))}, {"step": step, "rows": [0.1]})


def newest(kept: Checkpoints) -> tuple[int | None, list[str]]:
    warnings: list[str] = []
    found = kept.load_newest(warnings.append)
    return None if found is None else found.numbers["step"], warnings


def test_a_checkpoint_reads_back_as_it_was_written(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    tensors = {
        "float": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "whole": torch.tensor(2**40),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    kept.save(7, Checkpoint(tensors, {"loss": 0.1 + 0.2, "rows": [{"lr": 1e-300}]}))
    found = kept.load_newest(pytest.fail)
    assert found is not None
    assert found.numbers == {"loss": 0.1 + 0.2, "rows": [{"lr": 1e-300}]}
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_the_newest_two_are_kept_or_all_on_request(tmp_path: Path) -> None:
    two, every = checkpoints(tmp_path / "a"), checkpoints(tmp_path / "b")
    every = Checkpoints(every.folder, IDENTITY, keeps_all=True)
    for step in (1, 9, 10, 100):
        two.save(step, at(step))
        every.save(step, at(step))
    steps = [int(path.name.split("-")[1]) for path in sorted(two.folder.iterdir())]
    assert (steps, len(list(every.folder.iterdir()))) == ([10, 100], 4)
    two.remove()
    every.remove()
    assert (two.folder.exists(), len(list(every.folder.iterdir()))) == (False, 4)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    kept = checkpoints(tmp_path)
    kept.save(1, at(1))
    path = kept.save(2, at(2))
    content = path.read_bytes()
    flipped = bytes([content[-1] ^ 1])
    path.write_bytes({"cut": content[:-9], "flip": content[:-1] + flipped, "empty": b""}[damage])
    step, warnings = newest(kept)
    assert step == 1
    assert len(warnings) == 1
    assert str(path) in warnings[0]


def test_what_is_saved_after_damage_is_kept_also_if_its_step_is_an_earlier_one(
    tmp_path: Path,
) -> None:
    kept = checkpoints(tmp_path)
    for step in (100, 200):
        kept.save(step, at(step)).write_bytes(b"")
    assert newest(kept)[0] is None
    for step in (1, 2, 3):
        kept.save(step, at(step))
    assert newest(kept) == (3, [])
    kept.save(3, at(3)).write_bytes(b"")
    assert newest(kept)[0] == 2
    kept.remove()
    assert not kept.folder.exists()


def test_what_could_not_be_read_for_a_moment_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = checkpoints(tmp_path)
    kept.save(1, at(1))

    def fail(_path: Path) -> bytes:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as away:
        away.setattr(Path, "read_bytes", fail)
        assert newest(kept)[0] is None
    assert newest(kept) == (1, [])


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    assert newest(kept) == (None, [])
    kept.save(1, at(1)).write_bytes(b"\x00" * 200)
    step, warnings = newest(kept)
    assert (step, len(warnings)) == (None, 1)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"arch_id": "def"}, 'arch_id is "abc" there, "def" asked'),
        ({"seed": 1}, "seed is 0 there, 1 asked"),
        ({"split": "val"}, 'split is nothing there, "val" asked'),
    ],
)
def test_one_of_another_training_is_refused_in_one_line(
    tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    checkpoints(tmp_path).save(1, at(1))
    with pytest.raises(UserError) as error:
        newest(checkpoints(tmp_path, **other))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_could_run_code_is_never_unpickled(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    kept.save(1, at(1))

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    harmful = pickle.dumps(Harmful())
    import hashlib

    checksum = hashlib.sha256(harmful).hexdigest()[:16]
    (kept.folder / f"step-000000002-{checksum}.safetensors").write_bytes(harmful)
    assert newest(kept)[0] == 1
    assert not (tmp_path / "harm").exists()


def test_a_part_of_a_file_is_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    path = kept.save(1, at(1))
    path.with_name(f".{path.name}.part").write_bytes(b"half")
    assert newest(kept) == (1, [])


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from nas.files import write_whole\n"
        "from nas.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_whole(Path('file'), b'x' * 200)\n"
        "except UserError as error: print(error)\n"
    )
    (tmp_path / "file").write_bytes(b"before")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "cannot write file: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot"):
        checkpoints(tmp_path).save(1, at(1))


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(UserError, match="cannot make the folder"):
        checkpoints(tmp_path).save(1, at(1))
    with pytest.raises(UserError, match="cannot write"):
        write_whole(tmp_path / "none" / "file", b"")


def test_a_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nas.files import only_here\n"
        "with only_here(Path(sys.argv[1])): pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with only_here(tmp_path):
        refused = subprocess.run(command, capture_output=True, text=True)
    assert "another process is training in" in refused.stderr
    assert subprocess.run(command).returncode == 0


# Going on from a state

CONFIG = TrainingConfig(epochs=2, peak_lr=0.1, warmup_fraction=0.25, ema_decay=0.9)


def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    noise = torch.randint(200, (64, 3, 8, 8), generator=generator)
    split = Split((noise + 50 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
    return Batches(split, Normalization.of(split.images), 16, 0, (RandomFlip(),))


def fresh(config: TrainingConfig) -> TrainingState:
    model = build_model(Architecture.of([1, 1], [4, 8], num_classes=2))
    return start_training(model, config, torch.device("cpu"))


def finish(state: TrainingState, config: TrainingConfig) -> list[tuple[float, float]]:
    metrics: list[EpochMetrics] = list(train(state.model, batches(), config, state=state))
    return [(m.train_loss, m.train_accuracy) for m in metrics]


@pytest.mark.parametrize("stop", range(1, 9))
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_training_gone_on_from_any_step_ends_the_same_to_the_last_bit(
    tmp_path: Path, stop: int, momentum: float
) -> None:
    config = TrainingConfig(2, 0.1, momentum=momentum, warmup_fraction=0.25, ema_decay=0.9)
    undisturbed = fresh(config)
    expected = finish(undisturbed, config)

    stopped, kept = fresh(config), checkpoints(tmp_path)

    class StopError(Exception):
        pass

    def on_step(done: int, _total: int) -> None:
        if done == stop:
            kept.save(done, Checkpoint(stopped.tensors(), stopped.numbers()))
            raise StopError

    with pytest.raises(StopError):
        list(train(stopped.model, batches(), config, on_step=on_step, state=stopped))
    found = kept.load_newest(pytest.fail)
    assert found is not None
    resumed = fresh(config)
    resumed.restore(found.tensors, found.numbers)
    metrics = finish(resumed, config)
    assert metrics == expected[-len(metrics) :]
    ends = resumed.tensors(), undisturbed.tensors()
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_average_covers_batch_norm_statistics_and_follows_its_formula() -> None:
    state = fresh(CONFIG)
    key = "stem.0.1.running_mean"
    seen = []

    def on_step(_done: int, _total: int) -> None:
        seen.append(state.model.state_dict()[key].clone())

    expected = state.model.state_dict()[key].clone()
    list(train(state.model, batches(), CONFIG, on_step=on_step, state=state))
    for number, value in enumerate(seen, start=1):
        kept = min(0.9, number / (number + 10))
        expected = kept * expected + (1 - kept) * value
    torch.testing.assert_close(state.result.state_dict()[key], expected)
    assert not torch.equal(state.result.state_dict()[key], seen[-1])


def test_a_state_of_a_device_without_scaling_goes_on_where_gradients_are_scaled() -> None:
    before, after = fresh(CONFIG), fresh(CONFIG)
    after.scaler = torch.amp.GradScaler("cpu", enabled=True)
    before.step = 3
    after.restore(before.tensors(), before.numbers())
    assert after.step == 3
    assert after.scaler.get_scale() > 1
