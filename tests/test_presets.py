"""Presets ship with the package, are overridden under `studies/`, and fail in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import Field

from nas.architecture import Architecture
from nas.errors import UserError
from nas.presets import Config, changed, hand_made, load, names
from nas.space_file import load_space

if TYPE_CHECKING:
    from pathlib import Path


class Settings(Config):
    rate: float = Field(gt=0)
    epochs: int = 3


GOOD = "rate = 0.5\nepochs = 7\n"


@pytest.fixture
def own(folder: Path) -> Path:
    """The folder of own presets of a kind that ships none of these names."""
    kind = folder / "studies" / "proxies"
    kind.mkdir(parents=True)
    return kind


def refusal(name_or_file: str, kind: str = "proxies") -> str:
    with pytest.raises(UserError) as error:
        load(kind, name_or_file, Settings)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_hand_made_networks_are_those_of_the_table_in_its_order() -> None:
    assert list(hand_made().items()) == [
        ("ResNet26_97", Architecture.of([3, 3, 3, 3], [128, 100, 164, 200])),
        ("ResNet24_9684", Architecture.of([3, 3, 2, 3], [138, 100, 204, 190])),
        ("ResNet24_96", Architecture.of([3, 3, 2, 3], [136, 100, 188, 204])),
        ("ResNet18", Architecture.of([2, 2, 2, 2], [64, 128, 256, 512])),
        ("ResNet-20", Architecture.of([3, 3, 3], [16, 32, 64])),
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["resnet", "resnet-mixed"])
def test_a_shipped_space_is_found_from_any_folder_by_its_name(name: str) -> None:
    found, config = load_space(name)
    assert (found, config.num_stages) == (name, 4)


@pytest.mark.usefixtures("folder")
def test_shipped_presets_are_listed_by_kind() -> None:
    assert (names("spaces"), names("proxies")) == (
        ["resnet", "resnet-mixed"],
        ["quick", "standard", "thorough"],
    )


def test_own_presets_are_listed_once_among_the_shipped(own: Path) -> None:
    (own / "mine.toml").write_text(GOOD)
    (own / "quick.toml").write_text(GOOD)
    (own / "notes.txt").write_text("not a preset")
    assert names("proxies") == ["mine", "quick", "standard", "thorough"]


def test_an_own_preset_overrides_the_shipped_of_the_same_name(own: Path) -> None:
    (own / "quick.toml").write_text(GOOD)
    assert load("proxies", "quick", Settings) == ("quick", Settings(rate=0.5, epochs=7))


def test_an_own_space_overrides_the_shipped_of_the_same_name(folder: Path) -> None:
    (folder / "studies" / "spaces").mkdir(parents=True)
    own = "num_stages = 2\n[stage]\ndepth = 1\nwidth = 8\n"
    (folder / "studies" / "spaces" / "resnet.toml").write_text(own)
    assert load_space("resnet")[1].num_stages == 2


def test_a_file_is_named_by_its_stem(folder: Path) -> None:
    (folder / "tried.v2.toml").write_text(GOOD)
    assert load("proxies", "tried.v2.toml", Settings)[0] == "tried.v2"


def test_a_path_is_read_as_a_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "mine").write_text(GOOD)
    assert load("proxies", "sub/mine", Settings) == ("mine", Settings(rate=0.5, epochs=7))


def test_an_unknown_preset_lists_the_known_ones(own: Path) -> None:
    (own / "mine.toml").write_text(GOOD)
    message = refusal("fast")
    assert "'fast'" in message
    assert "known: mine, quick, standard, thorough" in message


def test_a_missing_file_is_named(folder: Path) -> None:
    missing = f"{folder}/none.toml"
    assert refusal(missing) == f"cannot read {missing}: No such file or directory"


def test_a_folder_is_no_file(folder: Path) -> None:
    assert refusal(f"{folder}/") == f"cannot read {folder}: Is a directory"


def test_what_is_not_toml_is_refused_with_its_place(folder: Path) -> None:
    (folder / "bad.toml").write_text("rate = 0.5\nepochs 7\n")
    message = refusal("bad.toml")
    assert message.startswith("bad.toml is not TOML:")
    assert "line 2" in message


def test_what_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "bad.toml").write_bytes(b"rate = '\xff'")
    assert refusal("bad.toml") == "cannot read bad.toml: it is not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate = 0.5\nepoch = 3", "unknown key 'epoch'; known: rate, epochs"),
        ("rates = 0.5", "unknown key 'rates'; known: rate, epochs (and 1 more)"),
        ("", "rate is missing"),
        ("rate = 0.0", "rate: input should be greater than 0, not 0.0"),
        ("rate = '0.5'", "rate: input should be a valid number, not '0.5'"),
        ("rate = nan", "rate: input should be a finite number, not nan"),
        ("rate = 0.5\nepochs = 3.0", "epochs: input should be a valid integer, not 3.0"),
        ("rate = 0.5\nepochs = true", "epochs: input should be a valid integer, not True"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(folder: Path, text: str, words: str) -> None:
    (folder / "bad.toml").write_text(text)
    assert refusal("bad.toml") == f"bad.toml: {words}"


def test_a_byte_order_mark_is_no_part_of_the_text(folder: Path) -> None:
    (folder / "own.toml").write_text("rate = 0.25", encoding="utf-8-sig")
    assert load("proxies", "own.toml", Settings)[1].rate == 0.25


def test_further_wrong_settings_are_counted(folder: Path) -> None:
    (folder / "bad.toml").write_text("rate = -1.0\nepochs = 'x'\nother = 3")
    assert refusal("bad.toml").endswith("(and 2 more)")


def test_a_wrong_flag_is_named_once() -> None:
    settings = Settings(rate=0.5)
    assert changed(settings, {"rate": 0.25}).rate == 0.25
    with pytest.raises(UserError) as error:
        changed(settings, {"rate": -1.0})
    assert str(error.value) == "--rate: input should be greater than 0, not -1.0"
