"""run_proxy: one short schedule annealed to zero, scored on val; test is out of its reach."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from nas import presets
from nas.batches import Batches, Normalization, RandomFlip, RandomTranslate, derived_generator
from nas.errors import UserError
from nas.evaluation import Evaluation, evaluate
from nas.model import build_model
from nas.training import (
    DivergedError,
    OnStep,
    Precision,
    Schedule,
    TrainingConfig,
    train,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas.architecture import Architecture
    from nas.batches import Augmentation
    from nas.data import TrainingData
    from nas.split import Split


LEAST_LARGE = 1_000_000  # parameters; below, a CPU trains a network in minutes


class ProxyConfig(presets.Config):
    """One complete short schedule, the same for every network.

    Losses of rank correlation are those of Abdelfattah et al. (arXiv 2101.08134) on NAS-Bench-201.
    """

    epochs: Annotated[int, Field(ge=1, le=1000)]
    """Passes over train. Short schedules rank when finished, long ones when cut off do not."""

    resolution: Annotated[int, Field(ge=8, le=512)] = 32
    """Pixels a side. 16 cost next to no rank correlation there, 8 cost 0.16."""

    width_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Every width times this. A half cost next to nothing, a quarter 0.06; of networks of 100k
    parameters a half cost 0.10 (-0.02 to 0.29) and saved a third of the time
    (proxy_fidelity-cifar10-100k-16px.md)."""

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 512
    """Images a step."""

    peak_lr: Annotated[float, Field(gt=0, le=100)]
    """Learning rate at the end of the warm-up, of the mean loss of a batch."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD, Nesterov's form."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    """L2, added to the gradient of convolution and linear weights; not of batch norm or biases."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the target spread over all classes; 0.1-0.2 gained 0.2 points."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the steps in which the learning rate rises from near zero."""

    schedule: Schedule = "linear"
    """Form of the anneal to exactly zero at the end."""

    precision: Precision = "auto"
    """`auto` is bfloat16 where the device has it, else float16 on CUDA and float32 on a CPU."""

    translate: Annotated[int, Field(ge=0, le=64)] = 4
    """Largest shift in pixels of a 32-pixel image; scaled with the resolution."""

    flip: bool = True
    """Whether training images are mirrored at random."""

    flip_average: bool = True
    """Whether val logits are averaged over an image and its mirror image."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of initial weights, order and augmentation."""

    finalists: Annotated[str, Field(exclude=True)] = "0"
    """What a search does by default once it is complete, as `--finalists`; not part of a score."""

    @field_validator("finalists")
    @classmethod
    def _is_networks_and_seeds(cls, value: str) -> str:
        if not re.fullmatch("0|[1-9][0-9]{0,2}x[1-9][0-9]{0,2}", value):
            raise ValueError("it is a number of networks and one of seeds, such as 5x3, or 0")
        return value

    @classmethod
    def load(cls, name_or_file: str | Path, max_params: int) -> tuple[str, ProxyConfig]:
        """Read a preset or TOML file for a budget; gives its name and content.

        What its table `[small]` sets holds instead below a million parameters.

        Raises:
            UserError: As `presets.load`, of either half, whichever the budget; one line.
        """
        source, settings = presets.read("proxies", name_or_file)
        small = settings.pop("small", {})
        if not isinstance(small, dict):
            raise UserError(f"{source}: small is a table of settings, [small], not {small!r}")
        of_large = presets.validated(source, settings, cls)
        of_small = presets.validated(f"{source}, [small]", settings | small, cls)
        return Path(source).stem, of_small if max_params < LEAST_LARGE else of_large

    @property
    def training(self) -> TrainingConfig:
        """The optimization settings among these."""
        settings = {field.name for field in fields(TrainingConfig)}
        return TrainingConfig(**self.model_dump(include=settings))

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What is done to training images."""
        max_offset = round(self.translate * self.resolution / 32)
        flips = (RandomFlip(),) if self.flip else ()
        return (*flips, RandomTranslate(max_offset)) if max_offset else flips


@dataclass(frozen=True, slots=True, eq=False)
class ProxyData:
    """Train and val at one resolution on one device, prepared once for any number of runs.

    Attributes:
        train: Images to train on.
        val: Images to score.
        normalization: By the mean and deviation of train.
        num_classes: Of the labels.
    """

    train: Split
    val: Split
    normalization: Normalization
    num_classes: int

    @classmethod
    def prepare(
        cls, data: TrainingData, resolution: int, device: torch.device | str = "cpu"
    ) -> ProxyData:
        """Resize to `resolution` pixels a side, measure mean and deviation, move to the device."""
        train, val = (split.resized(resolution).to(device) for split in (data.train, data.val))
        return cls(train, val, Normalization.of(train.images), data.num_classes)

    def batches(self, config: ProxyConfig) -> Batches:
        """Make the batches that every network is trained on."""
        return Batches(
            self.train, self.normalization, config.batch_size, config.seed, config.augmentations
        )

    @property
    def resolution(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.labels.device


@dataclass(frozen=True, slots=True)
class ProxyResult:
    """What one proxy run measured.

    Attributes:
        val_accuracy: In [0, 1], after the last step.
        val_loss: Mean cross-entropy there.
        train_losses: One an epoch.
        elapsed_seconds: All of the run: building, training, validation.
        num_micro_batches: Parts each batch was split in.
    """

    val_accuracy: float
    val_loss: float
    train_losses: tuple[float, ...]
    elapsed_seconds: float
    num_micro_batches: int


def run_proxy(
    arch: Architecture,
    data: ProxyData,
    config: ProxyConfig,
    *,
    on_step: OnStep | None = None,
    num_micro_batches: int = 1,
) -> ProxyResult:
    """Train `arch` by the whole schedule of `config` and score it on val.

    The same config and data give every network the same batches; on the same kind of CPU with the
    same number of threads also the same result to the last bit. Arguments and errors are those of
    `train_proxy`.
    """
    start = time.perf_counter()
    model, losses = train_proxy(
        arch, data, config, on_step=on_step, num_micro_batches=num_micro_batches
    )
    score = evaluate(
        model,
        data.val,
        data.normalization,
        flip_average=config.flip_average,
        precision=config.precision,
    )
    _require_finite(score)
    elapsed = time.perf_counter() - start
    return ProxyResult(score.accuracy, score.loss, losses, elapsed, num_micro_batches)


def train_proxy(
    arch: Architecture,
    data: ProxyData,
    config: ProxyConfig,
    *,
    on_step: OnStep | None = None,
    num_micro_batches: int = 1,
) -> tuple[nn.Module, tuple[float, ...]]:
    """Train `arch` by the whole schedule of `config`; gives the model and its loss each epoch.

    Args:
        arch: The network, before `width_factor`.
        data: At the resolution of `config`; a training set smaller than a batch is one batch.
        config: The schedule.
        on_step: Called with (steps done, steps in all) after each; what it raises ends the run.
        num_micro_batches: As in `train`.

    Raises:
        ValueError: Network, data and config do not fit together.
        DivergedError: Loss or logits are no longer finite.
    """
    model, batches = start_proxy(arch, data, config)
    epochs = train(
        model, batches, config.training, on_step=on_step, num_micro_batches=num_micro_batches
    )
    return model, tuple(metrics.train_loss for metrics in epochs)


def start_proxy(
    arch: Architecture, data: ProxyData, config: ProxyConfig
) -> tuple[nn.Module, Batches]:
    """Make what `train_proxy` trains, and on what; raises ValueError where they do not fit."""
    _require_fit(arch, data, config)
    generator = derived_generator("weights", config.seed)
    model = build_model(arch.scaled(config.width_factor), generator=generator, device=data.device)
    return model, data.batches(config)


def _require_fit(arch: Architecture, data: ProxyData, config: ProxyConfig) -> None:
    asked = {
        "resolution": (config.resolution, data.resolution),
        "number of classes": (arch.num_classes, data.num_classes),
        "number of channels": (arch.in_channels, data.train.images.shape[1]),
    }
    for what, (wanted, found) in asked.items():
        if wanted != found:
            raise ValueError(f"{what}: {wanted} asked for, but the data have {found}")


def _require_finite(score: Evaluation) -> None:
    if not math.isfinite(score.loss):
        raise DivergedError(f"the validation loss is {score.loss}")
