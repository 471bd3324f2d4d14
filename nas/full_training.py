"""train_in_full: a network trained by a recipe, saved on the way, going on from where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nas.batches import Batches, Normalization, derived_generator
from nas.checkpoint import Checkpoint
from nas.distributed import ALONE, Ranks
from nas.errors import UserError
from nas.evaluation import evaluate
from nas.interruption import Interruption
from nas.model import build_model
from nas.training import OnStep, start_training, train

if TYPE_CHECKING:
    from torch import nn

    from nas.architecture import Architecture
    from nas.checkpoint import Checkpoints
    from nas.data import TrainingData
    from nas.recipe import RetrainConfig
    from nas.split import Split
    from nas.training import EpochMetrics, TrainingConfig
    from nas.training_state import TrainingState

Row = dict[str, Any]  # of metrics.csv: EpochMetrics' fields, and val_accuracy where val is held out
OnRows = Callable[[list[Row]], None]


@dataclass(frozen=True, slots=True, eq=False)
class FullData:
    """The images of one full training, at its resolution, on its device.

    Attributes:
        train: What is trained on: all training images, or all but val.
        val: What every epoch is scored on, if it is held out.
        normalization: Of `train`.
        num_classes: Labels are below it.
    """

    train: Split
    val: Split | None
    normalization: Normalization
    num_classes: int

    @classmethod
    def prepare(
        cls, data: TrainingData, resolution: int, device: str, *, is_held_out: bool
    ) -> FullData:
        """Resize, move to the device, measure mean and deviation."""
        split = data.train if is_held_out else data.train_and_val
        train = split.resized(resolution).to(device)
        val = data.val.resized(resolution).to(device) if is_held_out else None
        return cls(train, val, Normalization.of(train.images), data.num_classes)

    def batches(self, config: RetrainConfig, seed: int, ranks: Ranks = ALONE) -> Batches:
        """Make the batches of a recipe and a seed, or this rank's share of them."""
        augmentations = config.make_augmentations(self.normalization)
        return Batches(
            self.train, self.normalization, config.batch_size, seed, augmentations, ranks
        )


