"""Image operations for whole batches of uint8 images, each image at its own magnitude.

What torchvision.transforms.v2.functional does to one image, `OPERATIONS` do to (N, C, H, W) with
magnitudes (N,); a magnitude is what torchvision's TrivialAugmentWide means by it. Pixels are equal;
where a CPU rounds a product and its sum at once, those of Color, Contrast and Sharpness may be one
level off. Off the CPU nothing here waits: no shape depends on what a tensor holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Operation = Callable[[Tensor, Tensor], Tensor]

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
SHARE_OF_GRAY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision rounds them


def apply_operations(
    images: Tensor, numbers: Tensor, magnitudes: Tensor, names: Collection[str]
) -> Tensor:
    """Change each image by its own operation; gives a tensor of its own.

    Args:
        images: (N, C, H, W) uint8.
        numbers: (N,) of `NUMBERS`.
        magnitudes: (N,) float32.
        names: The operations that `numbers` may hold; no others are tried.
    """
    images = images.clone()
    first = NUMBERS[GEOMETRIC[0]]
    motions = torch.arange(first, first + len(GEOMETRIC), device=images.device)
    is_motion = numbers[:, None] == motions
    if not set(GEOMETRIC).isdisjoint(names):  # all five in one sampling
        images = change(images, is_motion.any(1), warp, is_motion * magnitudes[:, None])
    for name in names:
        if name in OPERATIONS:
            images = change(images, numbers == NUMBERS[name], OPERATIONS[name], magnitudes)
    return images


def change(images: Tensor, chosen: Tensor, operation: Operation, arguments: Tensor) -> Tensor:
    """Apply an operation with `arguments` (N, ...) to the `chosen` (N,) of images (N, C, H, W).

    On the CPU only these are computed, and changed in place. Elsewhere their number would have to
    be waited for, so all images are computed and these are taken.
    """
    if images.device.type == "cpu":
        return change_chosen(images, chosen, operation, arguments)
    return change_all(images, chosen, operation, arguments)


def change_chosen(
    images: Tensor, chosen: Tensor, operation: Operation, arguments: Tensor
) -> Tensor:
    """Compute the chosen images only, in place."""
    indices = chosen.nonzero().flatten()
    if not len(indices):
        return images
    changed = operation(images.index_select(0, indices), arguments.index_select(0, indices))
    return images.index_copy_(0, indices, changed)


def change_all(images: Tensor, chosen: Tensor, operation: Operation, arguments: Tensor) -> Tensor:
    """Compute all images and keep the chosen ones."""
    return torch.where(chosen.view(-1, 1, 1, 1), operation(images, arguments), images)


# Geometry


def warp(images: Tensor, motions: Tensor) -> Tensor:
    """Move each image by its row of (N, 5), in the order of `GEOMETRIC`, at most one not zero.

    Shears are slopes about the upper left corner, translations whole pixels (the rest is cut off),
    rotations degrees about the centre, counter-clockwise. Nearest pixel; black comes in.
    """
    height, width = images.shape[-2:]
    shear_x, shear_y, right, down, degrees = motions.unbind(1)
    cos, sin = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    rows = (
        (cos, shear_x - sin, shear_x * (0.5 * height) - right.trunc()),
        (shear_y + sin, cos, shear_y * (0.5 * width) - down.trunc()),
    )
    x = _centred(width, images.device)
    y = _centred(height, images.device).view(-1, 1)
    grid = [
        _plane(row, x, y) / (0.5 * side) for row, side in zip(rows, (width, height), strict=True)
    ]
    return _to_uint8(_sample(images.float(), grid, "nearest"))


def perspective(images: Tensor, coefficients: Tensor) -> Tensor:
    """Give pixel (x, y) the value at (ax + by + c, dx + ey + f) / (gx + hy + 1).

    Bilinear; black comes in. The outermost pixels fade to black twice, as torchvision's do: by the
    sampling and by the sampled mask of what is within the image.

    Args:
        images: (N, C, H, W) uint8.
        coefficients: (N, 8) float32, a to h.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) + 0.5
    y = (torch.arange(height, device=images.device) + 0.5).view(-1, 1)
    a, b, c, d, e, f, g, h = coefficients.unbind(1)
    depth = _plane((g, h, torch.ones_like(g)), x, y)
    grid = [
        _plane(row, x, y) / (0.5 * side) / depth - 1.0
        for row, side in (((a, b, c), width), ((d, e, f), height))
    ]
    masked = torch.cat((images, torch.ones_like(images[:, :1])), 1).float()
    sampled = _sample(masked, grid, "bilinear")
    return _to_uint8((sampled[:, :-1] * sampled[:, -1:]).round_())


