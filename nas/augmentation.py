"""Augmentations of full training: crop, perspective, AutoAugment, TrivialAugment, cutout.

Each but cutout (arXiv 1708.04552) is torchvision's of that name, drawn for an epoch and applied to
batches (`Augmentation`). Microseconds an image on one core, batches of 128 CIFAR-10 images: crop 3,
perspective 6, AutoAugment 15, TrivialAugment 10, cutout 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nas.image_ops import NUMBERS, apply_operations, change, perspective

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PERSPECTIVE_SHARE = 0.5  # of the images
PERSPECTIVE_REACH = 0.5  # how far a corner may move inwards, as a share of half a side


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """Pad with black on all sides and crop each image to its former size at a random place."""

    padding: int

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N, 2) upper left corners, row and column, in the padded image."""
        return torch.randint(2 * self.padding + 1, (num_images, 2), generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Cut out the drawn places."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (self.padding,) * 4)
        places = padded.unfold(2, height, 1).unfold(
            3, width, 1
        )  # a view: (N, C, row, column, H, W)
        each = torch.arange(len(images), device=images.device)
        return places[each, :, drawn[:, 0], drawn[:, 1]]


@dataclass(frozen=True, slots=True)
class RandomPerspective:
    """Look at every second image, on average, from another point of view.

    Attributes:
        resolution: Pixels a side, at least 5 (below, moved corners might span no convex shape).
    """

    resolution: int

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N, 8) float32 coefficients of `perspective`, zeros where an image is kept."""
        is_changed = torch.rand(num_images, generator=generator) < PERSPECTIVE_SHARE
        bound = int(PERSPECTIVE_REACH * (self.resolution // 2)) + 1
        moves = torch.randint(bound, (num_images, 4, 2), generator=generator)
        corners = _corners(self.resolution)
        inwards = torch.where(corners == 0, 1, -1)
        coefficients = torch.zeros(num_images, 8)
        ends = corners + inwards * moves[is_changed]
        coefficients[is_changed] = perspective_coefficients(ends, self.resolution)
        return coefficients

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change the images that were drawn."""
        return change(images.clone(), drawn.any(1), perspective, drawn)


def perspective_coefficients(ends: Tensor, resolution: int) -> Tensor:
    """Solve for the (N, 8) float32 coefficients that move the corners of an image to `ends`.

    Args:
        ends: (N, 4, 2) int64, x and y of where the upper left, upper right, lower right and lower
            left corner go.
        resolution: Pixels a side.
    """
    starts = _corners(resolution).double()
    system = torch.zeros(len(ends), 4, 2, 8, dtype=torch.float64)  # two equations a corner
    system[:, :, 0, :2] = system[:, :, 1, 3:5] = ends.double()
    system[:, :, 0, 2] = system[:, :, 1, 5] = 1.0
    system[..., 6:] = -starts[..., None] * ends[:, :, None]
    values = starts.flatten().expand(len(ends), 8)
    coefficients, info = torch.linalg.solve_ex(system.view(-1, 8, 8), values)
    is_singular = (info != 0)[:, None]  # 1 in 7,000 draws at 8 pixels, none at 16 and more
    kept: Tensor = coefficients.masked_fill(is_singular, 0.0)
    return kept.float()


def _corners(resolution: int) -> Tensor:
    last = resolution - 1
    return torch.tensor(((0, 0), (last, 0), (last, last), (0, last)))


class Range(NamedTuple):
    """Magnitudes of an operation, evenly spaced; every second one negated where `is_signed`."""

    low: float
    high: float
    is_signed: bool


UNUSED = Range(0.0, 0.0, is_signed=False)  # of operations that take no magnitude

TRIVIAL_AUGMENT_BINS = 31


def trivial_augment_ranges(resolution: int) -> Mapping[str, Range]:
    """Give what TrivialAugment's bins span: of translations 32 pixels, but no more than a side."""
    shift = Range(0.0, min(32.0, resolution), is_signed=True)
    share = Range(0.0, 0.99, is_signed=True)
    return {
        "Identity": UNUSED,
        "ShearX": share,
        "ShearY": share,
        "TranslateX": shift,
        "TranslateY": shift,
        "Rotate": Range(0.0, 135.0, is_signed=True),
        "Brightness": share,
        "Color": share,
        "Contrast": share,
        "Sharpness": share,
        "Posterize": Range(8.0, 2.0, is_signed=False),
        "Solarize": Range(255.0, 0.0, is_signed=False),
        "AutoContrast": UNUSED,
        "Equalize": UNUSED,
    }


Step = tuple[str, float, int | None]  # operation, probability, bin of its magnitude

AUTO_AUGMENT_BINS = 10
CIFAR10_POLICY: Sequence[tuple[Step, Step]] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)


