"""BLOCKS: each block type's module builder beside its closed-form cost.

To add a block type:

1. write its cost: a function from `BlockShape` and the side of its input to `Cost`;
2. write its builder: a function from `BlockShape` to the module that the cost describes,
   importing torch inside, so that counting never waits for torch; the module's forward pass
   must not wait for the device (`.item()`, boolean indexing), for CUDA replays it;
3. add one line to `BLOCKS`.

`tests/test_counts.py` then compares the two for every entry of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from nas.architecture import BlockShape


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of a network costs.

    Attributes:
        num_params: Trainable parameters.
        num_buffers: Values that are stored but not trained (batch norm's running statistics).
        num_macs: Multiply-adds of convolutions and linear layers, one image, forward.
        num_activations: Values that convolutions give, one image (Radosavovic et al. 2020, arXiv
            2003.13678).
    """

    num_params: int = 0
    num_buffers: int = 0
    num_macs: int = 0
    num_activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Add each kind of cost."""
        return Cost(
            self.num_params + other.num_params,
            self.num_buffers + other.num_buffers,
            self.num_macs + other.num_macs,
            self.num_activations + other.num_activations,
        )

    def __mul__(self, repeats: int) -> Cost:
        """Count the same part `repeats` times."""
        return Cost(
            self.num_params * repeats,
            self.num_buffers * repeats,
            self.num_macs * repeats,
            self.num_activations * repeats,
        )


def conv_bn_cost(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int,
    side: int,
    groups: int = 1,
) -> Cost:
    """Count a convolution without bias and its batch norm; `side` is that of the input image."""
    weights = in_channels // groups * out_channels * kernel_size**2
    num_positions = out_side(side, stride) ** 2
    return Cost(
        num_params=weights + 2 * out_channels,
        num_buffers=2 * out_channels,
        num_macs=weights * num_positions,
        num_activations=out_channels * num_positions,
    )


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Build a convolution without bias, padded to keep the size at stride 1, and its batch norm."""
    from torch import nn

    from nas.pointwise import StridedPointwise

    convolution = StridedPointwise if kernel_size == 1 and stride > 1 else nn.Conv2d
    return nn.Sequential(
        convolution(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
    )


def out_side(side: int, stride: int) -> int:
    """Give the side of the output of a padded convolution with an odd kernel."""
    return (side - 1) // stride + 1


def _shortcut_cost(shape: BlockShape, side: int) -> Cost:
    if not shape.has_projection:
        return Cost()
    return conv_bn_cost(
        shape.in_channels, shape.width, shape.shortcut_kernel_size, stride=shape.stride, side=side
    )


def _residual(branch: nn.Module, shape: BlockShape) -> nn.Module:
    from torch import nn

    from nas.residual import Residual

    if not shape.has_projection:
        return Residual(branch, nn.Identity())
    shortcut = conv_bn(
        shape.in_channels, shape.width, shape.shortcut_kernel_size, stride=shape.stride
    )
    return Residual(branch, shortcut)


def _basic_cost(shape: BlockShape, side: int) -> Cost:
    kernel = shape.kernel_size
    return (
        conv_bn_cost(shape.in_channels, shape.width, kernel, stride=shape.stride, side=side)
        + conv_bn_cost(
            shape.width, shape.width, kernel, stride=1, side=out_side(side, shape.stride)
        )
        + _shortcut_cost(shape, side)
    )


def _basic(shape: BlockShape) -> nn.Module:
    from torch import nn

    branch = nn.Sequential(
        conv_bn(shape.in_channels, shape.width, shape.kernel_size, stride=shape.stride),
        nn.ReLU(),
        conv_bn(shape.width, shape.width, shape.kernel_size),
    )
    return _residual(branch, shape)


def _bottleneck_width(shape: BlockShape) -> int:
    return max(1, shape.width // 4)


def _bottleneck_cost(shape: BlockShape, side: int) -> Cost:
    inner, after = _bottleneck_width(shape), out_side(side, shape.stride)
    return (
        conv_bn_cost(shape.in_channels, inner, 1, stride=1, side=side)
        + conv_bn_cost(inner, inner, shape.kernel_size, stride=shape.stride, side=side)
        + conv_bn_cost(inner, shape.width, 1, stride=1, side=after)
        + _shortcut_cost(shape, side)
    )


def _bottleneck(shape: BlockShape) -> nn.Module:
    from torch import nn

    inner = _bottleneck_width(shape)
    branch = nn.Sequential(
        conv_bn(shape.in_channels, inner, 1),
        nn.ReLU(),
        conv_bn(inner, inner, shape.kernel_size, stride=shape.stride),
        nn.ReLU(),
        conv_bn(inner, shape.width, 1),
    )
    return _residual(branch, shape)


@dataclass(frozen=True, slots=True)
class BlockType:
    """A residual block: its cost for a shape and the side of its input, and its module."""

    cost: Callable[[BlockShape, int], Cost]
    build: Callable[[BlockShape], nn.Module]


BLOCKS: dict[str, BlockType] = {
    # He et al. 2015 (arXiv 1512.03385), figure 5 left: two convolutions.
    "basic": BlockType(_basic_cost, _basic),
    # The same, figure 5 right: 1x1 to a quarter of the width, the convolution, 1x1 back.
    "bottleneck": BlockType(_bottleneck_cost, _bottleneck),
}


def block_type(name: str) -> BlockType:
    """Look a block type up.

    Raises:
        UserError: No such name; the known ones are listed.
    """
    try:
        return BLOCKS[name]
    except KeyError:
        raise UserError(f"unknown block {name!r}; known: {', '.join(BLOCKS)}") from None
