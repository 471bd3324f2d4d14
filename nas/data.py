"""Data: what a search may see of a data set, train and val; the test images apart from it."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas.data_sets import data_set
from nas.split import Split, split_indices

if TYPE_CHECKING:
    from nas.architecture import Architecture

LARGE_IMAGE = 64  # from so many pixels a side, the stem halves the resolution


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a search may see of a data set: train and val, never test.

    Attributes:
        name: Its name in `DATASETS`, or `folder:PATH`.
        train: Nine tenths of the training images, or all where the data set has its own val.
        val: The other tenth, stratified, or its own.
        class_names: One a label, in order.
        fingerprint: 16 hexadecimal digits of a SHA-256 over the training images and labels.
    """

    name: str
    train: Split
    val: Split
    class_names: tuple[str, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Count the classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[-1]

    @property
    def in_channels(self) -> int:
        """Count the channels."""
        return self.train.images.shape[1]

    @property
    def stem_stride(self) -> int:
        """Give the stride of the stem that images of this size need."""
        return 2 if self.image_size >= LARGE_IMAGE else 1

    def fitted(self, arch: Architecture) -> Architecture:
        """Give a network the classes and channels of these images, and a stem for their size."""
        return replace(
            arch,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            stem_stride=self.stem_stride,
        )

    def at_scale(self, resolution: int) -> int:
        """Scale a resolution meant for 32-pixel images, as presets give it, to these."""
        return max(8, min(512, round(resolution * self.image_size / 32)))

    @property
    def train_and_val(self) -> Split:
        """All training images, for a full training that is done choosing."""
        pairs = zip(
            (self.train.images, self.train.labels), (self.val.images, self.val.labels), strict=True
        )
        return Split(*(torch.cat(pair) for pair in pairs))


@functools.lru_cache(maxsize=1)
def load_training_data(name: str, root: Path | str) -> TrainingData:
    """Read the training images of a data set, split in train and val; the latest is kept.

    Args:
        name: A name of `DATASETS`, or `folder:PATH`.
        root: The folder of its files; made, and filled by a download, where that is possible.

    Raises:
        UserError: Unknown name, or files that are absent, damaged or unreadable; one line.
    """
    source = data_set(name)
    split = source.read(Path(root), "train")
    if source.has_val:
        train, val = split, source.read(Path(root), "val")
        digits = fingerprint(train, val)
    else:
        train, val = (split.select(indices) for indices in split_indices(split.labels))
        digits = fingerprint(split)
    return TrainingData(name, train, val, source.class_names, digits)


def load_anew(name: str, root: Path | str) -> TrainingData:
    """Load as `load_training_data` what is there now: a folder may have changed since."""
    if name.startswith("folder:"):
        load_training_data.cache_clear()
    return load_training_data(name, root)


def load_test_data(name: str, root: Path | str) -> Split:
    """Read the test images: for the final number of a finished network, never for a choice.

    `check_test_files` alone reads them earlier, and keeps nothing but their fingerprint.

    Raises:
        UserError: As `load_training_data`.
    """
    return data_set(name).read(Path(root), "test")


def check_test_files(name: str, root: Path | str) -> str | None:
    """Refuse a folder's test images that cannot be read before anything is trained; none is kept.

    Removed or added afterwards, images would change which of a folder's are whose part.

    Returns:
        The fingerprint of a folder's test images; `None` of other data sets.

    Raises:
        UserError: As `load_training_data`.
    """
    return fingerprint(load_test_data(name, root)) if name.startswith("folder:") else None


def fingerprint(*splits: Split) -> str:
    """Give 16 digits of a checksum of images and labels."""
    digest = hashlib.sha256()
    for tensor in (tensor for split in splits for tensor in (split.images, split.labels)):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
