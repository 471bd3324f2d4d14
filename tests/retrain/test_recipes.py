"""The shipped recipes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
import torch
from small_training import ARCH

from nas.augmentation import Cutout, RandomCrop, TrivialAugment
from nas.batches import Batches, Normalization, RandomFlip, RandomTranslate, derived_generator
from nas.checkpoint import Checkpoints
from nas.cli.retrain import retrain as retrain_command
from nas.data import load_training_data
from nas.full_training import FullData, train_in_full
from nas.model import build_model
from nas.recipe import RetrainConfig
from nas.training import lr_at, make_optimizer, train

if TYPE_CHECKING:
    from pathlib import Path

    from small_training import Retrain


@pytest.mark.usefixtures("folder")
def test_seed_is_the_hand_made_networks_recipe() -> None:
    _, config = RetrainConfig.load("seed")
    assert config == RetrainConfig(
        epochs=200, batch_size=128, peak_lr=0.1, momentum=0.9, weight_decay=5e-4,
        is_nesterov=False, is_decay_on_all=True, schedule="cosine",
        augmentations=("crop", "flip", "perspective", "autoaugment"),
    )  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_seed_steps_as_torchs_own_sgd_does() -> None:
    training = RetrainConfig.load("seed")[1].training
    ours, theirs = (build_model(ARCH) for _ in range(2))
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for model, optimizer in ((ours, make_optimizer(ours, training)), (theirs, plain)):
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(model(images).square().mean())
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("folder")
def test_strong_changes_images_as_its_names_say() -> None:
    images = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    normalization = Normalization.of(images)
    _, config = RetrainConfig.load("strong")
    made = config.make_augmentations(normalization)
    assert list(map(type, made)) == [RandomTranslate, RandomFlip, TrivialAugment, Cutout]
    assert (config.epochs, config.ema_decay, config.label_smoothing) == (200, 0.999, 0.1)


@pytest.mark.parametrize(
    ("resolution", "pixels"), [(16, [2, 2, 8]), (32, [4, 4, 16]), (64, [8, 8, 32])]
)
def test_augmentations_move_and_cut_the_same_share_of_an_image_at_every_resolution(
    resolution: int, pixels: list[int]
) -> None:
    names = ("crop", "translate", "cutout")
    config = RetrainConfig(resolution=resolution, augmentations=names)
    normalization = Normalization.of(torch.full((1, 3, 4, 4), 100, dtype=torch.uint8))
    crop, translate, cutout = config.make_augmentations(normalization)
    assert isinstance(crop, RandomCrop)
    assert isinstance(translate, RandomTranslate)
    assert isinstance(cutout, Cutout)
    assert [crop.padding, translate.max_offset, cutout.size] == pixels


@pytest.mark.usefixtures("folder")
def test_strong_warms_up_and_ends_at_exactly_zero() -> None:
    training = RetrainConfig.load("strong")[1].training
    assert training.is_nesterov
    assert not training.is_decay_on_all
    rates = [lr_at(step, 2000, training) for step in (0, 49, 50, 1999, 2000)]
    assert rates[0] < rates[1] < rates[2] == training.peak_lr
    assert 0 < rates[3] < 1e-6
    assert rates[4] == 0.0


@pytest.mark.parametrize("recipe", ["seed", "strong"])
def test_every_shipped_recipe_trains(outside: Retrain, recipe: str) -> None:
    (retrained,) = outside(recipe=recipe, epochs=1, resolution=16, batch_size=200)
    assert retrained.folder.parent.name == f"{recipe}-epochs1-resolution16-batchsize200"


@pytest.mark.usefixtures("folder")
def test_every_setting_of_a_recipe_has_a_flag() -> None:
    flags = {"nesterov": "is_nesterov", "decay_on_all": "is_decay_on_all"}
    known = {flags.get(name, name) for name in inspect.signature(retrain_command).parameters}
    assert RetrainConfig.model_fields.keys() <= known


def test_the_same_settings_make_the_same_name_in_any_order_and_type() -> None:
    one = RetrainConfig.load("strong", epochs=3, peak_lr=1.0)
    other = RetrainConfig.load("strong", peak_lr=1, epochs=3)
    assert one == other
    assert one[0] == "strong-epochs3-peaklr1"


def test_augmentations_by_flag_show_in_the_name() -> None:
    name, config = RetrainConfig.load("seed", augmentations=["flip", "cutout"], epochs=None)
    assert (name, config.augmentations) == ("seed-augmentationsflip+cutout", ("flip", "cutout"))


@pytest.mark.usefixtures("folder")
def test_a_setting_of_zero_or_no_is_a_setting() -> None:
    name, config = RetrainConfig.load("strong", weight_decay=0.0, is_nesterov=False)
    assert name != "strong"
    assert (config.weight_decay, config.is_nesterov) == (0.0, False)


@pytest.mark.usefixtures("folder")
def test_a_seed_is_that_of_weights_order_and_augmentation(tmp_path: Path) -> None:
    config = RetrainConfig(epochs=1, resolution=8, batch_size=200, augmentations=("flip",))
    training_data = load_training_data("synthetic", ".")
    data = FullData.prepare(training_data, 8, "cpu", is_held_out=True)
    trained = train_in_full(ARCH, data, config, 3, Checkpoints(tmp_path / "c", {}))
    model = build_model(ARCH, generator=derived_generator("weights", 3))
    batches = Batches(data.train, data.normalization, 200, 3, (RandomFlip(),))
    list(train(model, batches, config.training))
    for one, other in zip(trained.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
