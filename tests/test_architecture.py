"""Architectures are frozen values with a stable identity and a JSON round trip."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from strategies import architectures

from nas.architecture import Architecture, Stage

HAND_MADE = Architecture.of([3, 3, 3, 3], [128, 100, 164, 200])


@given(architectures())
def test_json_round_trip_gives_an_equal_architecture(arch: Architecture) -> None:
    assert Architecture.from_json(arch.to_json()) == arch


@given(architectures())
def test_json_is_canonical_whatever_the_order_of_its_keys(arch: Architecture) -> None:
    raw = json.loads(arch.to_json())
    reversed_keys = {key: raw[key] for key in reversed(raw)}
    reversed_keys["stages"] = [dict(reversed(stage.items())) for stage in raw["stages"]]
    assert Architecture.from_json(json.dumps(reversed_keys, indent=4)).to_json() == arch.to_json()


@given(architectures(), architectures())
def test_arch_ids_are_equal_exactly_where_architectures_are(
    one: Architecture, other: Architecture
) -> None:
    assert (one.arch_id == other.arch_id) == (one == other)


@given(architectures())
def test_a_change_of_any_field_changes_the_arch_id(arch: Architecture) -> None:
    raw = json.loads(arch.to_json())
    first, *rest = raw["stages"]
    changed = [
        raw | {"num_classes": raw["num_classes"] + 1},
        raw | {"in_channels": raw["in_channels"] + 1},
        raw | {"stem_stride": raw.get("stem_stride", 1) + 1},
        raw | {"stages": [first, *raw["stages"]]},
        *(
            raw | {"stages": [first | change, *rest]}
            for change in (
                {"depth": first["depth"] + 1},
                {"width": first["width"] + 1},
                {"kernel_size": first["kernel_size"] + 2},
                {"shortcut_kernel_size": first["shortcut_kernel_size"] + 2},
                {"block": first["block"] + "2"},
            )
        ),
    ]
    arch_ids = {Architecture.from_json(json.dumps(other)).arch_id for other in changed}
    assert len(arch_ids | {arch.arch_id}) == 1 + len(changed)


def test_the_canonical_json_is_pinned() -> None:
    assert Architecture((Stage(2, 8, 5, 3, "bottleneck"),)).to_json() == (
        '{"in_channels":3,"num_classes":10,"stages":[{"block":"bottleneck","depth":2,'
        '"kernel_size":5,"shortcut_kernel_size":3,"width":8}]}'
    )


def test_the_arch_id_of_a_network_is_pinned() -> None:
    assert HAND_MADE.arch_id == "9feca569bc55"


def test_missing_fields_of_json_take_their_defaults() -> None:
    text = '{"stages": [{"depth": 2, "width": 8}]}'
    assert Architecture.from_json(text) == Architecture((Stage(2, 8, 3, 1, "basic"),), 10, 3)


@given(architectures())
def test_equal_architectures_are_one_key(arch: Architecture) -> None:
    assert {arch: 1, Architecture.from_json(arch.to_json()): 2} == {arch: 2}


def test_an_architecture_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        HAND_MADE.num_classes = 100  # type: ignore[misc]


def test_a_stage_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        HAND_MADE.stages[0].width = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": True}, "depth"),
        ({"depth": 2.0}, "depth"),
        ({"width": 0}, "width"),
        ({"width": -8}, "width"),
        ({"width": "8"}, "width"),
        ({"kernel_size": 2}, "kernel_size must be odd"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": -1}, "kernel_size"),
        ({"shortcut_kernel_size": 4}, "shortcut_kernel_size must be odd"),
        ({"block": ["basic"]}, "block"),
        ({"block": None}, "block"),
    ],
)
def test_a_stage_refuses_what_no_network_has(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Stage(**({"depth": 1, "width": 8} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stages": ()}, "at least one stage"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 10.0}, "num_classes"),
        ({"in_channels": 0}, "in_channels"),
        ({"stem_stride": 0}, "stem_stride"),
    ],
)
def test_an_architecture_refuses_what_no_network_has(
    settings: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Architecture(**({"stages": (Stage(1, 8),)} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "stages"),
        ("3", "stages"),
        ("{}", '"stages"'),
        ('{"stages": {}}', '"stages"'),
        ('{"stages": []}', "at least one stage"),
        ('{"stages": [3]}', "depth"),
        ('{"stages": [{"depth": 1}]}', "needs width"),
        ('{"stages": [{}]}', "needs depth and width"),
        ('{"stages": [{"depth": 1, "width": 8, "stride": 2}]}', "unknown stride; known: depth"),
        ('{"stages": [{"depth": 1, "width": 8}], "classes": 5}', "unknown classes; known: stages"),
        ('{"stages": [{"depth": 1, "width": 8, "kernel_size": 4}]}', "odd"),
        ('{"stages": [{"depth": 1, "width": 8, "block": ["basic"]}]}', "block"),
        ('{"stages": [{"depth": 1, "width": 8, "block": 3}]}', "block"),
    ],
)
def test_wrong_json_is_refused_in_one_line(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        Architecture.from_json(text)
    assert len(str(error.value).splitlines()) == 1


def test_of_reads_one_entry_a_stage() -> None:
    assert Architecture.of([1, 2], [8, 16], [5, 3], num_classes=100) == Architecture(
        (Stage(1, 8, 5), Stage(2, 16, 3)), num_classes=100
    )


@pytest.mark.parametrize(
    ("blocks", "widths", "kernel_sizes"),
    [([3, 3], [8], None), ([3], [8, 8], None), ([3, 3], [8, 8], [3]), ([], [8], [3])],
)
def test_of_refuses_lists_of_different_lengths(
    blocks: list[int], widths: list[int], kernel_sizes: list[int] | None
) -> None:
    with pytest.raises(ValueError, match="one entry a stage"):
        Architecture.of(blocks, widths, kernel_sizes)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage(3, 128), "3x128"),
        (Stage(2, 64, 5), "2x64 k5"),
        (Stage(2, 64, 3, 3), "2x64 s3"),
        (Stage(2, 64, block="bottleneck"), "2x64 bottleneck"),
        (Stage(1, 8, 1, 5, "bottleneck"), "1x8 k1 s5 bottleneck"),
    ],
)
def test_a_stage_in_words_names_what_differs_from_a_basic_block(stage: Stage, words: str) -> None:
    assert str(stage) == words


def test_an_architecture_in_words_lists_its_stages() -> None:
    assert str(HAND_MADE) == "3x128, 3x100, 3x164, 3x200"


def test_only_the_first_block_of_later_stages_has_stride_2() -> None:
    groups = Architecture.of([2, 1, 3], [8, 8, 16]).block_groups()
    assert [(s.in_channels, s.width, s.stride, repeats) for _, s, repeats in groups] == [
        (8, 8, 1, 1),
        (8, 8, 1, 1),
        (8, 8, 2, 1),
        (8, 16, 2, 1),
        (16, 16, 1, 2),
    ]


def test_a_projection_stands_where_width_or_stride_changes() -> None:
    groups = Architecture.of([2, 1, 2], [8, 8, 16]).block_groups()
    assert [shape.has_projection for _, shape, _ in groups] == [False, False, True, True, False]


def test_scaling_multiplies_every_width_and_keeps_the_rest() -> None:
    arch = Architecture((Stage(1, 8, 5), Stage(2, 3, 3, 3, "bottleneck"), Stage(1, 1)), 7, 1)
    assert arch.scaled(0.5) == Architecture(
        (Stage(1, 4, 5), Stage(2, 2, 3, 3, "bottleneck"), Stage(1, 1)), 7, 1
    )


@given(architectures())
def test_scaling_by_one_changes_nothing(arch: Architecture) -> None:
    assert arch.scaled(1.0) == arch
