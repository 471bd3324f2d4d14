"""Search spaces: TOML validated line by line, decode and encode, corners, what includes what."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from strategies import architectures, spaces, spaces_with_architectures

from nas.architecture import Architecture, Stage
from nas.complexity import count_macs, count_params
from nas.errors import UserError
from nas.space import SearchSpace
from nas.space_file import SpaceConfig, load_space, width_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def every_architecture(space: SearchSpace) -> Iterable[Architecture]:
    """Put every choice together with every other, without the space's own code."""
    chosen = [
        [Stage(**dict(zip(stage, values, strict=True))) for values in itertools.product(*choices)]
        for stage in space.stages
        for choices in [list(stage.values())]
    ]
    for stages in itertools.product(*chosen):
        yield Architecture(stages, space.num_classes, space.in_channels, space.stem_stride)


def preset(name: str, max_params: int) -> SearchSpace:
    return SearchSpace.from_config(load_space(name)[1], max_params=max_params)


def space_of(**choices: Any) -> SearchSpace:
    """One stage, a 3x3 basic block 8 wide but for what is given."""
    default: dict[str, Any] = {
        "depth": range(1, 2),
        "width": range(8, 9),
        "kernel_size": range(3, 4),
        "shortcut_kernel_size": range(1, 2),
        "block": ("basic",),
    }
    return SearchSpace((default | choices,))


def read(folder: Path, text: str) -> SpaceConfig:
    (folder / "space.toml").write_text(text)
    return load_space("space.toml")[1]


# TOML

STAGE = "num_stages = 2\n[stage]\ndepth = 1\nwidth = 8\n"
NO_WIDTH = "num_stages = 2\n[stage]\ndepth = 1\n"
ON_STAGE_1 = STAGE + "[overrides.1]\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("num_stages = 2", "stage is missing"),
        ("[stage]\ndepth = 1\nwidth = 8", "num_stages is missing"),
        ("num_stages = 0\n[stage]\ndepth = 1\nwidth = 8", "num_stages"),
        ("stages = 2\n" + STAGE, "unknown key 'stages'; known: num_stages, stage, overrides"),
        (STAGE + "widht = 8", "unknown key 'stage.widht'; known: depth, width, kern"),
        (STAGE + "[stages]\n", "unknown key 'stages'; known: num_stages, stage, overrides"),
        (ON_STAGE_1 + "widht = 8", "unknown key 'overrides.1.widht'; known: depth, w"),
        (NO_WIDTH, "stage 1 has no width"),
        ("num_stages = 2\n[stage]\nwidth = 8", "stage 1 has no depth"),
        (NO_WIDTH + "[overrides.1]\nwidth = 8", "stage 2 has no width"),
        (STAGE + "[overrides.3]\nwidth = 8", "overrides.3: there are stages 1 to 2"),
        (STAGE + "[overrides.0]\nwidth = 8", "overrides.0: there are stages 1 to 2"),
        (STAGE + "[overrides.last]\nwidth = 8", "overrides.last: there are stages 1 to 2"),
        (STAGE + "kernel_size = 4", "kernels must be odd, 4 is even"),
        (STAGE + "kernel_size = 0", "stage.kernel_size"),
        (STAGE + "kernel_size = -3", "stage.kernel_size"),
        (STAGE + "kernel_size = { low = 3, high = 5 }", "kernels must be odd, 4 is even"),
        (STAGE + "kernel_size = { low = 2, high = 6, step = 2 }", "kernels must be odd, 2 is even"),
        (STAGE + "shortcut_kernel_size = 2", "kernels must be odd, 2 is even"),
        (NO_WIDTH + "width = 0", "at least 1"),
        (NO_WIDTH + "width = 8.5", "stage.width"),
        (NO_WIDTH + "width = true", "stage.width"),
        (NO_WIDTH + "width = 'wide'", "stage.width"),
        (NO_WIDTH + "width = { low = 8, high = 4 }", "empty: high = 4 is below low = 8"),
        (NO_WIDTH + "width = { low = 0, high = 4 }", "greater than or equal to 1"),
        (NO_WIDTH + "width = { low = 8 }", "stage.width.high is missing"),
        (
            NO_WIDTH + "width = { low = 8, high = 18, step = 4 }",
            "stage.width: high must be one of its steps, which end at 16",
        ),
        (
            NO_WIDTH + "width = { low = 8, high = 16, stpe = 8 }",
            "unknown key 'stage.width.stpe'; known: low, high,",
        ),
        (NO_WIDTH + "width = { low = 8, high = 16, step = 0 }", "stage.width.step"),
        (
            NO_WIDTH + "width = { low = 8, high = 16, step = 8, at_params = 100 }",
            "with at_params the step follows the budget",
        ),
        (STAGE + "block = []", "stage.block"),
        (STAGE + "block = 3", "stage.block"),
        (STAGE + "block = ['basic', 'basic']", "list of different block types"),
        (STAGE + "block = ['basic', 3]", "stage.block"),
        (STAGE + "block = ['basic', 'fancy']", "stage.block: it must name block types of basic, "),
    ],
)
def test_a_wrong_space_file_is_refused_in_one_clear_line(
    folder: Path, text: str, named: str
) -> None:
    with pytest.raises(UserError) as error:
        read(folder, text)
    message = str(error.value)
    assert message.startswith("space.toml: ")
    assert named in message
    assert len(message.splitlines()) == 1
    assert len(message) < 160
    assert not {".int:", ".str:", ".IntRange"} & set(message.split())


