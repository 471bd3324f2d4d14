import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.datasets import CIFAR10

from nas.batches import Batches, Normalization, RandomFlip, RandomTranslate, derived_generator
from nas.data import load_test_data, load_training_data
from nas.data_sets import DATASETS
from nas.errors import UserError
from nas.split import Split, resize, split_indices

DATA = Path(os.environ.get("NAS_DATA", "data"))
needs_cifar10 = pytest.mark.skipif(
    not (DATA / "cifar-10-batches-py").is_dir(),
    reason="NAS_DATA names no folder with cifar-10-batches-py",
)


def random_images(num_images: int, side: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_images, 3, side, side)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def numbered_batches(num_images: int, batch_size: int, **settings: object) -> Batches:
    """Batches of images whose label is their own index."""
    images = random_images(num_images)
    split = Split(images, torch.arange(num_images))
    return Batches(split, Normalization.of(images), batch_size, **{"seed": 0, **settings})


# The split


def test_split_of_cifar10_sized_labels_is_pinned_for_ever() -> None:
    train, val = split_indices(torch.arange(50_000) % 10)
    assert (len(train), len(val)) == (45_000, 5_000)
    digest = hashlib.sha256(val.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "a99ce6370eb4b121"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200))
def test_split_is_a_partition_with_a_tenth_of_every_class(labels: list[int]) -> None:
    tensor = torch.tensor(labels)
    train, val = split_indices(tensor)
    assert sorted(train.tolist() + val.tolist()) == list(range(len(labels)))
    for label in set(labels):
        assert (tensor[val] == label).sum() == round(0.1 * labels.count(label))


def test_split_of_a_class_ignores_the_other_classes() -> None:
    alone = split_indices(torch.zeros(50, dtype=torch.int64))[1]
    mixed = split_indices(torch.arange(100) % 2)[1]
    assert [i // 2 for i in mixed.tolist() if i % 2 == 0] == alone.tolist()


# Data sets


def test_unknown_data_set_is_answered_with_the_known() -> None:
    with pytest.raises(UserError, match="unknown data set 'mnist'; known: cifar10, cifar100"):
        load_training_data("mnist", "data")


def test_synthetic_data_are_pinned_by_fingerprint() -> None:
    data = load_training_data("synthetic", "nowhere")
    assert data.fingerprint == "5223480cb72bfb27"
    assert (len(data.train), len(data.val), data.num_classes) == (9_000, 1_000, 10)
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert data.val.labels.bincount().tolist() == [100] * 10


def test_synthetic_test_images_are_not_training_images() -> None:
    data, test = load_training_data("synthetic", "nowhere"), load_test_data("synthetic", "nowhere")
    training = {image.numpy().tobytes() for image in data.train_and_val.images}
    assert len(test) == 2_000
    assert len(training) == 10_000
    assert not training & {image.numpy().tobytes() for image in test.images}


def test_absent_cifar10_without_network_is_one_line_with_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError) as caught:
        load_training_data("cifar10", tmp_path / "absent")
    message = str(caught.value)
    for part in (str(tmp_path / "absent"), "data_batch_1", "refused", "--data", "synthetic"):
        assert part in message
    assert "\n" not in message
    assert capfd.readouterr().out == ""


def test_cifar10_where_no_folder_can_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"could not be downloaded there: .*; name its folder"):
        load_training_data("cifar10", tmp_path / "file" / "data")


def test_damaged_cifar10_file_is_named_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_3").write_bytes(b"half a download")
    with pytest.raises(UserError, match=r"data_batch_3 is damaged: its MD5 .*; remove it"):
        load_training_data("cifar10", tmp_path)
    assert (folder / "data_batch_3").read_bytes() == b"half a download"


@pytest.mark.cifar10
@needs_cifar10
def test_cifar10_is_split_in_45000_and_5000_with_500_of_each_class() -> None:
    data = load_training_data("cifar10", DATA)
    assert data.fingerprint == "722495c923789a2b"
    assert (len(data.train), len(data.val)) == (45_000, 5_000)
    assert data.val.labels.bincount().tolist() == [500] * 10
    assert data.class_names == tuple(CIFAR10(DATA).classes)
    assert len(load_test_data("cifar10", DATA)) == 10_000


