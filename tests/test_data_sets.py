"""Data sets besides CIFAR-10: read from small files in their official format, split, searched."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import CIFAR100, FashionMNIST

import nas
from nas import Progress
from nas.architecture import Architecture
from nas.complexity import count_macs, count_params
from nas.data import TrainingData, load_test_data, load_training_data
from nas.data_sets import (
    CIFAR100_CLASSES,
    FASHION_MNIST_CLASSES,
    TEST_SEED,
    full_name,
    short_name,
)
from nas.errors import UserError
from nas.evaluation import evaluate, is_even
from nas.find_study import find_study
from nas.image_folder import ImageFolder, UnreadableError, read_square
from nas.retrain_progress import RetrainListener
from nas.split import Split, split_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.study import Study
    from torch import Tensor

RNG = np.random.default_rng(0)


# CIFAR-100


def write_cifar100(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten training images and one test image a class, with checksums of their own."""
    base = folder / CIFAR100.base_folder
    base.mkdir(parents=True)
    checksums = {}
    contents: dict[str, dict[str, Any]] = {
        name: {
            "data": RNG.integers(0, 256, (100 * each, 3 * 32 * 32), dtype=np.uint8),
            "fine_labels": list(range(100)) * each,
        }
        for name, each in (("train", 10), ("test", 1))
    }
    contents["meta"] = {"fine_label_names": list(CIFAR100_CLASSES)}
    for name, content in contents.items():
        raw = pickle.dumps(content)
        (base / name).write_bytes(raw)
        checksums[name] = hashlib.md5(raw).hexdigest()  # noqa: S324 - the format's own
    monkeypatch.setattr(CIFAR100, "train_list", [["train", checksums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", checksums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": checksums["meta"]})


def test_cifar100_has_100_classes_in_the_files_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(tmp_path, monkeypatch)
    data = load_training_data("cifar100", tmp_path)
    assert (len(data.train), len(data.val), data.num_classes) == (900, 100, 100)
    assert data.val.labels.bincount().tolist() == [1] * 100
    assert data.class_names == tuple(CIFAR100(tmp_path).classes) == tuple(sorted(CIFAR100_CLASSES))
    assert load_test_data("cifar100", tmp_path).images.shape == (100, 3, 32, 32)


def test_the_number_of_classes_enters_the_number_of_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(tmp_path, monkeypatch)
    arch = Architecture.of([1, 1], [8, 16])
    fitted = load_training_data("cifar100", tmp_path).fitted(arch)
    assert count_params(fitted) - count_params(arch) == 90 * (16 + 1)


# Fashion-MNIST


def write_fashion_mnist(folder: Path, each: int = 10) -> Tensor:
    """The four files, in MNIST's format; gives the training images (N, 28, 28)."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, seed in (("t10k", 1), ("train", 0)):
        images = np.random.default_rng(seed).integers(0, 256, (10 * each, 28, 28), dtype=np.uint8)
        labels = np.arange(10 * each, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return torch.from_numpy(images)


def test_fashion_mnist_is_grey_with_a_black_border_to_32_pixels(tmp_path: Path) -> None:
    images = write_fashion_mnist(tmp_path)
    data = load_training_data("fashion-mnist", tmp_path)
    whole = data.train_and_val.images
    assert (len(data.train), len(data.val)) == (90, 10)
    assert whole.shape == (100, 1, 32, 32)
    assert whole.sum() == images.sum(), "nothing but black was added"
    assert data.class_names == FASHION_MNIST_CLASSES == tuple(FashionMNIST.classes)
    assert data.fitted(Architecture.of([1], [8])).in_channels == 1


def test_a_download_that_was_interrupted_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    for variable in ("http_proxy", "https_proxy"):  # a port of this machine that nobody serves
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.* could not be downloaded"):
        load_training_data("fashion-mnist", tmp_path)


def test_images_and_labels_of_different_numbers_are_one_line(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    raw = tmp_path / "FashionMNIST" / "raw"
    shape = np.array((50,), ">i4").tobytes()
    (raw / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + shape + bytes(50))
    with pytest.raises(UserError, match="has 100 images and 50 labels of train"):
        load_training_data("fashion-mnist", tmp_path)


def test_a_damaged_fashion_mnist_file_is_one_line(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"half")
    with pytest.raises(UserError, match="holds damaged files"):
        load_training_data("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "title", "missing"),
    [
        ("cifar100", "CIFAR-100", "cifar-100-python/train"),
        ("fashion-mnist", "Fashion-MNIST", "FashionMNIST/raw/train-images-idx3-ubyte"),
    ],
)
def test_absent_files_without_network_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    title: str,
    missing: str,
) -> None:
    nobody = "http://127.0.0.1:9/"
    monkeypatch.setattr(CIFAR100, "url", nobody + "cifar-100-python.tar.gz")
    monkeypatch.setattr(FashionMNIST, "mirrors", [nobody])
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError) as caught:
        load_training_data(name, tmp_path / "absent")
    for part in (f"{title} is not in {tmp_path / 'absent'}", missing, "--data"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


# Folders of images


def write_images(folder: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30)) -> None:
    """Images whose class is told by their colour."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = RNG.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
            pixels[:, :, label % 3] += 150
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")


def images_of(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_a_folder_without_parts_keeps_a_tenth_of_each_class_for_test_and_for_val(
    tmp_path: Path,
) -> None:
    write_images(tmp_path, {"cat": 20, "dog": 40})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    name = f"folder:{tmp_path}@16"
    data, test = load_training_data(name, tmp_path), load_test_data(name, tmp_path)
    assert data.class_names == ("cat", "dog")
    assert test.labels.bincount().tolist() == [2, 4]
    assert data.val.labels.bincount().tolist() == [2, 4]
    assert data.train.labels.bincount().tolist() == [16, 32]
    assert data.train.images.shape[1:] == (3, 16, 16)
    seen = [images_of(split) for split in (data.train, data.val, test)]
    assert len(set.union(*seen)) == 60, "every image is in one part alone"


def test_a_folders_own_parts_are_kept(tmp_path: Path) -> None:
    for part, count in (("train", 10), ("val", 3), ("test", 2)):
        write_images(tmp_path / part, {"a": count, "b": count})
    name = f"folder:{tmp_path}@16"
    data, test = load_training_data(name, tmp_path), load_test_data(name, tmp_path)
    assert (len(data.train), len(data.val), len(test)) == (20, 6, 4)
    before = data.fingerprint
    (tmp_path / "val" / "a" / "000.png").unlink()
    load_training_data.cache_clear()
    assert load_training_data(name, tmp_path).fingerprint != before


def test_images_are_resized_by_their_short_side_and_cropped_at_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 16:44] = 200  # the middle square, and what its edge is smoothed with
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    data = load_training_data(f"folder:{tmp_path}@10", tmp_path)
    assert data.train.images.unique().tolist() == [200]


def test_grey_and_transparent_images_become_three_channels(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    Image.new("L", (9, 9), 77).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(tmp_path / "b" / "clear.png")
    data = load_training_data(f"folder:{tmp_path}@8", tmp_path)
    assert data.train_and_val.images.shape[1:] == (3, 8, 8)


def test_sixteen_bits_a_pixel_are_read_as_eight_and_more_are_refused(tmp_path: Path) -> None:
    grey = np.linspace(0, 65_535, 256).astype(np.uint16)
    Image.fromarray(np.tile(grey, (256, 1))).save(tmp_path / "grey.png")
    found = read_square(tmp_path / "grey.png", 256, "L")
    assert found[0].tolist() == (grey >> 8).tolist()
    assert (read_square(tmp_path / "grey.png", 256, "RGB") == found[:, :, None]).all()
    for name, dtype in (("int", np.int32), ("float", np.float32)):
        Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / f"{name}.tiff")
        with pytest.raises(UnreadableError, match="a kind of pixels that is not read"):
            read_square(tmp_path / f"{name}.tiff", 4, "L")


@pytest.mark.parametrize(("tag", "value"), [(258, 12), (262, 0)])
def test_twelve_bits_and_white_as_zero_are_refused_and_not_read_as_black(
    tmp_path: Path, tag: int, value: int
) -> None:
    path = tmp_path / "grey.tiff"
    Image.fromarray(np.full((4, 4), 0x808, np.uint16)).save(path)
    read_square(path, 4, "L")
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HHI", tag, 3, 1))  # a short number, of which there is one
    content[entry + 8 : entry + 10] = struct.pack("<H", value)
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="12 bits a pixel, or white as 0|no known"):
        read_square(path, 4, "L")