def test_an_override_holds_for_its_stage_alone(folder: Path) -> None:
    config = read(folder, STAGE + "[overrides.2]\nwidth = { low = 2, high = 6, step = 2 }")
    space = SearchSpace.from_config(config, max_params=100)
    assert space.choices == {"width_2": range(2, 7, 2)}


def test_absent_kernels_and_block_take_the_defaults_of_a_stage(folder: Path) -> None:
    space = SearchSpace.from_config(read(folder, STAGE), max_params=100)
    assert space.decode({}) == Architecture((Stage(1, 8), Stage(1, 8)))


@pytest.mark.parametrize(
    ("max_params", "step"),
    [(5_000_000, 8), (1_000_000, 8), (999_999, 4), (200_000, 4), (199_999, 2), (1, 2)],
)
def test_width_steps_follow_the_budget(max_params: int, step: int) -> None:
    assert width_step(max_params) == step


@pytest.mark.parametrize(
    ("max_params", "widths"),
    [
        (20_000_000, range(64, 641, 8)),
        (5_000_000, range(32, 321, 8)),
        (250_000, range(8, 73, 4)),
        (60_000, range(4, 37, 2)),
        (1, range(2, 3, 2)),
    ],
)
def test_width_ranges_of_the_preset_follow_the_root_of_the_budget(
    max_params: int, widths: range
) -> None:
    stage = preset("resnet", max_params).stages[0]
    assert (stage["width"], stage["depth"], stage["kernel_size"]) == (
        widths,
        range(1, 7),
        range(3, 8, 2),
    )


def test_the_default_space_has_depth_width_and_kernel_of_four_stages() -> None:
    names = {f"{name}_{n}" for name in ("depth", "width", "kernel_size") for n in (1, 2, 3, 4)}
    assert preset("resnet", 5_000_000).distributions.keys() == names


def test_the_mixed_space_also_chooses_the_block_of_each_stage() -> None:
    distributions = preset("resnet-mixed", 5_000_000).distributions
    assert [distributions[f"block_{n}"] for n in (1, 2, 3, 4)] == [IntDistribution(0, 1)] * 4


def test_the_default_space_counts_its_architectures() -> None:
    assert preset("resnet", 5_000_000).cardinality == (6 * 37 * 3) ** 4


# Parameters and architectures