@pytest.mark.cifar10
@needs_cifar10
def test_cifar10_with_one_file_missing_and_no_network_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.chmod(0o755)
    (folder / "data_batch_2").unlink()
    with pytest.raises(UserError, match=r"no cifar-10-batches-py/data_batch_2\)"):
        load_training_data("cifar10", tmp_path)


# Resizing and normalization


def test_halving_the_resolution_averages_two_by_two_pixels() -> None:
    images = random_images(5, side=4)
    small = resize(images, 2)
    blocks = images.view(5, 3, 2, 2, 2, 2).double().mean(dim=(3, 5))
    assert small.dtype == torch.uint8
    assert torch.equal(small, blocks.round().to(torch.uint8))


def test_broken_ratios_keep_a_constant_image_constant() -> None:
    images = torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(resize(images, 24), torch.full((2, 3, 24, 24), 77, dtype=torch.uint8))


@pytest.mark.parametrize("resolution", [7, 12, 24, 48])
def test_broken_ratios_resize_as_pillow_does(resolution: int) -> None:
    """Antialiased: every pixel counts, also where several become one."""
    (image,) = random_images(1, side=32)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
    pixels = np.asarray(pillow.resize((resolution, resolution), Image.Resampling.BILINEAR))
    resized = resize(image[None], resolution)[0].permute(1, 2, 0).numpy()
    assert abs(resized.astype(int) - pixels).max() <= 1


def test_own_resolution_is_not_copied() -> None:
    images = random_images(2)
    assert resize(images, 8) is images


@pytest.mark.parametrize(
    ("side", "resolution", "most"),
    [(32, 16, 8), (32, 24, 8), (64, 32, 2), (96, 64, 1), (8, 64, 2)],
)
def test_large_images_are_resized_fewer_at_a_time_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch, side: int, resolution: int, most: int
) -> None:
    interpolate, sizes = functional.interpolate, []

    def counted(images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sizes.append(len(images))
        return interpolate(images, *args, **kwargs)

    images = random_images(20, side)
    one_at_a_time = torch.cat([resize(image[None], resolution) for image in images])
    monkeypatch.setattr("nas.split.CHUNK", 8)
    monkeypatch.setattr(functional, "interpolate", counted)
    assert torch.equal(resize(images, resolution), one_at_a_time)
    assert (max(sizes), sum(sizes)) == (most, 20)


def test_normalized_images_have_mean_zero_and_deviation_one_a_channel() -> None:
    images = random_images(64) // torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1)
    values = Normalization.of(images)(images)
    assert values.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = values.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-5, rtol=0)


def test_constant_channel_normalizes_to_zero() -> None:
    images = torch.full((2, 1, 4, 4), 9, dtype=torch.uint8)
    assert torch.equal(Normalization.of(images)(images), torch.zeros(2, 1, 4, 4))


# Augmentation, against one image at a time


def reflected(position: int, side: int) -> int:
    while not 0 <= position < side:
        position = -position if position < 0 else 2 * (side - 1) - position
    return position


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(5, 9), st.integers(0, 20), st.integers(0, 2**31))
def test_translation_equals_moving_each_pixel_by_hand(
    num_images: int, side: int, max_offset: int, seed: int
) -> None:
    images, generator = random_images(num_images, side), torch.Generator().manual_seed(seed)
    translate = RandomTranslate(max_offset)
    drawn = translate.draw(num_images, generator)
    moved = translate.apply(images, drawn)
    for image, result, (down, right) in zip(images, moved, drawn.tolist(), strict=True):
        for i in range(side):
            for j in range(side):
                source = image[:, reflected(i + down, side), reflected(j + right, side)]
                assert torch.equal(result[:, i, j], source)


def test_offsets_reach_both_ends_in_both_directions() -> None:
    drawn = RandomTranslate(2).draw(1000, torch.Generator().manual_seed(0))
    for axis in (0, 1):
        assert drawn[:, axis].unique().tolist() == [-2, -1, 0, 1, 2]


