"""What a full training that fails leaves, and what it keeps from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from commands import run
from optuna.trial import TrialState
from small_training import ARCH, sister
from torch._inductor.exc import CppCompileError

import nas
from nas.assignment import Assignment
from nas.data import load_training_data
from nas.distributed import Ranks
from nas.errors import UserError
from nas.recipe import RetrainConfig
from nas.retrain_progress import RetrainListener
from nas.retrain_record import FailedTrainingError
from nas.training import DivergedError

if TYPE_CHECKING:
    from pathlib import Path

    from small_training import Retrain

    from nas.full_training import Trained

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
    assert run("retrain", *flags.split()) == 2
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


def test_other_images_on_another_machine_are_refused() -> None:
    data = load_training_data("synthetic", "")
    config = RetrainConfig.load("seed")[1].model_dump_json()
    told = (ARCH.to_json(), config, 0, "synthetic", "", "0" * 16, False, "cpu", False)
    with pytest.raises(UserError, match=f"not what rank 0 trains on .*{data.fingerprint}, there"):
        Assignment(*told).do_share(Ranks(1, 2))
