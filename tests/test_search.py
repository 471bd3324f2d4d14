from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
import torch
from commands import exit_code, started
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import OperationalError
from tiny_search import FLAGS, ON_FILES
from torch import nn

from nas import Progress
from nas.architecture import Architecture
from nas.blocks import BLOCKS, BlockType
from nas.budget import Budget
from nas.complexity import count_macs, count_params, size_bytes
from nas.errors import UserError
from nas.find_study import find_study
from nas.plan import baselines
from nas.proxy import run_proxy
from nas.results import leaderboard
from nas.search import plan
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.storage import open_storage
from nas.trials import MAX_LOST, enqueue, num_scored, num_since_best
from nas.workers import MAX_FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.architecture import BlockShape
    from nas.proxy import ProxyResult

    Search = Callable[..., Study]


def scored(study: Study) -> list[tuple[str, float | None]]:
    return [
        (trial.user_attrs["arch_id"], trial.value)
        for trial in study.trials
        if trial.state is TrialState.COMPLETE
    ]


def space_of(study: Study) -> SearchSpace:
    return SearchSpace.from_dict(json.loads(study.user_attrs["space"]))


def stop_at(trial: int, error: BaseException) -> Progress:
    """Raise in the middle of the trial that is the n-th to start."""
    ended: list[FrozenTrial] = []

    def on_step(_done: int, _total: int, _worker: int) -> None:
        if len(ended) == trial:
            raise error

    return Progress(on_step=on_step, on_trial_end=ended.append)


def test_a_search_scores_its_target_within_the_window_each_network_once(tiny: Search) -> None:
    study = tiny(6)
    params = [trial.user_attrs["num_params"] for trial in study.trials]
    assert len(scored(study)) == 6
    assert all(2_700 <= count <= 3_000 for count in params)
    assert len({arch_id for arch_id, _ in scored(study)}) == 6


def test_a_limit_on_bytes_is_kept(tiny: Search) -> None:
    """Batch norm's statistics are bytes too: without a limit most networks have more."""
    study = tiny(4, fill=0.5, max_bytes=8_000)
    assert json.loads(study.user_attrs["identity"])["limits.size_bytes"] == [None, 8_000]
    assert len(scored(study)) == 4
    assert all(trial.user_attrs["size_bytes"] <= 8_000 for trial in study.trials)


def test_the_record_recounts_to_what_it_says(tiny: Search) -> None:
    for trial in tiny(3).trials:
        arch = Architecture.from_json(trial.user_attrs["architecture_json"])
        assert trial.user_attrs["arch_id"] == arch.arch_id
        assert trial.user_attrs["num_params"] == count_params(arch)
        assert trial.user_attrs["num_macs"] == count_macs(arch)
        assert trial.user_attrs["size_bytes"] == size_bytes(arch)
        assert trial.user_attrs["budget_share"] == round(count_params(arch) / 3_000, 4)
        assert trial.user_attrs["val_loss"] > 0
        made_with = json.loads(trial.user_attrs["provenance"])
        assert {"torch", "optuna", "git_revision", "git_clean", "device", "threads", "seed"} <= (
            made_with.keys()
        )


def test_the_same_seed_gives_the_same_study_to_the_last_bit(tiny: Search) -> None:
    assert scored(tiny(4, study="a")) == scored(tiny(4, study="b"))


def test_another_seed_proposes_other_networks(tiny: Search) -> None:
    one, two = scored(tiny(4, study="a")), scored(tiny(4, study="b", seed=1))
    assert one[0] == two[0], "the baseline is the same"
    assert one[1:] != two[1:]


def test_a_resumed_search_equals_an_undisturbed_one(tiny: Search) -> None:
    undisturbed = tiny(14, study="a")
    for trials in (3, 11, 14):
        resumed = tiny(trials, study="b")
    assert scored(resumed) == scored(undisturbed)


def test_an_interrupted_trial_is_scored_again_and_nothing_else_changes(tiny: Search) -> None:
    undisturbed = tiny(14, study="a")
    for trials_before in (0, 1, 11):  # since the last time: the first trial, the second, the 13th
        with pytest.raises(KeyboardInterrupt):
            tiny(14, study="b", progress=stop_at(trials_before, KeyboardInterrupt()))
    resumed = tiny(14, study="b")
    assert scored(resumed) == scored(undisturbed)
    failed = [t for t in resumed.trials if t.state is TrialState.FAIL]
    assert [t.user_attrs["fail_reason"] for t in failed] == ["interrupted"] * 3


