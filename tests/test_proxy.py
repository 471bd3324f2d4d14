from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch

from nas.architecture import Architecture
from nas.batches import RandomFlip, RandomTranslate
from nas.complexity import count_params
from nas.data import load_training_data
from nas.data_sets import DATASETS, DataSet
from nas.errors import UserError
from nas.presets import names
from nas.proxy import ProxyConfig, ProxyData, ProxyResult, run_proxy
from nas.split import Split
from nas.training import DivergedError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.image_folder import Part

CONFIG = ProxyConfig(epochs=2, resolution=8, batch_size=64, peak_lr=0.1)
SMALL = Architecture.of([1, 1], [4, 8])


@pytest.fixture(scope="module")
def synthetic() -> ProxyData:
    """All of the synthetic data at 16 pixels."""
    return ProxyData.prepare(load_training_data("synthetic", "nowhere"), 16)


@pytest.fixture(scope="module")
def small() -> ProxyData:
    """A few synthetic images at 8 pixels."""
    data = load_training_data("synthetic", "nowhere")
    few = torch.arange(300)
    data = dataclasses.replace(data, train=data.train.select(few), val=data.val.select(few))
    return ProxyData.prepare(data, 8)


def without_time(result: ProxyResult) -> ProxyResult:
    return dataclasses.replace(result, elapsed_seconds=0.0)


# Presets


@pytest.mark.parametrize(
    ("max_params", "lengths"),
    [(999_999, [(2, 16), (4, 16), (8, 16)]), (1_000_000, [(2, 16), (4, 32), (15, 32)])],
)
def test_shipped_presets_are_finished_schedules_of_growing_length(
    max_params: int, lengths: list[tuple[int, int]]
) -> None:
    assert {"quick", "standard", "thorough"} <= set(names("proxies"))
    shipped = ("quick", "standard", "thorough")
    found = {name: ProxyConfig.load(name, max_params)[1] for name in shipped}
    assert [(p.epochs, p.resolution) for p in found.values()] == lengths
    assert {p.width_factor for p in found.values()} == {1.0}


def test_small_budgets_have_what_the_small_table_sets_and_the_rest_of_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "own.toml"
    file.write_text("epochs = 4\npeak_lr = 0.1\n[small]\nresolution = 16\nepochs = 2\n")
    found = [ProxyConfig.load(str(file), budget)[1] for budget in (999_999, 1_000_000)]
    assert [(p.epochs, p.resolution, p.peak_lr) for p in found] == [(2, 16, 0.1), (4, 32, 0.1)]


@pytest.mark.parametrize(
    ("small", "message"),
    [
        ("[small]\nepoch = 3", "own.toml, [small]: unknown key 'epoch'; known: epochs, "),
        ("[small]\nepochs = 0", "own.toml, [small]: epochs: input should be greater"),
        ("small = 3", "own.toml: small is a table of settings, [small], not 3"),
    ],
)
def test_a_wrong_setting_for_small_budgets_is_refused_for_all(
    tmp_path: Path, small: str, message: str
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f"epochs = 4\npeak_lr = 0.1\n{small}\n")
    for max_params in (999_999, 1_000_000):
        with pytest.raises(UserError) as caught:
            ProxyConfig.load(str(file), max_params)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs = 0", "epochs: input should be greater than or equal to 1, not 0"),
        ("epoch = 3", "unknown key 'epoch'; known: epochs, resolution"),
        ("resolution = 4", "resolution: input should be greater than or equal to 8, not 4"),
        ("width_factor = 0.0", "width_factor: input should be greater than 0, not 0.0"),
        ("momentum = 1.0", "momentum: input should be less than 1, not 1.0"),
        ('schedule = "step"', "schedule: input should be 'linear' or 'cosine', not 'step'"),
        ("peak_lr = nan", "peak_lr: input should be"),
    ],
)
def test_wrong_setting_in_a_file_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    settings = {"epochs": "epochs = 2", "peak_lr": "peak_lr = 0.1"}
    settings[line.partition(" = ")[0]] = line
    file = tmp_path / "own.toml"
    file.write_text("\n".join(settings.values()))
    with pytest.raises(UserError) as caught:
        ProxyConfig.load(str(file), 5_000_000)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_translation_scales_with_the_resolution() -> None:
    offsets = [
        ProxyConfig(epochs=1, peak_lr=0.1, resolution=r, flip=False).augmentations[0].max_offset
        for r in (32, 16, 24)
    ]
    assert offsets == [4, 2, 3]


