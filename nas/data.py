"""Data sets as uint8 images on a device: their train/val/test split, batches, augmentation."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SPLIT_SEED = 20_260_101  # of the train/val split; changing it makes every older study incomparable
VAL_FRACTION = 0.1
DOWNLOAD_TIMEOUT_SECONDS = 30.0  # of silence, before a download counts as failed
CHUNK = 4096  # images converted to float at a time when a whole data set is resized

Part = Literal["train", "test"]


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


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a search may see of a data set: train and val, never test.

    Attributes:
        name: Its name in `DATASETS`.
        train: Nine tenths of the official training images.
        val: The other tenth, stratified.
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
    def train_and_val(self) -> Split:
        """All training images, for a full training that is done choosing."""
        pairs = zip(
            (self.train.images, self.train.labels), (self.val.images, self.val.labels), strict=True
        )
        return Split(*(torch.cat(pair) for pair in pairs))


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set's class names and its reader of one part; the folder is where its files are."""

    class_names: tuple[str, ...]
    read: Callable[[Path, Part], Split]


def load_training_data(name: str, root: Path | str) -> TrainingData:
    """Read the training images of a data set, split in train and val.

    Args:
        name: A name of `DATASETS`.
        root: The folder of its files; made, and filled by a download, where that is possible.

    Raises:
        UserError: Unknown name, or files that are absent, damaged or unreadable; one line.
    """
    data_set = _data_set(name)
    split = data_set.read(Path(root), "train")
    train, val = split_indices(split.labels)
    fingerprint = _fingerprint(split)
    return TrainingData(
        name, split.select(train), split.select(val), data_set.class_names, fingerprint
    )


def load_test_data(name: str, root: Path | str) -> Split:
    """Read the test images: for the final number of a finished network, never for a choice.

    Raises:
        UserError: As `load_training_data`.
    """
    return _data_set(name).read(Path(root), "test")


