"""Closed-form counts equal the built module and a public counter, for every block type."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import architectures
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS, BlockType, conv_bn, conv_bn_cost, out_side
from nas.complexity import count, count_activations, count_macs, count_params, size_bytes
from nas.errors import UserError
from nas.model import build_model
from nas.presets import hand_made
from nas.residual import Residual

if TYPE_CHECKING:
    from nas.architecture import BlockShape
    from nas.blocks import Cost

NUM_PARAMS = {
    "ResNet26_97": 4_978_810,
    "ResNet24_9684": 4_969_776,
    "ResNet24_96": 4_997_074,
    "ResNet18": 11_173_962,
    "ResNet-20": 272_474,
}
resolutions = st.sampled_from([1, 2, 7, 8, 15, 16, 17, 32, 33])


def closed_form(arch: Architecture, resolution: int) -> dict[str, int]:
    return {
        "num_params": count_params(arch),
        "num_macs": count_macs(arch, resolution),
        "num_activations": count_activations(arch, resolution),
        "size_bytes": size_bytes(arch),
    }


def measured(arch: Architecture, resolution: int) -> dict[str, int]:
    """Count the built module on the meta device; PyTorch's counter gives two flops a MAC."""
    model = build_model(arch, device="meta").eval()
    images = torch.empty(1, arch.in_channels, resolution, resolution, device="meta")
    counter = FlopCounterMode(display=False)
    outputs: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _conv, _in, output: outputs.append(output.numel()))
    with torch.no_grad(), counter:
        assert model(images).shape == (1, arch.num_classes)
    stored = [value for value in model.state_dict().values() if value.is_floating_point()]
    return {
        "num_params": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "num_macs": counter.get_total_flops() // 2,
        "num_activations": sum(outputs),
        "size_bytes": sum(value.numel() * value.element_size() for value in stored),
    }


@pytest.mark.parametrize("name", NUM_PARAMS)
def test_hand_made_networks_count_exactly(name: str) -> None:
    assert count_params(hand_made()[name]) == NUM_PARAMS[name]


@pytest.mark.parametrize("name", NUM_PARAMS)
def test_hand_made_networks_count_as_they_are_built(name: str) -> None:
    arch = hand_made()[name]
    assert closed_form(arch, 32) == measured(arch, 32)


@pytest.mark.parametrize("block", sorted(BLOCKS))
@given(data=st.data(), resolution=resolutions)
@settings(max_examples=15)
def test_counts_of_random_networks_of_each_block_type_equal_the_built_module(
    block: str, data: st.DataObject, resolution: int
) -> None:
    arch = data.draw(architectures((block,)))
    assert closed_form(arch, resolution) == measured(arch, resolution)


@given(arch=architectures(), resolution=resolutions)
@settings(max_examples=15)
def test_counts_of_networks_of_mixed_blocks_equal_the_built_module(
    arch: Architecture, resolution: int
) -> None:
    assert closed_form(arch, resolution) == measured(arch, resolution)


def test_a_network_counted_by_hand() -> None:
    arch = Architecture((Stage(1, 2),), num_classes=2, in_channels=1)
    stem, convs, classifier = 1 * 2 * 9, 2 * (2 * 2 * 9), 2 * 2
    norms, biases = 3 * 2 * 2, 2
    assert closed_form(arch, 4) == {
        "num_params": stem + convs + norms + classifier + biases,
        "num_macs": (stem + convs) * 4 * 4 + classifier,
        "num_activations": 3 * 2 * 4 * 4,
        "size_bytes": 4 * (stem + convs + 2 * norms + classifier + biases),
    }


@given(arch=architectures(), resolution=resolutions)
def test_only_multiply_adds_depend_on_the_resolution(arch: Architecture, resolution: int) -> None:
    cost, other = count(arch, resolution), count(arch, 64)
    assert (cost.num_params, cost.num_buffers) == (other.num_params, other.num_buffers)


@given(arch=architectures())
@settings(max_examples=15)
def test_the_meta_device_holds_the_tensors_that_the_cpu_does(arch: Architecture) -> None:
    def shapes(device: str) -> dict[str, tuple[torch.Size, torch.dtype]]:
        state = build_model(arch, device=device).state_dict()
        return {name: (value.shape, value.dtype) for name, value in state.items()}

    assert shapes("meta") == shapes("cpu")


def separable_cost(shape: BlockShape, side: int) -> Cost:
    after = out_side(side, shape.stride)
    depthwise = conv_bn_cost(
        shape.in_channels,
        shape.in_channels,
        shape.kernel_size,
        stride=shape.stride,
        side=side,
        groups=shape.in_channels,
    )
    pointwise = conv_bn_cost(shape.in_channels, shape.width, 1, stride=1, side=after)
    if not shape.has_projection:
        return depthwise + pointwise
    return (
        depthwise
        + pointwise
        + conv_bn_cost(
            shape.in_channels,
            shape.width,
            shape.shortcut_kernel_size,
            stride=shape.stride,
            side=side,
        )
    )


def separable(shape: BlockShape) -> nn.Module:
    channels, stride = shape.in_channels, shape.stride
    branch = nn.Sequential(
        conv_bn(channels, channels, shape.kernel_size, stride=stride, groups=channels),
        nn.ReLU(),
        conv_bn(channels, shape.width, 1),
    )
    shortcut: nn.Module = nn.Identity()
    if shape.has_projection:
        shortcut = conv_bn(channels, shape.width, shape.shortcut_kernel_size, stride=stride)
    return Residual(branch, shortcut)


@given(data=st.data(), resolution=resolutions)
@settings(max_examples=15)
def test_a_third_block_type_added_in_three_steps_counts_as_it_is_built(
    data: st.DataObject, resolution: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BLOCKS, "separable", BlockType(separable_cost, separable))
        arch = data.draw(architectures(("basic", "separable")))
        assert closed_form(arch, resolution) == measured(arch, resolution)


def test_a_third_block_type_is_named_among_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS, "separable", BlockType(separable_cost, separable))
    with pytest.raises(UserError, match="known: basic, bottleneck, separable"):
        count_params(Architecture((Stage(1, 8, block="inverted"),)))


UNKNOWN = Architecture((Stage(1, 8), Stage(1, 8, block="inverted")))
UNKNOWN_MESSAGE = "unknown block 'inverted'; known: basic, bottleneck"


def test_counting_an_unknown_block_lists_the_known_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        count_params(UNKNOWN)
    assert str(error.value) == UNKNOWN_MESSAGE


def test_building_an_unknown_block_lists_the_known_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        build_model(UNKNOWN, device="meta")
    assert str(error.value) == UNKNOWN_MESSAGE


def test_counting_imports_neither_torch_nor_optuna() -> None:
    code = """if True:
        import sys
        from nas.architecture import Architecture
        from nas.complexity import count_macs, count_params, size_bytes
        from nas.presets import hand_made
        arch = hand_made()["ResNet26_97"]
        print(count_params(arch), count_macs(arch) > 0, size_bytes(arch) > 0)
        print(sorted({"torch", "torchvision", "optuna", "pandas", "plotly"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["4978810 True True", "[]"], done.stderr