def test_what_pillow_cannot_decode_for_whatever_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fail(_image: Image.Image) -> Image.Image:
        raise RuntimeError("Failed to decode frame 0")  # as of a damaged AVIF

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    with pytest.raises(UnreadableError, match="RuntimeError"):
        read_square(tmp_path / "a.png", 4, "RGB")


def test_linked_folders_are_read_and_a_link_to_itself_ends(tmp_path: Path) -> None:
    write_images(tmp_path / "set", {"a": 10, "b": 10})
    write_images(tmp_path, {"elsewhere": 5})
    (tmp_path / "set" / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set" / "a")
    Image.new("L", (9, 9), 77).save(tmp_path / "set" / "b" / "grey.pgm")
    (tmp_path / "set" / "a" / "upwards").symlink_to(tmp_path / "set")
    write_images(tmp_path / "set" / "b", {"v2": 3})
    (tmp_path / "set" / "b" / "current").symlink_to("v2")
    files = ImageFolder(tmp_path / "set", 8).files("train")
    assert [label for _, label in files] == [0] * 15 + [1] * 14
    assert sum(path.parent.name == "v2" for path, _ in files) == 3, "the folder, not the link"


def test_of_two_links_to_a_folder_the_first_by_name_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "set", {"a": 10, "b": 10})
    write_images(tmp_path, {"elsewhere": 5})
    for place in ("y", "x"):
        (tmp_path / "set" / "a" / place).mkdir()
        (tmp_path / "set" / "a" / place / "link").symlink_to(tmp_path / "elsewhere")
    scandir = os.scandir

    class Backwards:
        """Gives a folder's entries in another file system's order."""

        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self._left = sorted(entries, key=lambda entry: entry.name)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Self:
            return self

        def __next__(self) -> os.DirEntry[str]:
            if not self._left:
                raise StopIteration
            return self._left.pop()

    monkeypatch.setattr(os, "scandir", Backwards)
    files = ImageFolder(tmp_path / "set", 8).files("train")
    assert {path.parts[-3] for path, _ in files if path.parent.name == "link"} == {"x"}


