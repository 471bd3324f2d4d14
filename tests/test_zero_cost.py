"""Every score without training against arithmetic by hand."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from nas.architecture import Architecture
from nas.model import build_model
from nas.residual import Residual
from nas.zero_cost import (
    SCORES,
    Probe,
    gradient_norm,
    naswot,
    synflow,
    without_shortcuts,
    zen_score,
)

RESNET26_97 = Architecture.of([3, 3, 3, 3], [128, 100, 164, 200])
SMALL = Architecture.of([1, 1], [4, 6])


def linear(weights: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.load_state_dict({"weight": torch.tensor(weights), "bias": torch.ones(len(weights))})
    return layer


def conv(*weights: float) -> nn.Conv2d:
    layer = nn.Conv2d(1, len(weights), 1, bias=False)
    layer.load_state_dict({"weight": torch.tensor(weights).view(-1, 1, 1, 1)})
    return layer


@pytest.fixture
def probe() -> Probe:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Probe(images, torch.arange(6))


def test_synflow_of_a_chain_is_its_flow_once_a_layer() -> None:
    # |-2| into |3| and |-1|: R = 2 * 3 + 2 * 1 = 8, and each of the two layers sums to R.
    model = nn.Sequential(
        conv(-2.0), nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), linear([[3.0], [-1.0]])
    )
    assert synflow(model, torch.Size((1, 1, 1))) == pytest.approx(math.log(2 * 8))


def test_synflow_of_a_residual_block_adds_the_paths() -> None:
    # Branch 3 and shortcut 5 after 2: R = 2 * (3 + 5) = 16; the layers sum to 16, 6 and 10.
    model = nn.Sequential(conv(2.0), Residual(conv(-3.0), conv(5.0)))
    assert synflow(model, torch.Size((1, 1, 1))) == pytest.approx(math.log(16 + 6 + 10))


def test_synflow_of_a_deep_network_is_no_more_than_a_number_can_be() -> None:
    # Each further block of equal width multiplies the flow by nearly the same factor.
    scores = [
        synflow(build_model(Architecture.of([depth], [4])), torch.Size((3, 8, 8)))
        for depth in (50, 100, 400)
    ]
    assert scores[2] > math.log(sys.float_info.max)
    a_block = (scores[1] - scores[0]) / 50
    assert (scores[2] - scores[1]) / 300 == pytest.approx(a_block, rel=0.1)


def test_zen_score_is_distance_and_removed_deviation() -> None:
    # Variance 1 of the images becomes 1 and 9 in the two channels, then is removed: half of log 5.
    # Adding a times noise that is as long and unrelated makes it 1 + a^2 times as large; what is
    # left of the shift, averaged over these four images, is a / sqrt(1 + a^2) in each channel.
    model = nn.Sequential(conv(1.0, 3.0), nn.BatchNorm2d(2, eps=1e-12))
    images, noise = (
        torch.tensor(values).view(4, 1, 1, 1)
        for values in ([1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0])
    )
    expected = math.log(math.sqrt(2) * 0.01 / math.sqrt(1 + 0.01**2)) + math.log(5) / 2
    assert zen_score(model, images, noise) == pytest.approx(expected, abs=1e-4)


def test_zen_score_looks_at_branches_alone() -> None:
    found = without_shortcuts(nn.Sequential(Residual(conv(3.0), conv(5.0))))
    assert found(torch.ones(1, 1, 1, 1)).item() == 3.0


def test_naswot_is_the_determinant_of_agreements() -> None:
    # Units on (1, 0, 1) and (1, 1, 0): two images agree in one of three, det [[3, 1], [1, 3]] = 8.
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    images = torch.tensor([[1.0, -1.0, 2.0], [3.0, 1.0, -1.0]])
    assert naswot(model, images) == pytest.approx(math.log(8))


def test_naswot_counts_the_sum_of_a_residual_block() -> None:
    # On for 1 - 3 + 5 > 0 and off for its negative: they never agree, det [[1, 0], [0, 1]] = 1.
    model = nn.Sequential(Residual(conv(-3.0), conv(5.0)))
    assert naswot(model, torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)) == pytest.approx(0.0)


def test_gradient_norm_sums_over_layers() -> None:
    # Equal logits of two classes: dL/dlogits is (-1/2, 1/2), times the input (3, 4) of length 5.
    model = linear([[0.0, 0.0], [0.0, 0.0]])
    images, labels = torch.tensor([[3.0, 4.0]]), torch.tensor([0])
    assert gradient_norm(model, images, labels) == pytest.approx(5 / math.sqrt(2))
    # The same behind an identity: what reaches it is zero weights times dL/dlogits, nothing.
    deep = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]]), model)
    deep[0].bias.data.zero_()
    assert gradient_norm(deep, images, labels) == pytest.approx(5 / math.sqrt(2))


def test_sizes_are_the_closed_forms(probe: Probe) -> None:
    assert SCORES["num_params"](RESNET26_97, probe) == 4_978_810
    # One 3x3 stem and block of width 2 on 8 x 8 pixels, ten classes: 64 (27 * 2 + 2 * 36) + 20.
    assert SCORES["num_macs"](Architecture.of([1], [2]), probe) == 64 * (54 + 72) + 20


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_finite_and_repeat(name: str, probe: Probe) -> None:
    first, second = (SCORES[name](SMALL, probe) for _ in range(2))
    assert math.isfinite(first)
    assert first == second


@pytest.mark.parametrize("name", ["synflow", "naswot"])
def test_a_wider_network_scores_higher(name: str, probe: Probe) -> None:
    assert SCORES[name](SMALL.with_widths([8, 12]), probe) > SCORES[name](SMALL, probe)