@dataclass(frozen=True, slots=True)
class Listener:
    """Who wants to hear of a training.

    Attributes:
        on_step: Called with (steps done, steps in all) after each.
        on_rows: Called with the rows so far after each epoch, and before the first.
        on_warning: Told of damaged checkpoints.
    """

    on_step: OnStep = lambda _done, _total: None
    on_rows: OnRows = lambda _rows: None
    on_warning: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        model: The average of the weights where the recipe says so, else the last weights.
        rows: One an epoch.
        elapsed_seconds: Of training, over all interruptions.
        made_before: The provenance of processes that were stopped, where it is another one.
    """

    model: nn.Module
    rows: list[Row]
    elapsed_seconds: float
    made_before: list[Mapping[str, Any]]


def train_in_full(
    arch: Architecture,
    data: FullData,
    config: RetrainConfig,
    seed: int,
    checkpoints: Checkpoints,
    *,
    listener: Listener | None = None,
    ranks: Ranks = ALONE,
    is_compiled: bool = False,
) -> Trained:
    """Train `arch` by the whole recipe, from its newest checkpoint if there is one.

    On the same kind of CPU with the same number of threads the result is the same to the last bit,
    however often the training was interrupted. Ctrl-C and SIGTERM end it after the step, which is
    saved first.

    Args:
        arch: The network.
        data: At the resolution of `config`.
        config: The recipe.
        seed: Of initial weights, order and augmentation.
        checkpoints: Where to save, and to go on from.
        listener: Whom to tell.
        ranks: With several, this is the one that leads; the others `assist`.
        is_compiled: As in `train`.

    Raises:
        UserError: Network and data do not fit, or a checkpoint is not of this training.
        DivergedError: Loss or logits are no longer finite.
    """
    require_fit(arch, data)
    listener = listener or Listener()
    training = _Training.start(arch, data, config, seed, ranks, is_compiled=is_compiled)
    state = training.state
    saver = _Saver(state, checkpoints)
    saver.restore(listener.on_warning)

    def after_step(done: int, total: int) -> None:
        saver.save_if_due()
        listener.on_step(done, total)
        if interruption.is_waiting:
            saver.save()
            interruption.let_through()

    with Interruption() as interruption:
        listener.on_rows(saver.rows)
        for metrics in training.epochs(after_step):
            saver.rows.append(_row(metrics, state.result, data))
            saver.save_if_due(is_last=state.epoch == config.epochs)
            listener.on_rows(saver.rows)
    return Trained(state.result.eval(), saver.rows, saver.elapsed_seconds, saver.made_before)


def assist(
    arch: Architecture,
    data: FullData,
    config: RetrainConfig,
    seed: int,
    ranks: Ranks,
    *,
    is_compiled: bool = False,
) -> TrainingState:
    """Do this rank's share of a training that rank 0 leads with `train_in_full`.

    Returns:
        The last state, the same on all ranks.
    """
    training = _Training.start(arch, data, config, seed, ranks, is_compiled=is_compiled)
    for _ in training.epochs(lambda _done, _total: None):
        pass
    return training.state


@dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """What all ranks of a training have alike."""

    state: TrainingState
    batches: Batches
    config: TrainingConfig
    is_compiled: bool

    @classmethod
    def start(
        cls,
        arch: Architecture,
        data: FullData,
        config: RetrainConfig,
        seed: int,
        ranks: Ranks,
        *,
        is_compiled: bool,
    ) -> _Training:
        device = data.train.labels.device
        model = build_model(arch, generator=derived_generator("weights", seed), device=device)
        model = ranks.with_shared_statistics(model, device)
        state = start_training(model, config.training, device)
        return cls(state, data.batches(config, seed, ranks), config.training, is_compiled)

    def epochs(self, on_step: OnStep) -> Iterator[EpochMetrics]:
        """Train from the state of rank 0, yielding after each epoch."""
        ranks = self.batches.ranks
        ranks.take_state_of_leader(self.state)
        yield from train(
            self.state.model,
            self.batches,
            self.config,
            on_step=on_step,
            state=self.state,
            is_compiled=self.is_compiled,
        )
        ranks.require_identical(self.state)


def require_fit(arch: Architecture, data: FullData | TrainingData) -> None:
    """Refuse (UserError) data of other classes or channels than the network's."""
    asked = {
        "classes": (arch.num_classes, data.num_classes),
        "channels": (arch.in_channels, data.train.images.shape[1]),
    }
    for what, (wanted, found) in asked.items():
        if wanted != found:
            raise UserError(
                f"the network has {wanted} {what}, but the data have {found}; name another data "
                "set by --dataset, or another network"
            )


def _row(metrics: EpochMetrics, model: nn.Module, data: FullData) -> Row:
    row: Row = asdict(metrics)
    if data.val is not None:
        score = evaluate(
            model, data.val, data.normalization, flip_average=False, precision="float32"
        )
        row["val_accuracy"] = score.accuracy
    return row


class _Saver:
    """Saves a state, with the rows of its epochs, when a checkpoint is due."""

    def __init__(self, state: TrainingState, checkpoints: Checkpoints) -> None:
        self.rows: list[Row] = []
        self.made_before: list[Mapping[str, Any]] = []
        self._state, self._checkpoints = state, checkpoints
        self._started = self._saved = time.monotonic()
        self._elapsed_before = 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Of training, over all interruptions."""
        return self._elapsed_before + time.monotonic() - self._started

    def restore(self, on_warning: Callable[[str], None]) -> None:
        """Take the state of the newest checkpoint, if there is one."""
        found = self._checkpoints.load_newest(on_warning)
        if found is None:
            return
        self._state.restore(found.tensors, found.numbers["state"])
        self.rows = found.numbers["rows"]
        self._elapsed_before = found.numbers["elapsed_seconds"]
        own = self._checkpoints.made_with
        self.made_before = [each for each in found.made_with if each != own]

    def save_if_due(self, *, is_last: bool = False) -> None:
        """Save if the last one is old enough, or nothing more is to come."""
        if is_last or time.monotonic() - self._saved >= self._checkpoints.seconds:
            self.save()

    def save(self) -> None:
        """Save now."""
        numbers = {
            "state": self._state.numbers(),
            "rows": self.rows,
            "elapsed_seconds": self.elapsed_seconds,
        }
        made_with = [*self.made_before, self._checkpoints.made_with]
        self._checkpoints.save(
            self._state.step, Checkpoint(self._state.tensors(), numbers, made_with)
        )
        self._saved = time.monotonic()
