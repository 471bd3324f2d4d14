"""build_model: an Architecture as a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from nas.blocks import block_type, conv_bn

if TYPE_CHECKING:
    from nas.architecture import Architecture


def build_model(
    arch: Architecture,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build the module that maps (N, in_channels, H, W) to (N, num_classes) logits.

    Weights are drawn on the CPU, so that a seed gives the same network on every device: He normal
    (arXiv 1502.01852) with fan-out for convolutions, PyTorch's own bounds for the classifier.

    Args:
        arch: The network.
        generator: CPU generator of the initial weights; `None` takes a fixed seed.
        device: Where the module goes; "meta" builds shapes only.

    Raises:
        ValueError: A block type that is not in `BLOCKS`.
    """
    with torch.device("meta"):
        model = _assemble(arch)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device="cpu")
    _initialize(model, generator or torch.Generator().manual_seed(0))
    return model.to(device)


def _assemble(arch: Architecture) -> nn.Module:
    first, last = arch.stages[0].width, arch.stages[-1].width
    stem = nn.Sequential(
        conv_bn(arch.in_channels, first, 3, stride=arch.stem_stride), nn.ReLU(inplace=True)
    )
    blocks = [
        block_type(block).build(shape)
        for block, shape, repeats in arch.block_groups()
        for _ in range(repeats)
    ]
    model = nn.Sequential()
    model.add_module("stem", stem)
    model.add_module("blocks", nn.Sequential(*blocks))
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("classifier", nn.Linear(last, arch.num_classes))
    return model


def _initialize(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
