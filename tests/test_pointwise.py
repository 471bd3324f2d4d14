"""Strided 1x1 convolutions: gradients against those of float64, the forward pass both ways."""

from __future__ import annotations

import pytest
import torch

from nas.blocks import conv_bn
from nas.pointwise import StridedPointwise


@pytest.mark.parametrize("side", [9, 16])
@pytest.mark.parametrize("in_channels", [3, 6, 8, 14, 16, 20])
def test_gradients_are_those_of_the_convolution(in_channels: int, side: int) -> None:
    convolution = conv_bn(in_channels, 10, 1, stride=2)[0]
    assert isinstance(convolution, StridedPointwise)
    images = torch.randn(64, in_channels, side, side, generator=torch.Generator().manual_seed(0))
    taken = images.to(memory_format=torch.channels_last).requires_grad_()
    result = convolution.to(memory_format=torch.channels_last)(taken)
    result.square().sum().backward()
    result = result.detach()
    exact = images.double().requires_grad_()
    weight = convolution.weight.detach().double().contiguous().requires_grad_()
    expected = torch.nn.functional.conv2d(exact, weight, stride=2)
    expected.square().sum().backward()
    expected = expected.detach()
    for found, wanted in (
        (result, expected),
        (taken.grad, exact.grad),
        (convolution.weight.grad, weight.grad),
    ):
        assert found is not None
        assert wanted is not None
        torch.testing.assert_close(
            found.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())
        )
    with torch.no_grad():
        torch.testing.assert_close(convolution(images), result)


def test_only_strided_1x1_convolutions_differ() -> None:
    for kernel_size, stride in ((3, 2), (1, 1)):
        assert type(conv_bn(6, 12, kernel_size, stride=stride)[0]) is torch.nn.Conv2d