def test_a_subfolder_that_cannot_be_listed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    write_images(tmp_path / "a", {"more": 10})
    scandir = os.scandir

    def fail(path: str) -> Any:
        if str(path).endswith("more"):
            raise OSError(5, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(UserError, match=r"cannot read .*/a/more: Input/output error"):
        load_training_data(f"folder:{tmp_path}@8", tmp_path)
    write_images(tmp_path / "set" / "train", {"a": 10, "b": 10})
    (tmp_path / "set" / "nothing more").mkdir()  # beside the parts, such as a disk's lost+found
    assert len(ImageFolder(tmp_path / "set", 8).files("train")) == 20


def test_a_grey_map_of_sixteen_bits_is_read_as_eight(tmp_path: Path) -> None:
    (tmp_path / "g.pgm").write_bytes(b"P5 2 2 65535\n" + b"\x80\x40" * 4)
    assert read_square(tmp_path / "g.pgm", 2, "L").tolist() == [[128, 128], [128, 128]]


def test_a_palette_with_transparency_is_read_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "p.png", transparency=bytes([0, 128]))
    assert read_square(tmp_path / "p.png", 2, "RGB")[0, 0].tolist() == [10, 20, 30]
    assert not recwarn.list


def test_copies_in_hidden_folders_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    write_images(tmp_path / "a", {".thumbs": 5})
    data = load_training_data(f"folder:{tmp_path}@8", tmp_path)
    assert len(data.train) + len(data.val) == 18


@pytest.mark.parametrize("parts", ["Training Testing", "train valid test", "train Test"])
def test_parts_by_other_names_are_neither_classes_nor_left_out(tmp_path: Path, parts: str) -> None:
    for part in parts.split():
        write_images(tmp_path / part, {"a": 10, "b": 10})
    with pytest.raises(
        UserError, match=r"which look like parts; the names of parts are train, val"
    ):
        load_training_data(f"folder:{tmp_path}@8", tmp_path)


def test_a_class_called_train_hides_no_other(tmp_path: Path) -> None:
    write_images(tmp_path, {"bus": 10, "car": 10})
    write_images(tmp_path / "train", {"steam": 10, "electric": 10})
    (tmp_path / "docs").mkdir()
    with pytest.raises(UserError, match="where classes are looked for, and images in bus, car"):
        load_training_data(f"folder:{tmp_path}@8", tmp_path)