def test_flip_mirrors_exactly_the_drawn_images() -> None:
    images, flip = random_images(100), RandomFlip()
    drawn = flip.draw(100, torch.Generator().manual_seed(0))
    for image, result, is_flipped in zip(images, flip.apply(images, drawn), drawn, strict=True):
        assert torch.equal(result, image.flip(-1) if is_flipped else image)
    assert 30 < drawn.sum() < 70


# Batches


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 70))
def test_every_epoch_shows_every_image_at_most_once_in_full_batches(
    num_images: int, batch_size: int
) -> None:
    batches = numbered_batches(num_images, batch_size)
    shown = [labels.tolist() for _, labels in batches.epoch(0)]
    seen = [label for labels in shown for label in labels]
    assert len(seen) == len(set(seen)) == batches.num_images
    assert len(shown) == batches.num_steps
    assert num_images - batches.num_images < batch_size
    assert {len(labels) for labels in shown} == {min(batch_size, num_images)}


def test_order_follows_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = numbered_batches(40, 10, seed=seed)
        return [int(i) for _, labels in batches.epoch(epoch) for i in labels]

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(*key)) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4


def test_keys_of_the_same_digits_have_streams_of_their_own() -> None:
    keys = [("batches", 1, 11), ("batches", 11, 1), ("batches", 111), ("weights", 111)]
    assert len({derived_generator(*key).initial_seed() for key in keys}) == len(keys)


def test_batches_hold_the_augmented_images_of_their_labels() -> None:
    augmentations = (RandomFlip(), RandomTranslate(2))
    batches = numbered_batches(20, 8, augmentations=augmentations)
    generator = derived_generator("batches", 0, 5)
    order = torch.randperm(20, generator=generator)[:16]
    expected = batches.split.images[order]
    for augmentation, drawn in [(a, a.draw(16, generator)) for a in augmentations]:
        expected = augmentation.apply(expected, drawn)
    shown = torch.cat([images for images, _ in batches.epoch(5)])
    assert torch.equal(shown, batches.normalization(expected))


class CountedFlip:
    """A `RandomFlip` that keeps how many images it changed at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.draw = RandomFlip().draw

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return RandomFlip().apply(images, drawn)


@pytest.mark.parametrize(
    ("side", "sizes"), [(8, [300]), (32, [300]), (64, [200, 100]), (96, [100, 100, 100])]
)
def test_large_images_are_augmented_fewer_at_a_time_to_the_same_result(
    side: int, sizes: list[int]
) -> None:
    images, flip = random_images(300, side), CountedFlip()
    split = Split(images, torch.arange(300))
    batches = Batches(split, Normalization.of(images), 100, 0, (flip,))
    generator = derived_generator("batches", 0, 1)
    order = torch.randperm(300, generator=generator)
    expected = flip.apply(images[order], flip.draw(300, generator))
    flip.sizes.clear()
    shown, labels = (torch.cat(parts) for parts in zip(*batches.epoch(1), strict=True))
    assert flip.sizes == sizes
    assert torch.equal(labels, order)
    assert torch.equal(shown, batches.normalization(expected))


@pytest.mark.parametrize("start", range(11))
def test_an_epoch_gone_on_from_any_batch_has_the_rest_of_them(start: int) -> None:
    """Of 64 pixels five batches of 50 are augmented at a time, and of ten two groups."""
    images = random_images(500, 64)
    split = Split(images, torch.arange(500))
    batches = Batches(split, Normalization.of(images), 50, 0, (RandomFlip(),))
    whole, rest = list(batches.epoch(0)), list(batches.epoch(0, start=start))
    assert len(rest) == 10 - start
    for one, other in zip(whole[start:], rest, strict=True):
        assert all(map(torch.equal, one, other))


def test_drawing_an_epoch_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    for _ in numbered_batches(20, 8, augmentations=(RandomFlip(), RandomTranslate(1))).epoch(0):
        assert torch.equal(torch.get_rng_state(), before)


def test_every_data_set_names_its_classes_once() -> None:
    for name, data_set in DATASETS.items():
        assert len(set(data_set.class_names)) == len(data_set.class_names), name
