"""RetrainConfig: a recipe of full training, read from a TOML preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, field_validator

from nas import presets
from nas.augmentation import AutoAugment, Cutout, RandomCrop, RandomPerspective, TrivialAugment
from nas.batches import RandomFlip, RandomTranslate
from nas.training import Precision, Schedule, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from nas.batches import Augmentation, Normalization

CROP_PIXELS = 4  # of a 32-pixel image, as usual since arXiv 1512.03385; scaled with the resolution
CUTOUT_PIXELS = 16  # likewise, arXiv 1708.04552, for CIFAR-10


def _scaled(pixels: int, resolution: int) -> int:
    return max(1, round(pixels * resolution / 32))


AUGMENTATIONS: dict[str, Callable[[int, Tensor], Augmentation]] = {
    "flip": lambda _side, _mean: RandomFlip(),
    "translate": lambda side, _mean: RandomTranslate(_scaled(CROP_PIXELS, side)),
    "crop": lambda side, _mean: RandomCrop(_scaled(CROP_PIXELS, side)),
    "perspective": lambda side, _mean: RandomPerspective(side),
    "autoaugment": lambda side, _mean: AutoAugment(side),
    "trivialaugment": lambda side, _mean: TrivialAugment(side),
    "cutout": lambda side, mean: Cutout(_scaled(CUTOUT_PIXELS, side), mean),
}
"""Name to what makes the augmentation, from pixels a side and the mean image (1, C, 1, 1) uint8."""


class RetrainConfig(presets.Config):
    """A recipe: one schedule of full training, for any network."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Passes over the training images."""

    resolution: Annotated[int, Field(ge=8, le=512)] = 32
    """Pixels a side."""

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 128
    """Images a step."""

    peak_lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Learning rate at the end of the warm-up, of the mean loss of a batch."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""

    is_nesterov: bool = True
    """Whether the momentum is of Nesterov's form."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    """L2, added to the gradient of convolution and linear weights."""

    is_decay_on_all: bool = False
    """Whether batch norm and biases decay as well."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over all classes."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps in which the learning rate rises from near zero."""

    schedule: Schedule = "cosine"
    """Form of the anneal to exactly zero at the end."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """What the running average of the full state keeps of itself a step; absent: no average."""

    augmentations: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of `AUGMENTATIONS`, in the order in which they are applied."""

    precision: Precision = "auto"
    """`auto` is bfloat16 where the device has it, else float16 on CUDA and float32 on a CPU."""

    @field_validator("augmentations")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in AUGMENTATIONS:
                known = ", ".join(AUGMENTATIONS)
                raise ValueError(f"unknown augmentation {name!r}; known: {known}")
        return names

    @classmethod
    def load(cls, name_or_file: str | Path, **settings: object) -> tuple[str, RetrainConfig]:
        """Read a preset or TOML file and change single settings, those that are not `None`.

        Returns:
            Its name, in which the changes show (`strong-epochs3`), and its content.

        Raises:
            UserError: No such recipe, or a setting that is wrong; one line.
        """
        name, config = presets.load("recipes", name_or_file, cls)
        given = {key: value for key, value in settings.items() if value is not None}
        changed = presets.changed(config, given)
        return name + presets.label(changed, given), changed

    @property
    def training(self) -> TrainingConfig:
        """The optimization settings among these."""
        return TrainingConfig(
            **self.model_dump(exclude={"resolution", "batch_size", "augmentations"})
        )

    def make_augmentations(self, normalization: Normalization) -> tuple[Augmentation, ...]:
        """Make what is done to training images."""
        mean = normalization.mean.round().to(torch.uint8)
        return tuple(AUGMENTATIONS[name](self.resolution, mean) for name in self.augmentations)