@pytest.mark.parametrize(("part", "name"), [("test", "a"), ("val", "a"), ("Valid", "A")])
def test_a_part_beside_the_classes_is_no_class(tmp_path: Path, part: str, name: str) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    write_images(tmp_path / part, {name: 10, "another": 10})
    with pytest.raises(UserError, match=f"{part} holds folders of the classes .*; move those into"):
        load_training_data(f"folder:{tmp_path}@8", tmp_path)


@pytest.mark.parametrize("is_in_parts", [False, True])
def test_classes_do_not_stand_beside_what_the_command_makes(
    folder: Path, *, is_in_parts: bool
) -> None:
    write_images(folder / "train" if is_in_parts else folder, {"a": 10, "b": 10})
    if is_in_parts:
        (folder / "studies").mkdir()
        assert load_training_data("folder:.@8", folder / "data").class_names == ("a", "b")
        return
    (folder / "elsewhere").mkdir()
    (folder / "studies").symlink_to(folder / "elsewhere")
    with pytest.raises(UserError, match="where the command runs and keeps studies/; run it from"):
        load_training_data("folder:.@8", folder / "data")


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    write_images(tmp_path, {"control": 10, "test": 10})
    assert load_training_data(f"folder:{tmp_path}@8", tmp_path).class_names == ("control", "test")


def test_metadata_that_pillow_cannot_write_again_make_a_file_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")

    def rewrite(_image: Image.Image) -> Image.Image:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(ImageOps, "exif_transpose", rewrite)
    with pytest.raises(UnreadableError, match="error"):
        read_square(tmp_path / "a.jpg", 4, "RGB")


HALF = Image.effect_noise((64, 64), 50)._repr_png_()[:2000]
HUGE = b"P4 20000 20000\n"  # the head of an image of so many pixels a side