def auto_augment_ranges(resolution: int) -> Mapping[str, Range]:
    """Give what AutoAugment's ten bins span for images of `resolution` pixels a side."""
    shift = Range(0.0, 150.0 / 331.0 * resolution, is_signed=True)
    share = Range(0.0, 0.9, is_signed=True)
    return {
        "ShearX": Range(0.0, 0.3, is_signed=True),
        "ShearY": Range(0.0, 0.3, is_signed=True),
        "TranslateX": shift,
        "TranslateY": shift,
        "Rotate": Range(0.0, 30.0, is_signed=True),
        "Brightness": share,
        "Color": share,
        "Contrast": share,
        "Sharpness": share,
        "Posterize": Range(8.0, 4.0, is_signed=False),
        "Solarize": Range(255.0, 0.0, is_signed=False),
        "AutoContrast": UNUSED,
        "Equalize": UNUSED,
        "Invert": UNUSED,
    }


def magnitude_table(ranges: Mapping[str, Range], num_bins: int) -> Tensor:
    """Give (2, operations, num_bins) float32 magnitudes, in [1] those of the other sign."""
    table = torch.zeros(2, len(NUMBERS), num_bins)
    for name, (low, high, is_signed) in ranges.items():
        magnitudes = torch.linspace(low, high, num_bins)
        if name == "Posterize":  # whole bits
            magnitudes.round_()
        table[0, NUMBERS[name]] = magnitudes
        table[1, NUMBERS[name]] = -magnitudes if is_signed else magnitudes
    return table


@dataclass(frozen=True, slots=True)
class TrivialAugment:
    """Change each image by one operation, uniformly drawn, at one of 31 magnitudes ("wide").

    Attributes:
        resolution: Pixels a side.
    """

    resolution: int

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N, 1, 2) float32: the operation's number and its magnitude."""
        ranges = trivial_augment_ranges(self.resolution)
        known = torch.tensor([NUMBERS[name] for name in ranges])
        chosen = known[torch.randint(len(known), (num_images,), generator=generator)]
        bins = torch.randint(TRIVIAL_AUGMENT_BINS, (num_images,), generator=generator)
        signs = torch.randint(2, (num_images,), generator=generator)
        table = magnitude_table(ranges, TRIVIAL_AUGMENT_BINS)
        return torch.stack((chosen, table[signs, chosen, bins]), -1)[:, None]

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Apply to each image its operation."""
        names = trivial_augment_ranges(self.resolution)
        return apply_operations(images, drawn[:, 0, 0], drawn[:, 0, 1], names)


@dataclass(frozen=True, slots=True)
class AutoAugment:
    """Change each image by one of the 25 pairs of operations learned for CIFAR-10.

    Attributes:
        resolution: Pixels a side.
    """

    resolution: int

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N, 2, 2) float32: for both steps the operation's number and its magnitude."""
        numbers = torch.tensor([[NUMBERS[name] for name, _, _ in pair] for pair in CIFAR10_POLICY])
        probabilities = torch.tensor([[p for _, p, _ in pair] for pair in CIFAR10_POLICY])
        bins = torch.tensor([[b or 0 for _, _, b in pair] for pair in CIFAR10_POLICY])
        pairs = torch.randint(len(CIFAR10_POLICY), (num_images,), generator=generator)
        is_applied = torch.rand(num_images, 2, generator=generator) <= probabilities[pairs]
        signs = torch.randint(2, (num_images, 2), generator=generator)
        table = magnitude_table(auto_augment_ranges(self.resolution), AUTO_AUGMENT_BINS)
        chosen = torch.where(is_applied, numbers[pairs], NUMBERS["Identity"])
        return torch.stack((chosen, table[signs, chosen, bins[pairs]]), -1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Apply to each image its first step, then its second."""
        for step in range(2):
            names = {pair[step][0]: None for pair in CIFAR10_POLICY}
            images = apply_operations(images, drawn[:, step, 0], drawn[:, step, 1], names)
        return images


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """Blank a square of each image, uniformly centred, so that borders cut it (arXiv:1708.04552).

    Attributes:
        size: Pixels a side of the square.
        fill: A value, or (1, C, 1, 1) uint8 on the device of the images: the mean, for example.
    """

    size: int
    fill: Tensor | int = 0

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N, 2) float32 centres, row and column, in [0, 1)."""
        return torch.rand(num_images, 2, generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Blank the drawn squares."""
        height, width = images.shape[-2:]
        rows = self._is_within(drawn[:, 0], height)[:, None, :, None]
        columns = self._is_within(drawn[:, 1], width)[:, None, None, :]
        is_blank = rows & columns
        blank = is_blank.to(torch.uint8) * self.fill
        return images * ~is_blank + blank  # torch.where takes ten times as long on the CPU

    def _is_within(self, centres: Tensor, side: int) -> Tensor:
        """Give (N, side): whether a row or column is in the square's."""
        starts = (centres * side).floor()[:, None] - self.size // 2
        positions = torch.arange(side, device=centres.device)
        return (positions >= starts) & (positions < starts + self.size)
