"""The denoised leaderboard: estimates without luck, and which trial comes first."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import replace
from random import Random

import numpy as np
import optuna
import pandas as pd
import pytest
from fake_study import SPACE, fake_study, networks, quality
from optuna.trial import TrialState

from nas.analysis import agreement, denoise, later_in_words, scored
from nas.architecture import Architecture
from nas.cli.leaderboard import print_table
from nas.complexity import count_macs, count_params
from nas.errors import UserError
from nas.find_study import FINALISTS
from nas.report.page import render
from nas.results import COLUMNS, FINALIST_COLUMNS, best_trials, later_scores, leaderboard, trials
from nas.sisters import open_sister

ARCHS = [arch for arch, _, _ in networks(120, seed=0)]
NOISE = 0.01


def add_finalists(study: optuna.Study, scores: dict[int, list[float]]) -> None:
    """Score networks again, each with so many seeds."""
    sister = open_sister(study._storage, study.study_name, FINALISTS)
    for number, values in scores.items():
        for seed, value in enumerate(values):
            origin = {"source_trial": number, "seed": seed}
            sister.add_trial(optuna.create_trial(value=value, user_attrs=origin))


def set_schedule(study: optuna.Study, **settings: float) -> None:
    identity = {f"proxy.{name}": value for name, value in settings.items()}
    study.set_user_attr("identity", json.dumps(identity))


def frame(archs: list[Architecture], accuracies: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "architecture_json": [arch.to_json() for arch in archs],
            "num_params": [count_params(arch) for arch in archs],
            "num_macs": [count_macs(arch) for arch in archs],
            "val_accuracy": accuracies,
        }
    )


def noisy(truth: list[float], seed: int) -> list[float]:
    rng = Random(seed)
    return [value + rng.gauss(0, NOISE) for value in truth]


def regrets(truth: list[float], rounds: int) -> dict[str, list[float]]:
    """What the winners by estimate and by raw score are short of the true best."""
    found: dict[str, list[float]] = {"denoised": [], "val_accuracy": []}
    for seed in range(rounds):
        scored = denoise(frame(ARCHS, noisy(truth, seed)), SPACE)
        for column, values in found.items():
            values.append(max(truth) - truth[int(scored[column].to_numpy().argmax())])
    return found


def surface_without_shape(arch: Architecture) -> float:
    """An accuracy that no property of the network predicts."""
    return 0.6 + 0.02 * int(hashlib.sha256(arch.to_json().encode()).hexdigest()[:8], 16) / 2**32


def test_the_estimates_are_nearer_the_truth_than_the_scores_and_know_how_near() -> None:
    truth = np.array([quality(arch) for arch in ARCHS])
    scored = denoise(frame(ARCHS, noisy(list(truth), 0)), SPACE)
    raw_error = np.sqrt(((scored["val_accuracy"] - truth) ** 2).mean())
    error = np.sqrt(((scored["denoised"] - truth) ** 2).mean())
    assert error < 0.6 * raw_error
    assert 0.5 * error < scored["denoised_std"].mean() < 2 * error


def test_the_winner_by_estimate_is_better_than_the_luckiest_score() -> None:
    found = regrets([quality(arch) for arch in ARCHS], rounds=12)
    assert statistics.mean(found["denoised"]) < statistics.mean(found["val_accuracy"])


def test_on_a_surface_the_model_cannot_fit_it_does_no_worse_than_chance() -> None:
    found = regrets([surface_without_shape(arch) for arch in ARCHS], rounds=12)
    differences = [a - b for a, b in zip(*found.values(), strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    assert statistics.mean(differences) <= 2 * error


def test_a_network_beside_the_ranges_is_estimated_one_of_other_stages_keeps_its_score() -> None:
    beside = ARCHS[0].scaled(1.07)
    odd = [Architecture.of([1], [8]), Architecture.of([1] * 6, [8] * 6, [5] * 6)]
    mixed = replace(ARCHS[1], stages=tuple(replace(s, block="bottleneck") for s in ARCHS[1].stages))
    archs = [*ARCHS[:40], beside, *odd, mixed]
    assert [SPACE.contains(arch) for arch in archs[-4:]] == [False] * 4
    scores = noisy([quality(arch) for arch in archs[:41]] + [0.5] * 3, 0)
    scored = denoise(frame(archs, scores), SPACE)
    assert np.isfinite(scored[["denoised", "denoised_std"]]).all(axis=None)
    kept = scored["denoised"] == scored["val_accuracy"]
    assert list(kept) == [False] * 41 + [True] * 3
    assert (scored["denoised_std"][41:] > 0).all()


def test_the_leaderboard_ranks_by_estimate_and_on_request_by_score() -> None:
    study = fake_study(number=60, noise=NOISE)
    for by, column in (("denoised", "denoised"), ("raw", "val_accuracy")):
        ranked = leaderboard(study, by=by)
        assert tuple(ranked.columns) == COLUMNS
        assert ranked[column].is_monotonic_decreasing
        assert best_trials(study, 3, by=by) == list(ranked["trial"].head(3))
    assert best_trials(study, 10, by="raw") != best_trials(study, 10, by="denoised")


def test_finalists_are_ranked_first_by_their_mean_and_the_rest_by_estimate() -> None:
    """The two of the lowest estimates, rescored still lower."""
    study = fake_study(number=60, noise=NOISE)
    *rest, one, other = best_trials(study, 60, by="denoised")
    add_finalists(study, {one: [0.1, 0.4], other: [0.3, 0.3]})
    assert list(leaderboard(study)["trial"]) == [other, one, *rest]
    raw = best_trials(study, 60, by="raw")
    assert rest != [number for number in raw if number in rest], "this test shows too little"


def test_a_finalist_has_the_mean_the_deviation_and_the_number_of_its_seeds() -> None:
    study = fake_study(number=6)
    add_finalists(study, {1: [0.1, 0.4]})
    first = leaderboard(study).iloc[0]
    expected = [0.25, statistics.stdev([0.1, 0.4]), 2]
    assert [float(first[name]) for name in FINALIST_COLUMNS] == pytest.approx(expected)


def test_the_table_says_of_how_many_seeds_the_finalists_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = fake_study(number=6)
    add_finalists(study, {1: 2 * [0.5], 2: 5 * [0.5]})
    print_table(study, leaderboard(study))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "finalist: mean of longer runs with other seeds (2 to 5) on the same val images"


@pytest.mark.parametrize("left", [TrialState.FAIL, TrialState.WAITING, TrialState.RUNNING])
@pytest.mark.parametrize("is_scored_later", [False, True])
def test_a_finalist_of_which_a_seed_is_not_scored_is_behind_the_others(
    left: TrialState, *, is_scored_later: bool
) -> None:
    study = fake_study(number=6)
    sister = open_sister(study._storage, study.study_name, FINALISTS)
    for number, values in ((1, [0.9, None]), (2, [0.6, 0.5])):
        for seed, value in enumerate(values):
            state = left if value is None else TrialState.COMPLETE
            attrs = {"source_trial": number, "seed": seed}
            sister.add_trial(optuna.create_trial(state=state, value=value, user_attrs=attrs))
    if is_scored_later:
        attrs = {"source_trial": 1, "seed": 1}
        sister.add_trial(optuna.create_trial(value=0.8, user_attrs=attrs))
    first = 1 if is_scored_later else 2
    assert leaderboard(study)["trial"].tolist()[:2] == [first, 3 - first]


@pytest.mark.parametrize(
    ("by", "kept"), [("finalist", "finalist"), ("raw", "val"), ("denoised", "denoised")]
)
def test_a_narrow_table_keeps_the_score_that_ranks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by: str, kept: str
) -> None:
    study = fake_study(number=6)
    add_finalists(study, {1: [0.5]})
    monkeypatch.setenv("COLUMNS", "70")
    print_table(study, leaderboard(study, by=by), by)
    told = capsys.readouterr().out
    assert told.splitlines()[0].split() == ["rank", "trial", kept, "params", "architecture"]
    assert ("finalist: mean of longer runs" in told) == (kept == "finalist")


def test_numbers_of_seeds_are_whole_beside_networks_without_finalists(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    study = fake_study(number=6)
    add_finalists(study, {1: [0.6, 0.6], 2: [0.7]})
    frame = leaderboard(study)
    written = frame["finalist_seeds"].to_csv(index=False, header=False)
    assert written.split() == ["1", "2", *['""'] * 4]
    print_table(study, frame)
    _, first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert "70.00% (1)" in first
    assert "60.00% ±0.00 (2)" in second
    assert "(" not in third


def test_a_table_says_what_its_scores_are_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    study = fake_study(number=6)
    print_table(study, leaderboard(study))
    assert "scores: " not in capsys.readouterr().out  # nobody knows
    for epochs, factor, words in (
        (1, 1.0, "1 epoch at 16 pixels"),
        (4, 0.5, "4 epochs at 16 pixels and 0.5 times the widths"),
    ):
        identity = {"epochs": epochs, "resolution": 16, "width_factor": factor}
        set_schedule(study, **identity)
        print_table(study, leaderboard(study))
        *_, last = capsys.readouterr().out.splitlines()
        assert last == f"scores: one seed of {words}, on images held out of training"


def test_a_table_says_what_finalists_are_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    study = fake_study(number=6)
    add_finalists(study, {1: [0.5]})
    sister = open_sister(study._storage, study.study_name, FINALISTS)
    set_schedule(sister, epochs=16, resolution=32)
    print_table(study, leaderboard(study))
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("finalist: mean of runs of 16 epochs at 32 pixels with other seeds (1)")
    later = later_scores(study)
    pairs = agreement(scored(trials(study)), later)
    assert later_in_words(pairs) == {
        1: "50.00% finalists (val), 1\N{MULTIPLICATION SIGN} 16 epochs"
    }
    assert "ranked by the mean of runs of 16 epochs at 32 pixels" in render(study)


def test_few_networks_are_ranked_by_their_scores() -> None:
    ranked = leaderboard(fake_study(number=6))
    assert list(ranked["denoised"]) == list(ranked["val_accuracy"])


def test_without_a_score_there_is_no_best() -> None:
    empty = optuna.create_study(study_name="empty")
    empty.set_user_attr("space", json.dumps(SPACE.to_dict()))
    assert leaderboard(empty).empty
    with pytest.raises(UserError, match="'empty' has no scored trial yet"):
        best_trials(empty, 3, by="raw")


def test_another_ranking_is_refused() -> None:
    with pytest.raises(UserError, match="unknown ranking 'luck'; known: finalist, denoised, raw"):
        leaderboard(fake_study(number=6), by="luck")
