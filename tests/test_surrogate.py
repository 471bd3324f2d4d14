"""Estimates take the luck out of scores where a model fits, and leave them alone elsewhere."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.encoding import Encoding
from nas.gaussian_process import GaussianProcess, _loss, evidences
from nas.surrogate import _fence, _share_predicted, estimate, recommend

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NOISE = 0.3
TRUSTED = 0.5  # of the variance of values that were not seen


def rows(number: int, seed: int = 0) -> np.ndarray:
    """Rows of six choices of four, one-hot."""
    choices = np.random.default_rng(seed).integers(0, 4, size=(number, 6))
    return np.eye(4)[choices].reshape(number, 24)


def additive(features: np.ndarray, seed: int) -> np.ndarray:
    return features @ np.random.default_rng(seed + 1000).normal(size=features.shape[1]) * 0.4


def noise(number: int, seed: int, scale: float = NOISE) -> np.ndarray:
    return np.random.default_rng(seed + 2000).normal(size=number) * scale


@pytest.mark.parametrize("number", [50, 200])
def test_estimates_are_nearer_the_truth_than_the_scores(number: int) -> None:
    features = rows(number)
    truth = additive(features, 0)
    estimates = estimate(features, truth + noise(number, 0))
    assert estimates.trust > TRUSTED
    assert np.std(estimates.mean - truth) < 0.75 * NOISE


def test_an_estimates_spread_covers_its_error() -> None:
    inside = []
    for seed in range(10):
        features = rows(100, seed)
        truth = additive(features, seed)
        found = estimate(features, truth + noise(100, seed))
        inside.append(np.mean(abs(found.mean - truth) < 2 * found.std))
    assert np.mean(inside) > 0.9


def test_the_cross_validated_error_is_that_of_values_not_seen() -> None:
    features = rows(300)
    values = additive(features, 0) + noise(300, 0)
    found = estimate(features, values)
    assert NOISE < found.cv_error < 1.25 * NOISE
    assert 1 - found.cv_error**2 / values.var() == pytest.approx(found.trust, abs=0.1)


@pytest.mark.parametrize("number", [20, 40, 200])
def test_what_no_model_fits_keeps_its_scores(number: int) -> None:
    """Every value is a draw of its own: the only thing known of it is its score."""
    values = noise(number, 0, scale=1.0)
    found = estimate(rows(number), values)
    assert found.trust < TRUSTED
    assert found.mean[values.argmax()] > np.quantile(found.mean, 0.9)
    assert np.corrcoef(found.mean, values)[0, 1] > 0.95


def test_where_no_model_fits_an_estimate_is_as_uncertain_as_the_values_are_spread() -> None:
    values = noise(100, 0, scale=1.0)
    assert estimate(rows(100), values).std == pytest.approx(values.std(), rel=0.1)


def test_trust_is_short_of_the_share_that_is_predicted_by_one_standard_error() -> None:
    """A tenth of the variance is left; of 8 squares the mean is known to a half (sqrt(2 / 8))."""
    predicted = np.repeat([-3.0, 3.0], 4)
    values = predicted + np.tile([-1.0, 1.0], 4)
    assert _share_predicted(predicted, values) == pytest.approx(1 - 1.5 * 0.1)


def test_an_estimate_keeps_the_square_of_the_untrusted_share_of_what_is_unexplained() -> None:
    features = rows(50)
    values = additive(features, 0) + noise(50, 0, scale=0.6)
    found, model = estimate(features, values), GaussianProcess(features, values)
    assert 0.2 < found.trust < 0.8
    unexplained = model.targets - model.means
    expected = model.warping.inverse(model.means + (1 - found.trust) ** 2 * unexplained)
    assert found.mean == pytest.approx(expected, abs=1e-12)


def test_the_fence_is_below_the_median_by_seven_times_what_the_upper_quartile_is_above() -> None:
    assert _fence(np.array([-9.0, -1.0, 0.0, 1.0, 2.0])) == -7.0


def test_where_no_model_fits_the_named_is_as_good_as_the_raw_best() -> None:
    """On average over 40 surfaces without structure, scored with a little noise."""
    lost = []
    for seed in range(40):
        truth = noise(60, seed, scale=1.0)
        scores = truth + noise(60, seed + 500, scale=0.1)
        named = estimate(rows(60, seed), scores).mean.argmax()
        lost.append(truth[scores.argmax()] - truth[named])
    assert np.mean(lost) < 2 * np.std(lost) / np.sqrt(40) + 0.01


def test_to_tell_what_diverged_is_no_skill_in_telling_the_others_apart() -> None:
    """A fifth of the networks scores 10, the others 90 to 92 for reasons of their own."""
    lost = []
    for seed in range(10):
        features = rows(100, seed)
        own = 90 + 2 * np.random.default_rng(seed).random(100)
        truth = np.where(features[:, 0] == 1, 10.0, own)
        named = int(estimate(features, truth).mean.argmax())
        lost.append(truth.max() - truth[named])
    assert np.mean(lost) < 0.1  # 0.3 with them counted


def test_what_is_far_out_costs_the_others_nothing() -> None:
    """A tenth of the networks stayed at chance; the others are estimated as if they were alone."""
    features = rows(100)
    values = additive(features, 0) + noise(100, 0)
    stuck = np.random.default_rng(1).permutation(100) < 10
    values[stuck] = -50.0
    found, alone = estimate(features, values), estimate(features[~stuck], values[~stuck])
    assert found.mean[~stuck] == pytest.approx(alone.mean)
    assert (found.cv_error, found.trust) == pytest.approx((alone.cv_error, alone.trust))
    assert (found.mean[stuck] == -50).all()


def test_the_named_is_better_than_the_luckiest_where_the_model_fits() -> None:
    gained = []
    for seed in range(40):
        features = rows(60, seed)
        truth = additive(features, seed)
        scores = truth + noise(60, seed, scale=0.6)
        named = estimate(features, scores).mean.argmax()
        gained.append(truth[named] - truth[scores.argmax()])
    assert np.mean(gained) > 2 * np.std(gained) / np.sqrt(40)


@pytest.mark.parametrize("values", [[], [0.5], [0.5] * 30, [0.1] * 30, list(np.arange(9.0))])
def test_too_few_or_equal_values_are_their_own_estimates(values: list[float]) -> None:
    found = estimate(rows(len(values)), np.array(values))
    assert found.mean.tolist() == values
    assert found.trust < TRUSTED
    assert np.isnan(found.std).all() == (len(set(values)) <= 1)  # nothing is known of their luck


@pytest.mark.parametrize("number", [5, 25, 39])
def test_where_many_are_as_good_as_the_best_no_spread_is_wider_than_the_values(number: int) -> None:
    values = np.ones(40)
    values[:number] = np.random.default_rng(0).random(number)
    found = estimate(rows(40), values)
    assert 0 < found.std.max() <= 1
    assert found.trust < TRUSTED


def test_the_unit_of_the_values_and_a_constant_change_nothing() -> None:
    features = rows(60)
    values = additive(features, 0) + noise(60, 0)
    one, other = estimate(features, values), estimate(features, 100 * values - 7)
    assert other.mean == pytest.approx(100 * one.mean - 7, abs=1e-6)
    assert other.trust == pytest.approx(one.trust)


def test_features_may_be_in_any_unit() -> None:
    features = rows(60)
    values = additive(features, 0) + noise(60, 0)
    scaled = features * np.geomspace(1e-3, 1e6, features.shape[1]) + 5
    assert estimate(scaled, values).mean == pytest.approx(estimate(features, values).mean, abs=1e-5)


@pytest.mark.parametrize(
    ("features", "values"),
    [
        (np.zeros((3, 2)), np.zeros(4)),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((1, 1)), np.array([np.nan])),
    ],
)
def test_what_cannot_be_estimated_is_refused(features: np.ndarray, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values"):
        estimate(features, values)


def test_of_two_choices_that_matter_the_model_learns_which() -> None:
    """Two of six choices make the score, by their combination: the other columns count little."""
    features = rows(150)
    codes = features.reshape(150, 6, 4).argmax(axis=2)
    worth = np.random.default_rng(0).normal(size=(4, 4))
    found = evidences(features, worth[codes[:, 0], codes[:, 1]] + noise(150, 0, 0.1))
    relevances = max(found, key=lambda kernel: found[kernel]).relevances
    by_choice = np.array(relevances).reshape(6, 4).max(axis=1)
    assert by_choice[:2].min() > 2 * by_choice[2:].max()


def test_the_slope_of_the_evidence_is_that_of_small_steps() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(30, 4)), rng.normal(size=30)
    logarithms, step = rng.normal(size=7) * 0.5, 1e-5
    slopes = [
        (
            _loss(logarithms + way, features, targets)[0]
            - _loss(logarithms - way, features, targets)[0]
        )
        / (2 * step)
        for way in step * np.eye(7)
    ]
    assert _loss(logarithms, features, targets)[1] == pytest.approx(np.array(slopes), abs=1e-6)


def test_means_and_deviations_of_the_rows_themselves_are_those_predicted_for_them() -> None:
    features = rows(50)
    model = GaussianProcess(features, additive(features, 0) + noise(50, 0))
    means, deviations = model.predict(features)
    assert model.means == pytest.approx(means, abs=1e-9)
    assert model.deviations == pytest.approx(deviations, abs=1e-9)


def test_what_is_believed_takes_doubt_away_and_teaches_nothing() -> None:
    features, running = rows(50), np.vstack([rows(4, 1), 1e3 * rows(1, 2)])
    model = GaussianProcess(features, additive(features, 0) + noise(50, 0))
    elsewhere = rows(20, 3)
    (means, stds), (after, stds_after) = (
        each.predict(np.vstack([elsewhere, running])) for each in (model, model.believing(running))
    )
    assert after == pytest.approx(means, abs=1e-9)
    assert (stds_after <= stds + 1e-9).all()
    assert (stds_after[20:] < 0.9 * stds[20:]).all()
    twice = model.believing(running[:2]).believing(running[2:])
    assert twice.predict(elsewhere)[1] == pytest.approx(stds_after[:20], abs=1e-9)


# recommend

SPACE: dict[str, BaseDistribution] = {
    "width": IntDistribution(8, 64, step=8),
    "depth": IntDistribution(1, 4),
    "block": CategoricalDistribution(["basic", "bottleneck"]),
}


def study_with(direction: str, number: int = 60) -> optuna.Study:
    """Scores grow with width and depth; trial 5 is small and lucky."""
    study, rng = optuna.create_study(direction=direction), np.random.default_rng(0)
    sign = 1 if direction == "maximize" else -1
    for index in range(number):
        params = {
            "width": 8 * int(rng.integers(1, 9)),
            "depth": int(rng.integers(1, 5)),
            "block": ["basic", "bottleneck"][rng.integers(2)],
        }
        if index == 5:
            params |= {"width": 32, "depth": 2}
        value = params["width"] / 64 + params["depth"] / 4 + rng.normal() * 0.05
        value += 1.5 * (index == 5)
        study.add_trial(optuna.create_trial(params=params, distributions=SPACE, value=sign * value))
    return study


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_luckiest_trial_is_not_the_recommended_one(direction: str) -> None:
    study = study_with(direction)
    named = recommend(study, SPACE)
    assert study.best_trial.number == 5
    assert named.params["width"] >= 56
    assert named.params["depth"] == 4


def test_features_of_ones_own_are_used() -> None:
    """The score depends on a number no parameter is linear in."""
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    study, rng = optuna.create_study(direction="maximize"), np.random.default_rng(0)
    hidden = {float(x): float(rng.random()) for x in rng.random(80)}
    for x, value in hidden.items():
        trial = optuna.create_trial(
            params={"x": x}, distributions=space, value=value + rng.normal() * 0.2
        )
        study.add_trial(trial)
    named = recommend(study, space, features=lambda params: [hidden[params["x"]]])
    assert hidden[named.params["x"]] > 0.9


def test_trials_outside_the_space_are_not_named() -> None:
    study = study_with("maximize", 20)
    study.add_trial(optuna.create_trial(value=99.0))
    assert recommend(study, SPACE).params


def test_where_nothing_is_scored_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="no trial"):
        recommend(optuna.create_study(), SPACE)


# encoding


def test_few_numbers_are_steps_many_are_places_and_choices_are_columns() -> None:
    space: dict[str, BaseDistribution] = {
        "depth": IntDistribution(1, 3),
        "width": IntDistribution(10, 1000),
        "shift": IntDistribution(-50, 50),
        "rate": FloatDistribution(0.01, 1, log=True),
        "block": CategoricalDistribution(["a", "b"]),
        "fixed": IntDistribution(3, 3),
    }
    encoding = Encoding(space, lambda params: [params["width"] * 2])
    params = {"depth": 2, "width": 100, "shift": 0, "rate": 0.1, "block": "b", "fixed": 3}
    depth, width, shift, rate, block, own = [1, 0], [90 / 990, 0.5], [0.5], [0.5], [0, 1], [200]
    assert encoding.encode([params, params]) == pytest.approx(
        np.array([[*depth, *width, *shift, *rate, *block, *own]] * 2)
    )


def test_parameters_of_one_range_have_the_mean_of_their_columns() -> None:
    kernels = {f"kernel_size_{stage}": IntDistribution(3, 7, step=2) for stage in (1, 2)}
    rows = Encoding(kernels | {"depth": IntDistribution(1, 2)}).encode(
        [{"kernel_size_1": 3, "depth": 2, "kernel_size_2": 7}]
    )
    assert rows.tolist() == [[0, 0, 1, 1, 0.5, 0.5, 1]]


def test_a_value_enqueued_from_outside_its_range_has_as_many_columns() -> None:
    encoding = Encoding({"few": IntDistribution(1, 3), "many": IntDistribution(1, 100)})
    inside, above, below = encoding.encode(
        [{"few": few, "many": many} for few, many in ((3, 100), (5, 199), (0, -98))]
    )
    assert inside.tolist() == [1, 1, 1, 1]
    assert above.tolist() == pytest.approx([1, 1, 2, 1 + math.log(1.99) / math.log(100)])
    assert below.tolist() == [0, 0, -1, 0]


def test_no_parameters_are_no_rows() -> None:
    assert Encoding(SPACE).encode([]).shape[0] == 0


@pytest.mark.parametrize("log", [False, True])
def test_large_numbers_close_together_have_places(*, log: bool) -> None:
    dist = FloatDistribution(1e16, 1e16 + 20, log=log)
    rows = Encoding({"x": dist}).encode([{"x": dist.low}, {"x": dist.high}])
    assert rows.tolist() == [[0.0], [1.0]]


def test_where_nothing_is_to_be_chosen_rows_have_no_columns() -> None:
    assert Encoding({"fixed": IntDistribution(3, 3)}).encode([{"fixed": 3}] * 2).shape == (2, 0)


def test_the_surrogate_imports_no_torch() -> None:
    code = "import nas.surrogate, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
