"""Split: labelled uint8 images, their resolution, and the tenth of them that is set aside."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SPLIT_SEED = 20_260_101  # of the train/val split; changing it makes every older study incomparable
VAL_FRACTION = 0.1
CHUNK = 4096  # of 32 pixels a side are converted to float at a time when a data set is resized


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Labelled images on one device.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def select(self, indices: Tensor) -> Split:
        """Keep the images at `indices` (M,), in that order."""
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device | str) -> Split:
        """Move both tensors."""
        return Split(self.images.to(device), self.labels.to(device))

    def resized(self, resolution: int) -> Split:
        """Resize to `resolution` pixels a side, antialiased, rounded to uint8."""
        return Split(resize(self.images, resolution), self.labels)


def split_indices(labels: Tensor, seed: int = SPLIT_SEED) -> tuple[Tensor, Tensor]:
    """Split in (train, val): of each class the same tenth, for ever.

    Each image of a class, in file order, gets the next number of `Random(seed + label)`'s
    `random()`; the tenth with the smallest numbers is val. Python guarantees that sequence over
    versions and machines (docs.python.org, random, "Notes on Reproducibility").

    Args:
        labels: (N,) int64.
        seed: Of the split.

    Returns:
        Indices of each part, ascending.
    """
    is_val = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        rng = random.Random(seed + label)
        members = (labels == label).nonzero().flatten().tolist()
        drawn = sorted((rng.random(), member) for member in members)
        chosen = [member for _, member in drawn[: round(VAL_FRACTION * len(members))]]
        is_val[chosen] = True
    return (~is_val).nonzero().flatten(), is_val.nonzero().flatten()


def num_at_a_time(num_small: int, resolution: int) -> int:
    """Give how many images have the pixels of `num_small` with 32 a side, no more than those."""
    return max(1, min(num_small, num_small * 32**2 // resolution**2))


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize uint8 (N, C, H, W) to (N, C, resolution, resolution) uint8.

    Whole ratios average areas; others are bilinear with antialiasing.
    """
    if images.shape[-2:] == (resolution, resolution):
        return images
    is_whole = all(side % resolution == 0 for side in images.shape[-2:])
    size = (resolution, resolution)

    def shrink(chunk: Tensor) -> Tensor:
        if is_whole:
            return functional.interpolate(chunk, size, mode="area")
        return functional.interpolate(
            chunk, size, mode="bilinear", align_corners=False, antialias=True
        )

    at_a_time = num_at_a_time(CHUNK, max(*images.shape[-2:], resolution))
    chunks = (shrink(chunk.float()) for chunk in torch.split(images, at_a_time))
    return torch.cat([chunk.round_().clamp_(0, 255).to(torch.uint8) for chunk in chunks])
