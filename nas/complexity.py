"""What an Architecture costs: parameters, MACs, activations, bytes, in closed form."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from nas.blocks import Cost, block_type, conv_bn_cost, out_side

if TYPE_CHECKING:
    from nas.architecture import Architecture, Stage

RESOLUTION = 32  # pixels a side behind the stem, if nothing else is said
BYTES_PER_VALUE = 4  # float32, as models are saved


def count(arch: Architecture, resolution: int | None = None) -> Cost:
    """Count everything for images of `resolution` pixels a side, in microseconds.

    Without one: 32 pixels, or 64 with a stem of stride 2, which makes 32 of them.

    Raises:
        ValueError: A block type that is not in `BLOCKS`.
    """
    width, stride = arch.stages[0].width, arch.stem_stride
    resolution = RESOLUTION * stride if resolution is None else resolution
    parts = [conv_bn_cost(arch.in_channels, width, 3, stride=stride, side=resolution)]
    side = out_side(resolution, stride)
    for stage, in_channels, stride in arch.placed_stages():
        parts.append(_stage_cost(stage, in_channels, stride, side))
        side = out_side(side, stride)
    weights = arch.stages[-1].width * arch.num_classes
    parts.append(Cost(num_params=weights + arch.num_classes, num_macs=weights))
    return Cost(
        sum([part.num_params for part in parts]),
        sum([part.num_buffers for part in parts]),
        sum([part.num_macs for part in parts]),
        sum([part.num_activations for part in parts]),
    )


@lru_cache(maxsize=65_536)  # a search asks for the same few stages over and over
def _stage_cost(stage: Stage, in_channels: int, stride: int, side: int) -> Cost:
    cost = Cost()
    for shape, repeats in stage.block_groups(in_channels, stride):
        cost += block_type(stage.block).cost(shape, side) * repeats
        side = out_side(side, shape.stride)
    return cost


def count_params(arch: Architecture) -> int:
    """Count trainable parameters."""
    return count(arch).num_params


def count_macs(arch: Architecture, resolution: int | None = None) -> int:
    """Count multiply-adds of convolutions and the classifier, one image, forward, as `count`."""
    return count(arch, resolution).num_macs


def count_activations(arch: Architecture, resolution: int | None = None) -> int:
    """Count the values in the outputs of convolutions, one image, forward, as `count`."""
    return count(arch, resolution).num_activations


def log_costs(arch: Architecture, resolution: int | None = None) -> tuple[float, float]:
    """Give the logarithms of parameters and multiply-adds: what a model of scores sees of them."""
    cost = count(arch, resolution)
    return math.log(cost.num_params), math.log(cost.num_macs)


def size_bytes(arch: Architecture) -> int:
    """Give the bytes of parameters and batch norm statistics as float32."""
    cost = count(arch)
    return BYTES_PER_VALUE * (cost.num_params + cost.num_buffers)
