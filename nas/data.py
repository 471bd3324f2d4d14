"""Data sets as uint8 images: their files, their train/val/test split, their resolution."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import io
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from nas import synthetic
from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nas.synthetic import Part

SPLIT_SEED = 20_260_101  # of the train/val split; changing it makes every older study incomparable
VAL_FRACTION = 0.1
DOWNLOAD_TIMEOUT_SECONDS = 30.0  # of silence, before a download counts as failed
CHUNK = 4096  # images converted to float at a time when a whole data set is resized


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


@functools.lru_cache(maxsize=1)
def load_training_data(name: str, root: Path | str) -> TrainingData:
    """Read the training images of a data set, split in train and val; the latest is kept.

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


def read_image(path: Path, resolution: int, num_channels: int) -> Tensor:
    """Read an image file as (1, num_channels, resolution, resolution) uint8: centre crop, resize.

    Args:
        path: Of any format that Pillow reads.
        resolution: Pixels a side.
        num_channels: 3, or 1 for grey.

    Raises:
        UserError: Absent, or not an image.
    """
    from PIL import Image, UnidentifiedImageError
    from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

    try:
        with Image.open(path) as file:
            image = file.convert("L" if num_channels == 1 else "RGB")
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image that Pillow can read") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from None
    return resize(center_crop(pil_to_tensor(image), [min(image.size)])[None], resolution)


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
    return Split(*synthetic.generate(part))


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

DATASETS = {
    "cifar10": DataSet(CIFAR10_CLASSES, _read_cifar10),
    "synthetic": DataSet(synthetic.CLASSES, _read_synthetic),
}
