"""Batches on the device: order, augmentation and normalization, drawn an epoch at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from nas.distributed import ALONE, Ranks
from nas.split import num_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nas.split import Split

# Of 32 pixels a side, augmented at a time. An augmentation is many small operations, which cost as
# much for a few images as for many: on a CPU, in batches of 128, the whole of `seed` takes 63 us an
# image, 1024 at a time 41; on an H200 10.7 us 1024 at a time, 8192 at a time 2.6 (`strong` 5.2 and
# 2.8).
GROUP_IMAGES = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """Maps uint8 images to float32 with mean 0 and deviation 1 a channel, channels last.

    Attributes:
        mean: (1, C, 1, 1) float32, of pixels in 0..255.
        std: The same.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Normalization:
        """Measure uint8 (N, C, H, W), exactly: from counts of the 256 values a channel."""
        channels = images.cpu().transpose(0, 1).flatten(1)
        counts = torch.stack([c.bincount(minlength=256) for c in channels]).double()
        values = torch.arange(256, dtype=torch.float64)
        mean = (counts @ values) / counts.sum(1)
        variance = (counts @ values**2) / counts.sum(1) - mean**2
        std = variance.clamp(min=1.0).sqrt()  # a constant channel stays finite
        shape = (1, -1, 1, 1)
        return cls(*(t.float().view(shape).to(images.device) for t in (mean, std)))

    def __call__(self, images: Tensor) -> Tensor:
        """Normalize (N, C, H, W), uint8 or floating, to float32.

        Channels last is faster on the CPU too: forward and backward of two networks of 55k
        parameters by 3 to 140 % at 16 pixels, 16 to 85 % at 32 (float32, two cores, batches of
        128 to 512).
        Whole rows of pixels against rows of as many means take 5.2 us an image, (1, C, 1, 1)
        against (N, C, H, W) takes 8.6 (32 pixels, one core).
        """
        values = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        num_images, channels, height, width = images.shape
        rows = values.permute(0, 2, 3, 1).view(num_images * height, width * channels)
        rows.sub_(self.mean.flatten().repeat(width)).div_(self.std.flatten().repeat(width))
        return values


class Augmentation(Protocol):
    """A batched random change of images: drawn for a whole epoch on the CPU, applied on the device.

    A further augmentation is one more class with these two methods.
    """

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw what each image needs, (num_images, ...) on the CPU."""
        ...

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change uint8 (N, C, H, W), each image by its own row of `drawn` (N, ...)."""
        ...


@dataclass(frozen=True, slots=True)
class RandomFlip:
    """Mirror every second image, on average, left to right."""

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N,) bool."""
        return torch.rand(num_images, generator=generator) < 0.5

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Mirror the images that were drawn."""
        return torch.where(drawn.view(-1, 1, 1, 1), images.flip(-1), images)


@dataclass(frozen=True, slots=True)
class RandomTranslate:
    """Shift each image by up to `max_offset` pixels in x and y; borders are reflected.

    The same as padding with reflection and cropping at a random place.
    """

    max_offset: int

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw (N, 2) offsets, rows and columns, each -max_offset..max_offset."""
        low, high = -self.max_offset, self.max_offset + 1
        return torch.randint(low, high, (num_images, 2), generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Give pixel (i, j) the value at (i, j) + offset, reflected into the image."""
        height, width = images.shape[-2:]
        padded = images.index_select(2, self._positions(height, images.device))
        padded = padded.index_select(3, self._positions(width, images.device))
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        rows, columns = (drawn + self.max_offset).unbind(1)
        return windows[torch.arange(len(images), device=images.device), :, rows, columns]

    def _positions(self, side: int, device: torch.device) -> Tensor:
        """Give the sources of a padded line, mirrored at its first and its last pixel."""
        positions = torch.arange(-self.max_offset, side + self.max_offset, device=device)
        last = max(side - 1, 1)  # there and back is a period, for offsets longer than the line
        return (last - (positions % (2 * last) - last).abs()).clamp(max=side - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """Epochs of augmented, normalized batches of a split, on its device.

    The order and all randomness of an epoch follow from (seed, epoch) alone. They are drawn on the
    CPU and moved at once, so every device sees the same batches and none waits within an epoch.

    Attributes:
        split: The images.
        normalization: Of the train split, on the same device.
        batch_size: Images a step; the last, smaller batch is dropped, as batch norm would take its
            statistics from too few. A split smaller than one batch is one batch.
        seed: Of order and augmentation.
        augmentations: Applied in this order.
        ranks: The processes that share every batch; this one is yielded its part.
    """

    split: Split
    normalization: Normalization
    batch_size: int
    seed: int
    augmentations: Sequence[Augmentation] = ()
    ranks: Ranks = ALONE

    @property
    def num_steps(self) -> int:
        """Batches an epoch."""
        return max(1, len(self.split) // self.batch_size)

    @property
    def num_images(self) -> int:
        """Images an epoch: each at most once."""
        return self.num_steps * self.step_size

    @property
    def step_size(self) -> int:
        """Images a step, those of all ranks."""
        return min(len(self.split), self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (N, C, H, W) float32 images, channels last, and (N,) labels, `num_steps` times.

        The first `start` batches are left out; the others are the same as with them.
        """
        generator = derived_generator("batches", self.seed, epoch)
        order = torch.randperm(len(self.split), generator=generator)[: self.num_images]
        drawn = [a.draw(self.num_images, generator) for a in self.augmentations]
        plan = [t.to(self.split.labels.device, non_blocking=True) for t in (order, *drawn)]
        steps = list(zip(*(torch.split(t, self.batch_size) for t in plan), strict=True))
        most = GROUP_IMAGES[self.split.labels.device.type]
        at_a_time = num_at_a_time(most, self.split.images.shape[-1])
        steps_a_group = max(1, at_a_time // self.batch_size)
        for first in range(start - start % steps_a_group, self.num_steps, steps_a_group):
            group = self._augmented(steps[first : first + steps_a_group])
            for images, labels in group[max(0, start - first) :]:
                yield self.normalization(images), labels

    def _augmented(self, steps: Sequence[Sequence[Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Augment this rank's shares of some steps at once."""
        shares = [[self.ranks.share(t) for t in step] for step in steps]
        indices, *draws = (torch.cat(parts) for parts in zip(*shares, strict=True))
        images, labels = self.split.images[indices], self.split.labels[indices]
        for augmentation, drawn in zip(self.augmentations, draws, strict=True):
            images = augmentation.apply(images, drawn)
        sizes = [len(share[0]) for share in shares]
        return list(zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True))


def derived_generator(*key: str | int) -> torch.Generator:
    """Make a CPU generator whose stream is a function of `key`, unrelated for different keys."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))  # mt19937 takes 32 bits
