"""StridedPointwise: a strided 1x1 convolution whose gradients can be trusted on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, padding 0 and no bias.

    To train on a CPU it takes the pixels that it reads first, and is then a convolution of stride
    1. oneDNN writes past its workspace in the weight gradient of a strided one, in float32 and
    channels-last, of fewer input channels than its block (8 with AVX2, 16 with AVX-512; oneDNN
    issue 6035). Seen with AVX2: processes that aborted (torch 2.14.1 and 2.15.0) and, with two
    threads, gradients off by up to half of the largest (2.15.0); nothing was tried with AVX-512.
    Pooling windows of one pixel takes them in one operation: 0.5 to 1.1 times the seconds of the
    strided convolution, forward and backward, in float32 (one thread of an AMD EPYC with AVX2).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (as nn.Conv2d names it)
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        taken = nn.functional.avg_pool2d(input, 1, self.stride)
        return nn.functional.conv2d(taken, self.weight, groups=self.groups)
