"""Augmentation: each operation against torchvision's own, each policy against its table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import TrivialAugmentWide as TorchvisionTrivialAugment
from torchvision.transforms.v2 import functional as tv

from nas.augmentation import (
    AUTO_AUGMENT_BINS,
    CIFAR10_POLICY,
    TRIVIAL_AUGMENT_BINS,
    AutoAugment,
    Cutout,
    RandomCrop,
    RandomPerspective,
    TrivialAugment,
    auto_augment_ranges,
    magnitude_table,
    perspective_coefficients,
    trivial_augment_ranges,
)
from nas.batches import Batches, Normalization
from nas.image_ops import (
    GEOMETRIC,
    NUMBERS,
    apply_operations,
    change_all,
    change_chosen,
    perspective,
)
from nas.split import Split

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.batches import Augmentation
    from nas.image_ops import Operation

TRIVIAL_AUGMENT = trivial_augment_ranges(32)
TORCHVISION: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, m: sheared(image, x=m),
    "ShearY": lambda image, m: sheared(image, y=m),
    "TranslateX": lambda image, m: tv.affine(image, 0.0, [int(m), 0], 1.0, [0.0, 0.0]),
    "TranslateY": lambda image, m: tv.affine(image, 0.0, [0, int(m)], 1.0, [0.0, 0.0]),
    "Rotate": tv.rotate,
    "Brightness": lambda image, m: tv.adjust_brightness(image, 1.0 + m),
    "Color": lambda image, m: tv.adjust_saturation(image, 1.0 + m),
    "Contrast": lambda image, m: tv.adjust_contrast(image, 1.0 + m),
    "Sharpness": lambda image, m: tv.adjust_sharpness(image, 1.0 + m),
    "Posterize": lambda image, m: tv.posterize(image, int(m)),
    "Solarize": tv.solarize,
    "AutoContrast": lambda image, _: tv.autocontrast(image),
    "Equalize": lambda image, _: tv.equalize(image),
    "Invert": lambda image, _: tv.invert(image),
}
BLENDS = {"Color", "Contrast", "Sharpness"}  # a product and a sum that a CPU may round as one
AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": RandomCrop(4),
    "perspective": RandomPerspective(16),
    "auto": AutoAugment(16),
    "trivial": TrivialAugment(32),
    "cutout": Cutout(5, fill=99),
}

every_operation = pytest.mark.parametrize("name", NUMBERS)
every_augmentation = pytest.mark.parametrize("name", AUGMENTATIONS)


def operated(name: str) -> Operation:
    """The operation of a policy's name, as a policy applies it to all images of a batch."""

    def operation(images: Tensor, magnitudes: Tensor) -> Tensor:
        numbers = torch.full((len(images),), float(NUMBERS[name]))
        return apply_operations(images, numbers, magnitudes, [name])

    return operation


