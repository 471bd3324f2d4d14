"""Training on several ranks: they stay identical, and do what one process would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock, call

import optuna
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file
from two_ranks import ARCH, CONFIG, IDENTITY, StopHere, contiguous, data, train_frozen

from nas.checkpoint import Checkpoints
from nas.distributed import Ranks, join
from nas.errors import UserError
from nas.full_training import Listener, train_in_full

if TYPE_CHECKING:
    from nas.training_state import TrainingState

HERE = Path(__file__).parent
RECIPE = """
epochs = 3
resolution = 8
batch_size = 2000
peak_lr = 0.1
augmentations = ["flip"]
"""
STEPS = 3 * 10_000 // 2_000


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


def assert_is_near(file: Path, state: TrainingState) -> None:
    found = load_file(file)
    for name, tensor in contiguous(state).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


def test_two_ranks_train_what_one_process_does_but_for_rounding(left: Path) -> None:
    state, losses = train_frozen()
    for rank in range(2):
        assert_is_near(left / f"frozen-{rank}", state)
        assert json.loads((left / f"losses-{rank}").read_text()) == pytest.approx(losses, rel=1e-5)


def test_two_ranks_that_go_on_end_as_one_undisturbed_process_but_for_rounding(left: Path) -> None:
    state, _ = train_frozen()
    for rank in range(2):
        assert_is_near(left / f"resumed-{rank}", state)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_parts_of_the_batch_in_order(count: int) -> None:
    batch = torch.arange(20)
    shares = [Ranks(rank, count).share(batch) for rank in range(count)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} <= {20 // count, 20 // count + 1}


# `retrain.py` that writes a checkpoint a step and says how many steps each rank took.
COUNTED = """
import atexit, os, signal
from pathlib import Path

import nas, torch
from nas.cli import main
from nas.cli.retrain import retrain

rank, steps, step = os.environ["RANK"], [], torch.optim.SGD.step

def counted(*arguments, **named):
    if len(steps) == int(os.environ["KILLED_AT"]) and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    steps.append(None)
    return step(*arguments, **named)

torch.optim.SGD.step = counted
nas.retrain.__kwdefaults__["checkpoint_seconds"] = 0.0
atexit.register(lambda: Path(f"steps-{rank}").write_text(str(len(steps))))
main(commands=[retrain], prog_name="retrain.py")
"""
COMMAND = (
    "counted.py", "--architecture", "net.json", "--dataset", "synthetic", "--recipe", "tiny.toml",
    "--device", "cpu", "--quiet",
)  # fmt: skip


def test_a_killed_rank_ends_the_training_in_one_line_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {
        "counted.py": COUNTED, "net.json": ARCH.to_json(), "tiny.toml": RECIPE,
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)

    def train(killed_at: int) -> tuple[int, str]:
        monkeypatch.setenv("KILLED_AT", str(killed_at))
        process = torchrun(*COMMAND, cwd=tmp_path)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    code, output = train(killed_at=7)
    assert code != 0, output
    # torchrun may end the other process before that one has noticed.
    lines = ("error: a process of this training is gone", "interrupted; the same command goes on")
    said = next(line for line in lines if line in output)
    assert "Traceback" not in output.partition(said)[0]
    code, output = train(killed_at=-1)
    assert code == 0, output
    steps = [int((tmp_path / f"steps-{rank}").read_text()) for rank in range(2)]
    assert steps in ([STEPS - 7] * 2, [STEPS - 8] * 2), "it went on, and did not start anew"
    study = optuna.load_study(
        storage=f"sqlite:///{tmp_path}/studies/synthetic-retrain.db",
        study_name="synthetic-retrain",
    )
    (trial,) = study.get_trials()
    assert trial.state is TrialState.COMPLETE
    assert json.loads(trial.user_attrs["provenance"])["processes"] == 2
    assert f"net: test {trial.value:.2%}" in output
    assert output.count("net: test") == 1  # one rank speaks


class WaitedError(Exception):
    """In place of waiting for torchrun."""


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_of_more_processes_than_gpus_one_says_so(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    world = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": str(rank)}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    calls = Mock()
    calls.pause.side_effect = WaitedError
    monkeypatch.setattr(signal, "signal", calls.signal)
    monkeypatch.setattr(signal, "pause", calls.pause)
    with pytest.raises(UserError if rank == 0 else WaitedError, match=r"are 2; .*=2$|^$"):
        join()
    waits = [call.signal(signal.SIGTERM, signal.SIG_DFL), call.pause()]  # torchrun ends it unheard
    assert calls.mock_calls == (waits if rank > 0 else [])
