"""Test images are looked at once, by what was chosen without them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import optuna
import pytest
from small_training import NAME, STEPS, rows, sister, unscorable

import nas
from nas.data_sets import DATASETS
from nas.results import best_trials
from nas.retrain import best_by_mean
from nas.retrain_progress import Retrained, RetrainListener
from nas.retrain_record import FailedTrainingError, Network
from nas.retraining import Retraining
from nas.sisters import open_sister

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.study import Study
    from small_training import Retrain

    from nas.split import Split


def test_test_is_read_once_a_seed_and_only_at_the_end(
    outside: Retrain, test_reads: list[str]
) -> None:
    reads_at_step: list[int] = []
    listener = RetrainListener(on_step=lambda _done, _total: reads_at_step.append(len(test_reads)))
    outside(seeds=2, listener=listener)
    assert reads_at_step == [0] * 2 * STEPS + [1] * 2 * STEPS
    outside(seeds=2)
    assert len(test_reads) == 2


def test_holdout_never_reads_test_and_leaves_val_out_of_training(
    folder: Path, outside: Retrain, test_reads: list[str]
) -> None:
    (retrained,) = outside(holdout=True)
    assert test_reads == []
    assert retrained.split == "val"
    assert retrained.folder.parent.name == "tiny-holdout"
    assert {row["num_images"] for row in rows(retrained.folder)} == {"1800"}
    (trial,) = sister(folder).trials
    assert trial.user_attrs["split"] == "val"
    assert trial.value == list(trial.intermediate_values.values())[-1] == retrained.accuracy


@pytest.mark.usefixtures("study")
def test_top_names_the_winner_by_val_before_any_test_image_is_read(test_reads: list[str]) -> None:
    told: list[tuple[str, int]] = []
    listener = RetrainListener(on_winner=lambda name: told.append((name, len(test_reads))))
    *compared, last = nas.retrain(top=2, recipe="tiny", device="cpu", listener=listener)
    best = max(compared, key=lambda each: each.accuracy)
    assert {each.split for each in compared} == {"val"}
    assert {each.name for each in compared} == {"trial-0", "trial-1"}
    assert told == [(best.name, 0)]
    assert (last.name, last.split, len(test_reads)) == (best.name, "test", 1)


@pytest.mark.parametrize("failed", [0, 1])
def test_a_network_of_which_a_seed_failed_does_not_win(
    study: Study, monkeypatch: pytest.MonkeyPatch, failed: int
) -> None:
    train = Retraining.run

    def run(work: Retraining, network: Network, seed: int) -> Retrained:
        if (network.name, seed, work.is_held_out) == (f"trial-{failed}", 1, True):
            raise FailedTrainingError("trial-?, seed 1: out of memory")
        return train(work, network, seed)

    monkeypatch.setattr(Retraining, "run", run)
    told: list[str] = []
    listener = RetrainListener(on_winner=told.append, on_failure=told.append)
    done = nas.retrain(top=2, seeds=2, recipe="tiny", device="cpu", listener=listener)
    winner = f"trial-{1 - failed}"
    assert told == ["trial-?, seed 1: out of memory", winner]
    assert [each.split for each in done] == ["val"] * 3 + ["test"] * 2
    assert [(each.name, each.seed) for each in done[3:]] == [(winner, 0), (winner, 1)]
    assert len(study.trials) == 2


@pytest.mark.parametrize("by", ["finalist", "raw"])
def test_top_takes_the_best_by_the_ranking_that_is_asked_for(study: Study, by: str) -> None:
    raw = best_trials(study, 2, by="raw")
    finalists = open_sister(study._storage, NAME, "finalists")
    for source, accuracy in zip(raw, (0.25, 0.5), strict=True):  # the other way round
        attrs = {"source_trial": source, "seed": 1}
        finalists.add_trial(optuna.create_trial(value=accuracy, user_attrs=attrs))
    (done,) = nas.retrain(top=1, by=by, holdout=True, recipe="tiny", device="cpu")
    assert done.name == f"trial-{raw[1] if by == 'finalist' else raw[0]}"


@pytest.mark.usefixtures("study")
def test_top_with_holdout_trains_nothing_in_full_and_never_reads_test(
    folder: Path, parts: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "synthetic", unscorable(parts))
    told: list[str] = []
    listener = RetrainListener(on_winner=told.append)
    compared = nas.retrain(top=2, holdout=True, recipe="tiny", device="cpu", listener=listener)
    best = max(compared, key=lambda each: each.accuracy)
    assert {(each.name, each.split) for each in compared} == {
        ("trial-0", "val"),
        ("trial-1", "val"),
    }
    assert told == [best.name]
    assert {trial.user_attrs["split"] for trial in sister(folder, NAME).trials} == {"val"}


def test_the_winner_has_the_best_mean_not_the_best_seed(tmp_path: Path) -> None:
    of = partial(
        Retrained, tmp_path, 0, epochs=2, split="val", flip_accuracy=0, loss=0, elapsed_seconds=0
    )
    seeds = [("a", 0.9), ("a", 0.5), ("b", 0.75), ("b", 0.75), ("c", 0.75), ("c", 0.75)]
    assert best_by_mean([of(name, seed=0, accuracy=value) for name, value in seeds]) == "b"


def test_the_winner_is_trained_in_full_also_where_it_has_another_name(
    folder: Path, study: Study
) -> None:
    best = study.trials[best_trials(study, 1, by="finalist")[0]]
    (folder / "net.json").write_text(best.user_attrs["architecture_json"])
    options = {"study": NAME, "recipe": "tiny", "device": "cpu"}
    (held_out,) = nas.retrain(architecture="net.json", holdout=True, **options)
    first, winner = nas.retrain(top=1, **options)
    assert first.folder == held_out.folder
    assert (first.split, winner.split) == ("val", "test")
    assert first.name == winner.name == f"trial-{best.number}"
