"""The best few of a search are scored again, once each, by longer runs of other seeds."""

from __future__ import annotations

import itertools
import json
import os
import signal
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import optuna
import pytest
from commands import run
from fake_study import SPACE, fake_study
from optuna.trial import TrialState
from optuna_dashboard import get_note

from nas import Progress
from nas.architecture import Architecture
from nas.copying import copy_database
from nas.data import load_training_data
from nas.deletion import delete
from nas.doctor import examine_study
from nas.errors import UserError
from nas.finalists import (
    EPOCHS_FACTOR,
    Finalists,
    FinalistWorker,
    final_proxy,
    final_timeout,
    open_finalists,
    queue_finalists,
)
from nas.find_study import FINALISTS, find_sister, find_storage, register_of
from nas.presets import changed
from nas.proposed import trial_id
from nas.proxy import ProxyConfig, ProxyData, run_proxy
from nas.report.page import render
from nas.results import best_trials, leaderboard
from nas.storage import open_storage, sqlite_url
from nas.study import stored_space
from nas.training import DivergedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    Search = Callable[..., Study]


def finalists_of(study: Study) -> list[FrozenTrial]:
    sister = find_sister(study, FINALISTS)
    assert sister is not None
    return sister.get_trials(states=(TrialState.COMPLETE,))


def keys(trials: list[FrozenTrial]) -> list[tuple[int, int]]:
    return sorted((t.user_attrs["source_trial"], t.user_attrs["seed"]) for t in trials)


def scores(study: Study) -> dict[tuple[int, int], float | None]:
    trials = finalists_of(study)
    return {(t.user_attrs["source_trial"], t.user_attrs["seed"]): t.value for t in trials}


def fail_at(trial: int) -> Progress:
    """Have the trial that is the n-th to start diverge."""
    ended: list[FrozenTrial] = []

    def on_step(_done: int, _total: int, _worker: int) -> None:
        if len(ended) == trial:
            raise DivergedError("on purpose")

    return Progress(on_step=on_step, on_trial_end=ended.append)


def interrupt_at(trial: int) -> Progress:
    """Press Ctrl-C in the trial that is the n-th to start, those of the search included."""
    ended: list[FrozenTrial] = []

    def on_step(_done: int, _total: int, _worker: int) -> None:
        if len(ended) == trial:
            raise KeyboardInterrupt

    return Progress(on_step=on_step, on_trial_end=ended.append)


def test_a_finalist_is_the_network_of_its_source_under_the_longer_schedule(tiny: Search) -> None:
    study = tiny(3, finalists="1x1")
    (trial,) = finalists_of(study)
    source = study.trials[trial.user_attrs["source_trial"]]
    json = trial.user_attrs["architecture_json"]
    assert json == source.user_attrs["architecture_json"]
    short = ProxyConfig.load("tiny", 5_000_000)[1]
    config = short.model_copy(update={"epochs": EPOCHS_FACTOR * short.epochs, "seed": 1})
    data = ProxyData.prepare(load_training_data("synthetic", "nowhere"), 8)
    again = run_proxy(Architecture.from_json(json), data, config)
    assert trial.value == again.val_accuracy
    assert trial.user_attrs["train_losses"] == list(again.train_losses)


def test_a_finalist_has_time_for_its_longer_schedule() -> None:
    assert final_timeout(None) is None
    proxy = ProxyConfig.load("quick", 5_000_000)[1]
    assert final_timeout(60.0) == 60.0 * final_proxy(proxy).epochs / proxy.epochs


