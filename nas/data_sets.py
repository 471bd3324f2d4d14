"""Data sets: class names and files of each; to add one, write its reader and a line of DATASETS."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import itertools
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from nas import synthetic
from nas.errors import UserError
from nas.image_cache import prepared
from nas.image_folder import ImageFolder, Part, UnreadableError, read_square
from nas.split import Split, split_indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.image_folder import File

TEST_SEED = 20_260_102  # of the test images of a folder that names none
IMAGE_SIZE = 64  # pixels a side of a folder's images
DOWNLOAD_TIMEOUT_SECONDS = 30.0  # of silence, before a download counts as failed


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


def data_set(name: str) -> DataSet:
    """Find one by its name (UserError: there is none of that name)."""
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

    folder = root / "FashionMNIST" / "raw"
    kinds = itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1"))
    wanted = [folder / f"{which}-{kind}-ubyte" for which, kind in kinds]
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
    if len(files.data) != len(files.targets):
        raise UserError(
            f"{folder} has {len(files.data)} images and {len(files.targets)} labels of {part}; "
            "remove them to download them again"
        )
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
    """Take `folder:PATH@PIXELS` apart; without a number the images are of 64 pixels.

    Raises:
        UserError: No such form, or a number that is not 8 to 512.
    """
    match = re.fullmatch(r"folder:(.+?)(?:@([0-9]+))?", name)
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


def full_name(dataset: str, image_size: int | None) -> str:
    """Join `--dataset` and `--image-size` to the name of a data set (UserError: not a folder)."""
    if not isinstance(dataset, str):
        raise UserError(f"--dataset is a name or folder:PATH, not {dataset!r}")
    if not dataset.startswith("folder:"):
        if image_size is not None:
            raise UserError("--image-size is for --dataset folder:PATH; others have --resolution")
        return dataset
    if dataset == "folder:":
        raise UserError("--dataset folder: names no folder; write folder:PATH")
    if image_size is None and Path(dataset.removeprefix("folder:")).is_dir():
        image_size = IMAGE_SIZE  # also of a folder whose own name ends in @ and a number
    path, size = folder_and_size(dataset if image_size is None else f"{dataset}@{image_size}")
    path = path.rstrip("/") or "/"
    is_said = size != IMAGE_SIZE or bool(re.search(r"@[0-9]{1,4}$", path))
    return f"folder:{path}" + (f"@{size}" if is_said else "")


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
