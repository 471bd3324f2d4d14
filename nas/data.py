"""Data sets as uint8 images: their files, their train/val/test split, their resolution."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import io
import random
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from nas import synthetic
from nas.errors import UserError
from nas.image_cache import prepared
from nas.image_folder import ImageFolder, Part, UnreadableError, read_square

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.architecture import Architecture
    from nas.image_folder import File

SPLIT_SEED = 20_260_101  # of the train/val split; changing it makes every older study incomparable
TEST_SEED = 20_260_102  # of the test images of a folder that names none
VAL_FRACTION = 0.1
IMAGE_SIZE = 64  # pixels a side of a folder's images
LARGE_IMAGE = 64  # from so many pixels a side, the stem halves the resolution
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

    def fitted(self, arch: Architecture) -> Architecture:
        """Give a network the classes and channels of these images, and a stem for their size."""
        return replace(
            arch,
            num_classes=self.num_classes,
            in_channels=self.train.images.shape[1],
            stem_stride=2 if self.image_size >= LARGE_IMAGE else 1,
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


Reader = Callable[[Path, Part], Split]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set's class names and its reader of one part; the folder is where its files are.

    Attributes:
        class_names: One a label, in order.
        read: Reads a part in a folder; "val" only where there is one.
        has_val: Whether there are validation images; else a part of the training images is.
    """

    class_names: tuple[str, ...]
    read: Reader
    has_val: bool = False


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
    if data_set.has_val:
        train, val = split, data_set.read(Path(root), "val")
        fingerprint = _fingerprint(train, val)
    else:
        train, val = (split.select(indices) for indices in split_indices(split.labels))
        fingerprint = _fingerprint(split)
    return TrainingData(name, train, val, data_set.class_names, fingerprint)


def load_test_data(name: str, root: Path | str) -> Split:
    """Read the test images: for the final number of a finished network, never for a choice.

    Raises:
        UserError: As `load_training_data`.
    """
    return _data_set(name).read(Path(root), "test")


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
    """Read an image file as (1, num_channels, resolution, resolution) uint8, as a folder's are.

    Args:
        path: Of any format that Pillow reads.
        resolution: Pixels a side.
        num_channels: 3, or 1 for grey.

    Raises:
        UserError: Absent, or not an image.
    """
    try:
        pixels = read_square(path, resolution, "L" if num_channels == 1 else "RGB")
    except UnreadableError as error:
        raise UserError(f"cannot read {path} as an image: {error}") from None
    return torch.from_numpy(pixels).reshape(1, resolution, resolution, -1).permute(0, 3, 1, 2)


def _fingerprint(*splits: Split) -> str:
    digest = hashlib.sha256()
    for tensor in (tensor for split in splits for tensor in (split.images, split.labels)):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _data_set(name: str) -> DataSet:
    if name.startswith("folder:"):
        return _folder(name)
    try:
        return DATASETS[name]
    except KeyError:
        known = ", ".join([*DATASETS, "folder:PATH"])
        raise UserError(f"unknown data set {name!r}; known: {known}") from None


def _cifar(name: str, title: str) -> Reader:
    """Make the reader of a data set in CIFAR's format, by torchvision's name of it."""

    def read(root: Path, part: Part) -> Split:
        from torchvision import datasets

        make = getattr(datasets, name)
        is_train = {"train": True, "test": False}[part]  # there is no other
        try:
            try:
                files = make(root, train=is_train)  # checks every file's MD5
            except RuntimeError:  # absent or damaged: it does not say which
                _refuse_damaged(make, root)
                _download(make, title, root)
                files = make(root, train=is_train)
        except OSError as error:
            raise UserError(f"cannot read {title} in {root}: {_reason(error)}") from None
        images = torch.from_numpy(files.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(files.targets))

    return read


def _checksums(make: Any) -> dict[str, str]:  # noqa: ANN401 - a class of torchvision's, untyped
    listed = dict([*make.train_list, *make.test_list])
    return {**listed, make.meta["filename"]: make.meta["md5"]}


def _refuse_damaged(make: Any, root: Path) -> None:  # noqa: ANN401
    """Refuse damaged files, which are not ours to replace."""
    from torchvision.datasets.utils import check_integrity

    for name, checksum in _checksums(make).items():
        path = root / make.base_folder / name
        if path.is_file() and not check_integrity(path, checksum):
            raise UserError(
                f"{path} is damaged: its MD5 is not the official {checksum}; "
                "remove it to download it again, or name another folder with --data"
            )


