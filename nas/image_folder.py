"""ImageFolder: images sorted in folders by class, with or without train, val and test."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from nas.errors import UserError, brief
from nas.presets import STUDIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image
    from torch import Tensor

# What Pillow raises, beside its own errors, at a damaged file or damaged metadata.
DAMAGE = (
    ValueError, SyntaxError, TypeError, LookupError, EOFError, ArithmeticError,
    AttributeError, RuntimeError, struct.error,
)  # fmt: skip
File = tuple["Path", int]
Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = get_args(Part)
# Also of what Pillow may not read here: such a file is named then, not left out.
ENDINGS = {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
LEAST_IMAGES = 10  # a class: one for val and, without a folder of its own, one for test
LOOK_LIKE_PARTS = {"training", "testing", "valid", "validation", "dev", "eval", *PARTS}
NUM_NAMED = 3  # unreadable files that an error names
READING = 3  # counts the ways in which `read_square` ever read


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
            UserError: No folder, fewer than two classes in it, or parts by other names.
        """
        self._refuse_unread_parts()
        self._refuse_outputs_among_classes()
        names = _folders(self._folder("train"))
        if len(names) < 2:
            number = "one folder" if names else "no folder"
            raise UserError(
                f"{self._folder('train')} has {number} of images; a class is a folder, and there "
                "must be two"
            )
        return names

    def _refuse_unread_parts(self) -> None:
        """Refuse folders that look like parts and would be left out, or be taken for classes."""
        folders = _folders(self.root)
        like = [name for name in folders if name.lower() in LOOK_LIKE_PARTS]
        unread = [name for name in like if name not in self.parts]
        has_train = any(name.lower().startswith("train") for name in like)
        if like and set(folders) <= {"val", "test"}:
            raise UserError(
                f"{self.root} has {' and '.join(folders)}, but no folder train; put the training "
                f"images into {self.root / 'train'}"
            )
        if unread and (has_train or len(like) == len(folders)):
            raise UserError(
                f"{self.root} has the folders {', '.join(like)}, which look like parts; the "
                f"names of parts are {', '.join(PARTS)}: rename or move away {', '.join(unread)}"
            )
        for name in unread:
            if _in_lower_case(_folders(self.root / name)) & _in_lower_case(folders):
                raise UserError(
                    f"{self.root / name} holds folders of the classes that it stands beside; move "
                    f"those into {self.root / 'train'}"
                )
        beside = [name for name in folders if name not in (*PARTS, *unread)] if self.parts else []
        if left_out := [name for name in beside if _images(self.root / name, on_error=None)]:
            raise UserError(
                f"{self.root} has the folder train, where classes are looked for, and images in "
                f"{', '.join(left_out)} beside it; rename train if it is a class, or move away "
                "what is beside it"
            )

    def _refuse_outputs_among_classes(self) -> None:
        """Refuse classes in the folder where the command runs, which gets `studies/`, too."""
        if not self.parts and self.root.resolve() == STUDIES.absolute().parent.resolve():
            raise UserError(
                f"the classes are folders of {self.root.resolve()}, where the command runs and "
                f"keeps {STUDIES}/; run it from another folder"
            )

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
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            _refuse_other_greys(image)
            upright = _in_eight_bits(ImageOps.exif_transpose(image), image.format).convert(mode)
        return np.array(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))
    except UnidentifiedImageError:
        raise UnreadableError("no known image format") from None
    except (OSError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or brief(error) or type(error).__name__
        raise UnreadableError(why) from None
    except DAMAGE as error:
        raise UnreadableError(type(error).__name__) from None


def _refuse_other_greys(image: Image.Image) -> None:
    """Refuse a TIFF that Pillow would take for one of 16 bits, with black as 0."""
    tags = getattr(image, "tag_v2", {})  # BitsPerSample, PhotometricInterpretation
    if image.mode.startswith("I;16") and (tags.get(258, (16,)) != (16,) or tags.get(262, 1) == 0):
        raise UnreadableError("12 bits a pixel, or white as 0; save it with 8")


def _in_eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Give an image that Pillow converts as it looks: what has more than 8 bits it cuts off."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PPM"):  # 16 bits, scaled
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnreadableError("a kind of pixels that is not read; save it with 8 bits each")
    if "transparency" in image.info:  # as bytes of a palette, of which Pillow warns
        return image.convert("RGBA")
    return image


def _folders(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None


def _in_lower_case(names: Sequence[str]) -> set[str]:
    return {name.lower() for name in names}


def _refuse_unreadable(error: OSError) -> None:
    raise UserError(f"cannot read {error.filename}: {error.strerror}") from None


def _images(
    folder: Path, *, on_error: Callable[[OSError], None] | None = _refuse_unreadable
) -> list[Path]:
    """List the images in a folder and all folders in it, each folder once.

    Links to folders are followed last, but none that leads to where it stands. Not what begins with
    a dot, such as a viewer's small copies.

    Args:
        folder: Where they are looked for; not there, it has none.
        on_error: Called with what a folder cannot be read for; with `None` that has no images.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    tops = [folder] if folder.is_dir() else []
    for top in tops:
        for place, folders, names in os.walk(top, onerror=on_error):
            real = Path(place).resolve()
            shown_folders = sorted(name for name in folders if name[0] != ".")
            folders[:] = [] if real in seen else shown_folders
            if real not in seen:
                shown = (Path(place, name) for name in names if name[0] != ".")
                found += [path for path in shown if path.suffix.lower() in ENDINGS]
            links = (path for name in folders if (path := Path(place, name)).is_symlink())
            tops += [link for link in links if not real.is_relative_to(link.resolve())]
            seen.add(real)
    return sorted(found)