@given(spaces_with_architectures())
def test_decoding_what_was_encoded_gives_the_architecture(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, arch = drawn
    params = space.encode(arch)
    assert space.decode(params or {}) == arch


@given(spaces(), st.randoms(use_true_random=False))
def test_encoding_what_was_decoded_gives_the_parameters(space: SearchSpace, rng: Any) -> None:
    params = {
        name: rng.randrange(dist.low, dist.high + 1, dist.step)
        for name, dist in space.distributions.items()
    }
    assert space.encode(space.decode(params)) == params


@given(spaces_with_architectures())
def test_encoded_parameters_lie_in_the_distributions(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, arch = drawn
    params = space.encode(arch) or {}
    assert {name: dist._contains(params[name]) for name, dist in space.distributions.items()} == (
        dict.fromkeys(params, True)
    )


@given(spaces(longest=2, max_stages=2))
@settings(max_examples=30)
def test_cardinality_is_the_number_of_different_architectures(space: SearchSpace) -> None:
    assert space.cardinality == len(set(every_architecture(space)))


@given(spaces(longest=2, max_stages=1), architectures())
def test_a_space_contains_exactly_what_can_be_put_together(
    space: SearchSpace, other: Architecture
) -> None:
    inside = set(every_architecture(space))
    assert all(map(space.contains, inside))
    assert space.contains(other) == (other in inside)


@given(spaces_with_architectures())
def test_an_architecture_one_change_outside_is_not_contained(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, arch = drawn
    beyond = max(stage["width"][-1] for stage in space.stages) + 1
    outside = [
        arch.with_widths([beyond] * len(arch.stages)),
        replace(arch, num_classes=arch.num_classes + 1),
        replace(arch, in_channels=arch.in_channels + 1),
        replace(arch, stem_stride=arch.stem_stride + 1),
        replace(arch, stages=(*arch.stages, arch.stages[0])),
    ]
    assert [(space.contains(other), space.encode(other)) for other in outside] == [
        (False, None)
    ] * 5


@given(spaces())
def test_a_fixed_value_is_no_parameter_and_a_range_always_is(space: SearchSpace) -> None:
    for number, stage in enumerate(space.stages, 1):
        for name, choices in stage.items():
            is_choice = isinstance(choices, range) or len(choices) > 1
            assert (f"{name}_{number}" in space.distributions) == is_choice


@given(spaces())
def test_a_space_comes_back_from_its_json(space: SearchSpace) -> None:
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_a_shipped_space_comes_back_from_its_json() -> None:
    space = preset("resnet-mixed", 250_000)
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


# Corners


@pytest.mark.parametrize("pick", [min, max])
@pytest.mark.parametrize("cost", [count_params, count_macs])
@given(space=spaces(longest=2, max_stages=2))
@settings(max_examples=12)
def test_a_corner_costs_what_the_least_and_the_greatest_network_do(
    pick: Callable[..., int], cost: Callable[[Architecture], int], space: SearchSpace
) -> None:
    assert cost(space.corner(pick, cost)) == pick(map(cost, every_architecture(space)))


@given(spaces())
def test_a_corner_lies_in_the_space(space: SearchSpace) -> None:
    assert space.contains(space.corner(min, count_params))


# Which space may replace which

SMALL = {"depth": range(1, 4), "width": range(8, 33, 8), "kernel_size": range(3, 6, 2)}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"depth": range(1, 7)},
        {"width": range(8, 65, 8)},
        {"width": range(4, 33, 4)},
        {"kernel_size": range(1, 8, 2)},
    ],
)
def test_a_space_with_more_numbers_includes_the_smaller(change: dict[str, range]) -> None:
    assert space_of(**(SMALL | change)).includes(space_of(**SMALL))


@pytest.mark.parametrize(
    "change",
    [
        {"depth": range(2, 7)},
        {"width": range(8, 25, 8)},
        {"width": range(12, 65, 8)},
        {"width": range(8, 65, 16)},
        {"kernel_size": range(3, 4)},
        {"block": ("bottleneck",)},
    ],
)
def test_a_space_without_one_of_the_numbers_does_not_include_the_other(
    change: dict[str, Any],
) -> None:
    assert not space_of(**(SMALL | change)).includes(space_of(**SMALL))


def test_a_block_type_may_be_added_behind_the_others() -> None:
    two, three = ("basic", "bottleneck"), ("basic", "bottleneck", "separable")
    assert space_of(block=three).includes(space_of(block=two))


def test_a_block_type_may_not_be_added_before_the_others() -> None:
    two, three = ("basic", "bottleneck"), ("separable", "basic", "bottleneck")
    assert not space_of(block=three).includes(space_of(block=two))


def test_another_number_of_stages_is_another_space() -> None:
    one = space_of()
    assert not SearchSpace(one.stages * 2).includes(one)


def test_another_number_of_classes_is_another_space() -> None:
    one = space_of()
    assert not SearchSpace(one.stages, num_classes=100).includes(one)


@given(spaces())
def test_a_space_includes_itself(space: SearchSpace) -> None:
    assert space.includes(space)


GROWTH = {
    "depth": range(1, 7),
    "width": range(8, 65, 8),
    "kernel_size": range(1, 8, 2),
    "shortcut_kernel_size": range(1, 4, 2),
    "block": ("basic", "bottleneck"),
}


@pytest.mark.parametrize("name", GROWTH)
def test_trials_of_an_included_space_decode_to_the_same_architectures(name: str) -> None:
    smaller, larger = space_of(**SMALL), space_of(**(SMALL | {name: GROWTH[name]}))
    # A block that becomes a choice is a parameter that trials before do not have.
    assert larger.includes(smaller) == (name != "block")
    if name == "block":
        return
    for arch in every_architecture(smaller):
        assert larger.decode(smaller.encode(arch) or {}) == arch