def _centred(side: int, device: torch.device) -> Tensor:
    return torch.arange(side, device=device) - 0.5 * (side - 1)


def _plane(coefficients: tuple[Tensor, Tensor, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Give (N, H, W): a x + b y + c of coefficients of (N,), at (W,) and (H, 1)."""
    a, b, c = (coefficient.view(-1, 1, 1) for coefficient in coefficients)
    return a * x + (b * y + c)


def _sample(images: Tensor, grid: list[Tensor], mode: Literal["nearest", "bilinear"]) -> Tensor:
    """Sample float images at x and y, each (N, H, W), from -1 to 1 over the image."""
    points = torch.stack(grid, 1).movedim(1, -1)  # stacking at -1 takes six times as long
    return functional.grid_sample(images, points, mode, align_corners=False)


# Colour


def brightness(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Scale by 1 + magnitude."""
    return _to_uint8(images * (1.0 + _per_image(magnitudes)))


def color(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Move away from gray by magnitude; -1 is gray."""
    if images.shape[1] == 1:
        return images
    return _blend(images, _gray(images), magnitudes)


def contrast(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Move away from the image's mean gray by magnitude; -1 is the mean."""
    return _blend(images, _gray(images).mean((1, 2, 3), keepdim=True), magnitudes)


def sharpness(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Move away from the image smoothed by 3x3 weights of 1/13, 5/13 in the middle; not borders."""
    if min(images.shape[-2:]) <= 2:
        return images
    values = images.to(torch.int16)
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * values[..., 1:-1, 1:-1]
    result = images.float()
    inner = result[..., 1:-1, 1:-1]
    inner.addcmul_((total / 13.0).round_() - inner, -_per_image(magnitudes))
    return _to_uint8(result)


def posterize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Keep the `magnitude` highest bits."""
    levels = 2.0 ** (8.0 - magnitudes.trunc())
    return images & _to_uint8(256.0 - _per_image(levels))


def solarize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Invert pixels from magnitude up."""
    least = magnitudes.ceil().to(torch.uint8)  # comparing uint8 with float would convert each pixel
    return torch.where(images >= _per_image(least), ~images, images)


def auto_contrast(images: Tensor, _magnitudes: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a constant one is kept."""
    low = images.amin((2, 3), keepdim=True).float()
    high = images.amax((2, 3), keepdim=True).float()
    is_constant = low == high
    scale = ((high - low) * (1.0 / 255)).masked_fill_(is_constant, 1.0)
    return _to_uint8((images - low.masked_fill(is_constant, 0.0)) / scale)


def equalize(images: Tensor, _magnitudes: Tensor) -> Tensor:
    """Make the 256 values of each channel about equally frequent, by Pillow's rule."""
    pixels = images.flatten(2).long()
    counts = torch.zeros(*images.shape[:2], 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, pixels, counts.new_ones(1).expand_as(pixels))
    highest = images.flatten(2).amax(2, keepdim=True).long()
    step = (pixels.shape[-1] - counts.gather(2, highest)) // 255
    num_lower = counts.cumsum(2, dtype=torch.int32) - counts
    table = _to_uint8((num_lower + step // 2) / step)  # whole numbers: rounded down
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.to(torch.uint8).gather(2, pixels).view_as(images)


def invert(images: Tensor, _magnitudes: Tensor) -> Tensor:
    """Give 255 - value."""
    return ~images


def _per_image(magnitudes: Tensor) -> Tensor:
    return magnitudes.view(-1, 1, 1, 1)


def _to_uint8(values: Tensor) -> Tensor:
    return values.clamp_(0.0, 255.0).to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    """Give (N, 1, H, W) float32, whole numbers."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.unbind(1)
    of_red, of_green, of_blue = SHARE_OF_GRAY
    gray = red.mul(of_red).add_(green, alpha=of_green).add_(blue, alpha=of_blue)
    return gray.floor_()[:, None]


def _blend(images: Tensor, other: Tensor, magnitudes: Tensor) -> Tensor:
    magnitudes = _per_image(magnitudes)
    return _to_uint8(torch.addcmul(images * (1.0 + magnitudes), other, -magnitudes))


OPERATIONS: dict[str, Operation] = {
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
}
NUMBERS = {name: number for number, name in enumerate(("Identity", *GEOMETRIC, *OPERATIONS))}