@pytest.mark.parametrize(
    ("ending", "content", "why"),
    [
        ("jpg", b"no image", "no known image format"),
        ("ppm", HUGE, "Image size .* exceeds limit .*"),
        ("png", HALF, "image file is truncated.*"),
        *(
            (ending, b"no image", "no known image format")
            for ending in ("avif", "heic", "HEIC", "heif", "jfif", "jp2", "jpe")
        ),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, ending: str, content: bytes, why: str) -> None:
    write_images(tmp_path, {"a": 12, "b": 10}, (8, 8))
    for number in range(5):
        (tmp_path / "a" / f"bad{number}.{ending}").write_bytes(content)
    said = rf"of \d+ images cannot be read: .*bad\d\.{ending} \({why}\)"
    with pytest.raises(UserError, match=said) as caught:
        load_training_data(f"folder:{tmp_path}@8", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each decoding was of."""
    numbers: list[int] = []
    read = ImageFolder.read

    def counted(self: ImageFolder, paths: Sequence[Path]) -> Tensor:
        numbers.append(len(paths))
        return read(self, paths)

    monkeypatch.setattr(ImageFolder, "read", counted)
    return numbers


def loaded(folder: Path, size: int = 8) -> TrainingData:
    """Load as another process would."""
    load_training_data.cache_clear()
    return load_training_data(f"folder:{folder}@{size}", folder)


def test_a_folder_that_changed_since_the_search_is_not_looked_for_elsewhere(
    folder: Path, tiny: Callable[..., Study]
) -> None:
    write_images(folder / "pets", {"a": 12, "b": 12}, (8, 8))
    tiny(1, dataset="folder:pets", image_size=8)
    next((folder / "pets" / "a").iterdir()).unlink()
    load_training_data.cache_clear()
    with pytest.raises(UserError, match=r"not what study .* was scored on .*; with the images as"):
        nas.retrain(0, device="cpu")


def test_images_are_decoded_once_and_when_a_file_or_the_size_changes(
    tmp_path: Path, decoded: list[int]
) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    first, again = loaded(tmp_path), loaded(tmp_path)
    assert decoded == [18]
    assert torch.equal(first.train.images, again.train.images)
    assert again.fingerprint == first.fingerprint
    for path in (tmp_path / "a").iterdir():
        Image.new("RGB", (40, 30)).save(path)
    assert loaded(tmp_path).fingerprint != first.fingerprint
    assert loaded(tmp_path, 9).image_size == 9
    assert decoded == [18, 18, 18]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw[:99] + bytes([raw[99] ^ 1]) + raw[100:]]
)
def test_damaged_decoded_images_are_decoded_again(
    tmp_path: Path, decoded: list[int], damage: Callable[[bytes], bytes]
) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    first = loaded(tmp_path)
    (kept,) = (tmp_path / ".prepared").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert torch.equal(loaded(tmp_path).train.images, first.train.images)
    assert decoded == [18, 18]
    assert kept.read_bytes() == whole


def test_what_changes_while_it_is_decoded_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    read = ImageFolder.read

    def overtaken(self: ImageFolder, paths: Sequence[Path]) -> Tensor:
        for path in paths:
            Image.new("RGB", (40, 30)).save(path)
        return read(self, paths)

    monkeypatch.setattr(ImageFolder, "read", overtaken)
    assert loaded(tmp_path).train.images.max() == 0
    assert not (tmp_path / ".prepared").exists()


def test_where_decoded_images_cannot_be_kept_they_are_decoded_each_time(
    tmp_path: Path, decoded: list[int]
) -> None:
    write_images(tmp_path, {"a": 10, "b": 10})
    (tmp_path / ".prepared").write_text("no folder")
    assert loaded(tmp_path).fingerprint == loaded(tmp_path).fingerprint
    assert decoded == [18, 18]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 10}, "has one folder of images"),
        ({"a": 10, "b": 3}, "b has 3 images; a class needs 10 at least"),
        ({}, "has no folder of images"),
        ({"val/a": 10, "val/b": 10}, "has val, but no folder train; put the training images into "),
        ({"val/a": 10, "test/a": 10}, "has test and val, but no folder train; "),
    ],
)
def test_folders_that_cannot_be_split_are_one_line(
    tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    write_images(tmp_path, counts)
    with pytest.raises(UserError, match=message):
        load_training_data(f"folder:{tmp_path}", tmp_path)


def test_a_folder_without_a_name_is_one_line() -> None:
    with pytest.raises(UserError, match="names no folder; write folder:PATH"):
        full_name("folder:", None)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*nowhere: No such file"):
        load_training_data(f"folder:{tmp_path}/nowhere", tmp_path)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("cifar10", "cifar10"),
        ("folder:/a/b/my flowers!", "my_flowers_-64"),
        ("folder:pets/../cats@32", "cats-32"),
    ],
)
def test_a_folders_name_in_a_study_cannot_leave_the_folder(name: str, short: str) -> None:
    assert short_name(name) == short


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (63, 1), (64, 2), (96, 2)])
def test_the_stem_has_stride_2_from_64_pixels(tmp_path: Path, size: int, stride: int) -> None:
    write_images(tmp_path, {"a": 10, "b": 10}, (8, 8))
    data = load_training_data(f"folder:{tmp_path}@{size}", tmp_path)
    assert data.fitted(Architecture.of([1], [8])).stem_stride == stride
    assert data.at_scale(32) == size
    assert data.at_scale(16) == size // 2 or size == 63


# The metric


class Blind(torch.nn.Module):
    """Says class 0, whatever it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(images), 2)


@pytest.mark.parametrize(("counts", "accuracy"), [((30, 10), 0.5), ((20, 20), 0.5), ((4, 0), 1.0)])
def test_a_network_that_always_names_the_larger_class_scores_no_better(
    counts: tuple[int, int], accuracy: float
) -> None:
    labels = torch.tensor([0] * counts[0] + [1] * counts[1])
    split = Split(torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), labels)
    score = evaluate(Blind(), split, lambda images: images.float(), precision="float32")  # type: ignore[arg-type]
    assert score.accuracy == accuracy
    assert is_even(labels) == (counts[0] == counts[1] or 0 in counts)


# The whole way


