"""What `test_distributed.py` runs under torchrun: python two_ranks.py FOLDER, a process a rank."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

from nas.architecture import Architecture
from nas.batches import Batches, Normalization, RandomFlip
from nas.checkpoint import Checkpoints
from nas.distributed import ALONE, Ranks, join
from nas.full_training import FullData, assist, train_in_full
from nas.model import build_model
from nas.recipe import RetrainConfig
from nas.split import Split
from nas.training import TrainingConfig, start_training, train

if TYPE_CHECKING:
    from nas.training_state import TrainingState

ARCH = Architecture.of([1, 1], [4, 8])
CONFIG = RetrainConfig(
    epochs=2, resolution=8, batch_size=25, peak_lr=0.1, ema_decay=0.9, augmentations=("flip",)
)
IDENTITY = {"test": "two ranks"}


def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (100,), generator=generator)
    noise = torch.randint(56, (100, 3, 8, 8), generator=generator)
    return Split((noise + 20 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def data() -> FullData:
    return FullData(split(), None, Normalization.of(split().images), 10)


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that never takes statistics of a batch, so that shares do not matter."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:  # noqa: FBT001, FBT002
        del mode
        return super().train(mode=False)


class StopHere(Exception):  # noqa: N818 - an event
    """Raised in mid-training."""


def train_frozen(ranks: Ranks = ALONE, num_alone: int = 0) -> tuple[TrainingState, list[float]]:
    """Train a network with frozen batch norm; gives its state and the loss of each epoch.

    The first `num_alone` steps are done by rank 0 alone, as if it had read a checkpoint.
    """

    def stop(done: int, _total: int) -> None:
        if done == num_alone:
            raise StopHere

    model = build_model(ARCH)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FrozenBatchNorm
    normalization = Normalization.of(split().images)
    alone = Batches(split(), normalization, 25, 0, (RandomFlip(),))
    config = TrainingConfig(epochs=2, peak_lr=0.05, ema_decay=0.9, precision="float32")
    state = start_training(model, config, torch.device("cpu"))
    if ranks.leads and num_alone:
        with suppress(StopHere):
            list(train(model, alone, config, state=state, on_step=stop))
    ranks.take_state_of_leader(state)
    batches = replace(alone, ranks=ranks)
    losses = [m.train_loss for m in train(model, batches, config, state=state)]
    return state, losses


def main(folder: Path) -> None:
    """Train both networks on this rank, and leave what it ended with."""
    ranks = join()
    if ranks.leads:
        checkpoints = Checkpoints(folder / "checkpoints", IDENTITY)
        train_in_full(ARCH, data(), CONFIG, 0, checkpoints, ranks=ranks)
    else:
        save_file(contiguous(assist(ARCH, data(), CONFIG, 0, ranks)), folder / "follower")
    state, losses = train_frozen(ranks)
    save_file(contiguous(state), folder / f"frozen-{ranks.rank}")
    (folder / f"losses-{ranks.rank}").write_text(json.dumps(losses))
    resumed, _ = train_frozen(ranks, num_alone=6)
    save_file(contiguous(resumed), folder / f"resumed-{ranks.rank}")
    ranks.part()


def contiguous(state: TrainingState) -> dict[str, torch.Tensor]:
    """Give the tensors of a state as safetensors wants them."""
    return {name: tensor.contiguous() for name, tensor in state.tensors().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