def test_images_are_flipped_and_moved_unless_that_is_off() -> None:
    augmentations = ProxyConfig(epochs=1, peak_lr=0.1).augmentations
    assert [type(each) for each in augmentations] == [RandomFlip, RandomTranslate]
    config = ProxyConfig(epochs=1, peak_lr=0.1, translate=0, flip=False)
    assert config.augmentations == ()


# Data


def test_prepared_data_are_train_and_val_at_the_resolution(small: ProxyData) -> None:
    assert [field.name for field in dataclasses.fields(small)] == [
        "train",
        "val",
        "normalization",
        "num_classes",
    ]
    assert small.train.images.shape == small.val.images.shape == (300, 3, 8, 8)
    assert small.resolution == 8
    assert small.train.images.dtype == torch.uint8


def test_proxy_run_never_reads_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_root: Path, part: Part) -> Split:
        assert part == "train", "the test images were read"
        return Split(torch.zeros(100, 3, 8, 8, dtype=torch.uint8), torch.arange(100) % 10)

    monkeypatch.setitem(DATASETS, "guarded", DataSet(tuple("abcdefghij"), read))
    data = ProxyData.prepare(load_training_data("guarded", "nowhere"), 8)
    assert run_proxy(SMALL, data, CONFIG).val_accuracy == 0.1


# Runs


def test_equal_runs_score_equal_to_the_last_bit(small: ProxyData) -> None:
    first, second = (run_proxy(SMALL, small, CONFIG) for _ in range(2))
    assert without_time(first) == without_time(second)
    assert len(first.train_losses) == 2
    assert first.elapsed_seconds > 0


def test_another_seed_scores_differently(small: ProxyData) -> None:
    other = CONFIG.model_copy(update={"seed": 1})
    assert run_proxy(SMALL, small, CONFIG).val_loss != run_proxy(SMALL, small, other).val_loss


def test_width_factor_trains_the_narrower_network(small: ProxyData) -> None:
    halved = CONFIG.model_copy(update={"width_factor": 0.5})
    wide = SMALL.with_widths([8, 16])
    expected = without_time(run_proxy(SMALL, small, CONFIG))
    assert without_time(run_proxy(wide, small, halved)) == expected


def test_training_set_smaller_than_a_batch_is_one_batch(small: ProxyData) -> None:
    steps: list[tuple[int, int]] = []
    config = CONFIG.model_copy(update={"batch_size": 1000})
    run_proxy(SMALL, small, config, on_step=lambda *progress: steps.append(progress))
    assert steps == [(1, 2), (2, 2)]


def test_split_batches_are_recorded_and_score_about_the_same(small: ProxyData) -> None:
    whole = run_proxy(SMALL, small, CONFIG)
    parts = run_proxy(SMALL, small, CONFIG, num_micro_batches=2)
    assert (whole.num_micro_batches, parts.num_micro_batches) == (1, 2)
    assert parts.train_losses == pytest.approx(whole.train_losses, rel=0.1)


def test_divergence_is_an_error_of_its_own(small: ProxyData) -> None:
    with pytest.raises(DivergedError):
        run_proxy(SMALL, small, CONFIG.model_copy(update={"peak_lr": 1e25}))


def test_what_diverges_in_the_last_step_has_no_score(small: ProxyData) -> None:
    """The loss of the only step is that of the first weights; val sees those after it."""
    one_step = {"epochs": 1, "batch_size": 1000, "peak_lr": 1e25}
    with pytest.raises(DivergedError, match="the validation loss is"):
        run_proxy(SMALL, small, CONFIG.model_copy(update=one_step))


@pytest.mark.parametrize(
    ("arch", "config", "message"),
    [
        (SMALL, CONFIG.model_copy(update={"resolution": 16}), "resolution: 16 asked"),
        (Architecture.of([1], [4], num_classes=7), CONFIG, "number of classes: 7 asked"),
        (Architecture.of([1], [4], in_channels=1), CONFIG, "number of channels: 1 asked"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    small: ProxyData, arch: Architecture, config: ProxyConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_proxy(arch, small, config)


def test_good_network_beats_bad_ones_on_synthetic_data(synthetic: ProxyData) -> None:
    networks = {
        "good": Architecture.of([1, 1, 1, 1], [16, 24, 28, 40]),
        "late": Architecture.of([1, 1, 1, 1], [4, 6, 16, 64]),
        "tiny": Architecture.of([1, 1, 1], [4, 4, 4]),
    }
    assert [count_params(arch) for arch in networks.values()] == [54_498, 52_518, 1_126]
    quick = ProxyConfig.load("quick", 5_000_000)[1]
    good, late, tiny = (run_proxy(a, synthetic, quick).val_accuracy for a in networks.values())
    assert 0.55 < good < 0.9
    assert good > late + 0.05
    assert good > tiny + 0.15
    assert tiny > 0.15