def test_a_folder_of_64_pixel_images_is_searched_retrained_and_loaded(
    tiny: Callable[..., Study], folder: Path
) -> None:
    write_images(folder / "pets", {"cat": 30, "dog": 50, "owl": 20}, (64, 64))
    study = tiny(2, dataset="folder:pets", image_size=64)
    assert study.study_name == "pets-64-tiny-3k-tiny"
    identity = json.loads(study.user_attrs["identity"])
    assert identity["data"] == "folder:pets"
    assert identity["split"].endswith("accuracy is the mean over classes")
    assert identity["proxy.resolution"] == 16, "8 of 32 pixels are 16 of 64"
    arch = Architecture.from_json(study.best_trial.user_attrs["architecture_json"])
    assert (arch.num_classes, arch.stem_stride) == (3, 2)
    (done,) = nas.retrain(
        study.best_trial.number, device="cpu", epochs=1, batch_size=20, checkpoint_seconds=1e9
    )
    loaded = nas.load_model(done.folder)
    assert loaded.class_names == ("cat", "dog", "owl")
    assert loaded.resolution == 64
    assert find_study("pets-64-tiny-3k-tiny", None).study_name == study.study_name


def test_no_test_image_of_a_folder_that_grew_meanwhile_is_scored(folder: Path) -> None:
    write_images(folder / "pets", {"cat": 100, "dog": 100}, (16, 16))

    def grow(*_: object) -> None:
        for name in ("cat", "dog"):
            Image.new("RGB", (16, 16)).save(folder / "pets" / name / "-first.png")

    with pytest.raises(UserError, match="folder:pets@16 have changed while it was trained"):
        nas.retrain(
            model="ResNet-20",
            dataset="folder:pets",
            image_size=16,
            device="cpu",
            epochs=1,
            resolution=8,
            batch_size=50,
            listener=RetrainListener(on_start=grow),
        )


def test_no_finalist_is_scored_on_a_folder_that_grew_meanwhile(
    tiny: Callable[..., Study], folder: Path
) -> None:
    write_images(folder / "pets", {"cat": 20, "dog": 20}, (16, 16))

    def grow(*_: object) -> None:
        Image.new("RGB", (16, 16)).save(folder / "pets" / "cat" / "-first.png")
        load_training_data.cache_clear()  # as in a worker process that is started later

    with pytest.raises(UserError, match="images of folder:pets@16 have changed since study 's'"):
        tiny(
            2,
            dataset="folder:pets",
            image_size=16,
            study="s",
            finalists="1x1",
            progress=Progress(on_trial_end=grow),
        )


def test_a_folder_that_changed_between_two_calls_is_read_anew(folder: Path) -> None:
    write_images(folder / "pets", {"cat": 100, "dog": 100}, (16, 16))
    settings = {"device": "cpu", "epochs": 1, "resolution": 8, "batch_size": 50, "image_size": 16}
    load_training_data("folder:pets@16", Path("studies/data"))  # as a search does
    for name in ("cat", "dog"):
        Image.new("RGB", (16, 16)).save(folder / "pets" / name / "-first.png")
    nas.retrain(model="ResNet-20", dataset="folder:pets", **settings)
    latest = load_training_data("folder:pets@16", Path("studies/data"))
    test = images_of(load_test_data("folder:pets@16", folder))
    assert not test & images_of(latest.train_and_val)


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_a_test_image_that_cannot_be_read_is_named_before_anything_is_trained(
    tiny: Callable[..., Study], folder: Path, command: str
) -> None:
    begin = {
        "search": functools.partial(tiny, 1),
        "retrain": functools.partial(nas.retrain, model="ResNet-20", device="cpu", epochs=1),
    }[command]
    write_images(folder / "pets", {"cat": 20, "dog": 20}, (16, 16))
    every = ImageFolder(folder / "pets", 16).files("train")
    test = split_indices(torch.tensor([label for _, label in every]), TEST_SEED)[1]
    bad = every[int(test[0])][0]
    bad.write_bytes(bad.read_bytes()[:60])
    assert len(load_training_data("folder:pets", folder).train) > 0, "it is none of theirs"
    with pytest.raises(UserError, match=rf"cannot be read: pets/.*{bad.name} .*; remove"):
        begin(dataset="folder:pets")
    assert not list(folder.glob("studies/*.db"))