def test_what_was_measured_is_recorded_again_where_that_was_cut_off(
    tiny: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = OperationalError("x", {}, Exception("gone"), connection_invalidated=True)
    set_user_attr = Trial.set_user_attr
    cut: list[str] = []

    def set_cut_off(trial: Trial, name: str, value: object) -> None:
        if name == "provenance" and len(cut) < 2:
            cut.append(name)
            raise gone
        set_user_attr(trial, name, value)

    monkeypatch.setattr(Trial, "set_user_attr", set_cut_off)
    study = tiny(2)
    assert len(cut) == 2
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert all("provenance" in trial.user_attrs for trial in study.trials)


def test_a_file_that_another_program_locks_for_long_is_waited_for(
    folder: Path, tiny: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.storage.BUSY_SECONDS", 0.1)
    locks: list[threading.Timer] = []

    def lock_once(_number: int, _worker: int) -> None:
        if not locks:
            other = sqlite3.connect(folder / "studies" / "a.db", check_same_thread=False)
            other.execute("BEGIN IMMEDIATE")
            locks.append(threading.Timer(1.0, other.close))
            locks[0].start()

    study = tiny(2, study="a", progress=Progress(on_trial_start=lock_once))
    assert locks[0].finished.is_set()
    assert len(scored(study)) == 2
    reasons = {trial.user_attrs.get("fail_reason", "none") for trial in study.trials}
    assert reasons <= {"none", "interrupted"}


def test_a_process_killed_in_mid_trial_loses_that_trial_alone(
    folder: Path, tiny_files: Search
) -> None:
    code = (
        "import nas, os, signal\n"
        "ended = []\n"
        "def step(done, total, worker):\n"
        "    if len(ended) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"nas.search(3000, 4, **{ON_FILES},\n"
        "    study='b', workers=0,\n"
        "    progress=nas.Progress(on_step=step, on_trial_end=ended.append))\n"
    )
    assert exit_code(started(code, folder)) == -signal.SIGKILL
    resumed = tiny_files(4, study="b")
    assert scored(resumed) == scored(tiny_files(4, study="a"))
    assert [t.user_attrs.get("fail_reason") for t in resumed.trials] == [
        None, None, "lost", None, None,
    ]  # fmt: skip


def test_a_trial_that_is_interrupted_every_time_is_tried_again_every_time(tiny: Search) -> None:
    for _ in range(MAX_LOST + 2):
        with pytest.raises(KeyboardInterrupt):
            tiny(1, progress=stop_at(0, KeyboardInterrupt()))
    study = tiny(1)
    assert [t.state.name for t in study.trials] == ["FAIL"] * (MAX_LOST + 2) + ["COMPLETE"]
    assert study.trials[-1].user_attrs["arch_id"] == study.trials[0].user_attrs["arch_id"]


def test_a_complete_study_is_complete_also_when_the_time_is_over(tiny: Search) -> None:
    ends: list[str] = []
    tiny(2, progress=Progress(on_end=lambda _study, why: ends.append(why)))
    tiny(2, timeout=0, patience=1, progress=Progress(on_end=lambda _study, why: ends.append(why)))
    tiny(3, timeout=0, progress=Progress(on_end=lambda _study, why: ends.append(why)))
    assert ends == ["complete", "complete", "timeout"]


def test_many_queued_copies_of_a_scored_network_end_no_search(tiny: Search) -> None:
    study = tiny(1)
    arch = Architecture.from_json(study.trials[0].user_attrs["architecture_json"])
    for _ in range(MAX_FAILURES + 1):
        enqueue(study, space_of(study), arch, proposed_by="hand")
    assert len(scored(tiny(2))) == 2


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_an_empty_study_that_minimizes_is_not_taken_for_ones_own(
    tiny: Search, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.SETUP_SECONDS", 0)
    storage = open_storage("sqlite:///studies/b.db")
    optuna.create_study(study_name="b", storage=storage, direction=direction)
    if direction == "maximize":  # as one that was begun and broken off
        assert len(scored(tiny(1, study="b"))) == 1
        return
    with pytest.raises(UserError, match="'b' was not made by this tool"):
        tiny(1, study="b")


def test_trials_is_a_target_and_a_complete_study_adds_nothing(tiny: Search) -> None:
    assert len(tiny(3).trials) == 3
    assert len(tiny(3).trials) == 3
    assert len(tiny(2).trials) == 3


def test_the_scaled_hand_made_network_is_scored_first_as_baseline(tiny: Search) -> None:
    first = tiny(2).trials[0]
    assert first.user_attrs["baseline"] == "ResNet26_97 scaled"
    assert first.user_attrs["proposed_by"] == "baseline"
    assert 2_700 <= first.user_attrs["num_params"] <= 3_000


def test_hand_made_networks_that_fit_the_window_are_the_baselines() -> None:
    space = SearchSpace.from_config(load_space("resnet")[1], max_params=5_000_000)
    names = list(baselines(space, Budget(5_000_000)))
    assert names == ["ResNet26_97", "ResNet24_9684", "ResNet24_96"]
    assert list(baselines(space, Budget(290_000))) == ["ResNet-20"]
    (scaled,) = baselines(space, Budget(100_000)).values()
    assert [stage.depth for stage in scaled.stages] == [3, 3, 3, 3]
    assert 90_000 <= count_params(scaled) <= 100_000
    (scaled,) = baselines(space, Budget(100_000_000)).values()
    assert 99_000_000 <= count_params(scaled) <= 100_000_000
    assert baselines(space, Budget(100)) == {}


def test_a_network_of_exactly_the_least_or_the_most_that_is_allowed_is_within_it() -> None:
    arch = Architecture.of([1, 1], [4, 8])
    exact = {"max_macs": count_macs(arch), "max_bytes": size_bytes(arch)}
    assert Budget(count_params(arch), fill=1.0, **exact).admits(arch)
    assert not Budget(count_params(arch) + 1, fill=1.0).admits(arch)
    assert not Budget(count_params(arch) - 1).admits(arch)
    assert not any(
        Budget(count_params(arch), **{name: most - 1}).admits(arch) for name, most in exact.items()
    )


@pytest.mark.parametrize(("fill", "least"), [(0.0, None), (0.55, 55), (0.551, 56), (1.0, 100)])
def test_the_least_of_a_window_is_its_share_rounded_up(fill: float, least: int | None) -> None:
    assert Budget(100, fill=fill).bounds == {"num_params": (least, 100)}


def test_over_budget_trials_never_train(tiny: Search) -> None:
    study = tiny(1)
    big = Architecture.of([2, 2], [12, 12])
    enqueue(study, space_of(study), big, proposed_by="test")
    resumed = tiny(2)
    pruned = resumed.trials[1]
    assert pruned.state is TrialState.PRUNED
    assert pruned.constraints["num_params"] == count_params(big) / 3_000 - 1
    assert "elapsed_seconds" not in pruned.user_attrs


def test_an_architecture_queued_twice_is_scored_once(tiny: Search) -> None:
    study = tiny(1)
    again = Architecture.from_json(study.trials[0].user_attrs["architecture_json"])
    enqueue(study, space_of(study), again, proposed_by="test")
    duplicate = tiny(2).trials[1]
    assert (duplicate.state, duplicate.user_attrs["fail_reason"]) == (TrialState.FAIL, "duplicate")


def test_a_trial_over_its_time_fails_and_the_search_goes_on(tiny: Search) -> None:
    seen: list[FrozenTrial] = []
    with pytest.raises(UserError, match="10 trials in a row failed.*timeout"):
        tiny(2, batch_size=100, trial_timeout=1e-6, progress=Progress(on_trial_end=seen.append))
    assert {trial.user_attrs["fail_reason"] for trial in seen} == {"timeout"}
    assert len(scored(tiny(2, batch_size=100))) == 2


def test_no_trial_starts_after_the_timeout(tiny: Search) -> None:
    assert tiny(3, timeout=0).user_attrs["identity"]
    assert scored(tiny(3, timeout=0)) == []


def test_a_diverged_network_fails_with_its_reason(folder: Path, tiny: Search) -> None:
    settings = "epochs = 1, resolution = 8, batch_size = 100, peak_lr = 100.0, momentum = 0.99, "
    settings += "warmup_fraction = 0.0, weight_decay = 1.0"
    proxy = folder / "studies" / "proxies" / "hot.toml"
    proxy.write_text(settings.replace(", ", "\n"))
    with pytest.raises(UserError, match="10 trials in a row failed.*diverged"):
        tiny(1, proxy="hot")


def test_another_proxy_is_refused_with_the_difference_and_a_free_name(tiny: Search) -> None:
    tiny(1, study="a")
    with pytest.raises(UserError, match=r"proxy\.epochs is 1 there, 2 asked.*--study a-2$"):
        tiny(1, study="a", epochs=2)
    tiny(1, study="a-2", epochs=2)  # in a file of its own
    with pytest.raises(UserError, match=r"--study a-3$"):
        tiny(1, study="a", epochs=3)


def test_the_precision_is_of_the_identity_where_it_is_chosen(folder: Path, tiny: Search) -> None:
    assert "proxy.precision" not in json.loads(tiny(1, study="a").user_attrs["identity"])
    proxies = folder / "studies" / "proxies"
    exact = (proxies / "tiny.toml").read_text() + '\nprecision = "float32"\n'
    (proxies / "exact.toml").write_text(exact)
    with pytest.raises(UserError, match=r'proxy\.precision is nothing there, "float32" asked'):
        tiny(1, study="a", proxy="exact")
    (trial,) = tiny(1, study="b", proxy="exact").get_trials(states=[TrialState.COMPLETE])
    assert json.loads(trial.user_attrs["provenance"])["precision"] == "float32"


def test_a_larger_space_continues_the_study_and_a_smaller_one_is_refused(
    folder: Path, tiny: Search
) -> None:
    tiny(2, study="a")
    spaces = folder / "studies" / "spaces"
    tiny_space = (spaces / "tiny.toml").read_text()
    (spaces / "larger.toml").write_text(tiny_space.replace("high = 12", "high = 14"))
    assert len(scored(tiny(3, study="a", space="larger"))) == 3
    with pytest.raises(UserError, match="the search space there is not part"):
        tiny(4, study="a", space="tiny")


def test_flags_that_change_the_proxy_start_a_study_of_their_own(tiny: Search) -> None:
    assert tiny(1).study_name == "synthetic-tiny-3k-tiny"
    assert tiny(1, batch_size=250).study_name == "synthetic-tiny-3k-tiny-batchsize250"


def test_a_budget_below_the_smallest_network_is_refused_with_its_size(tiny: Search) -> None:
    with pytest.raises(UserError, match="at most 50; the smallest .* has 128"):
        tiny.func(50, 1, **tiny.keywords)  # type: ignore[attr-defined]


def test_limits_that_exclude_each_other_are_refused_before_anything_is_written(
    folder: Path, tiny: Search
) -> None:
    with pytest.raises(UserError, match="no network"):
        tiny(1, max_macs=100_000)
    assert not list((folder / "studies").glob("*.db"))


@pytest.mark.parametrize(
    ("high", "why"),
    [(11, "the search space is exhausted: all"), (8, "the search space is exhausted: it has one")],
)
def test_a_finite_space_is_exhausted_without_an_error(
    folder: Path, tiny: Search, high: int, why: str
) -> None:
    (folder / "studies" / "spaces" / "few.toml").write_text(
        "num_stages = 1\n[stage]\ndepth = 1\nkernel_size = 3\n"
        f"width = {{ low = 8, high = {high} }}\n"
    )
    reasons: list[str] = []
    ended = Progress(on_end=lambda _study, reason: reasons.append(reason))
    study = tiny(50, space="few", fill=0.0, progress=ended)
    archs = {arch_id for arch_id, _ in scored(study)}
    assert {Architecture.of([1], [width]).arch_id for width in range(8, high + 1)} <= archs
    assert reasons[0].startswith(why)
    failed = study.get_trials(states=[TrialState.FAIL])
    assert [trial.user_attrs["fail_reason"] for trial in failed] == ["nothing_left"]


def test_an_error_in_one_trial_is_written_down_and_the_search_goes_on(
    tiny: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def broken_once(*arguments: Any, **settings: Any) -> ProxyResult:
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError("of no use")
        return run_proxy(*arguments, **settings)

    monkeypatch.setattr("nas.objective.run_proxy", broken_once)
    study = tiny(2)
    assert [t.state for t in study.trials] == [TrialState.FAIL] + [TrialState.COMPLETE] * 2
    failed = study.trials[0].user_attrs
    assert (failed["fail_reason"], failed["fail_detail"]) == (
        "error", "ZeroDivisionError: of no use",
    )  # fmt: skip


def test_a_queued_network_keeps_its_own_parameters_when_the_space_grows(
    folder: Path, tiny: Search
) -> None:
    study = tiny(1)
    outside = Architecture.of([3, 1], [4, 4])
    enqueue(study, space_of(study), outside, proposed_by="import")
    file = folder / "studies" / "spaces" / "tiny.toml"
    file.write_text(file.read_text().replace("high = 2 ", "high = 3 "))
    study = tiny(2)
    assert space_of(study).contains(outside)
    (trial,) = (t for t in study.trials if t.user_attrs.get("proposed_by") == "import")
    assert trial.user_attrs["arch_id"] == outside.arch_id
    assert trial.params == {}


def test_a_search_goes_on_in_its_space_when_another_one_widens_the_studys(
    folder: Path, tiny: Search
) -> None:
    settings = {"dataset": "synthetic", "space": "tiny", "proxy": "tiny", "device": "cpu"}
    begun = plan(3_000, **settings, workers=0, finalists="1x1")
    study = begun.open()
    file = folder / "studies" / "spaces" / "tiny.toml"
    file.write_text(file.read_text().replace("high = 2 ", "high = 3 "))
    tiny(1)
    assert begun.run(study, 2, None, Progress()) == "complete"
    assert len(scored(study)) == 2
    assert space_of(study) != begun.space


def test_without_finalists_few_networks_are_ranked_by_validation_accuracy(tiny: Search) -> None:
    study = tiny(5)
    frame = leaderboard(study)
    assert list(frame["val_accuracy"]) == sorted((v for _, v in scored(study)), reverse=True)
    assert frame.index.tolist() == [1, 2, 3, 4, 5]


def test_the_only_study_need_not_be_named_and_of_several_the_names_are_listed(
    tiny: Search,
) -> None:
    tiny(1)
    assert find_study(None, None).study_name == "synthetic-tiny-3k-tiny"
    tiny(1, study="other")
    with pytest.raises(UserError, match="several studies.*other, synthetic-tiny-3k-tiny"):
        find_study(None, None)
    with pytest.raises(UserError, match="no study 'x'.*there is: other"):
        find_study("x", None)


@pytest.mark.parametrize("storage", [None, "sqlite:///x.db"])
def test_no_study_is_named_as_another_ones_sister(tiny: Search, storage: str | None) -> None:
    for name in ("mine-retrain", "mine-finalists"):
        with pytest.raises(UserError, match=f"'{name}' ends as what is measured"):
            tiny(1, study=name, storage=storage)


def test_a_study_not_made_here_is_refused(folder: Path, tiny: Search) -> None:
    url = f"sqlite:///{folder}/studies/mine.db"
    theirs = optuna.create_study(storage=url, study_name="mine", direction="maximize")
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    before = (folder / "studies" / "mine.db").read_bytes()
    with pytest.raises(UserError, match="was not made by this tool"):
        tiny(1, study="mine", storage=url)
    with pytest.raises(UserError, match="was not made by this tool"):
        plan(3_000, dataset="synthetic", space="tiny", proxy="tiny", study="mine").find()
    assert (folder / "studies" / "mine.db").read_bytes() == before


def test_numbers_of_numpy_and_paths_are_welcome(folder: Path, tiny: Search) -> None:
    studies = folder / "studies"
    files = {"space": studies / "spaces" / "tiny.toml", "proxy": studies / "proxies" / "tiny.toml"}
    numbers = {"seed": np.int64(7), "patience": np.int64(5), "epochs": np.int64(1)}
    study = tiny(np.int64(1), storage=studies / "own.db", **files, **numbers)
    assert (studies / "own.db").is_file()
    assert len(scored(study)) == 1


@pytest.mark.parametrize("sampler", ["random", "cmaes", "nsga2"])
def test_other_samplers_run_the_same_search(tiny: Search, sampler: str) -> None:
    pytest.importorskip("cmaes" if sampler == "cmaes" else "optuna")
    assert len(scored(tiny(5, sampler=sampler))) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(folder: Path, tiny: Search) -> None:
    (folder / "studies").chmod(0o500)
    with pytest.raises(UserError, match="cannot use"):
        tiny(1)


class Hungry(nn.Module):
    """A block that asks for more memory than any machine has, for batches over a size."""

    def __init__(self, shape: BlockShape, max_batch: int) -> None:
        super().__init__()
        self.block = BLOCKS["basic"].build(shape)
        self.max_batch = max_batch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > self.max_batch:
            torch.empty(2**50)
        result: torch.Tensor = self.block(images)
        return result


def search_with_hungry_blocks(
    folder: Path, tiny: Search, monkeypatch: pytest.MonkeyPatch, max_batch: int
) -> Study:
    hungry = BlockType(BLOCKS["basic"].cost, lambda shape: Hungry(shape, max_batch))
    monkeypatch.setitem(BLOCKS, "hungry", hungry)
    spaces = folder / "studies" / "spaces"
    (spaces / "hungry.toml").write_text((spaces / "tiny.toml").read_text() + 'block = "hungry"\n')
    return tiny(2, space="hungry")


def test_out_of_memory_is_tried_once_more_with_the_batch_in_two_parts(
    folder: Path, tiny: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = search_with_hungry_blocks(folder, tiny, monkeypatch, max_batch=250)
    baseline, proposed = study.trials
    assert ("num_micro_batches" in baseline.user_attrs, baseline.state) == (
        False,
        TrialState.COMPLETE,
    )
    assert (proposed.user_attrs["num_micro_batches"], proposed.state) == (2, TrialState.COMPLETE)


def test_out_of_memory_twice_fails_with_its_reason(
    folder: Path, tiny: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="10 trials in a row failed.*out_of_memory"):
        search_with_hungry_blocks(folder, tiny, monkeypatch, max_batch=100)
    study = find_study(None, None)
    assert study.trials[0].state is TrialState.COMPLETE, "the baseline has other blocks"
    assert {trial.user_attrs["fail_reason"] for trial in study.trials[1:]} == {"out_of_memory"}


def test_a_database_that_can_no_longer_be_written_is_one_line_and_nothing_scored_is_lost(
    folder: Path, tiny_files: Search
) -> None:
    tiny_files(1)
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from nas.cli import main\n"
        f"main('search {FLAGS} --trials 40 --workers 0'.split())\n"
    )
    assert exit_code(started(code, folder)) == 2
    error = (folder / "process.err").read_text()
    assert error.startswith("error: sqlite:///studies/few-32-tiny-3k-tiny.db failed")
    assert error.count("\n") == 1
    said = (folder / "process.out").read_text().count("] trial ")
    resumed = tiny_files(1 + said + 2)
    assert len(scored(resumed)) == 1 + said + 2
    assert len({arch_id for arch_id, _ in scored(resumed)}) == 1 + said + 2


def test_searches_that_start_together_share_a_study_and_its_baseline(
    folder: Path, tiny_files: Search
) -> None:
    code = f"import nas\nnas.search(3000, 6, **{ON_FILES}, workers=1)\n"
    processes = [started(code, folder, name) for name in ("one", "other")]
    assert [exit_code(process) for process in processes] == [0, 0]
    study = tiny_files(6)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert len({arch_id for arch_id, _ in scored(study)}) == 6
    assert [t.user_attrs.get("baseline") for t in study.trials[1:]] == [None] * 5


def test_a_network_enqueued_by_hand_is_not_recorded_as_the_samplers(tiny: Search) -> None:
    study = tiny(3)
    fitting = next(t for t in tiny(3, study="other", seed=1).trials if t.params)
    study.enqueue_trial(fitting.params)
    enqueued = tiny(4).trials[3]
    assert enqueued.params == fitting.params
    assert (enqueued.user_attrs["proposed_by"], "draws" in enqueued.user_attrs) == (
        "enqueued",
        False,
    )


def test_patience_counts_the_scored_trials_since_the_best() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.5, None, 0.7, 0.7, None, 0.6):
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        study.add_trial(optuna.create_trial(state=state, value=value))
    assert num_since_best(study) == 2  # equal is not better, a failure counts for nothing
    assert num_since_best(optuna.create_study()) == 0


def test_a_search_stops_when_patience_trials_brought_nothing_better(
    tiny: Callable[..., Study],
) -> None:
    endings: list[str] = []
    progress = Progress(on_end=lambda _study, why: endings.append(why))
    study = tiny(40, patience=2, progress=progress)
    assert endings == ["stopped by --patience: 2 trials brought nothing better"]
    assert num_since_best(study) == 2
    assert num_scored(study) < 40


def test_a_retry_of_one_whose_proposer_was_not_written_down_is_scored(tiny: Search) -> None:
    study, other = tiny(1), tiny(3, study="other").trials[2]
    lost = optuna.create_trial(
        state=TrialState.FAIL,
        params=other.params,
        distributions=other.distributions,
        user_attrs={"fail_reason": "interrupted"},
    )
    study.add_trial(lost)
    retried = tiny(2).trials[2]
    assert retried.params == other.params
    assert (retried.state, retried.user_attrs["proposed_by"]) == (TrialState.COMPLETE, "unknown")