def test_a_finalist_has_as_much_time_a_step_as_a_trial(
    tiny: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    tiny(1, progress=Progress(on_step=lambda _done, total, _worker: steps.append(total)))
    once_a_step = SimpleNamespace(monotonic=partial(next, itertools.count()))
    monkeypatch.setattr("nas.objective.time", once_a_step)
    study = tiny(1, finalists="1x1", trial_timeout=steps[0])
    assert keys(finalists_of(study)) == [(0, 1)]


def test_a_worker_process_is_killed_at_a_finalist_after_the_longer_time(
    tiny_files: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours early: where a trial may take one it dies at once, where it may take four not."""
    hour = 3600.0
    monkeypatch.setattr("nas.parent.KILL_AFTER_SECONDS", -2 * hour)
    tiny_files(1)
    study = tiny_files(1, finalists="1x1", workers=1, trial_timeout=hour)
    assert keys(finalists_of(study)) == [(0, 1)]


def test_finalists_that_bring_nothing_better_are_all_scored(tiny: Search) -> None:
    """Patience is the search's: a seed that scores less is no reason to leave out the next."""
    study = tiny(1, finalists="1x1")
    sister = find_sister(study, FINALISTS)
    assert sister is not None
    worse = finalists_of(study)[0].user_attrs | {"seed": 2}
    sister.add_trial(optuna.create_trial(value=0.0, user_attrs=worse))
    study = tiny(1, finalists="1x3", patience=1)
    assert keys(finalists_of(study)) == [(0, 1), (0, 2), (0, 3)]


def test_the_same_command_scores_none_again(tiny: Search) -> None:
    first = [t.value for t in finalists_of(tiny(2, finalists="1x1"))]
    assert [t.value for t in finalists_of(tiny(2, finalists="1x1"))] == first
    assert len(finalists_of(tiny(2, finalists="2x1"))) == 2


def test_an_interrupted_search_goes_on_with_its_finalists(tiny: Search) -> None:
    whole = tiny(2, finalists="1x2", study="whole")
    with pytest.raises(KeyboardInterrupt):
        tiny(2, finalists="1x2", progress=interrupt_at(3))
    study = tiny(2, finalists="1x2")
    assert scores(study) == scores(whole)


def test_after_ctrl_c_worker_processes_give_the_scores_that_one_process_gives(
    tiny_files: Search,
) -> None:
    ended: list[FrozenTrial] = []

    def on_trial_end(trial: FrozenTrial) -> None:
        ended.append(trial)
        if len(ended) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_files(2, finalists="2x2", workers=2, progress=Progress(on_trial_end=on_trial_end))
    study = tiny_files(2, finalists="2x2", workers=2)
    assert scores(study).keys() == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert scores(study) == scores(tiny_files(2, finalists="2x2", study="alone"))


def test_a_worker_killed_in_mid_finalist_is_replaced(tiny_files: Search) -> None:
    sisters: list[Study] = []
    killed: list[int] = []

    def on_trial_start(_number: int, _worker: int) -> None:
        if not killed:
            (place,) = register_of(sisters[0]).places()
            killed.append(place.pid)
            os.kill(place.pid, signal.SIGKILL)

    progress = Progress(
        on_finalists=lambda sister, _number: sisters.append(sister), on_trial_start=on_trial_start
    )
    tiny_files(1)
    study = tiny_files(1, finalists="1x3", workers=1, progress=progress)
    assert killed
    assert keys(finalists_of(study)) == [(0, 1), (0, 2), (0, 3)]
    assert "lost" in {t.user_attrs.get("fail_reason") for t in sisters[0].get_trials()}


def test_a_finalist_that_cannot_be_scored_holds_up_nothing(tiny: Search) -> None:
    study = tiny(1, finalists="1x2", progress=fail_at(1))
    assert [t.user_attrs["seed"] for t in finalists_of(study)] == [2]
    assert keys(finalists_of(tiny(1, finalists="1x3"))) == [(0, 2), (0, 3)]


def test_what_another_worker_let_go_of_is_not_left_out(tiny: Search) -> None:
    study = tiny(1, finalists="1x1")
    sister = find_sister(study, FINALISTS)
    assert sister is not None
    let_go = finalists_of(study)[0].user_attrs | {"seed": 2, "fail_reason": "interrupted"}
    sister.add_trial(optuna.create_trial(state=TrialState.FAIL, user_attrs=let_go))
    worker = FinalistWorker(
        sister,
        register_of(sister),
        stored_space(study),
        objective=lambda _trial: 0.0,
        on_trial_end=lambda _trial: None,
    )
    assert not worker.is_complete(0)
    assert [t.user_attrs["seed"] for t in sister.get_trials(states=(TrialState.WAITING,))] == [2]


def test_a_finalist_that_was_added_twice_counts_once(tiny: Search) -> None:
    study = tiny(1, finalists="1x1")
    sister = find_sister(study, FINALISTS)
    assert sister is not None
    double = finalists_of(study)[0].user_attrs
    sister.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=double))
    study = tiny(1, finalists="1x1")
    assert keys(finalists_of(study)) == [(0, 1)]
    assert sister.trials[1].user_attrs["fail_reason"] == "duplicate"