@pytest.mark.parametrize(("asked", "found"), [(None, 16), (8, 8)])
def test_a_recipes_resolution_grows_with_the_images_and_one_that_is_asked_for_does_not(
    folder: Path, asked: int | None, found: int
) -> None:
    write_images(folder / "pets", {"cat": 10, "dog": 10}, (64, 64))
    (folder / "net.json").write_text(Architecture.of([1], [4], num_classes=2).to_json())
    (folder / "own.toml").write_text("epochs = 1\nresolution = 8\nbatch_size = 10\n")
    options = {"dataset": "folder:pets", "recipe": "own.toml", "resolution": asked, "device": "cpu"}
    (done,) = nas.retrain(architecture="net.json", **options)
    assert nas.load_model(done.folder).resolution == found


def test_a_hand_made_network_is_fitted_to_classes_channels_and_size_of_the_images(
    folder: Path,
) -> None:
    write_images(folder / "pets", {"cat": 10, "dog": 10}, (64, 64))
    write_fashion_mnist(folder)
    (folder / "own.toml").write_text("epochs = 1\nresolution = 8\nbatch_size = 10\n")
    options, fitted = {"recipe": "own.toml", "resolution": 8, "data": folder, "device": "cpu"}, {}
    for dataset in ("folder:pets", "fashion-mnist"):
        (done,) = nas.retrain(model="ResNet-20", dataset=dataset, **options)
        arch = nas.load_model(done.folder).architecture
        fitted[dataset] = (arch.num_classes, arch.in_channels, arch.stem_stride)
    assert fitted == {"folder:pets": (2, 3, 2), "fashion-mnist": (10, 1, 1)}


@pytest.mark.parametrize("size", [None, 8, 64])
def test_a_folder_whose_name_ends_in_a_number_is_itself(folder: Path, size: int | None) -> None:
    write_images(folder / "photos@100", {"a": 10, "b": 10})
    write_images(folder / "photos", {"a": 10, "b": 10, "c": 10})
    data = load_training_data(full_name("folder:photos@100", size), folder)
    assert data.class_names == ("a", "b")
    assert data.image_size == (size or 64)
    assert load_training_data(full_name("folder:photos@16", None), folder).image_size == 16


def test_a_training_of_a_folder_goes_on_once_it_is_moved(
    tiny: Callable[..., Study], folder: Path
) -> None:
    write_images(folder / "beasts", {"cat": 20, "dog": 20}, (16, 16))
    tiny(1, dataset="folder:beasts", image_size=16, study="s")

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    train = functools.partial(
        nas.retrain, 0, device="cpu", epochs=2, batch_size=10, checkpoint_seconds=0
    )
    with pytest.raises(KeyboardInterrupt):
        train(listener=RetrainListener(on_step=stop))
    (folder / "beasts").rename(folder / "animals")
    steps: list[int] = []
    (done,) = train(
        dataset="folder:animals",
        image_size=16,
        listener=RetrainListener(on_step=lambda done, _total: steps.append(done)),
    )
    assert steps[0] == 4
    assert json.loads((done.folder / "config.json").read_text())["data"] == "folder:animals@16"


def test_a_study_of_a_folder_goes_on_however_its_path_is_typed_also_once_it_is_moved(
    tiny: Callable[..., Study], folder: Path
) -> None:
    write_images(folder / "beasts", {"cat": 20, "dog": 20}, (16, 16))
    tiny(1, dataset="folder:beasts/", study="s")
    assert len(tiny(2, dataset=f"folder:{folder}/beasts", image_size=64, study="s").trials) == 2
    (folder / "beasts").rename(folder / "animals")
    assert len(tiny(3, dataset="folder:animals", study="s").trials) == 3
    write_images(folder / "plants", {"cat": 20, "dog": 20}, (16, 16))
    with pytest.raises(UserError, match="cannot be compared: data_fingerprint is"):
        tiny(4, dataset="folder:plants", study="s")


@pytest.mark.parametrize(("size", "told"), [(32, None), (48, 48), (64, None), (96, 96)])
def test_multiply_adds_are_counted_for_the_folders_images(
    tiny: Callable[..., Study], folder: Path, size: int, told: int | None
) -> None:
    write_images(folder / "pets", {"cat": 20, "dog": 20}, (16, 16))
    most = 9_000_000
    study = tiny(2, dataset="folder:pets", image_size=size, max_macs=most)
    for trial in study.trials:
        arch = Architecture.from_json(trial.user_attrs["architecture_json"])
        assert trial.user_attrs["num_macs"] == count_macs(arch, size) <= most
    assert json.loads(study.user_attrs["identity"]).get("image_size") == told