def split_indices(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Split in (train, val): of each class the same tenth, for ever.

    Each image of a class, in file order, gets the next number of `Random(SPLIT_SEED + label)`'s
    `random()`; the tenth with the smallest numbers is val. Python guarantees that sequence over
    versions and machines (docs.python.org, random, "Notes on Reproducibility").

    Args:
        labels: (N,) int64.

    Returns:
        Indices of each part, ascending.
    """
    is_val = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        rng = random.Random(SPLIT_SEED + label)
        members = (labels == label).nonzero().flatten().tolist()
        drawn = sorted((rng.random(), member) for member in members)
        chosen = [member for _, member in drawn[: round(VAL_FRACTION * len(members))]]
        is_val[chosen] = True
    return (~is_val).nonzero().flatten(), is_val.nonzero().flatten()


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

    chunks = (shrink(chunk.float()) for chunk in torch.split(images, CHUNK))
    return torch.cat([chunk.round_().clamp_(0, 255).to(torch.uint8) for chunk in chunks])


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
        """Normalize (N, C, H, W) uint8 to float32.

        Channels last is faster on the CPU too: forward and backward of two networks of 55k
        parameters by 3 to 140 % at 16 pixels, 16 to 85 % at 32 (two cores, batches of 128 to 512).
        """
        values = images.to(torch.float32, memory_format=torch.channels_last)
        return values.sub_(self.mean).div_(self.std)


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
        rows = _reflected(drawn[:, :1], height)[:, None, :, None]
        columns = _reflected(drawn[:, 1:], width)[:, None, None, :]
        each = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
        channels = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
        return images[each, channels, rows, columns]


def _reflected(offsets: Tensor, side: int) -> Tensor:
    """Give (N, side) source positions for (N, 1) offsets, mirrored at the first and the last."""
    positions = torch.arange(side, device=offsets.device) + offsets
    return (side - 1) - ((side - 1) - positions.abs()).abs()


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
    """

    split: Split
    normalization: Normalization
    batch_size: int
    seed: int
    augmentations: Sequence[Augmentation] = ()

    @property
    def num_steps(self) -> int:
        """Batches an epoch."""
        return max(1, len(self.split) // self.batch_size)

    @property
    def num_images(self) -> int:
        """Images an epoch: each at most once."""
        return min(len(self.split), self.num_steps * self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (N, C, H, W) float32 images, channels last, and (N,) labels, `num_steps` times."""
        generator = derived_generator("batches", self.seed, epoch)
        order = torch.randperm(len(self.split), generator=generator)[: self.num_images]
        drawn = [a.draw(self.num_images, generator) for a in self.augmentations]
        plan = [t.to(self.split.labels.device, non_blocking=True) for t in (order, *drawn)]
        for indices, *draws in zip(*(torch.split(t, self.batch_size) for t in plan), strict=True):
            images = self.split.images[indices]
            for augmentation, drawn_here in zip(self.augmentations, draws, strict=True):
                images = augmentation.apply(images, drawn_here)
            yield self.normalization(images), self.split.labels[indices]


def derived_generator(*key: str | int) -> torch.Generator:
    """Make a CPU generator whose stream is a function of `key`, unrelated for different keys."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))  # mt19937 takes 32 bits


def _fingerprint(split: Split) -> str:
    digest = hashlib.sha256()
    for tensor in (split.images, split.labels):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _data_set(name: str) -> DataSet:
    try:
        return DATASETS[name]
    except KeyError:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}") from None


def _read_cifar10(root: Path, part: Part) -> Split:
    from torchvision.datasets import CIFAR10

    is_train = part == "train"
    try:
        try:
            files = CIFAR10(root, train=is_train)  # checks every file's MD5
        except RuntimeError:  # absent or damaged: it does not say which
            _download_if_absent(root)
            files = CIFAR10(root, train=is_train)
    except OSError as error:
        raise UserError(f"cannot read CIFAR-10 in {root}: {_reason(error)}") from None
    images = torch.from_numpy(files.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(files.targets))


def _download_if_absent(root: Path) -> None:
    """Download the files if any is absent; refuse damaged ones, which are not ours to replace."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = root / CIFAR10.base_folder
    checksums = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    checksums[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    for path in (folder / name for name in checksums):
        if path.is_file() and not check_integrity(path, checksums[path.name]):
            raise UserError(
                f"{path} is damaged: its MD5 is not the official {checksums[path.name]}; "
                "remove it to download it again, or name another folder with --data"
            )
    missing = next(name for name in checksums if not (folder / name).is_file())
    _download_cifar10(root, missing)


def _download_cifar10(root: Path, missing: str) -> None:
    from torchvision.datasets import CIFAR10

    try:
        root.mkdir(parents=True, exist_ok=True)
        with _connections_time_out(), contextlib.redirect_stdout(io.StringIO()):
            CIFAR10(root, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"CIFAR-10 is not in {root} (no {CIFAR10.base_folder}/{missing}) and could not be "
            f"downloaded there: {_reason(error)}; name its folder with --data, or run without "
            "files with --dataset synthetic"
        ) from None


@contextlib.contextmanager
def _connections_time_out() -> Iterator[None]:
    """Let no connection made within wait for ever: torchvision's download sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: BaseException) -> str:
    """Give what went wrong in one line: a network error hides the reason one level down."""
    cause = getattr(error, "reason", None) or error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())


def _read_synthetic(_root: Path, part: Part) -> Split:
    """Generate images whose class is the pair of patterns they show, among noise and a decoy.

    Class c shows patterns c and c + 3 (mod 10), each at a place and strength of its own, over a
    weaker one that means nothing: no pattern alone tells the class, nor does a place, so a network
    has to find patterns anywhere and combine them. Mirror images are as likely. All is drawn and
    added in whole numbers, so the images depend on torch's generator alone, not on the machine.
    """
    generator = torch.Generator().manual_seed(SYNTHETIC_SEEDS[part])
    labels = torch.arange(SYNTHETIC_NUM_IMAGES[part]) % len(SYNTHETIC_CLASSES)
    first = _placed_patterns(labels, (30, 80), generator)
    second = _placed_patterns((labels + 3) % len(SYNTHETIC_CLASSES), (30, 80), generator)
    decoys = torch.randint(len(SYNTHETIC_CLASSES), labels.shape, generator=generator)
    images = 128 + first + second + _placed_patterns(decoys, (10, 30), generator)
    for _ in range(2):
        images += torch.randint(-60, 61, images.shape, generator=generator, dtype=torch.int16)
    flip = RandomFlip()
    images = flip.apply(images, flip.draw(len(images), generator))
    return Split(images.clamp_(0, 255).to(torch.uint8), labels)


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
    shape = (len(SYNTHETIC_CLASSES), 3, num_cells, num_cells)
    cells = torch.randint(-1, 2, shape, generator=generator, dtype=torch.int16)
    patterns = cells.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    margin = 32 - PATTERN_SIDE
    return functional.pad(patterns, (0, margin, 0, margin))


PATTERN_SIDE = 12
SYNTHETIC_NUM_IMAGES: dict[Part, int] = {"train": 10_000, "test": 2_000}
SYNTHETIC_SEEDS: dict[Part, int] = {"train": 1, "test": 2}
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SYNTHETIC_CLASSES = tuple(f"pair-{label}" for label in range(10))

DATASETS = {
    "cifar10": DataSet(CIFAR10_CLASSES, _read_cifar10),
    "synthetic": DataSet(SYNTHETIC_CLASSES, _read_synthetic),
}