def test_new_best_networks_become_finalists_when_a_study_grows(tiny: Search) -> None:
    tiny(1, finalists="1x1")
    study = tiny(2, finalists="1x1")
    assert best_trials(study, 1, by="denoised") == [1], (
        "the first network is the best: this test shows nothing"
    )
    assert keys(finalists_of(study)) == [(0, 1), (1, 1)]


def test_a_search_out_of_time_leaves_finalists_for_the_next(tiny: Search) -> None:
    assert find_sister(tiny(4, finalists="1x1", timeout=0.0), FINALISTS) is None


def test_the_best_are_scored_by_every_seed_and_ranked_first_by_the_mean(tiny: Search) -> None:
    study = tiny(5, finalists="2x2")
    wanted = sorted((n, seed) for n in best_trials(study, 2, by="denoised") for seed in (1, 2))
    assert keys(finalists_of(study)) == wanted
    assert len(study.trials) == 5
    frame = leaderboard(study)
    first, rest = frame.head(2), frame.tail(3)
    assert set(first["trial"]) == set(best_trials(study, 2, by="denoised"))
    assert first["finalist_accuracy"].is_monotonic_decreasing
    assert first["finalist_seeds"].tolist() == [2, 2]
    assert rest["finalist_accuracy"].isna().all()
    assert rest["denoised"].is_monotonic_decreasing
    best = frame["trial"].iloc[0]
    values = [t.value for t in finalists_of(study) if t.user_attrs["source_trial"] == best]
    assert first["finalist_accuracy"].iloc[0] == pytest.approx(sum(v or 0 for v in values) / 2)


def test_the_best_by_estimate_are_queued_with_seeds_that_follow_the_proxys(tmp_path: Path) -> None:
    study = fake_study(open_storage(sqlite_url(tmp_path / "s.db")), number=60, noise=0.01)
    best = best_trials(study, 3, by="denoised")
    assert sorted(best) != sorted(best_trials(study, 3, by="raw")), "this test shows too little"
    sister = open_finalists(study, ProxyConfig.load("quick", 250_000)[1])
    assert queue_finalists(study, sister, SPACE, Finalists(3, 2), seed=7) == 6
    assert keys(sister.trials) == sorted((number, seed) for number in best for seed in (8, 9))


def test_the_report_has_the_mean_and_the_deviation_of_each_finalist(tiny: Search) -> None:
    study = tiny(3, finalists="1x2")
    row = leaderboard(study).iloc[0]
    page = render(study)
    assert ">finalist</button>" in page
    mean, deviation = (f"{row[name]:.2%}" for name in ("finalist_accuracy", "finalist_std"))
    assert f'<td class="number">{mean}</td><td class="number">{deviation}</td>' in page


def test_the_source_trial_has_a_note_of_its_finalist_scores(tiny: Search) -> None:
    study = tiny(2, finalists="1x2")
    source = study.trials[best_trials(study, 1, by="denoised")[0]]
    note = get_note(optuna.trial.Trial(study, trial_id(source)))
    assert note.count("\n| 1 | 4 |") == note.count("\n| 2 | 4 |") == 1


