"""The analysis of proxies finds the answers that were put into generated rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import fidelity_report as report
import fidelity_statistics as ranking
import numpy as np
import pandas as pd
import proxy_fidelity
import pytest
import scipy.stats
import torch
from fidelity_candidates import leave_one_out
from fidelity_plan import CANDIDATES, Run, Setting, networks, plan
from proxy_fidelity import Rows, default_path
from saved_training import train_saved

from nas.architecture import Architecture
from nas.budget import Budget
from nas.checkpoint import Checkpoints
from nas.complexity import count_params
from nas.data import load_training_data
from nas.proxy import ProxyConfig, ProxyData, train_proxy
from nas.training import DivergedError
from nas.zero_cost import SCORES

if TYPE_CHECKING:
    from pathlib import Path

SETTING = Setting("cifar10", 100_000, "resnet", ProxyConfig.load("quick", 100_000)[1])
COUNT = 12


def row(network: int, candidate: str, seed: int, score: float, seconds: float) -> dict[str, Any]:
    return {
        "network": network,
        "arch_id": f"{network:012x}",
        "architecture": "",
        "candidate": candidate,
        "seed": seed,
        "score": score,
        "plain_accuracy": -score,
        "val_loss": score,
        "train_losses": f"{score} {1.0}",
        "cost": seconds,
    }


def rows_of(*, count: int = COUNT, **scores: list[float]) -> pd.DataFrame:
    """A reference of two equal seeds that ranks networks by number, and the candidates given."""
    rows = [
        row(network, "reference", seed, 0.5 + network / 100, 30.0)
        for network in range(count)
        for seed in (100, 101)
    ]
    for candidate, values in scores.items():
        rows += [row(n, candidate, 0, value, 4.0) for n, value in enumerate(values)]
    return pd.DataFrame(rows)


def line_of(rows: pd.DataFrame, candidate: str) -> Any:
    table = report.fidelity(rows).set_index("candidate")
    return table.loc[candidate]


# Statistics


@pytest.mark.parametrize("seed", range(5))
def test_correlations_equal_scipys_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, size=(2, 20)).astype(float)
    assert ranking.spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert ranking.kendall(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic)


def test_reliability_is_spearman_browns() -> None:
    # Ranks differ by one in four of five: r = 1 - 6 * 4 / (5 * 24) = 0.8; two seeds 1.6 / 1.8.
    seeds = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 3.0, 5.0, 4.0]])
    assert ranking.reliability(seeds) == pytest.approx(1.6 / 1.8)
    mean = seeds.mean(0)
    assert ranking.corrected(mean, seeds) == pytest.approx(1 / math.sqrt(1.6 / 1.8))
    # The first a third time: r = (0.8 + 1 + 0.8) / 3 = 13 / 15; three seeds 39 / 41.
    assert ranking.reliability(seeds[[0, 1, 0]]) == pytest.approx(39 / 41)


def test_the_correction_removes_the_references_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=5000)
    seeds = truth + rng.normal(size=(2, 5000))
    assert ranking.spearman(truth, seeds.mean(0)) < 0.85
    assert ranking.corrected(truth, seeds) == pytest.approx(1.0, abs=0.02)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, true_pearson = np.random.default_rng(1), 0.7
    true_spearman = 6 / math.pi * math.asin(true_pearson / 2)  # of the bivariate normal
    held = 0
    for _ in range(60):
        a, noise = rng.normal(size=(2, 24))
        b = true_pearson * a + math.sqrt(1 - true_pearson**2) * noise
        found = ranking.estimate(ranking.spearman, a, b)
        held += found.low <= true_spearman <= found.high
    assert held >= 51


def test_the_interval_of_a_mean_is_1_96_standard_errors_to_each_side() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = ranking.estimate(lambda drawn: drawn.mean(-1), values)
    error = values.std() / 20
    ends = [(end - values.mean()) / error for end in (found.low, found.high)]
    assert ends == pytest.approx([-1.96, 1.96], abs=0.2)  # 1.64 of 90 %


def test_too_few_networks_have_no_correlation() -> None:
    few = np.arange(ranking.LEAST_NETWORKS - 1.0)
    assert str(ranking.estimate(ranking.spearman, few, few)) == "-"


def test_the_pareto_front_is_what_nothing_cheaper_beats() -> None:
    costs, values = [1.0, 2.0, 3.0, 4.0], [0.5, 0.4, 0.8, math.nan]
    assert report.pareto_front(costs, values) == [True, False, True, False]


def test_a_prediction_does_not_know_its_own_network() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(10, 3)), rng.normal(size=10)
    before = leave_one_out(features, truth)[4]
    truth[4] = 100.0
    assert leave_one_out(features, truth)[4] == before


def test_a_prediction_finds_the_feature_that_ranks() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=30)
    features = np.stack([rng.normal(size=30), np.exp(truth), rng.normal(size=30)], axis=1)
    assert ranking.spearman(leave_one_out(features, truth), truth) > 0.95


def test_a_ladder_keeps_the_best_and_pays_for_what_it_trains() -> None:
    first, second = np.array([1.0, 4.0, 3.0, 2.0]), np.array([9.0, 1.0, 2.0, 8.0])
    costs = [np.full(4, 1.0), np.full(4, 10.0)]
    draw = np.arange(4)
    assert report.climb([first, second], costs, [1.0, 0.5], draw) == (2, 4 * 1 + 2 * 10)


def test_architectures_of_ones_own_are_measured_in_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = Architecture.of([1, 1], [4, 8])
    (tmp_path / "a.json").write_text(arch.to_json())
    asked = f"x --dataset synthetic --architectures {tmp_path}/a.json --only num_params"
    monkeypatch.setattr("sys.argv", asked.split())
    with pytest.raises(SystemExit):
        proxy_fidelity.main()
    assert "--architectures needs --rows" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*asked.split(), "--rows", f"{tmp_path}/rows.csv"])
    proxy_fidelity.main()
    (row,) = pd.read_csv(tmp_path / "rows.csv", comment="#").to_dict("records")
    assert (row["arch_id"], row["score"]) == (arch.arch_id, count_params(arch))


def diverges_first(run: Run) -> dict[str, Any]:
    """Measure a run, of which network 0 diverges; a worker process imports this module."""
    if run.network == 0:
        raise DivergedError("the loss is nan")
    measured = row(run.network, run.candidate, run.seed, 0.5, 1.0) | {"arch_id": run.arch.arch_id}
    columns = {name: measured.get(name, "") for name in proxy_fidelity.COLUMNS}
    return columns | {"cpu_seconds": 1.0}


def test_a_run_that_fails_keeps_no_other_from_its_row(
    tmp_path: Path, archs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Rows(tmp_path / "rows.csv", SETTING)
    runs = [run for run in plan(archs[:3], 16) if run.candidate == "epochs1"]
    proxy_fidelity.measure_all(runs, diverges_first, rows, 1)
    assert {key[0] for key in rows.done()} == {arch.arch_id for arch in archs[1:3]}
    assert "a run failed: DivergedError: the loss is nan" in capsys.readouterr().out


def test_a_training_goes_on_from_the_epoch_that_was_saved(tmp_path: Path) -> None:
    config = SETTING.base.model_copy(update={"epochs": 3, "resolution": 8, "batch_size": 64})
    data = ProxyData.prepare(load_training_data("synthetic", ""), 8)
    arch = Architecture.of([1], [4])
    checkpoints = Checkpoints(tmp_path, {}, keeps_all=True, seconds=0)
    model, losses, _ = train_saved(arch, data, config, checkpoints)
    first, *later = sorted(tmp_path.iterdir())
    for path in later:
        path.unlink()
    trained_once = first.stat().st_ino  # a file that is written again has another
    resumed, losses_again, clock = train_saved(arch, data, config, checkpoints)
    assert first.stat().st_ino == trained_once
    assert losses_again == losses == list(train_proxy(arch, data, config)[1])
    assert clock.elapsed_before > 0 < clock.cpu_before
    for before, after in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(before, after)


# Tables


def test_a_perfect_and_a_reversed_candidate_are_found_out() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(epochs1=rank, epochs2=rank[::-1])
    perfect, reverse = line_of(rows, "epochs1"), line_of(rows, "epochs2")
    for name in ("spearman", "kendall", "top half", "corrected"):
        assert (perfect[name].value, reverse[name].value) == (pytest.approx(1), pytest.approx(-1))
    assert perfect["regret"] == 0
    assert reverse["regret"] == pytest.approx((COUNT - 1) / 100)
    assert perfect["seconds"] == 4.0
    assert perfect["cost share"] == pytest.approx(4 / 60)


def test_candidates_are_compared_with_four_epochs_on_the_same_networks() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(epochs1=rank[:6], epochs2=rank, epochs4=rank[::-1])
    for name, gain in (("epochs1", 2.0), ("epochs2", 2.0), ("epochs4", 0.0)):
        found = line_of(rows, name)["gain on epochs4"]
        assert (found.value, found.low, found.high) == (pytest.approx(gain),) * 3


def test_the_cost_is_that_of_the_networks_that_are_compared() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(epochs1=rank)
    rows.loc[rows["network"] < 3, "cost"] *= 100
    partial = rows[~((rows["network"] < 3) & (rows["seed"] == 101))]
    line = line_of(partial, "epochs1")
    assert line["seconds"] == 4.0
    assert line["cost share"] == pytest.approx(4 / 60)
    assert line["of one seed"] == pytest.approx(4 / 30)


def test_what_few_networks_have_or_was_fitted_is_not_on_the_front() -> None:
    rank = [float(network) for network in range(COUNT)]
    swapped = [rank[1], rank[0], *rank[2:]]
    rows = rows_of(epochs1=rank[:6], epochs2=swapped, epochs4=rank, num_params=rank)
    rows.loc[rows["candidate"] == "epochs1", "cost"] = 1.0
    table = report.fidelity(rows).set_index("candidate")
    assert table.loc["epochs1", "spearman"].value == pytest.approx(1)
    assert not table.loc["epochs1", "front"]
    ridge = table.filter(like="ridge", axis=0)
    assert len(ridge) == 3
    assert not ridge["front"].any()
    assert table.loc["num_params", "front"]


def test_costs_of_two_kinds_of_processors_are_those_of_one() -> None:
    rows = rows_of(epochs1=[0.0] * COUNT, epochs2=[0.0] * COUNT).assign(device="fast")
    is_slow = (rows["seed"] == 101) | (rows["candidate"] == "epochs2")
    rows.loc[is_slow, "device"] = "slow"
    rows.loc[is_slow, "cost"] *= 1.5
    rows.loc[(rows["network"] == 0) & (rows["seed"] == 101), "cost"] = math.nan  # not measured
    more = row(COUNT, "epochs1", 0, 0.0, 4.0) | {"device": "fast"}
    found = report.on_one_device(pd.concat([rows, pd.DataFrame([more])]))
    assert set(found["cost"].dropna().round(9)) == {30.0, 4.0}


def test_rows_of_a_processor_that_shares_no_run_keep_their_costs() -> None:
    rows = rows_of(epochs1=[0.0] * COUNT).assign(device="fast")
    rows.loc[rows["candidate"] == "epochs1", "device"] = "other"
    assert report.on_one_device(rows)["cost"].tolist() == rows["cost"].tolist()


def test_what_costs_nothing_is_derived() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(epochs4=rank)
    for what in ("no flip average", "val loss", "sum of training losses"):
        assert line_of(rows, f"epochs4, {what}")["spearman"].value == pytest.approx(-1)


def test_what_a_candidate_has_against_networks_of_many_activations_is_found() -> None:
    truth = [float(network) for network in range(COUNT)]
    activations = [float(network % 4) for network in range(COUNT)]
    biased = [t - 3 * a for t, a in zip(truth, activations, strict=True)]
    rows = rows_of(epochs1=biased, epochs2=truth[::-1], num_activations=activations)
    found = line_of(rows, "epochs1")["bias to activations"]
    assert -1 <= found.low <= found.value < -0.9
    assert math.isnan(line_of(rows_of(epochs1=truth), "epochs1")["bias to activations"].value)


def test_a_score_that_errs_at_random_has_no_bias() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=5000)
    size, score = truth + rng.normal(size=(2, 5000))
    assert ranking.partial_spearman(score, size, truth) == pytest.approx(0.0, abs=0.05)
    noise = rng.normal(size=5000)
    assert ranking.partial_spearman(truth + noise, truth - noise, truth) < -0.9


def test_ranks_of_a_short_run_and_of_activations_are_averaged() -> None:
    truth = [float(network) for network in range(COUNT)]
    swapped = [truth[1], truth[0], *truth[2:]]
    rows = rows_of(epochs2=[10 * each for each in truth], num_activations=swapped)
    line = line_of(rows, "epochs2 and activations")
    assert line["spearman"].value > line_of(rows, "num_activations")["spearman"].value
    assert line["seconds"] == line_of(rows, "epochs2")["seconds"]


def test_the_mean_of_seeds_costs_both() -> None:
    rank = [float(network) for network in range(COUNT)]
    second = [row(n, "epochs4", 1, -n if n < 3 else n, 6.0) for n in range(COUNT)]
    rows = pd.concat([rows_of(epochs4=rank), pd.DataFrame(second)])
    line = line_of(rows, "epochs4, mean of 2 seeds")
    assert line["seconds"] == 10.0
    assert line["networks"] == COUNT
    assert line_of(rows, "epochs4 seed 1")["seconds"] == 6.0


def test_networks_without_the_whole_reference_do_not_count() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(epochs1=rank)
    partial = rows[~((rows["network"] < 3) & (rows["seed"] == 101))]
    assert line_of(partial, "epochs1")["networks"] == COUNT - 3
    assert report.reference_summary(partial)["networks with all seeds"] == COUNT - 3


def test_a_measurement_that_has_just_begun_is_reported_as_far_as_it_goes() -> None:
    rows = rows_of(epochs1=[0.1])
    begun = rows[(rows["candidate"] != "reference") | (rows["network"] == 0)]
    line = line_of(begun, "epochs1")
    assert line["networks"] == 1
    assert str(line["spearman"]) == "-"
    assert math.isnan(line["regret"]), "the best of one network is no finding"
    compared = report.ladders(begun)
    assert compared.empty
    first, second = report.not_yet(begun, report.fidelity(begun), compared)
    assert first.startswith("1 networks have the reference's seeds; with fewer than 5 nothing here")
    assert second == "no comparison of ladders yet: 20 networks need all their rungs"
    none = begun[begun["candidate"] != "reference"]
    assert line_of(none, "epochs1")["networks"] == 0


def test_ladders_are_compared_on_the_same_networks() -> None:
    rank = [float(network) for network in range(24)]
    rows = rows_of(count=24, epochs1=rank[::-1], epochs2=rank, epochs4=rank, epochs8=rank)
    epochs = rows["candidate"].str.removeprefix("epochs").where(rows["seed"] == 0, "30")
    compared = report.ladders(rows.assign(cost=epochs.astype(float)))
    assert report.not_yet(rows, report.fidelity(rows), compared) == []
    ladder, finalists, alone = compared.to_dict("records")
    assert ladder["mean regret"] > 0
    assert finalists["mean regret"] == alone["mean regret"] == 0
    assert ladder["seconds"] == finalists["seconds"] == alone["seconds"] == 4


def test_the_table_is_written_in_markdown() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(epochs1=rank, epochs2=[*rank[1::-1], *rank[2:]])
    titles, ruler, *lines = report.in_markdown(report.fidelity(rows)).splitlines()
    first = dict(zip(titles.split(" | "), lines[0].split(" | "), strict=True))
    assert set(ruler) <= set("|- ")
    assert first["| candidate"] == "| epochs1 *"
    assert first["spearman"] == "1.00 [1.00, 1.00]"
    assert (first["gain on epochs4"], first["regret"]) == ("-", "0.00%")
    assert (first["seconds"], first["cost share"]) == ("4.0", "6.7%")


def test_the_figure_marks_the_front() -> None:
    rank = [float(network) for network in range(COUNT)]
    drawn = report.figure(report.fidelity(rows_of(epochs1=rank, epochs2=rank[::-1])))
    names = {trace.name: list(trace.hovertext) for trace in drawn.data}
    assert "epochs1" in names["Pareto front"]
    assert "epochs2" in names["other"]


def test_another_reference_is_one_that_the_usual_one_is_compared_with() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(reference32=rank[::-1], epochs4=rank)
    table = report.fidelity(report.against(rows, "reference32")).set_index("candidate")
    assert {"epochs4", "usual reference seed 100", "usual reference, mean of 2 seeds"} <= set(
        table.index
    )
    assert table.loc["usual reference, mean of 2 seeds"]["spearman"].value == pytest.approx(-1.0)
    usual = report.fidelity(report.against(rows, "reference")).set_index("candidate")
    assert usual.loc["epochs4"]["spearman"].value == pytest.approx(1.0)
    assert not any("reference" in name for name in usual.index)


def test_a_seed_that_both_references_have_is_no_evidence() -> None:
    rank = [float(network) for network in range(COUNT)]
    rows = rows_of(reference32=rank)
    rows.loc[rows["candidate"] == "reference32", "seed"] = 100
    table = report.fidelity(report.against(rows, "reference32"))
    found = [name for name in table["candidate"] if name.startswith("usual")]
    assert found
    assert all(name.startswith("usual reference seed 101") for name in found)


def test_rows_that_number_different_networks_alike_are_refused(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.csv", SETTING)
    for arch_id, seed in (("a", 100), ("b", 101)):
        columns = dict.fromkeys(proxy_fidelity.COLUMNS, 1)
        told = {"arch_id": arch_id, "candidate": "reference", "seed": seed, "device": "cpu"}
        rows.append(columns | told)
    with pytest.raises(SystemExit, match="several networks of the number 1"):
        report.read(rows.path)


def test_rows_of_another_file_count_for_the_networks_that_they_are_of(tmp_path: Path) -> None:
    columns = dict.fromkeys(proxy_fidelity.COLUMNS, 1) | {"candidate": "a", "device": "cpu"}
    main, other = (Rows(tmp_path / name, SETTING) for name in ("main.csv", "other.csv"))
    for number, arch_id in enumerate(("x", "0123")):
        main.append(columns | {"network": number, "arch_id": arch_id})
    for number, arch_id in enumerate(("456", "0123")):  # digits alone are no number
        other.append(columns | {"network": number, "arch_id": arch_id, "candidate": "b"})
        other.append(columns | {"network": number, "arch_id": arch_id, "score": 9})
    found = report.read(main.path, [other.path])
    told = found[["network", "arch_id", "candidate", "score"]].to_numpy().tolist()
    assert told == [[0, "x", "a", 1], [1, "0123", "a", 1], [1, "0123", "b", 1]]


# Measuring


@pytest.fixture(scope="module")
def archs() -> list[Any]:
    return networks(SETTING, 10, 24)


def test_networks_are_in_the_window_and_different(archs: list[Any]) -> None:
    assert all(Budget(100_000).admits(arch) for arch in archs)
    assert len(set(archs)) == 24


def test_fewer_networks_are_the_first_and_as_spread(archs: list[Any]) -> None:
    assert networks(SETTING, 10, 8) == archs[:8]
    depths = [sum(stage.depth for stage in arch.stages) for arch in archs]
    assert max(depths[:8]) - min(depths[:8]) > 0.6 * (max(depths) - min(depths))


@pytest.mark.parametrize("resolution", [16, 32])
def test_every_candidate_is_planned_once_a_network_and_seed(
    archs: list[Any], resolution: int
) -> None:
    runs = list(plan(archs, resolution))
    assert len({run.key for run in runs}) == len(runs)
    planned = {(run.candidate, run.seed) for run in runs}
    wanted = {
        (name, seed)
        for name, candidate in CANDIDATES.items()
        for seed in candidate.seeds
        if candidate.changes.get("resolution") != resolution  # that is another one
    }
    assert planned == wanted | {(name, 0) for name in SCORES}
    num_high = sum(run.candidate == "reference32" for run in runs)
    assert num_high == (8 if resolution == 16 else 0)


def test_only_the_reference_has_the_epochs_of_the_reference() -> None:
    other = replace(SETTING, reference_epochs=12)
    for name in CANDIDATES:
        usual, changed = (each.schedule(name, 1).epochs for each in (SETTING, other))
        is_reference = name in ("reference", "reference32")
        assert (usual, changed) == ((30, 12) if is_reference else (usual, usual))
    assert other.head() != SETTING.head()
    assert default_path(other) != default_path(SETTING)


def test_rows_are_kept_and_not_measured_again(tmp_path: Path, archs: list[Any]) -> None:
    path, runs = tmp_path / "rows.csv", list(plan(archs, 16))
    done = Random(0).sample(runs, 5)
    for run in done:
        Rows(path, SETTING).append(
            {"arch_id": run.arch.arch_id, "candidate": run.candidate, "seed": run.seed}
        )
    assert Rows(path, SETTING).done() == {run.key for run in done}
    assert json.loads(path.read_text().splitlines()[0].removeprefix("# "))["budget"] == 100_000


def test_rows_of_another_measurement_are_refused(tmp_path: Path) -> None:
    Rows(tmp_path / "rows.csv", SETTING)
    other = Setting("cifar10", 200_000, "resnet", SETTING.base)
    with pytest.raises(SystemExit, match="holds another measurement"):
        Rows(tmp_path / "rows.csv", other)
