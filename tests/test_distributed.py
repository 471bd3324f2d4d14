"""Training on several ranks: they stay identical, and do what one process would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file
from two_ranks import ARCH, CONFIG, IDENTITY, contiguous, data, train_frozen

from nas.checkpoint import Checkpoints
from nas.distributed import Ranks
from nas.full_training import Listener, train_in_full

HERE = Path(__file__).parent
RECIPE = """
epochs = 100
resolution = 8
batch_size = 2000
peak_lr = 0.1
augmentations = ["flip"]
"""


class StopHere(Exception):  # noqa: N818 - an event
    """Raised in mid-training."""


def torchrun(*command: str | Path, cwd: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    port = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return subprocess.Popen(
        [*launcher, *port, *map(str, command)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left that went on from one process's checkpoint in mid-epoch."""
    folder = tmp_path_factory.mktemp("two_ranks")
    checkpoints = Checkpoints(folder / "checkpoints", IDENTITY, seconds=0.0)

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise StopHere

    with pytest.raises(StopHere):
        train_in_full(ARCH, data(), CONFIG, 0, checkpoints, listener=Listener(stop))
    process = torchrun(HERE / "two_ranks.py", folder, cwd=folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return folder


def test_ranks_that_went_on_from_a_checkpoint_end_the_same_to_the_last_bit(left: Path) -> None:
    (last,) = (left / "checkpoints").glob("step-000000008-*")
    leader, follower = load_file(last), load_file(left / "follower")
    assert leader.keys() == follower.keys()
    for name, tensor in leader.items():
        assert torch.equal(tensor, follower[name]), name


def test_two_ranks_train_what_one_process_does_but_for_rounding(left: Path) -> None:
    state, losses = train_frozen()
    for rank in range(2):
        found = load_file(left / f"frozen-{rank}")
        for name, tensor in contiguous(state).items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
        assert json.loads((left / f"losses-{rank}").read_text()) == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_parts_of_the_batch_in_order(count: int) -> None:
    batch = torch.arange(20)
    shares = [Ranks(rank, count).share(batch) for rank in range(count)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} <= {20 // count, 20 // count + 1}


@pytest.fixture
def killed_follower(tmp_path: Path) -> str:
    """What a training of two ranks printed whose second was killed after an epoch."""
    (tmp_path / "net.json").write_text(ARCH.to_json())
    (tmp_path / "tiny.toml").write_text(RECIPE)
    lines = []
    with torchrun(*COMMAND, cwd=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch 1/"):
                follower(process.pid).send_signal(signal.SIGKILL)
    output = "".join(lines)
    assert process.returncode != 0, output
    return output


def follower(launcher: int) -> psutil.Process:
    """Find the process of rank 1."""
    children = psutil.Process(launcher).children()
    return next(child for child in children if child.environ().get("RANK") == "1")


COMMAND = (
    HERE.parent / "retrain.py", "--architecture", "net.json", "--dataset", "synthetic",
    "--recipe", "tiny.toml", "--device", "cpu",
)  # fmt: skip


def test_a_killed_rank_ends_the_training_in_one_line_and_the_same_command_goes_on(
    tmp_path: Path, killed_follower: str
) -> None:
    # torchrun may end the other process before that one has noticed.
    lines = ("error: a process of this training is gone", "interrupted; the same command goes on")
    said = next(line for line in lines if line in killed_follower)
    assert "Traceback" not in killed_follower.partition(said)[0]
    process = torchrun(*COMMAND, "--quiet", cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    study = optuna.load_study(
        storage=f"sqlite:///{tmp_path}/studies/synthetic-retrain.db",
        study_name="synthetic-retrain",
    )
    (trial,) = study.get_trials()
    assert trial.state is TrialState.COMPLETE
    assert json.loads(trial.user_attrs["provenance"])["processes"] == 2
    assert f"net: test {trial.value:.2%}" in output
    assert output.count("net: test") == 1  # one rank speaks
