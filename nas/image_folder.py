"""ImageFolder: images sorted in folders by class, with or without train, val and test."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

File = tuple["Path", int]
Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = get_args(Part)
ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
LEAST_IMAGES = 10  # a class: one for val and, without a folder of its own, one for test
NUM_NAMED = 3  # unreadable files that an error names
READING = 1  # counts the ways in which `read_square` ever read


@dataclass(frozen=True)
class ImageFolder:
    """The images under a folder.

    Attributes:
        root: Holds a folder a class, or `train` and possibly `val` and `test` with those.
        size: Pixels a side that images are resized to, by their short side, and cropped to.
    """

    root: Path
    size: int

    @cached_property
    def parts(self) -> frozenset[Part]:
        """The folders `train`, `val` and `test` that are there, where the first is."""
        found = {part for part in PARTS if (self.root / part).is_dir()}
        return frozenset(found if "train" in found else ())

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes, sorted.

        Raises:
            UserError: No folder, or fewer than two classes in it.
        """
        names = _folders(self._folder("train"))
        if len(names) < 2:
            raise UserError(
                f"{self._folder('train')} has {len(names)} folders of images; "
                "a class is a folder, and there must be two"
            )
        return names

    def _folder(self, part: Part) -> Path:
        return self.root / part if part in self.parts else self.root

    def files(self, part: Part) -> list[File]:
        """List the (path, label) of a part, sorted; all of them without folders for parts.

        Raises:
            UserError: A class with too few images or none, or a class that train lacks.
        """
        folder = self._folder(part)
        if unknown := sorted(set(_folders(folder)) - set(self.class_names)):
            raise UserError(f"{folder} has a class that train has not: {unknown[0]}")
        found = []
        least = LEAST_IMAGES if part == "train" else 1
        for label, name in enumerate(self.class_names):
            images = _images(folder / name)
            if len(images) < least:
                raise UserError(
                    f"{folder / name} has {len(images)} images; a class needs {least} at least"
                )
            found += [(path, label) for path in images]
        return found

    def read(self, paths: Sequence[Path]) -> Tensor:
        """Read images as (N, 3, size, size) uint8.

        Raises:
            UserError: Files that are no images; the first are named.
        """
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(self._read, paths))
        bad = [image for image in images if isinstance(image, str)]
        if bad:
            more = f" and {len(bad) - NUM_NAMED} more" if len(bad) > NUM_NAMED else ""
            raise UserError(
                f"{len(bad)} of {len(paths)} images cannot be read: "
                f"{', '.join(bad[:NUM_NAMED])}{more}; remove or replace them"
            )
        stacked = torch.from_numpy(np.stack([i for i in images if not isinstance(i, str)]))
        return stacked.permute(0, 3, 1, 2).contiguous()

    def _read(self, path: Path) -> np.ndarray | str:
        """Read an image, (size, size, 3), or give its path if it is none."""
        try:
            return read_square(path, self.size, "RGB")
        except UnreadableError as error:
            return f"{path} ({error})"


class UnreadableError(Exception):
    """Raised for a file that is no image; says in a word why."""


def read_square(path: Path, size: int, mode: str) -> np.ndarray:
    """Read the centre of an image file, the right way up, as (size, size, ...) uint8.

    Args:
        path: Of any format that Pillow reads.
        size: Pixels a side; the short side is resized to it.
        mode: Pillow's: "RGB", or "L" for grey, which has no last dimension.

    Raises:
        UnreadableError: Absent, or not an image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert(mode)
        return np.array(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableError(why) from None


def _folders(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path for path in files if path.name[0] != ".")
