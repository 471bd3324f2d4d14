"""Strided 1x1 convolutions: gradients against those of float64, the forward pass both ways."""

from __future__ import annotations

import pytest
import torch

from nas.blocks import conv_bn
from nas.pointwise import StridedPointwise


@pytest.mark.parametrize("side", [9, 16])
@pytest.mark.parametrize(
    ("in_channels", "groups"), [(3, 1), (6, 1), (8, 1), (14, 1), (16, 1), (20, 1), (6, 2), (10, 10)]
)
def test_gradients_are_those_of_the_convolution(in_channels: int, groups: int, side: int) -> None:
    convolution = conv_bn(in_channels, 10, 1, stride=2, groups=groups)[0]
    assert isinstance(convolution, StridedPointwise)
    images = torch.randn(64, in_channels, side, side, generator=torch.Generator().manual_seed(0))
    taken = images.to(memory_format=torch.channels_last).requires_grad_()
    result = convolution.to(memory_format=torch.channels_last)(taken)
    result.square().sum().backward()
    result = result.detach()
    exact = images.double().requires_grad_()
    weight = convolution.weight.detach().double().contiguous().requires_grad_()
    expected = torch.nn.functional.conv2d(exact, weight, stride=2, groups=groups)
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


def test_what_is_trained_on_a_cpu_takes_its_pixels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor, for few of them show why; an exported model is as it was."""
    strides: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        torch.nn.functional,
        "avg_pool2d",
        lambda images, _window, stride: strides.append(stride) or images[:, :, ::2, ::2],
    )
    convolution, images = conv_bn(6, 10, 1, stride=2)[0], torch.zeros(1, 6, 8, 8)
    with torch.no_grad():
        convolution(images)
    assert strides == []
    assert convolution(images).shape == (1, 10, 4, 4)
    assert strides == [(2, 2)]


def test_only_strided_1x1_convolutions_differ() -> None:
    for kernel_size, stride in ((3, 2), (1, 1)):
        assert type(conv_bn(6, 12, kernel_size, stride=stride)[0]) is torch.nn.Conv2d