def sheared(image: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    degrees = [math.degrees(math.atan(slope)) for slope in (x, y)]
    return tv.affine(image, 0.0, [0, 0], 1.0, degrees, center=[0, 0])


def varied_images(num_images: int, side: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    """Noise; noise of low contrast; gray noise; gradients; one value."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_images, channels, side, side)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    images[1::5] = images[1::5] // 4 + 90
    images[2::5] = images[2::5, :1]
    images[3::5] = torch.linspace(0, 255, side).to(torch.uint8)
    images[4::5] = images[4::5, :, :1, :1]
    return images


def magnitudes_of(name: str) -> Tensor:
    """All bins of TrivialAugment, both signs."""
    ranges = {**TRIVIAL_AUGMENT, "Invert": TRIVIAL_AUGMENT["Equalize"]}
    return magnitude_table(ranges, TRIVIAL_AUGMENT_BINS)[:, NUMBERS[name]].flatten()


def by_torchvision(name: str, images: Tensor, magnitudes: Tensor) -> Tensor:
    pairs = zip(images, magnitudes.tolist(), strict=True)
    return torch.stack([TORCHVISION[name](image, magnitude) for image, magnitude in pairs])


def differences(found: Tensor, expected: Tensor) -> Tensor:
    assert found.dtype == expected.dtype == torch.uint8
    assert found.shape == expected.shape
    return (found.int() - expected.int()).abs()


# Operations


@every_operation
@pytest.mark.parametrize("side", [32, 24, 7])
def test_operation_equals_torchvisions_at_every_magnitude_of_the_policies(
    name: str, side: int
) -> None:
    magnitudes = magnitudes_of(name)
    images = varied_images(len(magnitudes), side)
    found = operated(name)(images, magnitudes)
    off = differences(found, by_torchvision(name, images, magnitudes))
    assert off.max() <= (1 if name in BLENDS else 0)
    assert (off > 0).float().mean() < 1e-3


@pytest.mark.parametrize("name", sorted(NUMBERS.keys() - {*GEOMETRIC}))
@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(0, 2**31))
def test_color_operation_equals_torchvisions_at_any_magnitude_and_size(
    name: str, num_images: int, channels: int, side: int, seed: int
) -> None:
    low, high, _ = TRIVIAL_AUGMENT.get(name, TRIVIAL_AUGMENT["Identity"])
    share = torch.rand(num_images, generator=torch.Generator().manual_seed(seed))
    low = -high if low == 0 else low
    magnitudes = low + (high - low) * share
    images = varied_images(num_images, side, channels, seed)
    found = operated(name)(images, magnitudes)
    off = differences(found, by_torchvision(name, images, magnitudes))
    assert off.max() <= (1 if name in BLENDS else 0)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_motion_equals_torchvisions_at_any_magnitude_but_where_two_pixels_are_equally_near(
    name: str,
) -> None:
    share = torch.rand(200, generator=torch.Generator().manual_seed(1)) * 2 - 1
    magnitudes = share * TRIVIAL_AUGMENT[name].high
    images = varied_images(200, 32)
    off = differences(operated(name)(images, magnitudes), by_torchvision(name, images, magnitudes))
    assert (off > 0).float().mean() < 1e-4


@every_operation
def test_computing_all_images_gives_the_same_as_computing_the_chosen_ones(name: str) -> None:
    magnitudes = magnitudes_of(name)
    images = varied_images(len(magnitudes))
    chosen = torch.rand(len(images), generator=torch.Generator().manual_seed(0)) < 0.4
    for chosen_here in (chosen, torch.zeros_like(chosen)):
        arguments = (chosen_here, operated(name), magnitudes)
        expected = change_all(images, *arguments)
        assert torch.equal(change_chosen(images.clone(), *arguments), expected)


def test_each_image_of_a_batch_gets_its_own_operation() -> None:
    numbers = torch.arange(len(NUMBERS)).repeat(5)
    images = varied_images(len(numbers))
    magnitudes = torch.linspace(0.1, 0.9, len(numbers))
    found = apply_operations(images, numbers.float(), magnitudes, NUMBERS)
    for i, number in enumerate(numbers.tolist()):
        operation = operated(list(NUMBERS)[number])
        expected = operation(images[i : i + 1], magnitudes[i : i + 1])
        assert torch.equal(found[i : i + 1], expected), list(NUMBERS)[number]


# Policies


@pytest.mark.parametrize("resolution", [32, 64])
def test_tables_of_trivial_augment_are_torchvisions(resolution: int) -> None:
    table = magnitude_table(trivial_augment_ranges(resolution), TRIVIAL_AUGMENT_BINS)
    space = TorchvisionTrivialAugment()._augmentation_space(31)
    assert list(TRIVIAL_AUGMENT) == list(space)
    assert_table_equals(table, space)


def test_trivial_augment_moves_small_images_by_a_side_at_most() -> None:
    numbers, magnitudes = TrivialAugment(16).draw(20_000, generator_of(0))[:, 0].unbind(1)
    for name in ("TranslateX", "TranslateY"):
        assert magnitudes[numbers == NUMBERS[name]].abs().max() == 16


@pytest.mark.parametrize("resolution", [32, 24, 16])
def test_tables_of_auto_augment_are_torchvisions(resolution: int) -> None:
    theirs = TorchvisionAutoAugment(AutoAugmentPolicy.CIFAR10)
    assert list(CIFAR10_POLICY) == theirs._get_policies(AutoAugmentPolicy.CIFAR10)
    table = magnitude_table(auto_augment_ranges(resolution), AUTO_AUGMENT_BINS)
    assert_table_equals(table, theirs._augmentation_space(10, (resolution, resolution)))


def assert_table_equals(table: Tensor, space: dict[str, tuple[Tensor, bool]]) -> None:
    for name, (magnitudes, is_signed) in space.items():
        plain, other_sign = table[:, NUMBERS[name]]
        assert torch.equal(plain, magnitudes.float().expand(len(plain))), name
        assert torch.equal(other_sign, -plain if is_signed else plain), name


def test_trivial_augment_draws_operations_signs_and_magnitudes_uniformly() -> None:
    num_images = 140_000
    numbers, magnitudes = TrivialAugment(32).draw(num_images, generator_of(0))[:, 0].unbind(1)
    counts = numbers.long().bincount(minlength=len(NUMBERS))
    counts = counts[[NUMBERS[name] for name in TRIVIAL_AUGMENT]].double()
    assert counts.sum() == num_images
    expected = num_images / len(TRIVIAL_AUGMENT)
    assert ((counts - expected) ** 2 / expected).sum() < 34.5  # chi-square, 13 degrees, p = 0.001
    rotations = magnitudes[numbers == NUMBERS["Rotate"]]
    values, counts = rotations.unique(return_counts=True)
    assert torch.equal(values, torch.cat((-values[31:].flip(0), values[30:])))
    assert len(values) == 61
    by_bin = counts[30:] + torch.cat((torch.zeros(1), counts[:30].flip(0)))
    expected = len(rotations) / 31
    assert ((by_bin - expected) ** 2 / expected).sum() < 59.7  # 30 degrees
    assert abs((rotations > 0).float().mean() - 30 / 62) < 0.02


@pytest.mark.parametrize("step", [0, 1])
def test_auto_augment_draws_each_step_as_often_as_its_policy_says(step: int) -> None:
    num_images = 100_000
    drawn = AutoAugment(32).draw(num_images, generator_of(0))[:, step]
    table = magnitude_table(auto_augment_ranges(32), AUTO_AUGMENT_BINS)
    expected: dict[tuple[int, float], float] = {}
    for pair in CIFAR10_POLICY:
        name, probability, magnitude_bin = pair[step]
        for sign in (0, 1):
            magnitude = table[sign, NUMBERS[name], magnitude_bin or 0].item()
            for key, p in (
                ((NUMBERS[name], magnitude), probability),
                ((NUMBERS["Identity"], 0.0), 1 - probability),
            ):
                expected[key] = expected.get(key, 0.0) + p / (2 * len(CIFAR10_POLICY))
    is_applied = drawn[:, 0] != NUMBERS["Identity"]
    drawn[:, 1] *= is_applied
    found, counts = drawn.unique(dim=0, return_counts=True)
    shares = dict(zip(map(tuple, found.tolist()), (counts / num_images).tolist(), strict=True))
    assert shares.keys() <= expected.keys()
    for key, share in expected.items():
        assert abs(shares.get(key, 0.0) - share) < 5 * math.sqrt(share / num_images), key


def test_auto_augment_applies_its_first_step_then_its_second() -> None:
    names, images = list(NUMBERS), varied_images(200, 32)
    auto = AutoAugment(32)
    drawn = auto.draw(200, generator_of(3))
    for image, result, steps in zip(images, auto.apply(images, drawn), drawn.tolist(), strict=True):
        expected = image
        for number, magnitude in steps:
            expected = TORCHVISION[names[int(number)]](expected, magnitude)
        assert differences(result, expected).max() <= 2


# The other augmentations


def test_crop_equals_torchvisions_at_the_same_place() -> None:
    images, crop = varied_images(200, 32), RandomCrop(4)
    drawn = crop.draw(200, generator_of(0))
    padded = tv.pad(images, [4, 4, 4, 4], fill=0)
    for image, result, (top, left) in zip(
        padded, crop.apply(images, drawn), drawn.tolist(), strict=True
    ):
        assert torch.equal(result, tv.crop(image, top, left, 32, 32))
    for axis in (0, 1):
        assert drawn[:, axis].unique().tolist() == list(range(9))


def corners_of(side: int) -> Tensor:
    last = side - 1
    return torch.tensor([[0, 0], [last, 0], [last, last], [0, last]])


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 40), st.integers(1, 8), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_perspective_equals_torchvisions_between_the_same_corners(
    side: int, num_images: int, channels: int, seed: int
) -> None:
    corners = corners_of(side)
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moves = torch.randint(side // 4 + 1, (num_images, 4, 2), generator=generator_of(seed))
    ends = corners + inwards * moves
    images = varied_images(num_images, side, channels, seed)
    found = perspective(images, perspective_coefficients(ends, side))
    for image, result, end in zip(images, found, ends.tolist(), strict=True):
        expected = tv.perspective(image, corners.tolist(), end, InterpolationMode.BILINEAR, fill=0)
        assert differences(result, expected).max() <= 1  # halves, rounded either way


@pytest.mark.parametrize("side", [32, 17])
def test_drawn_perspectives_move_every_second_image_as_far_as_torchvisions(side: int) -> None:
    random_perspective = RandomPerspective(side)
    drawn = random_perspective.draw(4000, generator_of(0))
    is_changed = drawn.any(1)
    assert abs(is_changed.float().mean() - 0.5) < 0.04
    images = varied_images(4000, side)
    results = random_perspective.apply(images, drawn)
    assert torch.equal(results[~is_changed], images[~is_changed])

    coefficients = torch.cat((drawn[is_changed], torch.ones(int(is_changed.sum()), 1)), 1)
    matrices = torch.linalg.inv(coefficients.view(-1, 3, 3).double())
    corners = corners_of(side).double()
    ends = torch.cat((corners, torch.ones(4, 1)), 1) @ matrices.transpose(1, 2)
    moves = (ends[..., :2] / ends[..., 2:] - corners).abs()
    torch.testing.assert_close(moves, moves.round(), atol=1e-3, rtol=0)
    farthest = int(0.5 * (side // 2))  # torchvision draws below int(scale * half) + 1
    for corner in range(4):
        for axis in (0, 1):
            found = moves[:, corner, axis].round().unique().tolist()
            assert found == list(range(farthest + 1))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_cutout_blanks_exactly_the_square_around_its_centre(
    side: int, size: int, seed: int
) -> None:
    images = varied_images(4, side, seed=seed)
    mean = torch.tensor([125, 123, 114], dtype=torch.uint8).view(1, 3, 1, 1)
    drawn = Cutout(size).draw(4, generator_of(seed))
    black, gray = (Cutout(size, fill).apply(images, drawn) for fill in (0, mean))
    centres = (drawn * side).long().tolist()
    for i, (row, column) in enumerate(centres):
        top, left = row - size // 2, column - size // 2
        rows = slice(max(top, 0), max(top + size, 0))
        columns = slice(max(left, 0), max(left + size, 0))
        expected = images[i].clone()
        expected[:, rows, columns] = 0
        assert torch.equal(black[i], expected)
        expected[:, rows, columns] = mean[0]
        assert torch.equal(gray[i], expected)


def test_cutout_is_centred_on_every_pixel_equally_often() -> None:
    centres = (Cutout(1).draw(160_000, generator_of(0)) * 4).long()
    counts = (centres[:, 0] * 4 + centres[:, 1]).bincount(minlength=16).double()
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 37.7  # chi-square, 15 degrees, p = 0.001


# All of them


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_augmentation
def test_each_image_follows_from_its_own_draw_alone(name: str) -> None:
    augmentation, images = AUGMENTATIONS[name], varied_images(60)
    drawn = augmentation.draw(60, generator_of(0))
    together = augmentation.apply(images, drawn)
    alone = [augmentation.apply(images[i : i + 1], drawn[i : i + 1]) for i in range(60)]
    assert torch.equal(together, torch.cat(alone))


@every_augmentation
def test_copies_of_one_image_become_different(name: str) -> None:
    augmentation = AUGMENTATIONS[name]
    images = varied_images(1).expand(60, -1, -1, -1)
    results = augmentation.apply(images, augmentation.draw(60, generator_of(0)))
    assert len(results.flatten(1).unique(dim=0)) > 20


@every_augmentation
def test_draws_follow_from_the_generator_alone(name: str) -> None:
    augmentation, before = AUGMENTATIONS[name], torch.get_rng_state()
    first, second, other = (augmentation.draw(50, generator_of(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@every_augmentation
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 2, 33])
def test_results_are_uint8_of_the_same_shape_and_the_images_are_kept(
    name: str, num_images: int, channels: int
) -> None:
    augmentation = AUGMENTATIONS[name]
    images = varied_images(num_images, channels=channels)
    before = images.clone()
    drawn = augmentation.draw(num_images, generator_of(num_images))
    assert (len(drawn), drawn.device.type) == (num_images, "cpu")
    result = augmentation.apply(images, drawn)
    assert (result.dtype, result.shape) == (torch.uint8, images.shape)
    assert torch.equal(images, before)


@every_augmentation
def test_applying_on_a_device_never_waits_for_it(name: str) -> None:
    """Tensors on "meta" have no content: whatever asks for it, raises."""
    augmentation = AUGMENTATIONS[name]
    drawn = augmentation.draw(8, generator_of(0)).to("meta")
    result = augmentation.apply(varied_images(8).to("meta"), drawn)
    assert (result.dtype, result.shape) == (torch.uint8, (8, 3, 16, 16))


@every_augmentation
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_cuda_gives_what_the_cpu_gives_without_waiting(name: str) -> None:
    augmentation, images = AUGMENTATIONS[name], varied_images(500)
    drawn = augmentation.draw(500, generator_of(0))
    on_device = (images.cuda(), drawn.cuda())
    augmentation.apply(*on_device)
    try:
        torch.cuda.set_sync_debug_mode("error")
        result = augmentation.apply(*on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    off = differences(result.cpu(), augmentation.apply(images, drawn))
    assert (off > 1).float().mean() < 1e-3


def test_batches_apply_them_in_order() -> None:
    images = varied_images(40)
    split = Split(images, torch.arange(40))
    settings: dict[str, Any] = {"augmentations": tuple(AUGMENTATIONS.values())}
    batches = Batches(split, Normalization.of(images), 20, 0, **settings)
    first, again, other = (
        torch.cat([shown for shown, _ in batches.epoch(epoch)]) for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
