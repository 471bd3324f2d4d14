"""The frames that the report draws."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from datetime import timedelta
from random import Random

import optuna
import pandas as pd
import pytest
from fake_study import NUM_RANDOM, SPACE, add_retrained, fake_study, quality, quality_of
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from nas import analysis, results
from nas.architecture import Architecture
from nas.sisters import open_sister


def frame(accuracies: list[float], num_params: list[int] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial": range(len(accuracies)),
            "val_accuracy": accuracies,
            "num_params": num_params or range(len(accuracies)),
        }
    )


def test_the_front_holds_what_no_smaller_or_equal_network_reaches() -> None:
    points = frame([0.5, 0.4, 0.6, 0.6, 0.7, 0.7], [10, 20, 30, 30, 5, 40])
    on_front = analysis.with_front(points)["is_on_front"]
    assert list(points["trial"][on_front]) == [4]
    points = frame([0.5, 0.4, 0.6, 0.7], [10, 20, 30, 40])
    assert list(analysis.with_front(points)["is_on_front"]) == [True, False, True, True]


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_the_expected_best_is_the_mean_over_all_choices(count: int) -> None:
    values = [0.3, 0.9, 0.1, 0.5, 0.5, 0.2, 0.8]
    slow = statistics.mean(max(chosen) for chosen in itertools.combinations(values, count))
    assert analysis.expected_best(values, count) == pytest.approx(slow)


def test_the_expected_best_of_thousands_is_finite() -> None:
    assert analysis.expected_best([k / 2000 for k in range(2000)], 1000) == pytest.approx(
        1, abs=0.001
    )


def test_groups_are_compared_at_equal_numbers() -> None:
    scored = frame([0.1, 0.2, 0.3, 0.4, 0.9]).assign(
        proposed_by=["baseline", "random", "random", "tpe", "tpe, repaired"]
    )
    history = analysis.with_incumbent(scored)
    assert list(history["incumbent"]) == [0.1, 0.2, 0.3, 0.4, 0.9]
    groups = analysis.compare_groups(history).set_index("group")
    assert list(groups.index) == ["search", "random", "hand-made"]
    assert dict(groups["num_networks"]) == {"search": 2, "random": 2, "hand-made": 1}
    assert (groups["equal_number"] == 2).all()
    assert groups.loc["search", "expected_best"] == pytest.approx(0.9)
    assert math.isnan(groups.loc["hand-made", "expected_best"])
    assert (analysis.compare_groups(history[:3])["equal_number"] == 0).all(), "nothing was searched"
    assert math.isnan(groups.loc["hand-made", "standard_error"])


def test_a_group_has_its_mean_the_standard_error_of_that_and_its_best() -> None:
    scored = frame([0.9, 0.2, 0.4]).assign(proposed_by="tpe")
    (group,) = analysis.compare_groups(analysis.with_incumbent(scored)).to_dict("records")
    assert (group["mean"], group["best"]) == (pytest.approx(0.5), 0.9)
    deviation = statistics.stdev([0.9, 0.2, 0.4])
    assert group["standard_error"] == pytest.approx(deviation / math.sqrt(3))


@pytest.mark.parametrize(
    ("proposed_by", "group"),
    [
        ("baseline", "hand-made"),
        ("enqueued", "hand-made"),
        ("imported", "hand-made"),
        ("random", "random"),
        ("random, repaired", "search"),
    ],
)
def test_what_people_brought_is_no_merit_of_the_search(proposed_by: str, group: str) -> None:
    assert analysis.group_of(proposed_by) == group


def test_stages_are_laid_out_and_shorter_networks_leave_gaps() -> None:
    two, three = Architecture.of([1, 2], [8, 16]), Architecture.of([3, 3, 3], [4, 6, 8], [3, 5, 7])
    scored = frame([0.1, 0.2]).assign(architecture_json=[two.to_json(), three.to_json()])
    laid_out = analysis.stages(scored)
    assert laid_out.loc[1, ["depth_3", "width_3", "kernel_size_3"]].tolist() == [3, 8, 7]
    assert laid_out.loc[0, ["depth_2", "width_2", "kernel_size_2"]].tolist() == [2, 16, 3]
    assert math.isnan(laid_out.loc[0, "depth_3"])


def test_the_best_tenth_is_compared_with_the_rest() -> None:
    archs = [Architecture.of([1, depth], [8, 16]) for depth in range(1, 21)]
    scored = frame([a.stages[1].depth / 20 for a in archs])
    scored["architecture_json"] = [a.to_json() for a in archs]
    found = analysis.best_tenth(analysis.stages(scored))
    assert set(found["field"] + found["stage"].astype(str)) == {"depth2"}
    by_group = found.set_index("group")
    assert by_group.loc["best tenth", ["num_networks", "median"]].tolist() == [2, 19.5]
    assert by_group.loc["the rest", ["num_networks", "median"]].tolist() == [18, 9.5]


def test_the_box_of_a_group_is_from_its_lower_to_its_upper_quartile() -> None:
    laid_out = frame([number / 20 for number in range(20)]).drop(columns="num_params")
    found = analysis.best_tenth(laid_out.assign(depth_1=range(20))).set_index("group")
    assert found.loc["the rest", ["lower", "median", "upper"]].tolist() == [4.25, 8.5, 12.75]


def test_a_best_tenth_of_one_network_has_nothing_in_common() -> None:
    scored = frame([0.1 * number for number in range(14)])
    archs = [Architecture.of([1, depth], [8, 16]) for depth in range(1, 15)]
    scored["architecture_json"] = [arch.to_json() for arch in archs]
    assert analysis.best_tenth(analysis.stages(scored)).empty


@pytest.mark.parametrize(("num_best", "num_marked"), [(1, 2), (3, 3), (5, 0), (20, 0)])
def test_networks_that_score_as_much_are_in_the_best_tenth_or_none_is(
    num_best: int, num_marked: int
) -> None:
    rest = [0.01 * number for number in range(20 - num_best)]
    assert analysis.is_best_tenth(pd.Series([1.0] * num_best + rest)).sum() == num_marked


def test_time_that_is_not_known_is_left_out() -> None:
    trials = pd.DataFrame(
        {"state": ["COMPLETE", "RUNNING"], "fail_reason": None, "elapsed_seconds": [3600.0, None]}
    )
    later = pd.DataFrame({"elapsed_seconds": [None, 7200.0], "measure": ["imported", "retrain"]})
    failed = pd.DataFrame({"elapsed_seconds": [3600.0, None], "what": "failed: lost (retrain)"})
    spent = analysis.time_spent(trials, later, failed)
    found = dict(zip(spent["what"], spent["hours"], strict=True))
    assert found == {"retrain": 2, "scored": 1, "failed: lost (retrain)": 1}


def test_trials_hold_what_was_scored_and_what_failed() -> None:
    trials = results.trials(fake_study(number=20, num_failed=2))
    assert list(trials["state"]) == ["COMPLETE"] * 20 + ["FAIL"] * 2
    assert list(trials["fail_reason"].dropna()) == ["diverged"] * 2
    assert trials["elapsed_seconds"].iloc[-1] == 10
    assert len(analysis.scored(trials)) == 20


def test_later_scores_meet_the_proxys_by_source_trial_or_by_architecture() -> None:
    study = fake_study(number=20)
    add_retrained(study, [3, 5], seeds=2)
    later = results.later_scores(study)
    later.loc[later["trial"] == 5, "trial"] = None  # as of a network named by its file
    pairs = analysis.agreement(analysis.scored(results.trials(study)), later)
    assert list(pairs["trial"]) == [3, 5]
    assert list(pairs["num_seeds"]) == [2, 2]
    assert pairs["accuracy"].tolist() == pytest.approx(
        [quality_of(study.trials[number]) + 0.2 for number in (3, 5)]
    )


def test_a_study_without_sisters_has_no_later_scores() -> None:
    study = fake_study(number=5)
    assert results.later_scores(study).empty
    assert analysis.agreement(
        analysis.scored(results.trials(study)), results.later_scores(study)
    ).empty


def test_the_rank_correlation_needs_five_networks() -> None:
    pairs = pd.DataFrame({"val_accuracy": [1, 2, 3, 4.0], "accuracy": [1, 2, 3, 4.0]})
    assert analysis.rank_correlation(pairs) is None


def test_equal_ranks_correlate_fully_and_opposite_ones_not() -> None:
    up = [0.1, 0.2, 0.4, 0.5, 0.9]
    same = analysis.rank_correlation(pd.DataFrame({"val_accuracy": up, "accuracy": up}))
    assert (same.num_networks, same.spearman) == (5, pytest.approx(1))  # type: ignore[union-attr]
    assert same.verdict == "better"  # type: ignore[union-attr]
    opposite = pd.DataFrame({"val_accuracy": up, "accuracy": up[::-1]})
    reverse = analysis.rank_correlation(opposite)
    assert (reverse.spearman, reverse.verdict) == (pytest.approx(-1), "worse")  # type: ignore[union-attr]


def test_of_the_orders_of_five_networks_only_the_best_is_better_than_chance() -> None:
    up = [0.1, 0.2, 0.3, 0.4, 0.5]
    found = [
        analysis.rank_correlation(pd.DataFrame({"val_accuracy": up, "accuracy": order}))
        for order in itertools.permutations(up)
    ]
    better = [each for each in found if each is not None and each.verdict == "better"]
    assert [each.spearman for each in better] == [pytest.approx(1)]  # one of 120; 0.9 have four
    assert str(better[0]) == "1.00", "no interval: every resample agrees"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered = Random(0), 0
    for _ in range(40):
        x = [rng.gauss(0, 1) for _ in range(30)]
        y = [value + rng.gauss(0, 1) for value in x]  # Spearman about 0.69
        found = analysis.rank_correlation(pd.DataFrame({"val_accuracy": x, "accuracy": y}))
        covered += found.low <= 0.69 <= found.high  # type: ignore[union-attr]
    assert covered >= 34


def test_the_interval_of_a_correlation_is_1_96_standard_errors_to_each_side() -> None:
    """Of unrelated ranks the standard error is 1 / sqrt(n - 1)."""
    rng = Random(0)
    noise = [[rng.gauss(0, 1) for _ in range(401)] for _ in range(2)]
    found = analysis.rank_correlation(
        pd.DataFrame({"val_accuracy": noise[0], "accuracy": noise[1]})
    )
    assert found is not None
    ends = [20 * (end - found.spearman) for end in (found.low, found.high)]
    assert ends == pytest.approx([-1.96, 1.96], abs=0.2)  # 1.64 of 90 %


def test_noise_is_not_taken_for_a_ranking() -> None:
    rng, claimed = Random(1), 0
    for _ in range(40):
        noise = [[rng.gauss(0, 1) for _ in range(12)] for _ in range(2)]
        pairs = pd.DataFrame({"val_accuracy": noise[0], "accuracy": noise[1]})
        claimed += analysis.rank_correlation(pairs).verdict != ""  # type: ignore[union-attr]
    assert claimed <= 5


def test_time_is_added_up_by_what_it_was_spent_on() -> None:
    study = fake_study(number=20, num_failed=2)
    add_retrained(study, [3], seeds=2)
    sister = open_sister(study._storage, study.study_name, "retrain")
    failed = optuna.trial.create_trial(
        state=TrialState.FAIL, user_attrs={"fail_reason": "diverged", "recipe": "strong"}
    )
    assert failed.datetime_start is not None
    failed.datetime_complete = failed.datetime_start + timedelta(hours=0.5)
    sister.add_trial(failed)
    frames = results.trials(study), results.later_scores(study), results.failed_later(study)
    spent = analysis.time_spent(*frames)
    by_what = spent.set_index("what")
    in_full, failed_in_full = "full training (strong, test)", "failed: diverged (retrain)"
    assert list(by_what.index) == [failed_in_full, in_full, "scored", "failed: diverged"]
    assert by_what["hours"].tolist() == pytest.approx([0.5, 1200 / 3600, 180 / 3600, 20 / 3600])
    assert by_what["num_trials"].tolist() == [1, 2, 20, 2]


def test_what_decides_is_found_important_and_little_data_says_nothing() -> None:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    for _ in range(600):
        trial = study.ask(dict(SPACE.distributions))
        study.tell(trial, quality(SPACE.decode(trial.params)))
    found = results.importances(study)
    assert found["importance"].sum() == pytest.approx(1)
    decisive = {"width_3", "depth_1", "depth_2", "depth_3", "depth_4"}
    assert set(found["parameter"].head(5)) == decisive
    assert results.importances(fake_study(number=15)).empty


def test_the_frames_of_two_thousand_trials_take_seconds() -> None:
    study = fake_study(number=2000)
    started = time.process_time()
    scored = analysis.scored(results.trials(study))
    analysis.best_tenth(analysis.stages(scored))
    analysis.compare_groups(analysis.with_incumbent(scored))
    analysis.with_front(scored)
    results.importances(study)
    assert (analysis.with_incumbent(scored)["group"] == "random").sum() == NUM_RANDOM
    assert time.process_time() - started < 10


def test_full_trainings_by_other_settings_are_not_taken_for_seeds() -> None:
    study = fake_study(number=20)
    sister = open_sister(study._storage, study.study_name, "retrain")
    names = ("arch_id", "architecture", "architecture_json", "num_params")
    common = {name: study.trials[3].user_attrs[name] for name in names}
    common |= {"recipe": "strong", "split": "test", "network": "trial-3", "source_trial": 3}
    for seed, (epochs, accuracy) in enumerate([(100, 0.96), (100, 0.94), (2, 0.70)]):
        settings = json.dumps({"epochs": epochs})
        attrs = common | {"seed": seed, "epochs": epochs, "recipe_settings": settings}
        sister.add_trial(optuna.create_trial(value=accuracy, user_attrs=attrs))
    full = analysis.trained_in_full(results.later_scores(study))
    assert full["mean"].tolist() == pytest.approx([0.95, 0.70])
    assert full["num_seeds"].tolist() == [2, 1]
    assert full["setup"].tolist() == ["100 epochs", "2 epochs"]


def test_tries_by_hand_of_one_network_are_not_taken_for_seeds() -> None:
    study = fake_study(number=20)
    arch = json.loads(study.trials[3].user_attrs["architecture_json"])
    sister = open_sister(study._storage, study.study_name, "retrain")
    common = {"recipe": "imported", "split": "test", "network": "p1", "architecture": "p1"}
    common |= {name: study.trials[3].user_attrs[name] for name in ("arch_id", "num_params")}
    tries = [
        (0.97, {"optimizer": "SGD", "lr": "0.1", "seed": 0}),
        (0.95, {"optimizer": "SGD", "lr": "0.1", "seed": 1}),
        (0.90, {"optimizer": "AdamW", "lr": "0.001", "seed": 0}),
        (0.80, {}),
        (0.70, {}),
    ]
    for accuracy, others in tries:
        attrs = {**common, **others, "architecture_json": json.dumps(arch)}
        sister.add_trial(optuna.create_trial(value=accuracy, user_attrs=attrs))
    later = results.later_scores(study)
    full = analysis.trained_in_full(later)
    assert full["mean"].tolist() == pytest.approx([0.96, 0.90, 0.80, 0.70])
    assert full["num_seeds"].tolist() == [2, 1, 1, 1]
    assert full["setup"].tolist() == ["SGD, lr 0.1", "AdamW, lr 0.001", "", ""]
    pairs = analysis.agreement(analysis.scored(results.trials(study)), later)
    assert pairs[["trial", "num_seeds"]].to_numpy().tolist() == [[3, 2]]
    assert pairs["accuracy"].tolist() == pytest.approx([0.96])
    attrs = {**common, "epochs": "200", "architecture_json": json.dumps(arch)}
    sister.add_trial(optuna.create_trial(value=0.99, user_attrs=attrs))
    measures = set(results.later_scores(study)["measure"])  # other epochs rank otherwise
    assert measures == {
        "full training (imported, test)",
        "full training (imported, 200 epochs, test)",
    }
