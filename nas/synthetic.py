"""The synthetic data set: generated, learnable but not trivial; a good network beats a bad one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NUM_IMAGES = {"train": 10_000, "test": 2_000}
SEEDS = {"train": 1, "test": 2}
CLASSES = tuple(f"pair-{label}" for label in range(10))
PATTERN_SIDE = 12


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
    first = _placed_patterns(labels, (30, 80), generator)
    second = _placed_patterns((labels + 3) % len(CLASSES), (30, 80), generator)
    decoys = torch.randint(len(CLASSES), labels.shape, generator=generator)
    images = 128 + first + second + _placed_patterns(decoys, (10, 30), generator)
    for _ in range(2):
        images += torch.randint(-60, 61, images.shape, generator=generator, dtype=torch.int16)
    is_flipped = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(-1), images)
    return images.clamp_(0, 255).to(torch.uint8), labels


def _placed_patterns(
    which: Tensor, strengths: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Put pattern `which` (N,) somewhere in empty images, (N, 3, 32, 32) int16."""
    shape, low_high = (len(which), 1, 1, 1), (strengths[0], strengths[1] + 1)
    offsets = torch.randint(32 - PATTERN_SIDE + 1, (len(which), 2), generator=generator)
    strength = torch.randint(*low_high, shape, generator=generator, dtype=torch.int16)
    rows, columns = ((torch.arange(32) - start) % 32 for start in (offsets[:, :1], offsets[:, 1:]))
    channels = torch.arange(3).view(1, -1, 1, 1)
    index = which.view(shape), channels, rows[:, None, :, None], columns[:, None, None, :]
    return _patterns()[index] * strength


def _patterns() -> Tensor:
    """Draw the ten patterns, 6 x 6 cells of 2 x 2 pixels of -1, 0 or 1 a channel, top left."""
    generator = torch.Generator().manual_seed(0)
    num_cells = PATTERN_SIDE // 2
    shape = (len(CLASSES), 3, num_cells, num_cells)
    cells = torch.randint(-1, 2, shape, generator=generator, dtype=torch.int16)
    patterns = cells.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    margin = 32 - PATTERN_SIDE
    return functional.pad(patterns, (0, margin, 0, margin))