def _download(make: Any, title: str, root: Path) -> None:  # noqa: ANN401
    names = [f"{make.base_folder}/{name}" for name in _checksums(make)]
    missing = next(name for name in names if not (root / name).is_file())
    with _failed_download_in_one_line(title, root, missing):
        make(root, download=True)


@contextlib.contextmanager
def _failed_download_in_one_line(title: str, root: Path, missing: str) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _connections_time_out(), contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"{title} is not in {root} (no {missing}) and could not be "
            f"downloaded there: {_reason(error)}; name its folder with --data, or run without "
            "files with --dataset synthetic"
        ) from None


def _read_fashion_mnist(root: Path, part: Part) -> Split:
    """Read the 28-pixel images in grey, black around them to 32 pixels."""
    from torchvision.datasets import FashionMNIST

    prefix = {"train": "train", "test": "t10k"}[part]
    folder = root / "FashionMNIST" / "raw"
    wanted = [folder / f"{prefix}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    missing = next((path for path in wanted if not path.is_file()), None)
    if missing is not None:
        with _failed_download_in_one_line("Fashion-MNIST", root, str(missing.relative_to(root))):
            FashionMNIST(root, train=part == "train", download=True)
    try:
        files = FashionMNIST(root, train=part == "train")
    except OSError as error:
        raise UserError(f"cannot read Fashion-MNIST in {root}: {_reason(error)}") from None
    except (ValueError, AssertionError, RuntimeError, EOFError, KeyError, IndexError) as error:
        raise UserError(
            f"{folder} holds damaged files ({_reason(error)}); remove them to download them again"
        ) from None
    return Split(functional.pad(files.data[:, None], (2, 2, 2, 2)), files.targets.long())


def _folder(name: str) -> DataSet:
    """Make the data set of `folder:PATH` or `folder:PATH@PIXELS`."""
    path, size = folder_and_size(name)
    images = ImageFolder(Path(path), size)

    def files(part: Part) -> list[File]:
        if part == "val" or "test" in images.parts:
            return images.files(part)
        every = images.files("train")  # a tenth of each class is kept for test
        train, test = split_indices(torch.tensor([label for _, label in every]), TEST_SEED)
        return [every[index] for index in (test if part == "test" else train).tolist()]

    def read(root: Path, part: Part) -> Split:
        paths, labels = zip(*files(part), strict=True)
        pixels = prepared(
            paths, images.size, root / ".prepared", functools.partial(images.read, paths)
        )
        return Split(pixels, torch.tensor(labels))

    return DataSet(images.class_names, read, has_val="val" in images.parts)


def folder_and_size(name: str) -> tuple[str, int]:
    """Take `folder:PATH@PIXELS` apart; without a number the images are of 64 pixels."""
    match = re.fullmatch(r"folder:(.+?)(?:@([0-9]{1,4}))?", name)
    if match is None:
        raise UserError(f"{name!r} names no folder; write folder:PATH")
    size = int(match[2] or IMAGE_SIZE)
    if not 8 <= size <= 512:
        raise UserError(f"--image-size is from 8 to 512 pixels, not {size}")
    return match[1], size


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


def full_name(dataset: str, image_size: int | None) -> str:
    """Join `--dataset` and `--image-size` to the name of a data set (UserError: not a folder)."""
    if image_size is None:
        return dataset
    if not dataset.startswith("folder:"):
        raise UserError("--image-size is for --dataset folder:PATH; others have --resolution")
    return f"{dataset}@{image_size}"


def short_name(name: str) -> str:
    """Give a data set's name as part of a study's: of a folder its last part."""
    if not name.startswith("folder:"):
        return name
    path, size = folder_and_size(name)
    return re.sub(r"[^A-Za-z0-9_.]+", "_", Path(path).resolve().name).lstrip(".") + f"-{size}"


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip

CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905 - a hundred quotes less
)

DATASETS = {
    "cifar10": DataSet(CIFAR10_CLASSES, _cifar("CIFAR10", "CIFAR-10")),
    "cifar100": DataSet(CIFAR100_CLASSES, _cifar("CIFAR100", "CIFAR-100")),
    "fashion-mnist": DataSet(FASHION_MNIST_CLASSES, _read_fashion_mnist),
    "synthetic": DataSet(synthetic.CLASSES, _read_synthetic),
}