def test_a_study_begun_without_finalists_can_have_them_later(tiny: Search) -> None:
    assert find_sister(tiny(1, finalists="0"), FINALISTS) is None
    assert len(finalists_of(tiny(1, finalists="1x1"))) == 1


def test_standard_has_finalists_by_default_and_quick_has_none() -> None:
    defaults = {
        name: ProxyConfig.load(name, 5_000_000)[1].finalists
        for name in ("quick", "standard", "thorough")
    }
    assert defaults == {"quick": "0", "standard": "5x3", "thorough": "5x3"}
    assert "finalists" not in ProxyConfig.load("standard", 5_000_000)[1].model_dump()
    assert final_proxy(ProxyConfig.load("standard", 5_000_000)[1]).epochs == 16


def test_numbers_of_finalists_are_read() -> None:
    assert Finalists.parse("5x3") == Finalists(5, 3)
    assert Finalists.parse("0") is None


@pytest.mark.parametrize("text", ["5", "x", "5x", "0x3", "5x0", "5x3x1", "-1x2", "axb", "1000x1"])
def test_wrong_numbers_of_finalists_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="^--finalists: it is .*, such as 5x3, or 0; given"):
        changed(ProxyConfig.load("quick", 5_000_000)[1], {"finalists": text})


# What other commands know of them.


def test_the_leaderboard_of_the_command_line_names_the_best_finalist_first(
    tiny: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tiny(3, finalists="2x2")
    best = leaderboard(study)["trial"].iloc[0]
    assert run("leaderboard", "--json", "--top", "1") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["trial"], row["finalist_seeds"]) == (best, 2)
    assert run("leaderboard") == 0
    said = capsys.readouterr().out
    mean = sum(scores(study)[best, seed] or 0 for seed in (1, 2)) / 2
    assert f"{mean:.2%} \N{PLUS-MINUS SIGN}" in said.splitlines()[1]
    assert "other seeds (2) on the same val images" in " ".join(said.split())


def test_deletion_takes_the_finalists_along_and_waits_for_those_that_run(tiny: Search) -> None:
    study = tiny(1, finalists="1x1", storage=sqlite_url("both.db"), study="one")
    tiny(1, finalists="1x1", storage=sqlite_url("both.db"), study="two")
    name, storage = find_storage("one", sqlite_url("both.db"))
    sister = find_sister(study, FINALISTS)
    assert sister is not None
    register = register_of(sister)
    register.occupy(trial_id(sister.trials[0]))
    with pytest.raises(UserError, match="a search is running in study 'one-finalists'"):
        delete(storage, name)
    storage.get_study_id_from_name("one")
    register.leave(trial_id(sister.trials[0]))
    register.claim("a" * 12, 1, is_void=lambda _: False)
    delete(storage, name)
    assert sorted(optuna.get_all_study_names(storage)) == ["two", "two-finalists"]
    assert register.claims() == {}


def test_a_copy_goes_on_with_the_finalists_it_has(tiny: Search) -> None:
    first = tiny(2, finalists="1x1", storage=sqlite_url("one.db"))
    copy_database(sqlite_url("one.db"), sqlite_url("copy.db"))
    copied = tiny(2, finalists="1x2", storage=sqlite_url("copy.db"))
    assert len(scores(copied)) == 2
    assert scores(first).items() <= scores(copied).items()


def test_stale_finalists_are_found_and_mended(tiny: Search) -> None:
    study = tiny(1, finalists="1x1")
    sister = find_sister(study, FINALISTS)
    assert sister is not None
    stale = sister.ask()
    (finding,) = examine_study(study)
    assert f"finalists running without a worker: {stale.number}" in finding.what
    assert finding.fix is not None
    finding.fix()
    assert examine_study(study) == []
    assert len(finalists_of(tiny(1, finalists="1x1"))) == 1, "what has no network stays out"


def test_the_list_counts_networks_not_seeds(
    tiny: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(2, finalists="1x2")
    assert run("list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["complete"], row["finalists"]) == (2, 1)
