"""The synthetic data set: generated, learnable but not trivial; a good network beats a bad one."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_IMAGES = {"train": 10_000, "test": 2_000}
SEEDS = {"train": 1, "test": 2}
CLASSES = tuple(f"pair-{label}" for label in range(10))
SIDE, PATTERN_SIDE = 32, 12


def generate(part: str) -> tuple[Tensor, Tensor]:
    """Generate images whose class is the pair of patterns they show, among noise and a decoy.

    Class c shows patterns c and c + 3 (mod 10), each at a place and strength of its own, over a
    weaker one that means nothing: no pattern alone tells the class, nor does a place, so a network
    has to find patterns anywhere and combine them. Mirror images are as likely. All is drawn and
    added in whole numbers, so the images depend on torch's generator alone, not on the machine.

    Args:
        part: "train" or "test".

    Returns:
        Images (N, 3, 32, 32) uint8 and labels (N,) int64.
    """
    generator = torch.Generator().manual_seed(SEEDS[part])
    labels = torch.arange(NUM_IMAGES[part]) % len(CLASSES)
    images = torch.full((len(labels), 3, SIDE, SIDE), 128, dtype=torch.int16)
    _add_patterns(images, labels, (30, 80), generator)
    _add_patterns(images, (labels + 3) % len(CLASSES), (30, 80), generator)
    decoys = torch.randint(len(CLASSES), labels.shape, generator=generator)
    _add_patterns(images, decoys, (10, 30), generator)
    for _ in range(2):
        images += torch.randint(-60, 61, images.shape, generator=generator, dtype=torch.int16)
    is_flipped = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(-1), images)
    return images.clamp_(0, 255).to(torch.uint8), labels


def _add_patterns(
    images: Tensor, which: Tensor, strengths: tuple[int, int], generator: torch.Generator
) -> None:
    """Add pattern `which` (N,) somewhere to each of (N, 3, 32, 32) int16 images."""
    shape, low_high = (len(which), 1, 1, 1), (strengths[0], strengths[1] + 1)
    offsets = torch.randint(SIDE - PATTERN_SIDE + 1, (len(which), 2), generator=generator)
    strength = torch.randint(*low_high, shape, generator=generator, dtype=torch.int16)
    rows, columns = (start.view(-1, 1) + torch.arange(PATTERN_SIDE) for start in offsets.unbind(1))
    image, channel = torch.arange(len(which)).view(shape), torch.arange(3).view(1, -1, 1, 1)
    window = image, channel, rows[:, None, :, None], columns[:, None, None, :]
    images[window] += _patterns()[which] * strength


def _patterns() -> Tensor:
    """Draw the ten patterns, 6 x 6 cells of 2 x 2 pixels of -1, 0 or 1 a channel."""
    generator = torch.Generator().manual_seed(0)
    num_cells = PATTERN_SIDE // 2
    shape = (len(CLASSES), 3, num_cells, num_cells)
    cells = torch.randint(-1, 2, shape, generator=generator, dtype=torch.int16)
    return cells.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
